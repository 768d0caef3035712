//! The address of the archive, and the requirements for a connection.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    str::FromStr,
    sync::Once,
    time::Duration,
};

use service_kit::{Address, Secret, Settings, address};
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{
    error::{MAKE_ANOTHER, StoreError},
    settings::{limits::StoreLimits, login::Logins},
    statement::{Doing, run},
};

/// The port of Supabase's transaction pooler, and the usual one of PgBouncer.
const TRANSACTION_POOLER_PORT: u16 = 6543;
/// The port of Supabase's session pooler.
const SESSION_POOLER_PORT: u16 = 5432;
const SUPABASE_POOLER: &str = ".pooler.supabase.com";

/// Events contain any Unicode text, and so do dead letters.
const ENCODING: &str = "UTF8";

/// The parameters of an address that the driver knows. The driver would log others with their
/// values, which may be secret.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];
/// The prefix of settings of one session, as in `options[search_path]=x`.
const PARAMETER_OF_SESSION: &str = "options[";

static SAY_RAISED: Once = Once::new();
static SAY_UNKNOWN: Once = Once::new();

/// How to reach the archive.
#[derive(Clone)]
pub struct StoreSettings {
    /// `postgres://user:password@host:port/database`, read again at each connect. Never logged.
    pub url: Secret,
    /// Whether logins with this address are accepted.
    pub logins: Logins,
    /// Shown in `pg_stat_activity`, and to those who wait for our lock.
    pub application_name: String,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest time of one statement, in milliseconds; the server cancels it then.
    pub statement_timeout_ms: u64,
    /// Longest wait for a lock, in milliseconds; the server cancels it then.
    pub lock_timeout_ms: u64,
}

impl StoreSettings {
    /// Settings with the usual limits.
    pub fn new(url: impl Into<Secret>, application_name: impl Into<String>) -> Self {
        let limits = Settings::defaults(StoreLimits::load).expect("each limit has a default");
        Self::limited(url, application_name, limits)
    }

    pub(crate) fn limited(
        url: impl Into<Secret>,
        application_name: impl Into<String>,
        limits: StoreLimits,
    ) -> Self {
        let StoreLimits { connect_timeout_ms, statement_timeout_ms, lock_timeout_ms } = limits;
        Self {
            url: url.into(),
            logins: Logins::by("DATABASE_URL"),
            application_name: application_name.into(),
            connect_timeout_ms,
            statement_timeout_ms,
            lock_timeout_ms,
        }
    }

    /// The longest time for anything except waiting for a lock, network included, in milliseconds.
    pub(crate) const fn answer_limit_ms(&self) -> u64 {
        self.connect_timeout_ms.saturating_add(self.statement_timeout_ms.saturating_mul(2))
    }

    /// Whether the address belongs to another network: probably a paid database.
    pub fn is_remote(&self) -> bool {
        self.options().is_ok_and(|options| is_elsewhere(&options))
    }

    /// Checks the address without connecting.
    ///
    /// # Errors
    ///
    /// The address is invalid, or that of a transaction pooler.
    pub fn check(&self) -> Result<(), StoreError> {
        self.options().map(|_| ())
    }

    /// What was done about an address with too little security, for programs that show no log.
    pub fn raised_tls(&self) -> Option<String> {
        raised_tls(&self.read().ok()?)
    }

    /// `host:port/database`, for people.
    pub fn place(&self) -> String {
        self.read().map_or_else(|_| "an invalid address".to_owned(), |options| place(&options))
    }

    pub(crate) fn options(&self) -> Result<PgConnectOptions, StoreError> {
        let options = self.read()?.application_name(&self.application_name);
        refuse_transaction_pooler(options.get_host(), options.get_port())?;
        Ok(options)
    }

    /// The current address.
    fn read(&self) -> Result<PgConnectOptions, StoreError> {
        read(&self.url.read().map_err(|problem| StoreError::Settings(problem.to_string()))?)
    }

    /// The error for a failed connection. A login that was accepted before will be tried again.
    fn failed(&self, error: StoreError) -> StoreError {
        match error.login_problem() {
            Some(why) => match self.logins.refused(&self.url, why) {
                Some(refusal) => StoreError::LoginRefused { place: self.place(), refusal },
                None => error,
            },
            None => {
                self.logins.not_asked(error.to_string());
                error
            }
        }
    }

