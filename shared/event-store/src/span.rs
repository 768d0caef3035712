//! Spans of event time, of one side and all of its streams: rows, and the window aggregates that
//! were kept of them.

use domain::{
    Event, EventId, Fact, LakeAccess, Operation, Outcome, Side, Sketch, Statement, Timestamp,
    WarehouseQuery, WindowKey, WindowSums, time::MICROS_PER_SECOND,
};
use futures_util::TryStreamExt as _;
use sqlx::{Row as _, postgres::PgRow};

use crate::{
    error::{Doing, StoreError, unsigned},
    pg::Timestamptz,
    read::{ArchiveView, DOING, code, get, quantity},
    rows::integer,
};

/// A window aggregate as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRow {
    /// What it is about.
    pub key: WindowKey,
    /// What it holds.
    pub sums: WindowSums,
}

impl ArchiveView {
    /// The time of the first row of a side, or of its first window, at or after a time.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn first_at(
        &mut self,
        side: Side,
        from: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let first: Option<Timestamptz> = sqlx::query_scalar(match side {
            Side::Lake => {
                "select least((select min(occurred_at) from lakegauge.lake_access \
                    where occurred_at >= $1), \
                 (select min(window_start) from lakegauge.lake_window where window_start >= $1))"
            }
            Side::Warehouse => {
                "select least((select min(occurred_at) from lakegauge.warehouse_query \
                    where occurred_at >= $1), \
                 (select min(window_start) from lakegauge.warehouse_window \
                    where window_start >= $1))"
            }
        })
        .bind(Timestamptz(from.0))
        .fetch_one(&mut self.connection)
        .await
        .doing(DOING)?;
        Ok(first.map(|first| Timestamp(first.0)))
    }

    /// Hands over every row of a side that has windows, of `[from, to)`, in any order; what windows
    /// do not depend on is left empty in the events. Returns how many.
    ///
    /// # Errors
    ///
    /// The database failed, or holds a row that this program cannot read.
    pub async fn rows_between(
        &mut self,
        side: Side,
        from: Timestamp,
        to: Timestamp,
        mut take: impl FnMut(&Event),
    ) -> Result<u64, StoreError> {
        let mut rows = sqlx::query(match side {
            Side::Lake => {
                "select occurred_at, operation, outcome, bytes, duration_us, bucket \
                 from lakegauge.lake_access where occurred_at >= $1 and occurred_at < $2"
            }
            Side::Warehouse => {
                "select occurred_at, statement, outcome, bytes_scanned, rows_processed, \
                 queued_us, executed_us, cache_hit, warehouse \
                 from lakegauge.warehouse_query where occurred_at >= $1 and occurred_at < $2"
            }
        })
        .bind(Timestamptz(from.0))
        .bind(Timestamptz(to.0))
        .fetch(&mut self.connection);
        let mut count = 0;
        while let Some(row) = rows.try_next().await.doing(DOING)? {
            take(&event(side, &row)?);
            count += 1;
        }
        Ok(count)
    }

    /// The windows of a side and length that start in `[from, to)`, ascending by key.
    ///
    /// # Errors
    ///
    /// The database failed, or holds a window that this program cannot read; it is named.
    pub async fn windows_between(
        &mut self,
        side: Side,
        length_s: u32,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<WindowRow>, StoreError> {
        let mut rows = sqlx::query(match side {
            Side::Lake => {
                "select window_start, length_s, bucket as name, operation as action, outcome, \
                 events, bytes::text as bytes, '0' as rows, duration_us::text as duration_us, \
                 0::bigint as cache_hits, sketch_buckets, sketch_counts \
                 from lakegauge.lake_window \
                 where length_s = $1 and window_start >= $2 and window_start < $3"
            }
            Side::Warehouse => {
                "select window_start, length_s, warehouse as name, statement as action, outcome, \
                 events, bytes_scanned::text as bytes, rows_processed::text as rows, \
                 response_us::text as duration_us, cache_hits, sketch_buckets, sketch_counts \
                 from lakegauge.warehouse_window \
                 where length_s = $1 and window_start >= $2 and window_start < $3"
            }
        })
        .bind(integer(length_s))
        .bind(Timestamptz(from.0))
        .bind(Timestamptz(to.0))
        .fetch(&mut self.connection);
        let mut windows = Vec::new();
        while let Some(row) = rows.try_next().await.doing(DOING)? {
            windows.push(window(&row, length_s)?);
        }
        windows.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(windows)
    }

    /// The times, each from and to, of the rows with windows that retention dropped from a side.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn dropped(&mut self, side: Side) -> Result<Vec<(Timestamp, Timestamp)>, StoreError> {
        let kind = match side {
            Side::Lake => "lake_access",
            Side::Warehouse => "warehouse_query",
        };
        let dropped: Vec<(Timestamptz, Timestamptz)> = sqlx::query_as(
            "select distinct dropped_from, dropped_to from lakegauge.dropped \
             where kind = $1 order by dropped_from",
        )
        .bind(kind)
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        let times = dropped.into_iter().map(|(from, to)| (Timestamp(from.0), Timestamp(to.0)));
        Ok(times.collect())
    }

    /// How many windows of a side have none of these lengths.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn windows_of_other_lengths(
        &mut self,
        side: Side,
        lengths_s: &[u32],
    ) -> Result<u64, StoreError> {
        let lengths_s: Vec<i32> = lengths_s.iter().map(|length_s| integer(*length_s)).collect();
        let count: i64 = sqlx::query_scalar(match side {
            Side::Lake => "select count(*) from lakegauge.lake_window where length_s <> all ($1)",
            Side::Warehouse => {
                "select count(*) from lakegauge.warehouse_window where length_s <> all ($1)"
            }
        })
        .bind(lengths_s)
        .fetch_one(&mut self.connection)
        .await
        .doing(DOING)?;
        unsigned(count)
    }
}

