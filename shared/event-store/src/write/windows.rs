//! Window aggregates: adds the events of a transaction.
//!
//! Each stream has its own windows, so streams of a side don't wait for each other. Within a stream
//! the archiver and `dead-letters retry` take turns by a lock of that stream, held to the end of
//! the transaction, so that windows that were read here are unchanged when they are written back.
//! Merging a thousand sketches takes a millisecond here, and a hundred in SQL.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Ladder, Side, WindowKey, WindowSums, Windows};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{
    error::StoreError,
    numbers::{count, integer},
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
    windows::{
        kept,
        stored::{StoredSketch, columns, pack, sums, sums_of, table},
    },
};

/// First half of the key of the locks; the second is the stream.
const LOCK_CLASS: i32 = 0x6c61_7769;

/// Windows, ordered by their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct WindowRows(Vec<(WindowKey, WindowSums)>);

impl WindowRows {
    pub(crate) fn new(windows: Windows) -> Self {
        Self(windows.into_iter().collect())
    }
}

/// The ladder that a stream follows from the broker's time of a batch on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Following<'a> {
    pub(crate) ladder: &'a Ladder,
    pub(crate) broker_ns: i64,
}

/// Adds to the windows of a stream that are kept, within the caller's transaction. With `None` it
/// follows the ladder that the archive already notes.
pub(crate) async fn add(
    connection: &mut PgConnection,
    stream: StreamId,
    following: Option<Following<'_>>,
    windows: &WindowRows,
) -> Result<(), StoreError> {
    let Some(side) = stream.side.filter(|_| !windows.0.is_empty()) else { return Ok(()) };
    lock(connection, stream).await?;
    let mut kept = kept::read(connection, stream).await?;
    if let Some(Following { ladder, broker_ns }) = following {
        kept::follow(connection, stream, &mut kept, ladder, broker_ns).await?;
    }
    let windows: Vec<&(WindowKey, WindowSums)> =
        windows.0.iter().filter(|(key, _)| kept.has(key)).collect();
    if windows.is_empty() {
        return Ok(());
    }
    let series = series(connection, stream, &windows).await?;
    let mut placed: Vec<(WindowPosition, &WindowSums)> = Vec::with_capacity(windows.len());
    for (key, sums) in windows {
        let series = *series.get(&of(key)).ok_or_else(|| {
            StoreError::Inconsistent(format!("the series of {key:?} was not stored"))
        })?;
        placed
            .push((WindowPosition { start_s: key.start_s, length_s: key.length_s, series }, sums));
    }
    // In the order of the index, so that its pages are filled one after the other.
    placed.sort_unstable_by_key(|(place, _)| *place);
    let merged = merge(connection, side, placed).await?;
    write(connection, side, &merged).await
}

/// Lets one transaction at a time change the windows of a stream.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    stream: StreamId,
) -> Result<(), StoreError> {
    sqlx::query("select pg_advisory_xact_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(i32::from(stream.id))
        .execute(connection)
        .await
        .doing("taking the lock of the windows")
        .map(|_| ())
}

/// The common part of the windows of one bucket or warehouse, operation and outcome.
type Series<'a> = (&'a str, i16, i16);

fn of(key: &WindowKey) -> Series<'_> {
    (&key.name, i16::from(key.action), i16::from(key.outcome.code()))
}

/// The numbers of the series of some windows; new series get one.
async fn series<'a>(
    connection: &mut PgConnection,
    stream: StreamId,
    windows: &[&'a (WindowKey, WindowSums)],
) -> Result<BTreeMap<Series<'a>, i32>, StoreError> {
    let all: BTreeSet<Series<'a>> = windows.iter().map(|(key, _)| of(key)).collect();
    let all: Vec<Series<'a>> = all.into_iter().collect();
    let doing = "naming the series of windows";
    let mut numbers = BTreeMap::new();
    // Known ones first: a statement that tried to insert them would use up numbers.
    for sql in [KNOWN_SERIES, NEW_SERIES, KNOWN_SERIES] {
        let missing: Vec<Series<'a>> =
            all.iter().copied().filter(|series| !numbers.contains_key(series)).collect();
        if missing.is_empty() {
            break;
        }
        let rows: Vec<(i64, i32)> = sqlx::query_as(sql)
            .bind(stream.id)
            .bind(missing.iter().map(|(name, _, _)| *name).collect::<Vec<&str>>())
            .bind(missing.iter().map(|(_, action, _)| *action).collect::<Vec<i16>>())
            .bind(missing.iter().map(|(_, _, outcome)| *outcome).collect::<Vec<i16>>())
            .fetch_all(&mut *connection)
            .await
            .doing(doing)?;
        for (place, number) in rows {
            let series = usize::try_from(place - 1).ok().and_then(|place| missing.get(place));
            numbers.extend(series.map(|series| (*series, number)));
        }
    }
    Ok(numbers)
}

