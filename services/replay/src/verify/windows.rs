//! Window aggregates, compared with the rows from which they were made, stream by stream and span
//! by span of event time. The archive stores which windows must exist: see `domain::ladder`.
//!
//! A span begins and ends where windows of every length do, so no window crosses its edge, and only
//! the windows of one span are in memory.

use std::collections::BTreeMap;

use domain::{Timestamp, WindowKey, WindowSums, Windows, time::MICROS_PER_SECOND};
use event_store::{ArchiveView, WindowRow};

use super::report::SideReport;
use crate::ReplayProgress;

/// How many rows a span should have: a few seconds of reading, and some ten megabytes of windows
/// even if every row has its own windows.
const SPAN_ROWS: u64 = 100_000;
/// Longest span, in seconds of event time, unless one window is longer. A long span passes an idle
/// archive quickly; the bound limits the memory when a busy day follows a quiet one.
const SPAN_S_MAX: i64 = 86_400;
/// Year 1: before every time that may be archived, and a time that PostgreSQL can express.
const EARLIEST: Timestamp = Timestamp(-62_135_596_800 * MICROS_PER_SECOND);

/// Compares every window of the view's stream with its rows, and adds the result.
pub(super) async fn verify(
    view: &mut ArchiveView,
    report: &mut SideReport,
    progress: &ReplayProgress,
) -> anyhow::Result<()> {
    let stream = view.stream();
    progress.begin(format!("adding up the windows of {stream}"), 0);
    let kept = view.kept_windows().await?;
    let lengths_s: Vec<u32> = kept.lengths().map(|(length_s, _)| length_s).collect();
    let dropped = view.dropped().await?;
    let mut spans = Spans::new(&lengths_s);
    let mut from = EARLIEST;
    while let Some(first) = view.first_at(from).await? {
        let (start, end) = spans.next(first);
        let mut rows = Windows::default();
        let count = view.rows_between(start, end, |event| rows.add(&lengths_s, event)).await?;
        let mut found = Vec::new();
        for length_s in &lengths_s {
            found.extend(view.windows_between(*length_s, start, end).await?);
        }
        let expected = rows.into_iter().filter(|(key, _)| kept.has(key));
        let compared = compare(&report.side, expected, found, &dropped);
        report.rows += count;
        report.windows_of_dropped_days += compared.dropped;
        report.windows += compared.windows;
        report.windows_differing += compared.differing;
        if report.difference.is_none() {
            report.difference = compared.first;
        }
        progress.add(count);
        spans.had(count);
        from = end;
    }
    report.windows_of_other_lengths += view.windows_of_other_lengths(&kept).await?;
    Ok(())
}

/// Computes the next span.
#[derive(Debug)]
struct Spans {
    /// A multiple of every length, in seconds.
    unit_s: i64,
    /// How many units the next span has.
    units: i64,
}

impl Spans {
    fn new(lengths_s: &[u32]) -> Self {
        let unit_s = lengths_s.iter().fold(1_i64, |unit_s, length_s| {
            let length_s = i64::from(*length_s).max(1);
            unit_s / common_divisor(unit_s, length_s) * length_s
        });
        Self { unit_s, units: 1 }
    }

    /// The span that holds a time, without the part before it.
    fn next(&self, first: Timestamp) -> (Timestamp, Timestamp) {
        let start_s = first.slot(self.unit_s);
        let at = |second: i64| Timestamp(second.saturating_mul(MICROS_PER_SECOND));
        (at(start_s), at(start_s.saturating_add(self.unit_s.saturating_mul(self.units))))
    }

    /// Makes the next span shorter after a span with many rows, and longer after one with few.
    fn had(&mut self, rows: u64) {
        if rows > SPAN_ROWS {
            self.units = (self.units / 2).max(1);
        } else if rows < SPAN_ROWS / 4 && self.unit_s * self.units * 2 <= SPAN_S_MAX {
            self.units *= 2;
        }
    }
}

