//! `lakegauge migrate`: changes the database to the schema that this program needs.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use event_store::{Logins, StoreSettings, service};
use service_kit::logs::LogConfig;
use service_kit::{Secret, Setting, Settings, settings::Recorded};

use crate::{addresses::DatabaseLogin, command};

service_kit::settings! {
    /// The owner's address, if it is not the address of the services.
    struct OwnerAddress {
        /// Address of PostgreSQL for `lakegauge migrate`, which logs in as the owner; DATABASE_URL
        /// if it is not set.
        #[secret(MIGRATION_DATABASE_URL, "migration-database-url")]
        url: Option<Secret> = secret,
    }
}

/// A migration may build an index over all existing rows.
const STATEMENT_MS_MAX: u64 = 3_600_000;

/// Every setting of the tool.
pub(crate) fn settings() -> Vec<Setting> {
    [OwnerAddress::table(), service::table()].concat()
}

pub(crate) fn command() -> Command {
    let command = Command::new("migrate")
        .about("Migrate the database to the schema of this release")
        .long_about(
            "Applies the missing migrations, as the database's owner; can be repeated. The \
             services only check whether this was done.",
        );
    command::of_tool(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Owner);
    let loaded = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        load(settings)
    });
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::report(command::block_on(migrate(&loaded)))
}

/// Reads the settings; problems are recorded in them.
pub(crate) fn load(settings: &mut Settings<'_>) -> Result<StoreSettings, Recorded> {
    let mut loaded = match OwnerAddress::load(settings)?.url {
        Some(url) => {
            let services = service::load_optional("lakegauge-migrate", settings)?;
            let limits = services.unwrap_or_else(|| StoreSettings::new("", "lakegauge-migrate"));
            let logins = Logins::by(OwnerAddress::MIGRATION_DATABASE_URL.key);
            let loaded = StoreSettings { url, logins, ..limits };
            if let Err(error) = loaded.check() {
                let setting = &OwnerAddress::MIGRATION_DATABASE_URL;
                return Err(settings.problem(setting, &error.to_string()));
            }
            loaded
        }
        None => service::load("lakegauge-migrate", settings)?,
    };
    loaded.statement_timeout_ms = STATEMENT_MS_MAX;
    Ok(loaded)
}

async fn migrate(settings: &StoreSettings) -> anyhow::Result<()> {
    command::say_raised_tls(settings);
    let applied = event_store::migrate(settings, |applied| {
        eprintln!("applied {} {} ({} left)", applied.version, applied.name, applied.left);
    })
    .await?;
    let place = settings.place();
    if applied == 0 {
        eprintln!("{place} is up to date");
    } else {
        eprintln!("{place}: {applied} migrations applied");
    }
    Ok(())
}
