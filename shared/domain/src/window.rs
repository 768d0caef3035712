//! Window aggregates: counts, sums and a sketch per window and key, of exactly the events that were
//! added.

use std::collections::BTreeMap;

use crate::{
    event::{Event, Fact, LakeAccess, Outcome, WarehouseQuery},
    sketch::Sketch,
};

/// The key of a window aggregate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowKey {
    /// Bucket or warehouse.
    pub name: String,
    /// Start of the window, in seconds since 1970.
    pub start_s: i64,
    /// Length of the window, in seconds.
    pub length_s: u32,
    /// Code of the operation or of the kind of statement.
    pub action: u8,
    /// How the requests ended.
    pub outcome: Outcome,
}

/// What happened in a window, without what was withdrawn. What some of the events add is negative
/// where they take back more than they bring; of all events of a window it never is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSums {
    /// Number of events.
    pub events: i64,
    /// Bytes transferred (lake) or scanned (warehouse).
    pub bytes: i128,
    /// Rows processed; 0 in the lake.
    pub rows: i128,
    /// Sum of durations (lake) or of response times (warehouse), in microseconds.
    pub duration_us: i128,
    /// Queries answered from a cache; 0 in the lake.
    pub cache_hits: i64,
    /// Durations or response times, in microseconds.
    pub sketch: Sketch,
}

impl WindowSums {
    /// Adds the sums of another window to this one.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.rows += other.rows;
        self.duration_us += other.duration_us;
        self.cache_hits += other.cache_hits;
        self.sketch.merge(&other.sketch);
    }
}

type Slot = (i64, u32, u8, Outcome);

/// The window aggregates of some events. The order of the events does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(BTreeMap<String, BTreeMap<Slot, WindowSums>>);

/// What one event adds to each of its windows.
struct Contribution<'a> {
    name: &'a str,
    action: u8,
    outcome: Outcome,
    bytes: u64,
    rows: u64,
    duration_us: u64,
    cache_hit: bool,
    /// 1, or −1 where the event takes back what another added.
    times: i64,
}

/// `None`: the event adds to no window.
fn contribution(event: &Event) -> Option<Contribution<'_>> {
    match &event.fact {
        Fact::LakeAccess(access) => Some(of_access(access, 1)),
        Fact::LakeAccessWithdrawn(withdrawn) => Some(of_access(&withdrawn.access, -1)),
        Fact::LakeInventory(_) | Fact::LakeAccessRestored(_) => None,
        Fact::WarehouseQuery(query) => Some(of_query(query, 1)),
        Fact::WarehouseQueryWithdrawn(withdrawn) => Some(of_query(&withdrawn.query, -1)),
    }
}

fn of_access(access: &LakeAccess, times: i64) -> Contribution<'_> {
    Contribution {
        name: &access.bucket,
        action: access.operation.code(),
        outcome: access.outcome,
        bytes: access.bytes,
        rows: 0,
        duration_us: access.duration_us,
        cache_hit: false,
        times,
    }
}

fn of_query(query: &WarehouseQuery, times: i64) -> Contribution<'_> {
    Contribution {
        name: &query.warehouse,
        action: query.statement.code(),
        outcome: query.outcome,
        bytes: query.bytes_scanned,
        rows: query.rows_processed,
        duration_us: query.response_us(),
        cache_hit: query.cache_hit,
        times,
    }
}

