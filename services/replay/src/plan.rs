//! Which events are replayed, and when. Pure.

use std::{collections::BTreeSet, fmt, str::FromStr};

use domain::{
    Event, Fact, LakeAccessRestored, LakeAccessWithdrawn, Side, Stream, Timestamp,
    WarehouseQueryWithdrawn, time::MICROS_PER_SECOND,
};

/// Kinds of events; what corrects an event is of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// Requests to the lake.
    Access,
    /// Inventories of buckets.
    Inventory,
    /// Queries.
    Query,
}

impl EventKind {
    /// Every kind with its name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("access", Self::Access), ("inventory", Self::Inventory), ("query", Self::Query)];

    const fn of(fact: &Fact) -> Self {
        match fact {
            Fact::LakeAccess(_) | Fact::LakeAccessWithdrawn(_) | Fact::LakeAccessRestored(_) => {
                Self::Access
            }
            Fact::LakeInventory(_) => Self::Inventory,
            Fact::WarehouseQuery(_) | Fact::WarehouseQueryWithdrawn(_) => Self::Query,
        }
    }

    const fn side(self) -> Side {
        match self {
            Self::Access | Self::Inventory => Side::Lake,
            Self::Query => Side::Warehouse,
        }
    }
}

/// Which events are replayed. The values of one field are alternatives; an empty field matches
/// every event. All fields must match. Buckets and warehouses are one field in this respect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Events of this time or later.
    pub since: Option<Timestamp>,
    /// Events before this time.
    pub until: Option<Timestamp>,
    /// Events of these kinds.
    pub kinds: BTreeSet<EventKind>,
    /// Requests and inventories of these buckets.
    pub buckets: BTreeSet<String>,
    /// Queries of these warehouses.
    pub warehouses: BTreeSet<String>,
    /// Events of these sources.
    pub sources: BTreeSet<String>,
    /// Events of these streams.
    pub streams: BTreeSet<Stream>,
}

impl Filter {
    /// Whether any event of a stream may be replayed.
    pub fn takes_stream(&self, stream: Stream) -> bool {
        (self.streams.is_empty() || self.streams.contains(&stream))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.side() == stream.side))
    }

    /// Whether an event of one of the streams is replayed. Its source is checked elsewhere.
    pub fn takes(&self, event: &Event) -> bool {
        let at = event.occurred_at;
        self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
            && (self.kinds.is_empty() || self.kinds.contains(&EventKind::of(&event.fact)))
            && self.takes_name(&event.fact)
    }

    fn takes_name(&self, fact: &Fact) -> bool {
        if self.buckets.is_empty() && self.warehouses.is_empty() {
            return true;
        }
        match fact {
            Fact::LakeAccess(access)
            | Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access, .. })
            | Fact::LakeAccessRestored(LakeAccessRestored { access, .. }) => {
                self.buckets.contains(&access.bucket)
            }
            Fact::LakeInventory(inventory) => self.buckets.contains(&inventory.bucket),
            Fact::WarehouseQuery(query)
            | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { query, .. }) => {
                self.warehouses.contains(&query.warehouse)
            }
        }
    }
}

/// Formats the filter. The same filter gives the same text, so that a run that is continued can be
/// distinguished from another one.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.since.map(|since| format!("since {}", since.0)));
        parts.extend(self.until.map(|until| format!("until {}", until.0)));
        parts.extend(self.kinds.iter().map(|kind| format!("kind {kind:?}")));
        parts.extend(self.buckets.iter().map(|name| format!("bucket {name:?}")));
        parts.extend(self.warehouses.iter().map(|name| format!("warehouse {name:?}")));
        parts.extend(self.sources.iter().map(|name| format!("source {name:?}")));
        parts.extend(self.streams.iter().map(|stream| format!("stream {stream}")));
        if parts.is_empty() { f.write_str("everything") } else { f.write_str(&parts.join(", ")) }
    }
}

/// How fast events follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As many times as fast as they happened.
    Times(u32),
    /// As fast as they can be published.
    Max,
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').and_then(|times| times.parse().ok());
        times
            .filter(|times| *times > 0)
            .map(Self::Times)
            .ok_or("must be max, or a whole number of times like 1x or 10x")
    }
}