/// The key of a window in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WindowPosition {
    start_s: i64,
    length_s: u32,
    series: i32,
}

fn bind_places(
    places: impl ExactSizeIterator<Item = WindowPosition>,
) -> (Vec<Timestamptz>, Vec<i32>, Vec<i32>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for place in places {
        columns.0.push(Timestamptz(place.start_s.saturating_mul(1_000_000)));
        columns.1.push(integer(place.length_s));
        columns.2.push(place.series);
    }
    columns
}

/// Each window's new contents: the archive's window with the additions.
async fn merge(
    connection: &mut PgConnection,
    side: Side,
    added: Vec<(WindowPosition, &WindowSums)>,
) -> Result<Vec<(WindowPosition, WindowSums)>, StoreError> {
    let doing = "reading the windows";
    let (starts, lengths_s, series) = bind_places(added.iter().map(|(place, _)| *place));
    let sql = format!(
        "select part.place, {} \
         from unnest($1::timestamptz[], $2::integer[], $3::integer[]) with ordinality \
             as part (window_start, length_s, series, place) \
         join lakegauge.{} as known on known.window_start = part.window_start \
             and known.length_s = part.length_s and known.series = part.series",
        columns(side),
        table(side)
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(starts)
        .bind(lengths_s)
        .bind(series)
        .fetch_all(connection)
        .await
        .doing(doing)?;
    let mut merged: Vec<(WindowPosition, WindowSums)> =
        added.into_iter().map(|(place, sums)| (place, sums.clone())).collect();
    for row in rows {
        let number: i64 = row.try_get("place").doing(doing)?;
        let window = usize::try_from(number - 1).ok().and_then(|number| merged.get_mut(number));
        if let Some((place, window)) = window {
            let known = sums(&row).map_err(|what| {
                StoreError::Inconsistent(format!("the window {place:?} can't be read: {what}"))
            })?;
            window.merge(&known);
        }
    }
    Ok(merged)
}

/// Sketches one after another, and from where to where each goes, counted from 1; `None`: no array.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sketches {
    bucket_max: Vec<i16>,
    from: Vec<Option<i32>>,
    to: Vec<Option<i32>>,
    pairs: Vec<i32>,
}

impl Sketches {
    fn push(&mut self, packed: StoredSketch) {
        self.bucket_max.push(packed.bucket_max);
        // A transaction has far fewer than 2^31 pairs.
        let place = |length: usize| Some(i32::try_from(length).unwrap_or(i32::MAX));
        let (from, to) = match packed.pairs {
            None => (None, None),
            Some(pairs) => {
                let from = place(self.pairs.len() + 1);
                self.pairs.extend(pairs);
                (from, place(self.pairs.len()))
            }
        };
        self.from.push(from);
        self.to.push(to);
    }
}

