//! Rollups: the sums of the rows by day, and what is known of each key. Both are updated after the
//! rows.

use std::time::Duration;

use domain::{Position, Side, Timestamp};
use sqlx::PgConnection;

use crate::{
    error::StoreError,
    numbers::{signed, signed_32, unsigned},
    settings::connection::StoreSettings,
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
};

/// Approximate number of events per step: half a second, and few enough to be grouped in memory.
/// Smaller steps would write the day and today's keys more often.
const STEP_EVENTS: i64 = 100_000;

/// Pages of the table of keys (8 kB each) that one transaction looks at: a few hundred thousand keys.
const STEP_PAGES: i64 = 4_096;

const DOING: &str = "adding to the rollups";

/// Adds the rows of one stream to the rollups, following the ledger on a connection of its own, so
/// that the transactions of the rows are not slowed down.
#[derive(Debug)]
pub struct Rollups {
    connection: PgConnection,
    stream: StreamId,
    side: Side,
    answer_limit_ms: u64,
}

impl Rollups {
    /// Opens a connection; `None` for a stream without rollups.
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

    /// Adds everything that was archived before now. With `keys`, also to what is known of each
    /// key; without, that is deleted.
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

    /// Forgets the keys that are not stored any more and were changed and read last before a time,
    /// which retention gives (`kept_from`): no event that would bring one back is accepted any more.
    /// Returns how many. It reads the whole table of keys, in steps.
    ///
    /// # Errors
    ///
    /// The database failed. What was forgotten stays forgotten, and the rest is found again.
    pub async fn forget_deleted_keys(&mut self, kept_from: Timestamp) -> Result<u64, StoreError> {
        let (mut all, mut page) = (0, (self.side == Side::Lake).then_some(0_i64));
        while let Some(first) = page {
            let step =
                sqlx::query_as("select * from lakegauge.forget_deleted_keys($1, $2, $3, $4)")
                    .bind(self.stream.id)
                    .bind(Timestamptz(kept_from.0))
                    .bind(first)
                    .bind(STEP_PAGES)
                    .fetch_one(&mut self.connection);
            let (forgotten, next): (i64, Option<i64>) = in_time(self.answer_limit_ms, step).await?;
            all += unsigned(forgotten)?;
            page = next;
        }
        Ok(all)
    }

    /// Runs one transaction. Returns whether there was anything to add.
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
            tracing::info!(stream = self.stream.id, "deleted what was known of keys");
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

/// Adds a row that was inserted at a position which the rollups may have passed. Runs inside the
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