/// Longest time between two events, in seconds of event time. A longer gap is shortened to this,
/// because nobody wants to wait through a quiet night.
pub const GAP_S_MAX: i64 = 60;
/// Events that are due within this many microseconds are published together, as live producers pack
/// them.
const TICK_US: i64 = 20_000;

/// Computes when an event is due. Time is an argument, in microseconds of a clock that never moves
/// back.
#[derive(Debug)]
pub struct Pacer {
    speed: Speed,
    started_us: i64,
    /// The latest time of an event so far; `None` before the first.
    newest: Option<Timestamp>,
    /// Event time that passed since the first event, without the cut parts of gaps.
    passed_us: i64,
}

impl Pacer {
    /// A schedule before the first event.
    pub const fn new(speed: Speed) -> Self {
        Self { speed, started_us: 0, newest: None, passed_us: 0 }
    }

    /// When an event of this time is due. An event that is earlier than its predecessor is due at
    /// the same moment, because the order is that of counting.
    pub fn due_us(&mut self, at: Timestamp, now_us: i64) -> i64 {
        let Speed::Times(times) = self.speed else { return now_us };
        match self.newest {
            None => {
                self.started_us = now_us;
                self.newest = Some(at);
            }
            Some(newest) if at > newest => {
                let gap_us = at.0.saturating_sub(newest.0);
                self.passed_us += gap_us.min(GAP_S_MAX * MICROS_PER_SECOND);
                self.newest = Some(at);
            }
            Some(_) => {}
        }
        let passed_us = self.passed_us / i64::from(times);
        let ticks = passed_us / TICK_US + i64::from(passed_us % TICK_US > 0);
        self.started_us.saturating_add(ticks * TICK_US)
    }
}

#[cfg(test)]
mod tests {
    use domain::{EventId, LakeAccess, LakeInventory, WarehouseQuery};

    use super::*;

    fn access(second: i64, bucket: &str) -> Event {
        let access = LakeAccess { bucket: bucket.to_owned(), ..test_support::lake_access() };
        let occurred_at = Timestamp(second * MICROS_PER_SECOND);
        Event { id: EventId::from_bytes([0; 16]), occurred_at, fact: Fact::LakeAccess(access) }
    }

    fn inventory(bucket: &str) -> Event {
        let fact = LakeInventory { bucket: bucket.to_owned(), objects: 1, bytes: 1 };
        Event { fact: Fact::LakeInventory(fact), ..access(5, bucket) }
    }

    #[test]
    fn filters_of_one_kind_are_alternatives_and_all_must_hold() {
        let at = |second: i64| Some(Timestamp(second * MICROS_PER_SECOND));
        let everything = Filter::default();
        assert!(everything.takes(&access(1, "a")) && everything.takes_stream(Stream::lake(7)));
        let filter = Filter {
            since: at(5),
            until: at(7),
            kinds: [EventKind::Access].into(),
            buckets: ["a".to_owned(), "b".to_owned()].into(),
            ..Filter::default()
        };
        let taken: Vec<bool> =
            [access(5, "a"), access(6, "b"), access(4, "a"), access(7, "a"), access(5, "c")]
                .iter()
                .map(|event| filter.takes(event))
                .collect();
        assert_eq!(taken, [true, true, false, false, false]);
        assert!(!filter.takes(&inventory("a")));
        assert!(filter.takes_stream(Stream::lake(0)) && !filter.takes_stream(Stream::warehouse(0)));
        assert_ne!(filter.to_string(), everything.to_string());
    }

    fn query(warehouse: &str) -> Event {
        let query =
            WarehouseQuery { warehouse: warehouse.to_owned(), ..test_support::warehouse_query() };
        let fact = Fact::WarehouseQuery(query);
        Event { fact, ..access(5, "a") }
    }