impl Windows {
    /// Adds an event to its window of each length, in seconds, or takes back what it withdraws. An
    /// inventory adds to no window.
    pub fn add(&mut self, lengths_s: &[u32], event: &Event) {
        let Some(part) = contribution(event) else { return };
        if !self.0.contains_key(part.name) {
            self.0.insert(part.name.to_owned(), BTreeMap::new());
        }
        let Some(slots) = self.0.get_mut(part.name) else { return };
        for length_s in lengths_s {
            let start_s = event.occurred_at.slot(i64::from(*length_s));
            let sums = slots.entry((start_s, *length_s, part.action, part.outcome)).or_default();
            let times = i128::from(part.times);
            sums.events += part.times;
            sums.bytes += times * i128::from(part.bytes);
            sums.rows += times * i128::from(part.rows);
            sums.duration_us += times * i128::from(part.duration_us);
            sums.cache_hits += part.times * i64::from(part.cache_hit);
            sums.sketch.record(part.duration_us, part.times);
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Every window once, ascending by key.
impl IntoIterator for Windows {
    type Item = (WindowKey, WindowSums);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.0.into_iter().flat_map(|(name, slots)| {
            slots.into_iter().map(move |((start_s, length_s, action, outcome), sums)| {
                (WindowKey { name: name.clone(), start_s, length_s, action, outcome }, sums)
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Statement,
        test_util::{access, at, inventory, query, withdrawn},
    };

    #[test]
    fn an_event_stands_in_one_window_of_each_length_by_its_own_time() {
        let mut windows = Windows::default();
        windows.add(&[10, 60], &query(1, at(69), 500, 7));
        windows.add(&[10, 60], &query(2, at(60), 300, 1));
        let all: Vec<_> = windows
            .into_iter()
            .map(|(key, sums)| {
                (key.start_s, key.length_s, sums.events, sums.rows, sums.duration_us)
            })
            .collect();
        assert_eq!(all, [(60, 10, 2, 8, 800), (60, 60, 2, 8, 800)]);
    }

    #[test]
    fn a_withdrawal_takes_back_what_its_event_added_also_where_another_added_it() {
        for (stays, goes) in [
            (access(1, at(60)), access(2, at(61))),
            (query(1, at(60), 5, 1), query(2, at(61), 9, 7)),
        ] {
            let mut expected = Windows::default();
            expected.add(&[10, 60], &stays);
            let mut windows = expected.clone();
            windows.add(&[10, 60], &goes);
            windows.add(&[10, 60], &withdrawn(&goes));
            assert_eq!(windows, expected);

            let (mut there, mut here) = (Windows::default(), Windows::default());
            there.add(&[10], &goes);
            here.add(&[10], &withdrawn(&goes));
            let (_, mut sums) = there.into_iter().next().unwrap();
            sums.merge(&here.into_iter().next().unwrap().1);
            assert_eq!(sums, WindowSums::default());
        }
    }

    #[test]
    fn windows_do_not_depend_on_the_order_of_events_or_on_how_they_are_split() {
        let events: Vec<_> = (0..50).map(|n| access(n, at(i64::try_from(n).unwrap()))).collect();
        let mut forward = Windows::default();
        events.iter().for_each(|event| forward.add(&[10, 60], event));
        let mut backward = Windows::default();
        events.iter().rev().for_each(|event| backward.add(&[10, 60], event));
        assert_eq!(forward, backward);

        let mut merged = BTreeMap::new();
        for half in events.chunks(25) {
            let mut windows = Windows::default();
            half.iter().for_each(|event| windows.add(&[10, 60], event));
            for (key, sums) in windows {
                merged.entry(key).or_insert_with(WindowSums::default).merge(&sums);
            }
        }
        assert_eq!(merged, forward.into_iter().collect());
    }

    #[test]
    fn every_sum_of_a_window_adds_up() {
        let (mut windows, mut merged) = (Windows::default(), WindowSums::default());
        for number in 1..4 {
            let mut event = query(number, at(61), 1_000, 10 * number);
            let Fact::WarehouseQuery(query) = &mut event.fact else { unreachable!() };
            (query.queued_us, query.bytes_scanned, query.cache_hit) = (7, 100 * number, number > 1);
            windows.add(&[60], &event);
            let mut one = Windows::default();
            one.add(&[60], &event);
            let (key, sums) = one.into_iter().next().unwrap();
            assert_eq!((key.name.as_str(), key.start_s, key.length_s), ("etl", 60, 60));
            assert_eq!((key.action, key.outcome), (Statement::Select.code(), Outcome::Ok));
            merged.merge(&sums);
        }
        let (_, sums) = windows.into_iter().next().unwrap();
        assert_eq!((sums.events, sums.bytes, sums.rows), (3, 600, 60));
        assert_eq!((sums.duration_us, sums.cache_hits), (3_021, 2));
        assert_eq!(sums.sketch.iter().map(|(_, count)| count).sum::<i64>(), 3);
        assert_eq!(merged, sums);
    }

    #[test]
    fn an_access_adds_its_bytes_and_duration_to_the_windows_of_its_bucket() {
        let mut windows = Windows::default();
        windows.add(&[10], &access(1, at(19)));
        assert!(!windows.is_empty());
        let (key, sums) = windows.into_iter().next().unwrap();
        assert_eq!((key.name.as_str(), key.start_s, key.action), ("raw", 10, 0));
        assert_eq!((sums.events, sums.bytes, sums.rows), (1, 1, 0));
        assert_eq!((sums.duration_us, sums.cache_hits), (1_000, 0));
    }

    #[test]
    fn an_inventory_is_in_no_window() {
        let mut windows = Windows::default();
        windows.add(&[10], &inventory(1, at(5), 10));
        assert!(windows.is_empty());
    }
}