    /// A connection with our limits and without a role, with the current login.
    pub(crate) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let options = self.options().map_err(|error| self.failed(error))?;
        if let Some(raised) = raised_tls(&options) {
            // The same for every connection, so it is logged once.
            SAY_RAISED.call_once(|| tracing::info!("{raised}"));
        }
        let login = format!("{}@{}", options.get_username(), place(&options));
        let options =
            if is_raised(&options) { options.ssl_mode(PgSslMode::VerifyFull) } else { options };
        let limit = Duration::from_millis(self.connect_timeout_ms);
        let connected = tokio::time::timeout(limit, options.connect()).await;
        let mut connection = connected
            .unwrap_or_else(|_| {
                let limit = format!("no answer within {} ms", self.connect_timeout_ms);
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, limit).into())
            })
            .map_err(|driver| self.failed(StoreError::Connecting { place: login, driver }))?;
        self.logins.taken();
        let (statement, lock) = (self.statement_timeout_ms, self.lock_timeout_ms);
        // A committed transaction must survive a crash of the server, because the broker is trimmed
        // after it. So a server that answers before it has written is configured otherwise.
        let set = format!(
            "set statement_timeout = {statement}; set lock_timeout = {lock};
             set idle_in_transaction_session_timeout = {statement};
             set client_encoding = 'UTF8'; set standard_conforming_strings = on;
             set search_path = pg_catalog; set timezone = 'UTC'; set client_min_messages = warning;
             select set_config('synchronous_commit', 'on', false)
             where current_setting('synchronous_commit') = 'off'"
        );
        let doing = "setting limits of the session";
        run(&mut connection, sqlx::AssertSqlSafe(set), doing).await?;
        self.refuse_encoding(&mut connection).await?;
        Ok(connection)
    }

    /// A connection as the owner of the tables, because row level security refuses COPY to others.
    pub(crate) async fn connect_as_archiver(&self) -> Result<PgConnection, StoreError> {
        let mut connection = self.connect().await?;
        let doing = "taking the role lakegauge_archiver";
        run(&mut connection, "set role lakegauge_archiver", doing).await?;
        Ok(connection)
    }

    /// Refuses a database that can't store every text of an event.
    async fn refuse_encoding(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        use sqlx::Row;
        let doing = "asking for the encoding of the database";
        // Uses the simple protocol, because a transaction pooler is not refused yet.
        let row = sqlx::raw_sql("select current_setting('server_encoding')");
        let row = row.fetch_one(connection).await.doing(doing)?;
        let encoding: String = row.try_get(0).doing(doing)?;
        if encoding == ENCODING {
            return Ok(());
        }
        Err(StoreError::Version(format!(
            "the database {} has the encoding {encoding}, which can't hold every text: \
             {MAKE_ANOTHER}",
            self.place()
        )))
    }

    /// Refuses a pooler that uses another server process for each transaction: prepared statements
    /// could be answered with the results of others, without an error.
    ///
    /// While a first connection stays open, a second one inside a transaction must use another
    /// server process.
    ///
    /// # Errors
    ///
    /// There is such a pooler, or the server could not be asked.
    pub async fn refuse_transaction_pooling(&self) -> Result<(), StoreError> {
        let mut first = self.connect().await?;
        let mut second = self.connect().await?;
        let one = backend(&mut first, "select pg_backend_pid()").await?;
        let other = backend(&mut second, "begin; select pg_backend_pid()").await?;
        let again = backend(&mut first, "select pg_backend_pid()").await?;
        second.close().await.doing("closing the probe")?;
        first.close().await.doing("closing the probe")?;
        if one == other || one != again {
            return Err(StoreError::Settings(format!(
                "{} pools by transaction, through which answers can be wrong: use the direct \
                 address or the session pooler (at Supabase port {SESSION_POOLER_PORT})",
                self.place()
            )));
        }
        Ok(())
    }
}

/// Uses the simple protocol, which every pooler handles correctly.
async fn backend(connection: &mut PgConnection, sql: &'static str) -> Result<i32, StoreError> {
    use sqlx::Row;
    let row = sqlx::raw_sql(sql).fetch_one(connection).await.doing("asking for the process")?;
    row.try_get(0).doing("asking for the process")
}

