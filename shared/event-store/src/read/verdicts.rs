//! Reads the verdicts that are still to be published.

use std::time::Duration;

use domain::Verdict;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    error::StoreError,
    numbers::{count, signed},
    rows::{
        columns::read,
        event::{counted, statements},
    },
    settings::connection::StoreSettings,
    statement::Doing,
    stream_id::StreamId,
};

/// Reads the verdicts that are still to be published, on a connection of its own beside the
/// writer's.
#[derive(Debug)]
pub struct VerdictsToCome {
    connection: PgConnection,
    stream: StreamId,
    answer_limit_ms: u64,
}

impl VerdictsToCome {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// The database cannot be reached.
    pub async fn open(settings: &StoreSettings, stream: StreamId) -> Result<Self, StoreError> {
        let connection = settings.connect_as_archiver().await?;
        Ok(Self { connection, stream, answer_limit_ms: settings.answer_limit_ms() })
    }

    /// The verdicts with the numbers after `after`, in order, without a gap: at most `limit`, none
    /// above `last`. Only committed rows are seen.
    ///
    /// # Errors
    ///
    /// The database failed, after which the connection can't be used any more; or rows are missing.
    pub async fn read(
        &mut self,
        after: u64,
        last: u64,
        limit: usize,
    ) -> Result<Vec<Verdict>, StoreError> {
        let limit_ms = self.answer_limit_ms;
        let answer = self.read_rows(after, last, limit);
        tokio::time::timeout(Duration::from_millis(limit_ms), answer)
            .await
            .map_err(|_| StoreError::TimedOut { doing: "reading verdicts", limit_ms })?
    }

    async fn read_rows(
        &mut self,
        after: u64,
        last: u64,
        limit: usize,
    ) -> Result<Vec<Verdict>, StoreError> {
        let last = last.min(after.saturating_add(count(limit)));
        let mut verdicts = Vec::new();
        for kind in self.stream.kinds() {
            let sql = format!(
                "{} where stream = $1 and verdict > $2 and verdict <= $3",
                statements(*kind).select
            );
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(self.stream.id)
                .bind(signed(after)?)
                .bind(signed(last)?)
                .fetch_all(&mut self.connection)
                .await
                .doing("reading verdicts")?;
            for row in &rows {
                let number = read(row, "verdict").doing("reading verdicts")?;
                verdicts.push(Verdict { number, event: counted(*kind, row)?.event });
            }
        }
        verdicts.sort_unstable_by_key(|verdict| verdict.number);
        let numbers = verdicts.iter().map(|verdict| verdict.number);
        if !numbers.eq(after + 1..=last) {
            return Err(StoreError::Inconsistent(format!(
                "of the verdicts {} to {last}, only {} exist",
                after + 1,
                verdicts.len()
            )));
        }
        Ok(verdicts)
    }
}
