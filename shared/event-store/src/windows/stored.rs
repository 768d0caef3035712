//! The stored form of a window: short if it contains little.
//!
//! A sketch is a list of pairs in one `integer[]`, ascending: the upper bits are the bucket, the
//! lower 19 its count. A larger count is split into several pairs of its bucket, which readers add
//! up. A window whose sketch is one pair stores none, because `bucket_max` and `events` contain the
//! same.

use domain::{Side, Sketch, Timestamp, WindowKey, WindowSums, time::MICROS_PER_SECOND};
use sqlx::{Row as _, postgres::PgRow};

use crate::{error::StoreError, rows::columns::read, statement::Doing};

/// Bits of a pair for the count; the other twelve are for the bucket, of which there are 3,840.
const COUNT_BITS: u32 = 19;
const COUNT_MAX: i64 = (1 << COUNT_BITS) - 1;

/// A window as the archive's view returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRow {
    /// The key.
    pub key: WindowKey,
    /// The contents.
    pub sums: WindowSums,
}

/// The table of the windows of a side, in the schema `lakegauge`.
pub(crate) const fn table(side: Side) -> &'static str {
    match side {
        Side::Lake => "lake_window",
        Side::Warehouse => "warehouse_window",
    }
}

/// A sum of a window, and its column in the table of a side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) column: &'static str,
    /// Its name in the columns of [`sums`].
    name: &'static str,
    pub(crate) of: fn(&WindowSums) -> i128,
}

const EVENTS: Sum = Sum { column: "events", name: "events", of: |sums| sums.events.into() };
const LAKE: &[Sum] = &[
    EVENTS,
    Sum { column: "bytes", name: "bytes", of: |sums| sums.bytes },
    Sum { column: "duration_us", name: "duration_us", of: |sums| sums.duration_us },
];
const WAREHOUSE: &[Sum] = &[
    EVENTS,
    Sum { column: "bytes_scanned", name: "bytes", of: |sums| sums.bytes },
    Sum { column: "response_us", name: "duration_us", of: |sums| sums.duration_us },
    Sum { column: "rows_processed", name: "rows", of: |sums| sums.rows },
    Sum { column: "cache_hits", name: "cache_hits", of: |sums| sums.cache_hits.into() },
];

/// The sums of the windows of a side; the others are 0.
pub(crate) const fn sums_of(side: Side) -> &'static [Sum] {
    match side {
        Side::Lake => LAKE,
        Side::Warehouse => WAREHOUSE,
    }
}

/// The columns of a window that [`sums`] reads, of a table with the alias `known`. Sums have up to
/// 128 bits, so they are transferred as text.
pub(crate) fn columns(side: Side) -> String {
    let mut columns = "known.bucket_max, known.sketch".to_owned();
    for Sum { name, .. } in WAREHOUSE {
        columns += &match sums_of(side).iter().find(|sum| sum.name == *name) {
            Some(Sum { column, .. }) => format!(", known.{column}::text as {name}"),
            None => format!(", '0' as {name}"),
        };
    }
    columns
}

/// A sketch in its stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredSketch {
    pub(crate) bucket_max: i16,
    /// `None` if it would be one pair.
    pub(crate) pairs: Option<Vec<i32>>,
}

pub(crate) fn pack(sketch: &Sketch) -> StoredSketch {
    let mut pairs = Vec::with_capacity(sketch.iter().len());
    let mut bucket_max = 0;
    // A window contains the added events without the withdrawn ones, which are never more.
    for (bucket, mut count) in sketch.iter().filter(|(_, count)| *count > 0) {
        bucket_max = bucket;
        while count > 0 {
            let part = count.min(COUNT_MAX);
            pairs.push(pair(bucket, part));
            count -= part;
        }
    }
    let bucket_max = i16::try_from(bucket_max).expect("there are 3,840 buckets");
    StoredSketch { bucket_max, pairs: (pairs.len() != 1).then_some(pairs) }
}

fn pair(bucket: u32, count: i64) -> i32 {
    let count = u32::try_from(count).expect("a part of a count has 19 bits");
    i32::try_from((bucket << COUNT_BITS) | count).expect("a bucket has twelve bits")
}

