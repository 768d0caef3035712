//! Rollups: what the rows add up to by day and what is known of each key, added after the rows.

use std::time::Duration;

use domain::{Position, Side, Timestamp};
use sqlx::PgConnection;

use crate::{
    error::StoreError,
    numbers::{signed, signed_32},
    settings::connection::StoreSettings,
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
};

/// Events of one step, about: half a second, and little enough to be grouped in memory. Of smaller
/// steps each writes the day and the keys of today once more.
const STEP_EVENTS: i64 = 100_000;

const DOING: &str = "adding to the rollups";

/// Follows the rows of one stream by the ledger, on a connection of its own: the transaction of the
/// rows pays nothing for what is added here.
#[derive(Debug)]
pub struct Rollups {
    connection: PgConnection,
    stream: StreamId,
    side: Side,
    answer_limit_ms: u64,
}

impl Rollups {
    /// Opens a connection; `None` for a stream that has no rollups.
    ///
    /// # Errors
    ///
    /// The database cannot be reached.
    pub async fn open(
        settings: &StoreSettings,
        stream: StreamId,
    ) -> Result<Option<Self>, StoreError> {
        let Some(side) = stream.side else { return Ok(None) };
        let connection = settings.connect_as_archiver().await?;
        Ok(Some(Self { connection, stream, side, answer_limit_ms: settings.answer_limit_ms() }))
    }

    /// Adds what was archived before now: all of it. `keys`: also to what is known of each key;
    /// otherwise that is let go of.
    ///
    /// # Errors
    ///
    /// The database failed. What was added stays, and is not added again.
    pub async fn catch_up(&mut self, keys: bool) -> Result<(), StoreError> {
        while self.step("days").await? {}
        match (self.side, keys) {
            (Side::Lake, true) => while self.step("keys").await? {},
            (Side::Lake, false) => self.forget_keys().await?,
            (Side::Warehouse, _) => {}
        }
        Ok(())
    }

    /// One transaction; whether there was anything to add.
    async fn step(&mut self, part: &'static str) -> Result<bool, StoreError> {
        let step = sqlx::query_scalar("select lakegauge.roll_up($1, $2, $3)")
            .bind(self.stream.id)
            .bind(part)
            .bind(STEP_EVENTS)
            .fetch_one(&mut self.connection);
        in_time(self.answer_limit_ms, step).await
    }

    async fn forget_keys(&mut self) -> Result<(), StoreError> {
        let forget = sqlx::query_scalar("select lakegauge.forget_keys($1)")
            .bind(self.stream.id)
            .fetch_one(&mut self.connection);
        let forgot: bool = in_time(self.answer_limit_ms, forget).await?;
        if forgot {
            tracing::info!(stream = self.stream.id, "let go of what was known of keys");
        }
        Ok(())
    }
}

async fn in_time<T>(
    limit_ms: u64,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(Duration::from_millis(limit_ms), answer)
        .await
        .map_err(|_| StoreError::TimedOut { doing: DOING, limit_ms })?
        .doing(DOING)
}

/// Adds a row that was inserted at a position which the rollups may have passed, inside of the
/// caller's transaction.
pub(crate) async fn add_row(
    connection: &mut PgConnection,
    stream: StreamId,
    position: Position,
    occurred_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("select lakegauge.roll_up_row($1, $2, $3, $4, $5)")
        .bind(stream.id)
        .bind(signed_32(position.epoch)?)
        .bind(signed(position.sequence)?)
        .bind(signed_32(position.index)?)
        .bind(Timestamptz(occurred_at.0))
        .execute(connection)
        .await
        .doing(DOING)
        .map(|_| ())
}