    #[test]
    fn names_of_buckets_and_of_warehouses_are_one_kind() {
        let buckets = Filter { buckets: ["a".to_owned()].into(), ..Filter::default() };
        let warehouses = Filter { warehouses: ["a".to_owned()].into(), ..Filter::default() };
        let events = [access(5, "a"), inventory("a"), query("a"), query("b")];
        assert_eq!(events.each_ref().map(|event| buckets.takes(event)), [true, true, false, false]);
        let taken = events.each_ref().map(|event| warehouses.takes(event));
        assert_eq!(taken, [false, false, true, false]);
        let both = Filter { buckets: buckets.buckets, ..warehouses };
        assert_eq!(events.each_ref().map(|event| both.takes(event)), [true, true, true, false]);
    }

    #[test]
    fn each_kind_is_that_of_its_events_and_is_in_the_streams_of_its_side() {
        let events = [access(5, "a"), inventory("a"), query("a")];
        for (place, (_, kind)) in EventKind::NAMES.into_iter().enumerate() {
            let filter = Filter { kinds: [kind].into(), ..Filter::default() };
            for (other, event) in events.iter().enumerate() {
                assert_eq!(filter.takes(event), place == other, "{kind:?} of {event:?}");
            }
            let is_query = kind == EventKind::Query;
            assert_eq!(filter.takes_stream(Stream::warehouse(0)), is_query, "{kind:?}");
            assert_eq!(filter.takes_stream(Stream::lake(0)), !is_query, "{kind:?}");
        }
    }

    #[test]
    fn a_stream_is_replayed_if_it_is_named_and_has_events_of_a_kind_asked_for() {
        let filter = Filter {
            streams: [Stream::lake(1), Stream::warehouse(1)].into(),
            kinds: [EventKind::Query].into(),
            ..Filter::default()
        };
        assert!(filter.takes_stream(Stream::warehouse(1)));
        for other in [Stream::warehouse(0), Stream::lake(1), Stream::lake(0)] {
            assert!(!filter.takes_stream(other), "{other}");
        }
    }

    #[test]
    fn a_filter_says_all_that_it_asks_for() {
        assert_eq!(Filter::default().to_string(), "everything");
        let filter = Filter {
            since: Some(Timestamp(5)),
            until: Some(Timestamp(7)),
            kinds: [EventKind::Query, EventKind::Access].into(),
            buckets: ["b, c".to_owned()].into(),
            warehouses: ["etl".to_owned()].into(),
            sources: ["spark".to_owned()].into(),
            streams: [Stream::lake(0)].into(),
        };
        assert_eq!(
            filter.to_string(),
            "since 5, until 7, kind Access, kind Query, bucket \"b, c\", warehouse \"etl\", \
             source \"spark\", stream LAKE_0"
        );
    }

    #[test]
    fn events_leave_together_at_the_end_of_the_twenty_milliseconds_that_hold_them() {
        let mut pacer = Pacer::new(Speed::Times(1));
        let due = [0, 1, 20_000, 20_001, 40_000, 50_000].map(|us| pacer.due_us(Timestamp(us), 0));
        assert_eq!(due, [0, 20_000, 20_000, 40_000, 40_000, 60_000]);
    }

    #[test]
    fn a_speed_is_a_whole_number_of_times_or_the_most() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("10x".parse(), Ok(Speed::Times(10)));
        for wrong in ["", "x", "0x", "10", "1.5x", "-1x", "MAX"] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_are_as_far_apart_as_they_were_at_the_speed_asked_for() {
        let due = |speed, seconds: &[i64]| -> Vec<i64> {
            let mut pacer = Pacer::new(speed);
            let at = |second: &i64| Timestamp(*second * MICROS_PER_SECOND);
            seconds.iter().map(|second| pacer.due_us(at(second), 7) - 7).collect()
        };
        assert_eq!(due(Speed::Max, &[100, 200]), [0, 0]);
        assert_eq!(due(Speed::Times(1), &[100, 101, 103]), [0, 1_000_000, 3_000_000]);
        assert_eq!(due(Speed::Times(10), &[100, 101, 103]), [0, 100_000, 300_000]);
        // A late event is due when it was counted.
        assert_eq!(
            due(Speed::Times(1), &[100, 102, 90, 103]),
            [0, 2_000_000, 2_000_000, 3_000_000]
        );
        // A night takes a minute.
        assert_eq!(due(Speed::Times(1), &[0, 36_000, 36_001]), [0, 60_000_000, 61_000_000]);
    }
}
