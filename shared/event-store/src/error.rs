//! Errors of the archive: each contains what failed and what to do next.

use std::io::ErrorKind;

use domain::Mismatch;

use crate::{
    settings::login::LoginRefusal,
    sqlstate::{self, SqlRecovery},
};

/// What `lakegauge migrate` is doing, for errors.
pub(crate) const MIGRATING: &str = "migrating";

const NAME_AUTHORITIES: &str =
    ": the address must name the server's certificate authorities, as sslrootcert=FILE";

/// What to do about an encoding, which can't be changed after a database was created.
pub(crate) const MAKE_ANOTHER: &str =
    "make another one for Lakegauge: create database lakegauge encoding 'UTF8' template template0";

/// Why a call to the archive failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection to the server.
    #[error("can't connect to {place}: {}{}", said(driver), to_connect(driver))]
    Connecting {
        /// `user@host:port/database`.
        place: String,
        /// The driver's error; it never contains the password.
        driver: sqlx::Error,
    },
    /// The server refuses a login that it accepted before, or the login can no longer be read: it
    /// is probably being rotated.
    #[error("PostgreSQL at {place}: {refusal}")]
    LoginRefused {
        /// `host:port/database`.
        place: String,
        /// Since when, why, and what to do.
        refusal: LoginRefusal,
    },
    /// The server or the network failed.
    #[error("while {doing}: {}{}", said(driver), to_do(doing, driver))]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The driver's error. It is no `source`, because the text above contains it already.
        driver: sqlx::Error,
    },
    /// An answer did not come in time.
    #[error("while {doing}: no answer within {limit_ms} ms")]
    TimedOut {
        /// What was being done.
        doing: &'static str,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The settings are wrong.
    #[error("{0}")]
    Settings(String),
    /// The database does not have the schema that this program needs.
    #[error("{0}")]
    Version(String),
    /// The database contains another program's objects under names that we need.
    #[error("{0}")]
    NotOurs(String),
    /// An archiver writes to what should be changed.
    #[error("stream {stream} is held by {holder}: stop the archiver first")]
    Busy {
        /// The stream.
        stream: String,
        /// The holder of the stream's lock.
        holder: String,
    },
    /// The archive and the broker don't belong together.
    #[error("{0}")]
    Mismatch(Mismatch),
    /// Another writer moved the checkpoint, so decisions based on the old one are out of date.
    #[error(
        "the checkpoint of {stream} was moved by another writer to epoch {epoch}, sequence \
         {sequence}: start again from there"
    )]
    Fenced {
        /// The stream.
        stream: String,
        /// The epoch of the checkpoint now.
        epoch: u32,
        /// The sequence of the checkpoint now.
        sequence: u64,
    },
    /// The archive contains something that this program did not write, or an argument makes no
    /// sense.
    #[error("{0}")]
    Inconsistent(String),
}

impl From<Mismatch> for StoreError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl StoreError {
    /// What to do next.
    pub fn recovery(&self) -> SqlRecovery {
        match self {
            Self::Database { driver, .. } => of_driver(driver),
            Self::Connecting { driver: sqlx::Error::Io(error), .. }
                if [ErrorKind::TimedOut, ErrorKind::InvalidData].contains(&error.kind()) =>
            {
                SqlRecovery::RetryAlarm
            }
            Self::Connecting { driver, .. } => of_driver(driver),
            // Whoever rotates the login corrects this. Readiness, a metric and an alert report it
            // meanwhile.
            Self::LoginRefused { .. } => SqlRecovery::Retry,
            Self::TimedOut { .. } => SqlRecovery::RetryAlarm,
            Self::Settings(_)
            | Self::Version(_)
            | Self::NotOurs(_)
            | Self::Busy { .. }
            | Self::Mismatch(_)
            | Self::Fenced { .. }
            | Self::Inconsistent(_) => SqlRecovery::Stop,
        }
    }

    /// The server's SQLSTATE, if there is one.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database { driver, .. } | Self::Connecting { driver, .. } => {
                driver.as_database_error().and_then(|error| error.code()).map(Into::into)
            }
            Self::TimedOut { .. }
            | Self::LoginRefused { .. }
            | Self::Settings(_)
            | Self::Version(_)
            | Self::NotOurs(_)
            | Self::Busy { .. }
            | Self::Mismatch(_)
            | Self::Fenced { .. }
            | Self::Inconsistent(_) => None,
        }
    }

    /// What is wrong with the login, if that prevents the connection.
    pub(crate) fn login_problem(&self) -> Option<String> {
        match self {
            Self::Connecting { driver, .. } => {
                let sqlstate = self.sqlstate();
                sqlstate.is_some_and(|state| sqlstate::is_of_login(&state)).then(|| said(driver))
            }
            // An address that can't be read now was read before: its file is being replaced.
            Self::Settings(why) => Some(why.clone()),
            Self::LoginRefused { .. }
            | Self::Database { .. }
            | Self::TimedOut { .. }
            | Self::Version(_)
            | Self::NotOurs(_)
            | Self::Busy { .. }
            | Self::Mismatch(_)
            | Self::Fenced { .. }
            | Self::Inconsistent(_) => None,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum is non-exhaustive")]
fn of_driver(error: &sqlx::Error) -> SqlRecovery {
    match error {
        sqlx::Error::Database(error) => {
            sqlstate::recovery(error.code().as_deref().unwrap_or(""), error.constraint())
        }
        // Nothing answers, the connection broke, or the bytes were not the protocol's.
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => SqlRecovery::Retry,
        // A wrong certificate needs a person, but the error of a restarting proxy ends by itself.
        sqlx::Error::Tls(_) => SqlRecovery::RetryAlarm,
        _ => SqlRecovery::Stop,
    }
}

/// The error's text, without the driver's notes about the position in the server's source.
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum is non-exhaustive")]
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        other => other.to_string(),
    }
}

/// What to do about a refused connection; begins with a colon.
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum is non-exhaustive")]
fn to_connect(error: &sqlx::Error) -> String {
    match error {
        // A refused certificate is reported as invalid data.
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => NAME_AUTHORITIES,
        sqlx::Error::Io(_) => ": is the server running and the address right?",
        sqlx::Error::Tls(_) => NAME_AUTHORITIES,
        sqlx::Error::Database(error) => match error.code().as_deref().unwrap_or("") {
            "28P01" | "28000" => {
                ": check the user and the password in the address, where / # @ ? % are \
                 percent-encoded"
            }
            "3D000" => ": create the database, or check its name in the address",
            "42501" => ": grant connect on the database to this user",
            // The database's encoding can't be converted to UTF-8.
            "0A000" => return format!(": {MAKE_ANOTHER}"),
            _ => "",
        },
        _ => "",
    }
    .to_owned()
}

/// What to do about a refused statement; begins with a colon.
fn to_do(doing: &str, error: &sqlx::Error) -> &'static str {
    let sqlstate = error.as_database_error().and_then(|error| error.code());
    match sqlstate.as_deref().unwrap_or("") {
        "42501" if doing == MIGRATING => ": migrate as the owner of the database",
        "42501" => ": grant lakegauge_reader (or, to write, lakegauge_archiver) to this user",
        "3F000" | "42P01" => ": run `lakegauge migrate` as the owner of the database",
        "25006" => ": connect to the primary, or free disk space",
        _ => "",
    }
}
