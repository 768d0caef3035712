//! The archive's settings in a service: address and limits, from flags and the environment.

use std::time::Duration;

use prometheus::IntGauge;
use service_kit::{Context, Secret, Setting, Settings, metrics::Registrar, settings::Recorded};

use crate::settings::{connection::StoreSettings, limits::StoreLimits, login::Logins};

/// How late readiness may report that the server is away, or that a login is refused or accepted
/// again.
const LOGIN_POLL: Duration = Duration::from_millis(250);

service_kit::settings! {
    struct StoreAddresses {
        /// Address of PostgreSQL, postgresql://user:password@host:port/database: direct, or through
        /// a session pooler (port 5432 at Supabase). A file that DATABASE_URL_FILE names is read
        /// again at each connect.
        #[secret(DATABASE_URL, "database-url")]
        direct: Option<Secret> = secret,
        /// The same address under Supabase's name; used if DATABASE_URL is not set. SUPABASE_URL
        /// and SUPABASE_KEY belong to the REST API.
        #[secret(SUPABASE_DB_URL, "supabase-db-url")]
        supabase: Option<Secret> = secret,
    }
}

/// Every setting of the archive.
pub fn table() -> Vec<Setting> {
    [StoreAddresses::table(), StoreLimits::table()].concat()
}

/// Reads every setting, for connections of this name. The address is required.
pub fn load(name: &str, settings: &mut Settings<'_>) -> Result<StoreSettings, Recorded> {
    let text = "is required (or SUPABASE_DB_URL)";
    load_optional(name, settings)?
        .ok_or_else(|| settings.missing(&StoreAddresses::DATABASE_URL, text))
}

/// Reads every setting, for connections of this name; `None` without an address.
pub fn load_optional(
    name: &str,
    settings: &mut Settings<'_>,
) -> Result<Option<StoreSettings>, Recorded> {
    let addresses = StoreAddresses::load(settings);
    let limits = StoreLimits::load(settings);
    let (url, from) = match addresses? {
        StoreAddresses { direct: Some(url), .. } => (url, StoreAddresses::DATABASE_URL),
        StoreAddresses { supabase: Some(url), .. } => (url, StoreAddresses::SUPABASE_DB_URL),
        StoreAddresses { direct: None, supabase: None } => return Ok(None),
    };
    let loaded = StoreSettings {
        logins: Logins::by(from.key),
        ..StoreSettings::limited(url, name, limits?)
    };
    match loaded.check() {
        Ok(()) => Ok(Some(loaded)),
        Err(error) => Err(settings.problem(&from, &error.to_string())),
    }
}

/// Keeps readiness and a metric up to date with the state of the login until the service drains,
/// for a service that uses the archive only now and then.
///
/// # Errors
///
/// The metric is registered already.
pub fn watch_login(settings: &StoreSettings, context: &Context) -> prometheus::Result<()> {
    watch(settings, context, None)
}

/// The same for a service that uses the archive all the time: it is also not ready while the server
/// does not answer.
///
/// # Errors
///
/// A metric is registered already.
pub fn watch_connection(settings: &StoreSettings, context: &Context) -> prometheus::Result<()> {
    let connected = Registrar::from(&context.registry).gauge(
        "lakegauge_postgres_connected",
        "1 if PostgreSQL answered the last request, otherwise 0.",
    )?;
    watch(settings, context, Some(connected))
}

fn watch(
    settings: &StoreSettings,
    context: &Context,
    connected: Option<IntGauge>,
) -> prometheus::Result<()> {
    let refused = Registrar::from(&context.registry).gauge(
        "lakegauge_postgres_login_refused",
        "1 while PostgreSQL refuses a login that it accepted before, or the login's file can't \
         be read, otherwise 0; /readyz reports which and since when.",
    )?;
    let condition = context.readiness.condition("postgres");
    let (logins, lifecycle) = (settings.logins.clone(), context.lifecycle.clone());
    context.lifecycle.spawn("the connection to PostgreSQL", async move {
        loop {
            let refusal = logins.refusal();
            let unreachable = logins.unreachable().filter(|_| connected.is_some());
            refused.set(i64::from(refusal.is_some()));
            if let Some(connected) = &connected {
                connected.set(i64::from(logins.was_taken() && unreachable.is_none()));
            }
            match (refusal, unreachable) {
                (Some(refusal), _) => condition.fail(refusal.to_string()),
                (None, Some(unreachable)) => condition.fail(unreachable.to_string()),
                (None, None) if logins.was_taken() => condition.pass("login taken"),
                (None, None) => condition.pass("not asked yet"),
            }
            tokio::select! {
                () = lifecycle.draining() => return Ok(()),
                () = tokio::time::sleep(LOGIN_POLL) => {}
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::Flags;

    use super::*;

    fn loaded(environment: &BTreeMap<&str, &str>) -> Result<StoreSettings, String> {
        let flags = Flags::default();
        let mut settings = Settings::new(&flags, environment);
        let config = load("test", &mut settings);
        settings.finish().map_err(|problems| problems.to_string())?;
        config.map_err(|Recorded| "no problem was named".to_owned())
    }

    #[test]
    fn either_name_gives_the_address_and_database_url_goes_first() {
        let place = |environment: &[(&'static str, &'static str)]| {
            loaded(&environment.iter().copied().collect()).unwrap().place()
        };
        let (ours, theirs) =
            (("DATABASE_URL", "postgres://u@localhost/a"), ("SUPABASE_DB_URL", "postgres://u@h/b"));
        assert_eq!(place(&[ours]), "localhost:5432/a");
        assert_eq!(place(&[theirs]), "h:5432/b");
        assert_eq!(place(&[ours, theirs]), "localhost:5432/a");
    }

    #[test]
    fn problems_name_the_setting_and_no_secret() {
        let missing = loaded(&BTreeMap::new()).unwrap_err();
        assert!(missing.contains("DATABASE_URL (--database-url): is required"), "{missing}");
        let rest = BTreeMap::from([("SUPABASE_DB_URL", "https://hunter2@x.supabase.co")]);
        let wrong = loaded(&rest).unwrap_err();
        assert!(wrong.contains("SUPABASE_DB_URL") && !wrong.contains("hunter2"), "{wrong}");
    }
}
