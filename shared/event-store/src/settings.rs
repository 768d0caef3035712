//! Where the archive is, and what a connection to it must be like.

use std::{fmt, net::IpAddr, str::FromStr, sync::Once, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::error::{Doing, StoreError};

/// Supabase's transaction pooler, and PgBouncer's usual port there.
const TRANSACTION_POOLER_PORT: u16 = 6543;
/// Supabase's session pooler.
const SESSION_POOLER_PORT: u16 = 5432;
const SUPABASE_POOLER: &str = ".pooler.supabase.com";

static SAY_RAISED: Once = Once::new();

/// How to reach the archive.
#[derive(Clone)]
pub struct StoreSettings {
    /// `postgres://user:password@host:port/database`. Holds a secret: never logged.
    pub url: String,
    /// Shown in `pg_stat_activity`, and to whoever waits for our lock.
    pub application_name: String,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest time of one statement, in milliseconds; the server ends it.
    pub statement_timeout_ms: u64,
    /// Longest wait for a lock, in milliseconds; the server ends it.
    pub lock_timeout_ms: u64,
}

impl StoreSettings {
    /// Settings with the usual limits.
    pub fn new(url: impl Into<String>, application_name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            application_name: application_name.into(),
            connect_timeout_ms: 10_000,
            statement_timeout_ms: 30_000,
            lock_timeout_ms: 5_000,
        }
    }

    /// The longest that anything but waiting for a lock may take, network included.
    pub(crate) const fn answer_limit_ms(&self) -> u64 {
        self.connect_timeout_ms.saturating_add(self.statement_timeout_ms.saturating_mul(2))
    }

    /// Checks the address without connecting.
    ///
    /// # Errors
    ///
    /// It is not an address, or one of a transaction pooler.
    pub fn check(&self) -> Result<(), StoreError> {
        self.options().map(|_| ())
    }

    /// `user@host:port/database`, for people.
    fn login(&self) -> String {
        match PgConnectOptions::from_str(&self.url) {
            Ok(options) => format!("{}@{}", options.get_username(), self.place()),
            Err(_) => self.place(),
        }
    }

    /// What was done about an address that asks for less than it must, for those who show no log.
    pub fn raised_tls(&self) -> Option<String> {
        let options = PgConnectOptions::from_str(&self.url).ok()?;
        is_raised(&options).then(|| {
            format!(
                "TLS raised to verify-full: {} is not local (sslrootcert names its CA)",
                options.get_host()
            )
        })
    }

    /// `host:port/database`, for people.
    pub fn place(&self) -> String {
        match PgConnectOptions::from_str(&self.url) {
            Ok(options) => {
                let database = options.get_database().unwrap_or(options.get_username());
                format!("{}:{}/{database}", options.get_host(), options.get_port())
            }
            Err(_) => "an invalid address".to_owned(),
        }
    }

    pub(crate) fn options(&self) -> Result<PgConnectOptions, StoreError> {
        if !self.url.starts_with("postgres://") && !self.url.starts_with("postgresql://") {
            return Err(StoreError::Settings(
                "DATABASE_URL must begin with postgres:// (SUPABASE_URL is the REST address)"
                    .to_owned(),
            ));
        }
        let options = PgConnectOptions::from_str(&self.url)
            .map_err(|error| StoreError::Settings(format!("DATABASE_URL: {error}")))?
            .application_name(&self.application_name);
        refuse_transaction_pooler(options.get_host(), options.get_port())?;
        Ok(if is_raised(&options) { options.ssl_mode(PgSslMode::VerifyFull) } else { options })
    }

    /// A connection with our limits and without a role.
    pub(crate) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let options = self.options()?;
        if let Some(raised) = self.raised_tls() {
            // Of every connection the same: said once.
            SAY_RAISED.call_once(|| tracing::info!("{raised}"));
        }
        let limit = Duration::from_millis(self.connect_timeout_ms);
        let connected = tokio::time::timeout(limit, options.connect()).await;
        let mut connection = connected
            .unwrap_or_else(|_| {
                let limit = format!("no answer within {} ms", self.connect_timeout_ms);
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, limit).into())
            })
            .map_err(|driver| StoreError::Connecting { place: self.login(), driver })?;
        let (statement, lock) = (self.statement_timeout_ms, self.lock_timeout_ms);
        // What was committed must survive the server's death, or the broker would have been trimmed
        // too early: a server that answers before it has written is told otherwise.
        let set = format!(
            "set statement_timeout = {statement}; set lock_timeout = {lock};
             set idle_in_transaction_session_timeout = {statement};
             set search_path = pg_catalog; set timezone = 'UTC'; set client_min_messages = warning;
             select set_config('synchronous_commit', 'on', false)
             where current_setting('synchronous_commit') = 'off'"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(set))
            .execute(&mut connection)
            .await
            .doing("setting limits of the session")?;
        Ok(connection)
    }

    /// Refuses a pooler that hands each transaction to another server process: prepared statements
    /// would be answered with the results of others, without an error.
    ///
    /// While a first connection stays open, a second one inside a transaction must have another
    /// server process.
    ///
    /// # Errors
    ///
    /// It is such a pooler, or the server could not be asked.
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

/// By the simple protocol, which every pooler passes on correctly.
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

/// Whether an address asks for less than a host that is not local must have.
fn is_raised(options: &PgConnectOptions) -> bool {
    let local = options.get_socket().is_some() || is_local(options.get_host());
    !local && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
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

/// Whether nobody can listen on the way: a Unix socket, this machine, a private network, or a name
/// without a dot (a container's).
fn is_local(host: &str) -> bool {
    if host.starts_with('/') || host.is_empty() {
        return true;
    }
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
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

    fn mode(url: &str) -> PgSslMode {
        StoreSettings::new(url, "test").options().unwrap().get_ssl_mode()
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

    #[test]
    fn neither_errors_nor_debug_show_the_password() {
        let settings = StoreSettings::new("postgres://u:hunter2@h:bad/d", "test");
        let shown = format!("{settings:?} {}", settings.check().unwrap_err());
        assert!(!shown.contains("hunter2"), "{shown}");
        let error = StoreSettings::new("https://u:hunter2@x.supabase.co", "t").check().unwrap_err();
        assert!(error.to_string().contains("postgres://"), "{error}");
    }
}
