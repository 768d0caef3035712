//! Deletes windows that a stream no longer keeps.

use domain::{Ladder, Side, Timestamp, time::SECONDS_PER_DAY};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    checkpoint,
    error::StoreError,
    numbers::integer,
    statement::{Doing, begin, commit},
    stream_id::StreamId,
    timestamptz::Timestamptz,
    windows::{kept, stored::table},
    write::{windows, writer::Archive},
};

/// Range of event time whose windows of one length are deleted in one transaction, in seconds: with
/// a thousand series of 10 s these are 360,000 windows, about a second. Batches wait meanwhile.
const STEP_S: i64 = 3_600;

/// The result of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetGo {
    /// Deleted windows.
    pub windows: u64,
    /// Whether there may be more windows to delete.
    pub more: bool,
}

impl Archive {
    /// Deletes windows that the ladder no longer keeps at the checkpoint's broker time: up to an
    /// hour of one length. The rows are deleted, and the beginning of the kept time moves, in one
    /// transaction between two of the stream's batches.
    ///
    /// # Errors
    ///
    /// The errors of [`Archive::append`].
    pub async fn let_go(&mut self, ladder: &Ladder) -> Result<LetGo, StoreError> {
        let Some(side) = self.stream().side else { return Ok(LetGo::default()) };
        let mut session = self.take_session().await?;
        let Some(known) = self.checkpoint().cloned() else {
            self.give_session(session);
            return Ok(LetGo::default());
        };
        let connection = &mut session.connection;
        let due = kept::read(connection, self.stream()).await?.due(ladder, known.mark.broker_ns);
        let Some((length_s, until)) = due.first().copied() else {
            self.give_session(session);
            return Ok(LetGo::default());
        };
        begin(connection).await?;
        if !checkpoint::is_still(connection, self.stream(), &known).await? {
            drop(session);
            return Err(self.fenced().await);
        }
        windows::lock(connection, self.stream()).await?;
        let step = step(connection, self.stream(), side, (length_s, until)).await?;
        commit(connection).await?;
        self.give_session(session);
        Ok(LetGo { more: step.more || due.len() > 1, ..step })
    }
}

async fn step(
    connection: &mut PgConnection,
    stream: StreamId,
    side: Side,
    (length_s, until): (u32, Timestamp),
) -> Result<LetGo, StoreError> {
    let doing = "letting go of windows";
    let first: Option<Timestamptz> = sqlx::query_scalar(AssertSqlSafe(first(side)))
        .bind(stream.id)
        .bind(integer(length_s))
        .bind(Timestamptz(until.0))
        .fetch_one(&mut *connection)
        .await
        .doing(doing)?;
    let until_here = first.map_or(until, |first| {
        // Midnight begins such an hour, and every window fits into a day.
        let hour_s = STEP_S.max(i64::from(length_s)).min(SECONDS_PER_DAY);
        let start = Timestamp(first.0).slot(hour_s);
        Timestamp::from_seconds(start).plus_seconds(hour_s).min(until)
    });
    let gone = sqlx::query(AssertSqlSafe(delete(side)))
        .bind(stream.id)
        .bind(integer(length_s))
        .bind(Timestamptz(until_here.0))
        .execute(&mut *connection)
        .await
        .doing(doing)?;
    sqlx::query(
        "update lakegauge.window_kept set kept_from = $3 where stream = $1 and length_s = $2",
    )
    .bind(stream.id)
    .bind(integer(length_s))
    .bind(Timestamptz(until_here.0))
    .execute(&mut *connection)
    .await
    .doing(doing)?;
    Ok(LetGo { windows: gone.rows_affected(), more: until_here < until })
}

// No window exists before kept_from, so both statements search only from there to the end.

fn first(side: Side) -> String {
    format!(
        "select min(known.window_start) from lakegauge.window_kept as kept \
         join lakegauge.{} as known \
             on known.window_start >= coalesce(kept.kept_from, '-infinity') \
             and known.length_s = kept.length_s \
         join lakegauge.window_series as series \
             on series.id = known.series and series.stream = kept.stream \
         where kept.stream = $1 and kept.length_s = $2 and known.window_start < $3",
        table(side)
    )
}

fn delete(side: Side) -> String {
    format!(
        "delete from lakegauge.{} as known \
         using lakegauge.window_kept as kept, lakegauge.window_series as series \
         where kept.stream = $1 and kept.length_s = $2 and series.stream = $1 \
             and series.id = known.series and known.length_s = $2 and known.window_start < $3 \
             and known.window_start >= coalesce(kept.kept_from, '-infinity')",
        table(side)
    )
}