/// Without the secret.
impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// Parses an address for the driver. No error repeats any part of the address, and the driver's own
/// error is not used, because it would.
fn read(url: &str) -> Result<PgConnectOptions, StoreError> {
    let wrong = |why: &str| StoreError::Settings(format!("the address of PostgreSQL {why}"));
    let address = Address::parse(url).map_err(|problem| wrong(&problem.to_string()))?;
    if !matches!(address.scheme.as_str(), "postgres" | "postgresql") {
        return Err(wrong("must begin with postgres:// (SUPABASE_URL is the REST address)"));
    }
    let (known, unknown): (Vec<&str>, Vec<&str>) =
        address.query.split('&').filter(|parameter| !parameter.is_empty()).partition(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            PARAMETERS.contains(&name) || name.starts_with(PARAMETER_OF_SESSION)
        });
    if !unknown.is_empty() {
        SAY_UNKNOWN.call_once(|| {
            let known = PARAMETERS.join(", ");
            tracing::warn!(
                known,
                "the address of PostgreSQL has unknown parameters, which are ignored"
            );
        });
    }
    // As parameters, because the driver ignores a login if there is no host after it.
    let login = [("user", &address.user), ("password", &address.password)];
    let login = login.into_iter().filter_map(|(name, value)| {
        value.as_ref().map(|value| format!("{name}={}", encoded(value)))
    });
    let query: Vec<String> = login.chain(known.into_iter().map(str::to_owned)).collect();
    let (place, path) = (address.place(), &address.path);
    let plain = format!("postgres://{place}/{}?{}", path.trim_start_matches('/'), query.join("&"));
    let options = PgConnectOptions::from_str(&plain).map_err(|_| {
        wrong("has a host, a database or a parameter (sslmode, port, hostaddr) that can't be read")
    })?;
    // The driver would look up the host with the brackets of the address.
    let bare = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    Ok(match bare.map(str::to_owned) {
        Some(bare) => options.host(&bare),
        None => options,
    })
}

/// A text in the form that is allowed anywhere in an address.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // Writing into a string can't fail.
            write!(encoded, "%{byte:02X}").unwrap_or_default();
        }
    }
    encoded
}

/// `host:port/database`, for people.
fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    format!("{}/{database}", address::place(options.get_host(), Some(options.get_port())))
}

fn raised_tls(options: &PgConnectOptions) -> Option<String> {
    is_raised(options).then(|| {
        format!(
            "TLS raised to verify-full: {} is not local (sslrootcert names its CA)",
            options.get_host()
        )
    })
}

/// Whether an address has less security than a host that is not local needs.
fn is_raised(options: &PgConnectOptions) -> bool {
    is_elsewhere(options) && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
}

fn is_elsewhere(options: &PgConnectOptions) -> bool {
    options.get_socket().is_none() && !is_local(options.get_host())
}

fn refuse_transaction_pooler(host: &str, port: u16) -> Result<(), StoreError> {
    let supabase = host.ends_with(SUPABASE_POOLER);
    if port == TRANSACTION_POOLER_PORT || (supabase && port != SESSION_POOLER_PORT) {
        return Err(StoreError::Settings(format!(
            "{host}:{port} is a transaction pooler, through which answers can be wrong: use the \
             direct address or the session pooler (port {SESSION_POOLER_PORT})"
        )));
    }
    Ok(())
}