/// The sketch of a stored form.
fn unpack(bucket_max: i16, events: i64, pairs: Option<Vec<i32>>) -> Result<Sketch, String> {
    let bucket_max = u32::try_from(bucket_max).map_err(|_| "its bucket_max is below 0")?;
    let Some(pairs) = pairs else {
        return Ok([(bucket_max, events)].into_iter().collect());
    };
    let mut sketch = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let pair = u32::try_from(pair).map_err(|_| format!("its sketch has the pair {pair}"))?;
        let count = i64::from(pair) & COUNT_MAX;
        sketch.push((pair >> COUNT_BITS, count));
    }
    // All of its events were withdrawn, or its last pair is the largest.
    let ends_at = if events == 0 { 0 } else { u32::MAX };
    if sketch.last().map_or(ends_at, |(bucket, _)| *bucket) != bucket_max {
        return Err(format!("its bucket_max is {bucket_max}, but its sketch ends elsewhere"));
    }
    Ok(sketch.into_iter().collect())
}

/// The contents of a window.
pub(crate) fn sums(row: &PgRow) -> Result<WindowSums, String> {
    let text = |error: sqlx::Error| error.to_string();
    let wide = |column: &str| read::<i128>(row, column).map_err(text);
    let narrow = |column: &str| {
        let number = wide(column)?;
        i64::try_from(number).map_err(|_| format!("{column} is {number}"))
    };
    let events = narrow("events")?;
    let bucket_max = read(row, "bucket_max").map_err(text)?;
    let pairs: Option<Vec<i32>> = row.try_get("sketch").map_err(text)?;
    Ok(WindowSums {
        events,
        bytes: wide("bytes")?,
        rows: wide("rows")?,
        duration_us: wide("duration_us")?,
        cache_hits: narrow("cache_hits")?,
        sketch: unpack(bucket_max, events, pairs)?,
    })
}

/// A window with its key, from a row with the columns `window_start`, `name`, `action`, `outcome`.
pub(crate) fn window(row: &PgRow, length_s: u32) -> Result<WindowRow, StoreError> {
    let key = key(row, length_s).doing("reading the key of a window")?;
    let sums = sums(row).map_err(|what| {
        StoreError::Inconsistent(format!("the window {key:?} can't be read: {what}"))
    })?;
    Ok(WindowRow { key, sums })
}

fn key(row: &PgRow, length_s: u32) -> Result<WindowKey, sqlx::Error> {
    let start: Timestamp = read(row, "window_start")?;
    Ok(WindowKey {
        name: read(row, "name")?,
        start_s: start.0.div_euclid(MICROS_PER_SECOND),
        length_s,
        action: read(row, "action")?,
        outcome: read(row, "outcome")?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::sketch::bucket_of;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sketch_is_the_same_after_it_was_stored(
            counts in prop::collection::btree_map(0..=bucket_of(u64::MAX), 1..(4 * COUNT_MAX), 1..20)
        ) {
            let sketch: Sketch = counts.iter().map(|(bucket, count)| (*bucket, *count)).collect();
            let events: i64 = counts.values().sum();
            let StoredSketch { bucket_max, pairs } = pack(&sketch);
            prop_assert_eq!(unpack(bucket_max, events, pairs), Ok(sketch));
        }
    }

    #[test]
    fn one_value_is_stored_without_an_array_and_a_count_of_any_size_has_room() {
        let of = |counts: &[(u32, i64)]| pack(&counts.iter().copied().collect());
        assert_eq!(of(&[(3_839, COUNT_MAX)]), StoredSketch { bucket_max: 3_839, pairs: None });
        let two = of(&[(7, COUNT_MAX + 1)]);
        assert_eq!(two.pairs, Some(vec![pair(7, COUNT_MAX), pair(7, 1)]));
        let all = BTreeMap::from([(5, 2), (9, 1)]);
        let many = pack(&all.into_iter().collect());
        assert_eq!(of(&[]), StoredSketch { bucket_max: 0, pairs: Some(vec![]) });
        assert_eq!(unpack(0, 0, Some(vec![])), Ok(Sketch::default()), "all were withdrawn");
        assert_eq!(many, StoredSketch { bucket_max: 9, pairs: Some(vec![pair(5, 2), pair(9, 1)]) });
    }

    #[test]
    fn what_was_changed_by_hand_is_noticed() {
        assert!(unpack(-1, 1, None).is_err());
        assert!(unpack(5, 2, Some(vec![-1])).is_err());
        assert!(unpack(5, 2, Some(vec![])).is_err());
        assert!(unpack(5, 2, Some(vec![pair(4, 1), pair(6, 1)])).is_err());
    }
}
