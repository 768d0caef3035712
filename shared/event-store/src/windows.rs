//! Window aggregates: what a transaction adds to them.

use std::fmt::Write;

use domain::{Side, WindowKey, WindowSums, Windows};
use sqlx::PgConnection;

use crate::{
    error::{Doing, StoreError},
    pg::Timestamptz,
    rows::{bigint, integer},
};

/// Windows as columns. Sums of 128 bits and arrays travel as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct WindowRows {
    starts: Vec<Timestamptz>,
    lengths_s: Vec<i32>,
    names: Vec<String>,
    actions: Vec<i16>,
    outcomes: Vec<i16>,
    events: Vec<i64>,
    bytes: Vec<String>,
    rows: Vec<String>,
    durations_us: Vec<String>,
    cache_hits: Vec<i64>,
    buckets: Vec<String>,
    counts: Vec<String>,
}

impl WindowRows {
    pub(crate) fn new(windows: Windows) -> Self {
        let mut columns = Self::default();
        for (key, sums) in windows {
            columns.push(key, &sums);
        }
        columns
    }

    fn push(&mut self, key: WindowKey, sums: &WindowSums) {
        self.starts.push(Timestamptz(key.start_s.saturating_mul(1_000_000)));
        self.lengths_s.push(integer(key.length_s));
        self.names.push(key.name);
        self.actions.push(i16::from(key.action));
        self.outcomes.push(i16::from(key.outcome.code()));
        self.events.push(bigint(sums.events));
        self.bytes.push(sums.bytes.to_string());
        self.rows.push(sums.rows.to_string());
        self.durations_us.push(sums.duration_us.to_string());
        self.cache_hits.push(bigint(sums.cache_hits));
        self.buckets.push(array(sums.sketch.iter().map(|(bucket, _)| u64::from(bucket))));
        self.counts.push(array(sums.sketch.iter().map(|(_, count)| count)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

/// The text form of an array of numbers.
fn array(values: impl Iterator<Item = u64>) -> String {
    let mut text = String::from("{");
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        write!(text, "{value}").expect("writing to a string succeeds");
    }
    text.push('}');
    text
}

/// Adds to the windows of a side. Keys are taken in one order by everyone, so that two streams that
/// add to the same windows wait for each other instead of deadlocking.
pub(crate) async fn add(
    connection: &mut PgConnection,
    side: Side,
    windows: &WindowRows,
) -> Result<(), StoreError> {
    if windows.is_empty() {
        return Ok(());
    }
    let query = match side {
        Side::Lake => sqlx::query(LAKE),
        Side::Warehouse => sqlx::query(WAREHOUSE),
    };
    let query = query
        .bind(&windows.starts)
        .bind(&windows.lengths_s)
        .bind(&windows.names)
        .bind(&windows.actions)
        .bind(&windows.outcomes)
        .bind(&windows.events)
        .bind(&windows.bytes)
        .bind(&windows.durations_us)
        .bind(&windows.buckets)
        .bind(&windows.counts);
    let query = match side {
        Side::Lake => query,
        Side::Warehouse => query.bind(&windows.rows).bind(&windows.cache_hits),
    };
    let done = query.execute(connection).await.doing("adding to the windows")?;
    let expected = u64::try_from(windows.starts.len()).expect("a length fits into 64 bits");
    if done.rows_affected() != expected {
        return Err(StoreError::Inconsistent(format!(
            "added to {} windows instead of {expected}",
            done.rows_affected()
        )));
    }
    Ok(())
}

const LAKE: &str = "
insert into lakegauge.lake_window as known
    (window_start, length_s, bucket, operation, outcome, events, bytes, duration_us,
     sketch_buckets, sketch_counts)
select window_start, length_s, name, action, outcome, events, bytes::numeric,
    duration_us::numeric, buckets::integer[], counts::bigint[]
from unnest($1::timestamptz[], $2::integer[], $3::text[], $4::smallint[], $5::smallint[],
    $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[])
    as part (window_start, length_s, name, action, outcome, events, bytes, duration_us, buckets,
        counts)
order by window_start, length_s, name, action, outcome
on conflict (window_start, length_s, bucket, operation, outcome) do update set
    events = known.events + excluded.events,
    bytes = known.bytes + excluded.bytes,
    duration_us = known.duration_us + excluded.duration_us,
    (sketch_buckets, sketch_counts) = (
        select added.buckets, added.counts
        from lakegauge.sketch_add(known.sketch_buckets, known.sketch_counts,
            excluded.sketch_buckets, excluded.sketch_counts) as added),
    revision = known.revision + 1,
    changed_at = now()";

const WAREHOUSE: &str = "
insert into lakegauge.warehouse_window as known
    (window_start, length_s, warehouse, statement, outcome, events, bytes_scanned, response_us,
     sketch_buckets, sketch_counts, rows_processed, cache_hits)
select window_start, length_s, name, action, outcome, events, bytes::numeric,
    duration_us::numeric, buckets::integer[], counts::bigint[], rows::numeric, cache_hits
from unnest($1::timestamptz[], $2::integer[], $3::text[], $4::smallint[], $5::smallint[],
    $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[])
    as part (window_start, length_s, name, action, outcome, events, bytes, duration_us, buckets,
        counts, rows, cache_hits)
order by window_start, length_s, name, action, outcome
on conflict (window_start, length_s, warehouse, statement, outcome) do update set
    events = known.events + excluded.events,
    bytes_scanned = known.bytes_scanned + excluded.bytes_scanned,
    response_us = known.response_us + excluded.response_us,
    rows_processed = known.rows_processed + excluded.rows_processed,
    cache_hits = known.cache_hits + excluded.cache_hits,
    (sketch_buckets, sketch_counts) = (
        select added.buckets, added.counts
        from lakegauge.sketch_add(known.sketch_buckets, known.sketch_counts,
            excluded.sketch_buckets, excluded.sketch_counts) as added),
    revision = known.revision + 1,
    changed_at = now()";