/// Whether nobody can listen on the network: a Unix socket, this machine, a private network, or a
/// name without a dot (a container's).
fn is_local(host: &str) -> bool {
    if host.starts_with('/') || host.is_empty() {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => !host.contains('.'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The TLS mode of the connection.
    fn mode(url: &str) -> PgSslMode {
        let options = StoreSettings::new(url, "test").options().unwrap();
        if is_raised(&options) { PgSslMode::VerifyFull } else { options.get_ssl_mode() }
    }

    #[test]
    fn tls_is_raised_for_hosts_that_are_not_local() {
        for url in [
            "postgres://u:p@db.abc.supabase.co:5432/postgres",
            "postgres://u:p@db.abc.supabase.co/postgres?sslmode=require",
            "postgres://u:p@203.0.113.5/postgres?sslmode=disable",
            "postgres://u:p@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        ] {
            assert!(matches!(mode(url), PgSslMode::VerifyFull), "{url}");
        }
        for url in [
            "postgres://u:p@localhost/d?sslmode=disable",
            "postgres://u:p@127.0.0.1/d?sslmode=disable",
            "postgres://u:p@10.1.2.3/d?sslmode=disable",
            "postgres://u:p@db:5432/d?sslmode=disable",
            "postgres://u:p@localhost/d?host=/run/postgresql&sslmode=disable",
        ] {
            assert!(matches!(mode(url), PgSslMode::Disable), "{url}");
        }
    }

    #[test]
    fn transaction_poolers_are_refused_by_name() {
        for url in [
            "postgres://u:p@localhost:6543/postgres",
            "postgres://u:p@aws-0-eu.pooler.supabase.com:6543/postgres",
            "postgres://u:p@aws-0-eu.pooler.supabase.com:7000/postgres",
        ] {
            let error = StoreSettings::new(url, "test").check().unwrap_err();
            assert!(error.to_string().contains("session pooler"), "{error}");
        }
    }

    /// All texts that may be printed about an address, and the driver's options.
    fn shown(url: &str) -> (String, Option<PgConnectOptions>) {
        let settings = StoreSettings::new(url, "test");
        let mut shown = format!("{settings:?} {} {:?}", settings.place(), settings.raised_tls());
        let options = settings.options();
        if let Err(error) = &options {
            write!(shown, " {error} {error:?}").unwrap();
        }
        (shown, options.ok())
    }

    #[test]
    fn an_address_in_brackets_is_looked_up_without_them() {
        for url in [
            "postgres://u:p@[::1]:5433/d",
            "postgres://u:p@/d?host=[::1]&port=5433",
            "postgres://u:p@h/d?hostaddr=%3A%3A1&port=5433",
        ] {
            let (shown, options) = shown(url);
            let options = options.unwrap();
            assert_eq!((options.get_host(), options.get_port()), ("::1", 5433), "{url}");
            assert!(shown.contains("[::1]:5433/d"), "{shown}");
            assert!(!is_raised(&options), "{url}");
        }
    }

    #[test]
    fn a_login_is_taken_as_it_was_encoded() {
        let (_, options) = shown("postgres://m%40e:p%2Fa%3F%25%23@localhost?dbname=d");
        let options = options.unwrap();
        assert_eq!((options.get_username(), options.get_database()), ("m@e", Some("d")));
        assert!(format!("{options:?}").contains("p/a?%#"), "the driver's own words: {options:?}");
    }

    #[test]
    fn neither_errors_nor_debug_show_the_password() {
        for url in [
            "postgres://u:hunter2@h:bad/d",
            "postgres://u:hunter2@h/d?sslmode=hunter2",
            "postgres://u:hunter2@h/d?port=hunter2",
            "postgres://u:hunter2@h/d?hostaddr=hunter2",
            "postgres://u:hunter2@h/%ffhunter2",
            "https://u:hunter2@x.supabase.co",
            "u:hunter2@h/d",
            "hunter2",
        ] {
            let (shown, options) = shown(url);
            assert!(options.is_none() && !shown.contains("hunter2"), "{shown}");
        }
        let (shown, _) = shown("https://u:hunter2@x.supabase.co");
        assert!(shown.contains("postgres://"), "{shown}");
    }

    proptest::proptest! {
        /// The parts between separators are known, so that the test can search for each of them.
        #[test]
        fn no_piece_of_an_unencoded_password_is_shown(
            first in proptest::sample::select(vec!["s3cr3t", "31337", "", "s3cr%74"]),
            rest in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        "/", "#", "@", "?", "%", ":", ",", "[", "]", "//", "://", "&", "=", "\\",
                        " ", "\t", "\n", "@[", "]:", "?host=", "?sslmode=", "/?", ";", "|", "é",
                    ]),
                    proptest::sample::select(vec!["s3cr3t", "31337", "s3cr3t=s3cr3t", "%ff", ""]),
                ),
                0..5,
            ),
            host in proptest::sample::select(vec!["localhost", "[::1]", "db.example:5433"]),
        ) {
            let mut password = first.to_owned();
            for (mark, piece) in rest {
                password.push_str(mark);
                password.push_str(piece);
            }
            for (before, behind) in
                [("postgres", "/d"), ("postgresql", "/d?sslmode=disable"), ("postgres", "")]
            {
                let url = format!("{before}://me:{password}@{host}{behind}");
                let (shown, _) = shown(&url);
                proptest::prop_assert!(
                    !shown.contains("s3cr") && !shown.contains("31337"),
                    "{} shows {}", url, shown
                );
                let url = format!("{before}://me:{}@{host}{behind}", encoded(&password));
                let options = StoreSettings::new(url, "test").options().unwrap();
                proptest::prop_assert_eq!(options.get_username(), "me");
            }
        }
    }
}
