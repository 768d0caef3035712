//! Ranges of event time of one stream: rows, and the window aggregates of them.

use domain::{Event, Kept, Timestamp};
use futures_util::TryStreamExt as _;
use sqlx::AssertSqlSafe;

use crate::{
    error::StoreError,
    numbers::{integer, unsigned},
    read::view::ArchiveView,
    rows::{
        event::{DOING, counted, statements},
        kind::EventTable,
    },
    statement::Doing,
    timestamptz::Timestamptz,
    windows::{
        kept,
        stored::{WindowRow, columns, table, window},
    },
};

impl ArchiveView {
    /// Which windows are kept for the stream's rows.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn kept_windows(&mut self) -> Result<Kept, StoreError> {
        kept::read(&mut self.connection, self.stream).await
    }

    /// The time of the stream's first row or first window at or after a time.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn first_at(&mut self, from: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let side = self.stream().side;
        // Windows of other streams may be found too. Then the next range simply contains no windows
        // of this stream.
        let sql = format!(
            "select least(\
                (select min(occurred_at) from lakegauge.{} \
                 where occurred_at >= $2 and stream = $1), \
                (select min(window_start) from lakegauge.{} where window_start >= $2))",
            EventTable::with_windows(side).table(),
            table(side)
        );
        let first: Option<Timestamptz> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(self.stream.id)
            .bind(Timestamptz(from.0))
            .fetch_one(&mut self.connection)
            .await
            .doing(DOING)?;
        Ok(first.map(|first| Timestamp(first.0)))
    }

    /// Calls `take` with every row of the stream in `[from, to)` that has windows, in any order.
    /// Returns the number of rows.
    ///
    /// # Errors
    ///
    /// The database failed, or contains a row that this program cannot read.
    pub async fn rows_between(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        mut take: impl FnMut(&Event),
    ) -> Result<u64, StoreError> {
        let kind = EventTable::with_windows(self.stream().side);
        let sql = format!(
            "{} where occurred_at >= $1 and occurred_at < $2 and stream = $3",
            statements(kind).select
        );
        let mut rows = sqlx::query(AssertSqlSafe(sql))
            .bind(Timestamptz(from.0))
            .bind(Timestamptz(to.0))
            .bind(self.stream.id)
            .fetch(&mut self.connection);
        let mut count = 0;
        while let Some(row) = rows.try_next().await.doing(DOING)? {
            take(&counted(kind, &row)?.event);
            count += 1;
        }
        Ok(count)
    }

    /// The windows of one length of the stream that start in `[from, to)`, ascending by key.
    ///
    /// # Errors
    ///
    /// The database failed, or contains a window that this program cannot read; the error names it.
    pub async fn windows_between(
        &mut self,
        length_s: u32,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<WindowRow>, StoreError> {
        let side = self.stream().side;
        let sql = format!(
            "select known.window_start, series.name, series.action, series.outcome, {} \
             from lakegauge.{} as known \
             join lakegauge.window_series as series on series.id = known.series \
             where known.length_s = $1 and known.window_start >= $2 and known.window_start < $3 \
                 and series.stream = $4",
            columns(side),
            table(side)
        );
        let mut rows = sqlx::query(AssertSqlSafe(sql))
            .bind(integer(length_s))
            .bind(Timestamptz(from.0))
            .bind(Timestamptz(to.0))
            .bind(self.stream.id)
            .fetch(&mut self.connection);
        let mut windows = Vec::new();
        while let Some(row) = rows.try_next().await.doing(DOING)? {
            windows.push(window(&row, length_s)?);
        }
        windows.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(windows)
    }

    /// The ranges of time of the stream's rows with windows that retention dropped.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn dropped(&mut self) -> Result<Vec<(Timestamp, Timestamp)>, StoreError> {
        let dropped: Vec<(Timestamptz, Timestamptz)> = sqlx::query_as(
            "select distinct dropped_from, dropped_to from lakegauge.dropped \
             where kind = $1 and stream = $2 order by dropped_from",
        )
        .bind(EventTable::with_windows(self.stream().side).table())
        .bind(self.stream.id)
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        let times = dropped.into_iter().map(|(from, to)| (Timestamp(from.0), Timestamp(to.0)));
        Ok(times.collect())
    }

    /// How many windows of the stream have a length that is not kept.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn windows_of_other_lengths(&mut self, kept: &Kept) -> Result<u64, StoreError> {
        let lengths_s: Vec<i32> = kept.lengths().map(|(length_s, _)| integer(length_s)).collect();
        let sql = format!(
            "select count(*) from lakegauge.{} as known \
             join lakegauge.window_series as series on series.id = known.series \
             where series.stream = $1 and known.length_s <> all ($2)",
            table(self.stream().side)
        );
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(self.stream.id)
            .bind(lengths_s)
            .fetch_one(&mut self.connection)
            .await
            .doing(DOING)?;
        unsigned(count)
    }
}
