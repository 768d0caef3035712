//! Window aggregates: what a transaction adds to them.
//!
//! Counts and sums are added by the server. Sketches are read, merged here and written back: a
//! thousand of them merge in a millisecond here, and in a hundred in SQL. A lock that everyone takes
//! who adds to the windows of a side, held to the end of the transaction, keeps what was read true;
//! the revision is compared all the same.

use domain::{Side, Sketch, WindowKey, WindowSums, Windows};
use sqlx::{PgConnection, Postgres, Row, postgres::PgArguments, query::Query};

use crate::{
    error::{Doing, StoreError},
    pg::Timestamptz,
    rows::{bigint, integer},
};

/// First half of the key of the locks; the second is the side.
const LOCK_CLASS: i32 = 0x6c61_7769;

/// Windows in the order of their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct WindowRows(Vec<(WindowKey, WindowSums)>);

impl WindowRows {
    pub(crate) fn new(windows: Windows) -> Self {
        Self(windows.into_iter().collect())
    }
}

/// Adds to the windows of a side, inside of the caller's transaction and late in it: others who add
/// to windows wait from here on until its end.
pub(crate) async fn add(
    connection: &mut PgConnection,
    side: Side,
    windows: &WindowRows,
) -> Result<(), StoreError> {
    if windows.0.is_empty() {
        return Ok(());
    }
    lock(connection, side).await?;
    let keys = Keys::of(windows);
    let known = read(connection, side, &keys).await?;
    let (revisions, sketches) = merge(windows, known);
    let sums = |value: fn(&WindowSums) -> i64| -> Vec<i64> {
        windows.0.iter().map(|(_, sums)| value(sums)).collect()
    };
    // Sums have up to 128 bits; they travel as text.
    let wide = |value: fn(&WindowSums) -> u128| -> Vec<String> {
        windows.0.iter().map(|(_, sums)| value(sums).to_string()).collect()
    };
    let query = keys
        .bind(match side {
            Side::Lake => sqlx::query(LAKE),
            Side::Warehouse => sqlx::query(WAREHOUSE),
        })
        .bind(sums(|sums| bigint(sums.events)))
        .bind(wide(|sums| sums.bytes))
        .bind(wide(|sums| sums.duration_us))
        .bind(sketches.from)
        .bind(sketches.to)
        .bind(sketches.buckets)
        .bind(sketches.counts)
        .bind(revisions);
    let query = match side {
        Side::Lake => query,
        Side::Warehouse => {
            query.bind(wide(|sums| sums.rows)).bind(sums(|sums| bigint(sums.cache_hits)))
        }
    };
    let done = query.execute(connection).await.doing("adding to the windows")?;
    let expected = u64::try_from(windows.0.len()).expect("a length fits into 64 bits");
    if done.rows_affected() != expected {
        return Err(StoreError::Inconsistent(format!(
            "added to {} windows instead of {expected}: somebody changes them without the lock",
            done.rows_affected()
        )));
    }
    Ok(())
}

async fn lock(connection: &mut PgConnection, side: Side) -> Result<(), StoreError> {
    sqlx::query("select pg_advisory_xact_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(match side {
            Side::Lake => 0_i32,
            Side::Warehouse => 1,
        })
        .execute(connection)
        .await
        .doing("taking the lock of the windows")
        .map(|_| ())
}

/// The keys of windows as columns.
#[derive(Default)]
struct Keys {
    starts: Vec<Timestamptz>,
    lengths_s: Vec<i32>,
    names: Vec<String>,
    actions: Vec<i16>,
    outcomes: Vec<i16>,
}

impl Keys {
    fn of(windows: &WindowRows) -> Self {
        let mut keys = Self::default();
        for (key, _) in &windows.0 {
            keys.starts.push(Timestamptz(key.start_s.saturating_mul(1_000_000)));
            keys.lengths_s.push(integer(key.length_s));
            keys.names.push(key.name.clone());
            keys.actions.push(i16::from(key.action));
            keys.outcomes.push(i16::from(key.outcome.code()));
        }
        keys
    }

    fn bind(
        &self,
        query: Query<'static, Postgres, PgArguments>,
    ) -> Query<'static, Postgres, PgArguments> {
        query
            .bind(&self.starts)
            .bind(&self.lengths_s)
            .bind(&self.names)
            .bind(&self.actions)
            .bind(&self.outcomes)
    }
}

