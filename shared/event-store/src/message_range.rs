//! Ranges of messages, for the ledger, declared losses and pages.

use sqlx::{FromRow, postgres::PgRow};

use crate::rows::columns::read;

/// Messages of one epoch, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageRange {
    /// The epoch.
    pub epoch: u32,
    /// The broker's sequence of the first message.
    pub first: u64,
    /// The broker's sequence of the last message.
    pub last: u64,
}

impl FromRow<'_, PgRow> for MessageRange {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            epoch: read(row, "epoch")?,
            first: read(row, "first")?,
            last: read(row, "last")?,
        })
    }
}