async fn write(
    connection: &mut PgConnection,
    side: Side,
    windows: &[(WindowPosition, WindowSums)],
) -> Result<(), StoreError> {
    let (starts, lengths_s, series) = bind_places(windows.iter().map(|(place, _)| *place));
    let mut sketches = Sketches::default();
    windows.iter().for_each(|(_, sums)| sketches.push(pack(&sums.sketch)));
    let mut query = sqlx::query(AssertSqlSafe(upsert(side)))
        .bind(sketches.pairs)
        .bind(starts)
        .bind(lengths_s)
        .bind(series)
        .bind(sketches.bucket_max)
        .bind(sketches.from)
        .bind(sketches.to);
    for sum in sums_of(side) {
        // Sums have up to 128 bits, so they are transferred as text.
        let texts: Vec<String> =
            windows.iter().map(|(_, sums)| (sum.of)(sums).to_string()).collect();
        query = query.bind(texts);
    }
    let done = query.execute(connection).await.doing("adding to the windows")?;
    let expected = count(windows.len());
    if done.rows_affected() != expected {
        return Err(StoreError::Inconsistent(format!(
            "wrote {} windows instead of {expected}",
            done.rows_affected()
        )));
    }
    Ok(())
}

const KNOWN_SERIES: &str = "
select part.place, series.id
from unnest($2::text[], $3::smallint[], $4::smallint[]) with ordinality
    as part (name, action, outcome, place)
join lakegauge.window_series as series
    on series.stream = $1 and series.name = part.name and series.action = part.action
    and series.outcome = part.outcome";

/// Returns no rows: PostgreSQL does not define the order of rows that an insert returns.
const NEW_SERIES: &str = "
with given as (
    insert into lakegauge.window_series (stream, name, action, outcome)
    select $1, part.* from unnest($2::text[], $3::smallint[], $4::smallint[]) as part
    returning id
)
select 0::bigint, id from given where false";

/// The statement that writes the new contents of windows: its parameters are the pairs of all
/// sketches, then an array for each column, the sums last.
fn upsert(side: Side) -> String {
    let sums = sums_of(side);
    let each =
        |part: fn(&str) -> String| -> String { sums.iter().map(|sum| part(sum.column)).collect() };
    let arrays: String = (8..8 + sums.len()).map(|number| format!(", ${number}::text[]")).collect();
    format!(
        "insert into lakegauge.{} (window_start, length_s, series, bucket_max, sketch{names}) \
         select window_start, length_s, series, bucket_max, \
             ($1::integer[])[sketch_from:sketch_to]{numbers} \
         from unnest($2::timestamptz[], $3::integer[], $4::integer[], $5::smallint[], \
             $6::integer[], $7::integer[]{arrays}) \
             as part (window_start, length_s, series, bucket_max, sketch_from, sketch_to{names}) \
         on conflict (window_start, length_s, series) do update set \
             bucket_max = excluded.bucket_max, sketch = excluded.sketch{updates}",
        table(side),
        names = each(|column| format!(", {column}")),
        numbers = each(|column| format!(", {column}::numeric")),
        updates = each(|column| format!(", {column} = excluded.{column}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketches_without_an_array_take_no_place_among_the_others() {
        let mut sketches = Sketches::default();
        for counts in [&[(1, 2), (3, 4)][..], &[(7, 1)], &[(5, 6), (8, 9)]] {
            sketches.push(pack(&counts.iter().copied().collect()));
        }
        assert_eq!(sketches.from, [Some(1), None, Some(3)]);
        assert_eq!(sketches.to, [Some(2), None, Some(4)]);
        assert_eq!((sketches.bucket_max, sketches.pairs.len()), (vec![3, 7, 8], 4));
    }

    #[test]
    fn each_sum_of_a_side_has_its_column_in_the_statement() {
        let sql = upsert(Side::Lake);
        for part in [
            "insert into lakegauge.lake_window (window_start, length_s, series, bucket_max, sketch, \
             events, bytes, duration_us) select",
            "($1::integer[])[sketch_from:sketch_to], events::numeric, bytes::numeric, \
             duration_us::numeric from unnest($2::timestamptz[]",
            "$7::integer[], $8::text[], $9::text[], $10::text[]) as part (",
            "sketch_to, events, bytes, duration_us) on conflict",
            "sketch = excluded.sketch, events = excluded.events, bytes = excluded.bytes, \
             duration_us = excluded.duration_us",
        ] {
            assert!(sql.contains(part), "{part}: {sql}");
        }
        assert_eq!(
            columns(Side::Lake),
            "known.bucket_max, known.sketch, known.events::text as events, known.bytes::text as \
             bytes, known.duration_us::text as duration_us, '0' as rows, '0' as cache_hits"
        );
    }
}