fn event(side: Side, row: &PgRow) -> Result<Event, StoreError> {
    let at: Timestamptz = get(row, "occurred_at")?;
    let outcome = code(row, "outcome", Outcome::from_code)?;
    let fact = match side {
        Side::Lake => Fact::LakeAccess(LakeAccess {
            bucket: get(row, "bucket")?,
            key: String::new(),
            operation: code(row, "operation", Operation::from_code)?,
            bytes: quantity(row, "bytes")?,
            object_bytes: None,
            sequencer: None,
            duration_us: quantity(row, "duration_us")?,
            outcome,
            principal: String::new(),
        }),
        Side::Warehouse => Fact::WarehouseQuery(WarehouseQuery {
            warehouse: get(row, "warehouse")?,
            database: String::new(),
            statement: code(row, "statement", Statement::from_code)?,
            queued_us: quantity(row, "queued_us")?,
            executed_us: quantity(row, "executed_us")?,
            rows_processed: quantity(row, "rows_processed")?,
            rows_returned: 0,
            bytes_scanned: quantity(row, "bytes_scanned")?,
            cache_hit: get(row, "cache_hit")?,
            outcome,
            principal: String::new(),
            fingerprint: String::new(),
        }),
    };
    Ok(Event { id: EventId::from_bytes([0; 16]), occurred_at: Timestamp(at.0), fact })
}

fn window(row: &PgRow, length_s: u32) -> Result<WindowRow, StoreError> {
    let start: Timestamptz = get(row, "window_start")?;
    let key = WindowKey {
        name: get(row, "name")?,
        start_s: start.0.div_euclid(MICROS_PER_SECOND),
        length_s,
        action: code(row, "action", Some)?,
        outcome: code(row, "outcome", Outcome::from_code)?,
    };
    let sums = sums(row).map_err(|what| {
        StoreError::Inconsistent(format!("the window {key:?} can't be read: {what}"))
    })?;
    Ok(WindowRow { key, sums })
}

fn sums(row: &PgRow) -> Result<WindowSums, String> {
    let text = |error: sqlx::Error| error.to_string();
    let narrow = |column: &str| {
        let number: i64 = row.try_get(column).map_err(text)?;
        u64::try_from(number).map_err(|_| format!("{column} is {number}"))
    };
    let wide = |column: &str| {
        let number: &str = row.try_get(column).map_err(text)?;
        number.parse::<u128>().map_err(|_| format!("{column} is {number}"))
    };
    let buckets: Vec<i32> = row.try_get("sketch_buckets").map_err(text)?;
    let counts: Vec<i64> = row.try_get("sketch_counts").map_err(text)?;
    if buckets.len() != counts.len() {
        return Err("its sketch has more buckets than counts, or fewer".to_owned());
    }
    let pairs = buckets.into_iter().zip(counts).map(|(bucket, count)| {
        let pair = u32::try_from(bucket).ok().zip(u64::try_from(count).ok());
        pair.ok_or_else(|| format!("its sketch counts {count} in bucket {bucket}"))
    });
    Ok(WindowSums {
        events: narrow("events")?,
        bytes: wide("bytes")?,
        rows: wide("rows")?,
        duration_us: wide("duration_us")?,
        cache_hits: narrow("cache_hits")?,
        sketch: pairs.collect::<Result<Sketch, String>>()?,
    })
}