/// A window that is in the archive already.
#[derive(Clone, Debug, Default)]
struct Known {
    revision: i64,
    buckets: Vec<i32>,
    counts: Vec<i64>,
}

/// What is known of each window, in the order of the keys.
async fn read(
    connection: &mut PgConnection,
    side: Side,
    keys: &Keys,
) -> Result<Vec<Known>, StoreError> {
    let doing = "reading the windows";
    let query = keys.bind(match side {
        Side::Lake => sqlx::query(KNOWN_LAKE),
        Side::Warehouse => sqlx::query(KNOWN_WAREHOUSE),
    });
    let mut all = vec![Known::default(); keys.starts.len()];
    for row in query.fetch_all(connection).await.doing(doing)? {
        let place: i64 = row.try_get(0).doing(doing)?;
        let place = usize::try_from(place - 1).ok().and_then(|place| all.get_mut(place));
        if let Some(known) = place {
            *known = Known {
                revision: row.try_get(1).doing(doing)?,
                buckets: row.try_get(2).doing(doing)?,
                counts: row.try_get(3).doing(doing)?,
            };
        }
    }
    Ok(all)
}

/// Sketches one after another, and from where to where each goes, counted from 1.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sketches {
    from: Vec<i32>,
    to: Vec<i32>,
    buckets: Vec<i32>,
    counts: Vec<i64>,
}

/// The revisions that the windows will have, and their sketches.
fn merge(windows: &WindowRows, known: Vec<Known>) -> (Vec<i64>, Sketches) {
    let mut sketches = Sketches::default();
    let mut revisions = Vec::with_capacity(known.len());
    for ((_, sums), known) in windows.0.iter().zip(known) {
        revisions.push(known.revision + 1);
        sketches.push(&known, &sums.sketch);
    }
    (revisions, sketches)
}

impl Sketches {
    fn push(&mut self, known: &Known, added: &Sketch) {
        self.from.push(place(self.buckets.len() + 1));
        let mut old = known.buckets.iter().copied().zip(known.counts.iter().copied()).peekable();
        for (bucket, count) in added.iter() {
            let (bucket, mut count) = (integer(bucket), bigint(count));
            while let Some((below, counted)) = old.next_if(|(before, _)| *before < bucket) {
                self.entry(below, counted);
            }
            if let Some((_, counted)) = old.next_if(|(same, _)| *same == bucket) {
                count += counted;
            }
            self.entry(bucket, count);
        }
        for (bucket, count) in old {
            self.entry(bucket, count);
        }
        self.to.push(place(self.buckets.len()));
    }

    fn entry(&mut self, bucket: i32, count: i64) {
        self.buckets.push(bucket);
        self.counts.push(count);
    }
}