const fn common_divisor(one: i64, other: i64) -> i64 {
    let (mut one, mut other) = (one, other);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// The windows of one span.
#[derive(Debug, Default, PartialEq, Eq)]
struct WindowComparison {
    /// Windows that either side has and that can be compared.
    windows: u64,
    /// Windows whose rows retention has dropped.
    dropped: u64,
    differing: u64,
    /// The first difference in the order of the keys.
    first: Option<String>,
}

type Times = (Timestamp, Timestamp);

fn compare(
    side: &str,
    rows: impl IntoIterator<Item = (WindowKey, WindowSums)>,
    kept: Vec<WindowRow>,
    dropped: &[Times],
) -> WindowComparison {
    let mut all: BTreeMap<WindowKey, (Option<WindowSums>, Option<WindowSums>)> = BTreeMap::new();
    for (key, sums) in rows {
        all.entry(key).or_default().0 = Some(sums);
    }
    for WindowRow { key, sums } in kept {
        all.entry(key).or_default().1 = Some(sums);
    }
    let mut compared = WindowComparison::default();
    for (key, (rows, kept)) in &all {
        if is_dropped(key, dropped) {
            compared.dropped += 1;
            continue;
        }
        compared.windows += 1;
        if rows != kept {
            compared.differing += 1;
            let said = || said(side, key, rows.as_ref(), kept.as_ref());
            compared.first.get_or_insert_with(said);
        }
    }
    compared
}

/// Whether a window reaches into times whose rows were dropped.
fn is_dropped(key: &WindowKey, dropped: &[Times]) -> bool {
    let at = |second: i64| Timestamp(second.saturating_mul(MICROS_PER_SECOND));
    let (start, end) = (at(key.start_s), at(key.start_s.saturating_add(key.length_s.into())));
    dropped.iter().any(|(from, to)| start < *to && end > *from)
}

fn said(
    side: &str,
    key: &WindowKey,
    rows: Option<&WindowSums>,
    kept: Option<&WindowSums>,
) -> String {
    let name = window_name(side, key);
    let (rows, kept) = match (rows, kept) {
        (None, _) => return format!("{name}: kept, but there is no row of it"),
        (_, None) => return format!("{name}: there are rows of it, but it is not kept"),
        (Some(rows), Some(kept)) => (rows, kept),
    };
    let of = |what: &str, kept: i128, rows: i128| {
        (kept != rows).then(|| format!("{name}: {what}: window {kept}, rows {rows}"))
    };
    of("events", kept.events.into(), rows.events.into())
        .or_else(|| of("bytes", kept.bytes, rows.bytes))
        .or_else(|| of("rows", kept.rows, rows.rows))
        .or_else(|| of("duration_us", kept.duration_us, rows.duration_us))
        .or_else(|| of("cache_hits", kept.cache_hits.into(), rows.cache_hits.into()))
        .unwrap_or_else(|| format!("{name}: its sketch is not that of the rows"))
}

fn window_name(side: &str, key: &WindowKey) -> String {
    let action = match side {
        "lake" => domain::Operation::from_code(key.action).map(domain::Operation::name),
        _ => domain::Statement::from_code(key.action).map(domain::Statement::name),
    };
    let start = Timestamp(key.start_s.saturating_mul(MICROS_PER_SECOND));
    let start = wire::json::format_second(start);
    format!(
        "{side} window of {} s from {}, {} {} {}",
        key.length_s,
        start.unwrap_or_else(|| key.start_s.to_string()),
        key.name,
        action.unwrap_or("?"),
        key.outcome.name()
    )
}

#[cfg(test)]
mod tests {
    use domain::{Outcome, Sketch};

    use super::*;

    fn key(start_s: i64) -> WindowKey {
        let name = "raw".to_owned();
        WindowKey { name, start_s, length_s: 10, action: 0, outcome: Outcome::Ok }
    }

    fn row(start_s: i64, events: i64, bucket: u32) -> WindowRow {
        let sketch: Sketch = [(bucket, events)].into_iter().collect();
        WindowRow { key: key(start_s), sums: WindowSums { events, sketch, ..Default::default() } }
    }

    fn first(rows: &[(i64, u64)], kept: Vec<WindowRow>) -> (u64, u64, Option<String>) {
        let mut windows = Windows::default();
        for (second, events) in rows {
            for _ in 0..*events {
                windows.add(&[10], &read(*second));
            }
        }
        let compared = compare("lake", windows, kept, &[]);
        (compared.windows, compared.differing, compared.first)
    }

    /// A read of no byte that took no time, so that only the count differs.
    fn read(second: i64) -> domain::Event {
        let fact = domain::Fact::LakeAccess(test_support::lake_access());
        let id = domain::EventId::from_bytes([0; 16]);
        domain::Event { id, occurred_at: Timestamp(second * MICROS_PER_SECOND), fact }
    }

    #[test]
    fn windows_of_exactly_the_rows_do_not_differ() {
        let kept = vec![row(0, 2, 0), row(10, 1, 0)];
        assert_eq!(first(&[(3, 2), (19, 1)], kept), (2, 0, None));
    }

    #[test]
    fn the_first_window_that_differs_is_named_with_what_differs_in_it() {
        let window = "lake window of 10 s from 1970-01-01T00:00:00Z, raw read ok: ";
        for (kept, words) in [
            (vec![row(0, 3, 0), row(10, 2, 0)], "events: window 3, rows 2"),
            (vec![row(0, 2, 1), row(10, 2, 0)], "its sketch is not that of the rows"),
            (vec![row(10, 1, 0)], "there are rows of it, but it is not kept"),
        ] {
            let (_, differing, said) = first(&[(3, 2), (19, 1)], kept);
            assert_eq!(said.unwrap(), format!("{window}{words}"));
            assert!(differing > 0);
        }
        let said = first(&[], vec![row(0, 1, 0)]).2.unwrap();
        assert_eq!(said, format!("{window}kept, but there is no row of it"));
    }

    #[test]
    fn each_sum_that_differs_is_named_and_an_action_by_its_side() {
        let window = "warehouse window of 10 s from 1970-01-01T00:00:00Z, raw select ok: ";
        let rows = WindowSums::default();
        for (kept, words) in [
            (WindowSums { bytes: 1, ..rows.clone() }, "bytes: window 1, rows 0"),
            (WindowSums { rows: 2, ..rows.clone() }, "rows: window 2, rows 0"),
            (WindowSums { duration_us: 3, ..rows.clone() }, "duration_us: window 3, rows 0"),
            (WindowSums { cache_hits: 4, ..rows.clone() }, "cache_hits: window 4, rows 0"),
        ] {
            let kept = vec![WindowRow { key: key(0), sums: kept }];
            let compared = compare("warehouse", [(key(0), rows.clone())], kept, &[]);
            assert_eq!(compared.first.unwrap(), format!("{window}{words}"));
        }
    }

    #[test]
    fn a_window_whose_rows_were_dropped_is_not_compared_and_the_next_one_is() {
        let kept = vec![row(0, 7, 0), row(10, 7, 0), row(20, 7, 0), row(30, 7, 0)];
        let at = |second: i64| Timestamp(second * MICROS_PER_SECOND);
        let compared = compare("lake", Windows::default(), kept, &[(at(10), at(30))]);
        assert_eq!((compared.windows, compared.dropped, compared.differing), (2, 2, 2));
    }

    #[test]
    fn no_window_crosses_the_edge_of_a_span_whatever_its_length() {
        for lengths_s in [&[10, 60, 3_600][..], &[7, 60], &[90_000], &[]] {
            let mut spans = Spans::new(lengths_s);
            let mut from = Timestamp(1_234_567_891);
            for rows in [0, 0, SPAN_ROWS * 9, SPAN_ROWS / 2, 0] {
                let (start, end) = spans.next(from);
                assert!(start <= from && from < end);
                for length_s in lengths_s {
                    let length_us = i64::from(*length_s) * MICROS_PER_SECOND;
                    assert_eq!((start.0 % length_us, end.0 % length_us), (0, 0));
                }
                spans.had(rows);
                from = end;
            }
        }
    }

    /// Start and length of the span that holds this second.
    fn span(spans: &Spans, second: i64) -> (i64, i64) {
        let (start, end) = spans.next(Timestamp(second * MICROS_PER_SECOND));
        (start.second(), end.second() - start.second())
    }

    #[test]
    fn the_windows_are_compared_from_year_one_on() {
        assert_eq!(wire::json::format_second(EARLIEST).as_deref(), Some("0001-01-01T00:00:00Z"));
    }

    #[test]
    fn the_first_span_is_the_shortest_that_every_length_divides() {
        for (lengths_s, start, length) in
            [(&[10, 60, 3_600][..], 3_600, 3_600), (&[4, 6], 4_992, 12), (&[7], 4_998, 7)]
        {
            assert_eq!(span(&Spans::new(lengths_s), 5_000), (start, length), "{lengths_s:?}");
        }
    }

    #[test]
    fn a_span_is_longer_after_few_rows_and_shorter_after_many_up_to_a_day() {
        let mut spans = Spans::new(&[2_700]);
        let mut units = |rows| {
            spans.had(rows);
            span(&spans, 0).1 / 2_700
        };
        assert_eq!(units(SPAN_ROWS + 1), 1, "there is none shorter");
        assert_eq!([units(0), units(SPAN_ROWS / 4 - 1)], [2, 4]);
        assert_eq!([units(SPAN_ROWS / 4), units(SPAN_ROWS)], [4, 4]);
        assert_eq!(units(SPAN_ROWS + 1), 2);
        assert_eq!([(); 5].map(|()| units(0)), [4, 8, 16, 32, 32], "a day has 32");
        let mut hours = Spans::new(&[3_600]);
        (0..9).for_each(|_| hours.had(0));
        assert_eq!(span(&hours, 0).1, 57_600, "twice as long would be more than a day");
    }
}
