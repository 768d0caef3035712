//! Errors of the archive: each says what was done and what to do next.

use crate::sqlstate::{self, Recovery};

/// Why the archive could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server, or the way to it, failed.
    #[error("while {doing}: {source}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The driver's error; it never holds the password.
        source: sqlx::Error,
    },
    /// An answer did not come in time.
    #[error("while {doing}: no answer within {limit_ms} ms")]
    TimedOut {
        /// What was being done.
        doing: &'static str,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
    /// The database has not the shape that this program was built for.
    #[error("{0}")]
    Version(String),
    /// Another writer moved the checkpoint: what was judged here is out of date.
    #[error(
        "the checkpoint of {stream} was moved by another writer to epoch {epoch}, sequence \
         {sequence}: start again from there"
    )]
    Fenced {
        /// The stream.
        stream: String,
        /// Where the checkpoint stands now.
        epoch: u32,
        /// Where the checkpoint stands now.
        sequence: u64,
    },
    /// The archive holds something that this program did not write, or was asked for nonsense.
    #[error("{0}")]
    Inconsistent(String),
}

impl StoreError {
    /// What to do next.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Database { source, .. } => of_driver(source),
            Self::TimedOut { .. } => Recovery::RetryAlarm,
            Self::Settings(_) | Self::Version(_) | Self::Fenced { .. } | Self::Inconsistent(_) => {
                Recovery::Stop
            }
        }
    }

    /// The server's SQLSTATE, where there is one.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database { source, .. } => {
                source.as_database_error().and_then(|error| error.code()).map(Into::into)
            }
            Self::TimedOut { .. }
            | Self::Settings(_)
            | Self::Version(_)
            | Self::Fenced { .. }
            | Self::Inconsistent(_) => None,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum is non-exhaustive")]
fn of_driver(error: &sqlx::Error) -> Recovery {
    match error {
        sqlx::Error::Database(error) => {
            sqlstate::recovery(error.code().as_deref().unwrap_or(""), error.constraint())
        }
        // Nothing answers, the connection broke, or what came was not of the protocol.
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => Recovery::Retry,
        // A wrong certificate does not pass, a proxy that restarts does.
        sqlx::Error::Tls(_) => Recovery::RetryAlarm,
        _ => Recovery::Stop,
    }
}

/// Says what was being done when the driver failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Database { doing, source })
    }
}

/// A number of ours in the database's signed type.
pub(crate) fn signed(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} does not fit into a bigint")))
}

/// A number of the database in our unsigned type.
pub(crate) fn unsigned(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} stands where none is below 0")))
}

/// An epoch or an index in the database's signed type.
pub(crate) fn signed_32(value: u32) -> Result<i32, StoreError> {
    i32::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} does not fit into an integer")))
}

/// An epoch or an index of the database.
pub(crate) fn unsigned_32(value: i32) -> Result<u32, StoreError> {
    u32::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} stands where none is below 0")))
}