/// A place in an array; a transaction has far fewer than 2^31 entries.
fn place(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

const KNOWN_LAKE: &str = "
select part.place, known.revision, known.sketch_buckets, known.sketch_counts
from unnest($1::timestamptz[], $2::integer[], $3::text[], $4::smallint[], $5::smallint[])
    with ordinality as part (window_start, length_s, name, action, outcome, place)
join lakegauge.lake_window as known
    on known.window_start = part.window_start and known.length_s = part.length_s
    and known.bucket = part.name and known.operation = part.action
    and known.outcome = part.outcome";

const KNOWN_WAREHOUSE: &str = "
select part.place, known.revision, known.sketch_buckets, known.sketch_counts
from unnest($1::timestamptz[], $2::integer[], $3::text[], $4::smallint[], $5::smallint[])
    with ordinality as part (window_start, length_s, name, action, outcome, place)
join lakegauge.warehouse_window as known
    on known.window_start = part.window_start and known.length_s = part.length_s
    and known.warehouse = part.name and known.statement = part.action
    and known.outcome = part.outcome";

const LAKE: &str = "
insert into lakegauge.lake_window as known
    (window_start, length_s, bucket, operation, outcome, events, bytes, duration_us,
     sketch_buckets, sketch_counts, revision)
select window_start, length_s, name, action, outcome, events, bytes::numeric,
    duration_us::numeric, ($11::integer[])[sketch_from:sketch_to],
    ($12::bigint[])[sketch_from:sketch_to], revision
from unnest($1::timestamptz[], $2::integer[], $3::text[], $4::smallint[], $5::smallint[],
    $6::bigint[], $7::text[], $8::text[], $9::integer[], $10::integer[], $13::bigint[])
    as part (window_start, length_s, name, action, outcome, events, bytes, duration_us,
        sketch_from, sketch_to, revision)
on conflict (window_start, length_s, bucket, operation, outcome) do update set
    events = known.events + excluded.events,
    bytes = known.bytes + excluded.bytes,
    duration_us = known.duration_us + excluded.duration_us,
    sketch_buckets = excluded.sketch_buckets,
    sketch_counts = excluded.sketch_counts,
    revision = excluded.revision,
    changed_at = now()
where known.revision = excluded.revision - 1";

const WAREHOUSE: &str = "
insert into lakegauge.warehouse_window as known
    (window_start, length_s, warehouse, statement, outcome, events, bytes_scanned, response_us,
     sketch_buckets, sketch_counts, revision, rows_processed, cache_hits)
select window_start, length_s, name, action, outcome, events, bytes::numeric,
    duration_us::numeric, ($11::integer[])[sketch_from:sketch_to],
    ($12::bigint[])[sketch_from:sketch_to], revision, rows::numeric, cache_hits
from unnest($1::timestamptz[], $2::integer[], $3::text[], $4::smallint[], $5::smallint[],
    $6::bigint[], $7::text[], $8::text[], $9::integer[], $10::integer[], $13::bigint[],
    $14::text[], $15::bigint[])
    as part (window_start, length_s, name, action, outcome, events, bytes, duration_us,
        sketch_from, sketch_to, revision, rows, cache_hits)
on conflict (window_start, length_s, warehouse, statement, outcome) do update set
    events = known.events + excluded.events,
    bytes_scanned = known.bytes_scanned + excluded.bytes_scanned,
    response_us = known.response_us + excluded.response_us,
    rows_processed = known.rows_processed + excluded.rows_processed,
    cache_hits = known.cache_hits + excluded.cache_hits,
    sketch_buckets = excluded.sketch_buckets,
    sketch_counts = excluded.sketch_counts,
    revision = excluded.revision,
    changed_at = now()
where known.revision = excluded.revision - 1";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sums(values: &BTreeMap<u32, u64>) -> WindowSums {
        let sketch = values.iter().map(|(bucket, count)| (*bucket, *count)).collect();
        WindowSums { sketch, ..WindowSums::default() }
    }

    fn known(values: &BTreeMap<u32, u64>) -> Known {
        Known {
            revision: 4,
            buckets: values.keys().map(|bucket| integer(*bucket)).collect(),
            counts: values.values().map(|count| bigint(*count)).collect(),
        }
    }

    proptest! {
        #[test]
        fn sketches_are_merged_as_the_domain_merges_them(
            pairs in prop::collection::vec(
                (
                    prop::collection::btree_map(0_u32..40, 1_u64..9, 0..20),
                    prop::collection::btree_map(0_u32..40, 1_u64..9, 0..20),
                ),
                0..5,
            )
        ) {
            let key = WindowKey {
                name: String::new(), start_s: 0, length_s: 1, action: 0,
                outcome: domain::Outcome::Ok,
            };
            let rows = pairs.iter().map(|(_, added)| (key.clone(), sums(added))).collect();
            let before = pairs.iter().map(|(before, _)| known(before)).collect();
            let (revisions, sketches) = merge(&WindowRows(rows), before);
            prop_assert_eq!(revisions, vec![5; pairs.len()]);
            for (place, (before, added)) in pairs.iter().enumerate() {
                let from = usize::try_from(sketches.from[place]).unwrap() - 1;
                let to = usize::try_from(sketches.to[place]).unwrap();
                let mut expected = sums(before);
                expected.merge(&sums(added));
                let expected: Vec<(i32, i64)> = expected
                    .sketch
                    .iter()
                    .map(|(bucket, count)| (integer(bucket), bigint(count)))
                    .collect();
                let said: Vec<(i32, i64)> = sketches.buckets[from..to]
                    .iter()
                    .copied()
                    .zip(sketches.counts[from..to].iter().copied())
                    .collect();
                prop_assert_eq!(said, expected);
            }
        }
    }
}
