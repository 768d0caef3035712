//! The laws of the fold, as properties.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use domain::{
    AppliedVerdict, Event, EventId, Fact, LakeAccess, LakeAccessRestored, LakeAccessWithdrawn,
    LakeInventory, Operation, Outcome, Rules, Run, SideMetrics, Statement, Stream, StreamState,
    Timestamp, WarehouseQuery, Windows,
    accept::QUANTITY_MAX,
    objects::{ObjectKey, Version},
    partition,
    state::Applied,
};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;
/// Late enough that the day before it is after 1970.
const START: i64 = 1_000_000 * SECOND;

fn id() -> impl Strategy<Value = EventId> {
    prop_oneof![
        (0_u64..3, 0_u64..40).prop_map(|(run, n)| EventId::sequenced(Run::new(run, 0), n)),
        (0_u8..40).prop_map(|n| EventId::from_bytes([n; 16])),
    ]
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..200 * SECOND).prop_map(|offset| Timestamp(START + offset))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![4 => Just(Outcome::Ok), 1 => Just(Outcome::ServerError)]
}

fn access() -> impl Strategy<Value = Fact> {
    let operation = proptest::sample::select(Operation::ALL);
    let sequencer = proptest::option::of("[0-9]{1,2}");
    (
        0_u8..3,
        0_u8..6,
        operation,
        0_u64..1_000,
        proptest::option::of(0_u64..1_000),
        sequencer,
        outcome(),
    )
        .prop_map(|(bucket, key, operation, bytes, object_bytes, sequencer, outcome)| {
            Fact::LakeAccess(LakeAccess {
                bucket: format!("bucket-{bucket}"),
                key: format!("key-{key}"),
                operation,
                bytes,
                object_bytes,
                sequencer,
                duration_us: bytes * 10,
                outcome,
                principal: "spark".to_owned(),
            })
        })
}

fn inventory() -> impl Strategy<Value = Fact> {
    (0_u8..3, 0_u64..5_000).prop_map(|(bucket, bytes)| {
        Fact::LakeInventory(LakeInventory { bucket: format!("bucket-{bucket}"), objects: 1, bytes })
    })
}

fn query() -> impl Strategy<Value = Fact> {
    (0_u8..3, 0_u64..100_000_000, 0_u64..1_000, any::<bool>(), outcome()).prop_map(
        |(warehouse, executed_us, rows, cache_hit, outcome)| {
            Fact::WarehouseQuery(WarehouseQuery {
                warehouse: format!("warehouse-{warehouse}"),
                database: "dw".to_owned(),
                statement: Statement::Select,
                queued_us: executed_us / 10,
                executed_us,
                rows_processed: rows,
                rows_returned: rows,
                bytes_scanned: rows * 8,
                cache_hit,
                outcome,
                principal: "bi".to_owned(),
                fingerprint: "f".to_owned(),
            })
        },
    )
}

/// Histories in which an identity always names the same fact, as sources guarantee.
fn history(fact: impl Strategy<Value = Fact>) -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec((id(), time(), fact), 0..120).prop_map(|events| {
        let mut known = BTreeMap::new();
        for (id, occurred_at, fact) in &events {
            known.entry(*id).or_insert_with(|| (*occurred_at, fact.clone()));
        }
        events
            .into_iter()
            .map(|(id, _, _)| {
                let (occurred_at, fact) = known[&id].clone();
                Event { id, occurred_at, fact }
            })
            .collect()
    })
}

fn fold(stream: Stream, rules: &Rules, events: &[Event]) -> StreamState {
    let mut state = StreamState::new(stream, rules.clone());
    for event in events {
        state.apply(event);
    }
    state
}

/// The metrics without the state that serves only to compare inventories with the past.
fn values(state: &StreamState) -> (domain::SampleValues, String) {
    let labelled = match state.metrics() {
        SideMetrics::Lake(lake) => {
            let buckets: Vec<_> = lake
                .buckets()
                .map(|(name, sums)| {
                    (name.to_owned(), sums.accesses.clone(), sums.transferred.clone())
                })
                .collect();
            format!("{buckets:?} {:?}", lake.objects)
        }
        SideMetrics::Warehouse(warehouse) => {
            let warehouses: Vec<_> = warehouse.warehouses().collect();
            format!("{warehouses:?} {:?}", warehouse.responses)
        }
    };
    (state.sample(), labelled)
}

/// Used space by definition: the latest successful change of each object decides.
fn used_by_definition(events: &[Event]) -> i128 {
    let mut latest = BTreeMap::new();
    for event in events {
        let Fact::LakeAccess(access) = &event.fact else { continue };
        if access.outcome != Outcome::Ok {
            continue;
        }
        let version = (event.occurred_at, access.sequencer.clone(), event.id);
        let bytes = match access.operation {
            Operation::Read | Operation::Head | Operation::List | Operation::Other => continue,
            Operation::Delete => 0,
            Operation::Write | Operation::Copy => access.object_bytes.unwrap_or(access.bytes),
        };
        let entry = latest
            .entry((access.bucket.clone(), access.key.clone()))
            .or_insert_with(|| (version.clone(), bytes));
        if version > entry.0 {
            *entry = (version, bytes);
        }
    }
    latest.values().map(|(_, bytes)| i128::from(*bytes)).sum()
}

/// Requests by operation and outcome.
type Accesses = BTreeMap<(Operation, Outcome), u64>;

/// The sums over several lake states, by names rather than by labels, because labels are given in
/// order of arrival.
#[derive(Debug, Default, PartialEq)]
struct Merged {
    accesses: u64,
    used_bytes: i128,
    by_bucket: BTreeMap<String, (Accesses, BTreeMap<Operation, u128>)>,
    objects: BTreeMap<ObjectKey, (Version, Option<u64>, String)>,
}

impl Merged {
    fn of<'a>(states: impl IntoIterator<Item = &'a StreamState>) -> Self {
        let mut merged = Self::default();
        for state in states {
            let SideMetrics::Lake(lake) = state.metrics() else { unreachable!() };
            merged.accesses += lake.accesses;
            merged.used_bytes += lake.used_bytes();
            for (name, sums) in lake.buckets() {
                let (accesses, transferred) = merged.by_bucket.entry(name.to_owned()).or_default();
                for (kind, count) in &sums.accesses {
                    *accesses.entry(*kind).or_default() += count;
                }
                for (operation, bytes) in &sums.transferred {
                    *transferred.entry(*operation).or_default() += bytes;
                }
            }
            let names: BTreeMap<u16, &String> =
                lake.labels.by_name().iter().map(|(name, label)| (*label, name)).collect();
            for (key, object) in lake.objects.kept() {
                let kept = (object.version.clone(), object.bytes, names[&object.label].clone());
                assert_eq!(merged.objects.insert(*key, kept), None, "an object of two partitions");
            }
        }
        merged
    }
}

proptest! {
    #[test]
    fn redelivering_a_history_changes_nothing(
        events in history(prop_oneof![4 => access(), 1 => inventory()]),
        from in 0_usize..120,
    ) {
        let rules = Rules::default();
        let once = fold(Stream::lake(0), &rules, &events);
        let again: Vec<_> =
            events.iter().chain(events.iter().skip(from)).cloned().collect();
        prop_assert_eq!(fold(Stream::lake(0), &rules, &again), once);
    }

    #[test]
    fn the_order_of_lake_events_does_not_matter_below_the_bounds(
        events in history(access()),
        seed: u64,
    ) {
        let rules = Rules::default();
        let shuffled = shuffle(&events, seed);
        prop_assert_eq!(
            values(&fold(Stream::lake(0), &rules, &events)).0,
            values(&fold(Stream::lake(0), &rules, &shuffled)).0
        );
    }

    #[test]
    fn the_order_of_queries_does_not_matter_below_the_bounds(
        events in history(query()),
        seed: u64,
    ) {
        let rules = Rules::default();
        let shuffled = shuffle(&events, seed);
        prop_assert_eq!(
            values(&fold(Stream::warehouse(0), &rules, &events)),
            values(&fold(Stream::warehouse(0), &rules, &shuffled))
        );
    }

    #[test]
    fn used_space_is_the_sum_of_the_latest_sizes(events in history(access())) {
        let state = fold(Stream::lake(0), &Rules::default(), &events);
        let SideMetrics::Lake(lake) = state.metrics() else { unreachable!() };
        prop_assert_eq!(lake.used_bytes(), used_by_definition(&events));
    }

    /// The state can be split by partition and merged again without reading an event.
    #[test]
    fn a_lakes_state_split_by_partition_and_merged_is_the_whole(
        events in history(access()),
        partitions in 1_u16..5,
    ) {
        let rules = Rules::default();
        let whole = Merged::of([&fold(Stream::lake(0), &rules, &events)]);
        let parts: Vec<StreamState> = (0..partitions)
            .map(|number| {
                let own: Vec<Event> = events
                    .iter()
                    .filter(|event| partition::of(event, partitions) == number)
                    .cloned()
                    .collect();
                fold(Stream::lake(number), &rules, &own)
            })
            .collect();
        for (number, part) in (0..partitions).zip(&parts) {
            // The state of a partition must hold the same of an object as the state of the whole.
            let names = Merged::of([part]).objects.into_keys().collect::<BTreeSet<_>>();
            let own = |name: &&ObjectKey| partition::of_object(name, partitions) == number;
            prop_assert_eq!(names, whole.objects.keys().filter(own).copied().collect());
        }
        prop_assert_eq!(Merged::of(&parts), whole);
    }

    /// However small the bounds are, an event counts at most once, and an event that is neither
    /// counted nor a known duplicate is reported as too old.
    #[test]
    fn small_bounds_never_count_twice_and_never_call_a_first_a_duplicate(
        events in history(access()),
        derived_ids_max in 1_usize..10,
        runs_max in 1_usize..3,
        holes_per_run_max in 1_usize..4,
    ) {
        let rules = Rules { derived_ids_max, runs_max, holes_per_run_max, ..Rules::default() };
        let mut state = StreamState::new(Stream::lake(0), rules);
        let mut counted = BTreeSet::new();
        for event in &events {
            match state.apply(event) {
                Applied::Counted(_) => prop_assert!(counted.insert(event.identity())),
                Applied::Duplicate => prop_assert!(counted.contains(&event.identity())),
                Applied::TooOld => {}
            }
        }
    }

    /// Where the sets cannot judge, the archive's key decides, and its verdicts arrive late and
    /// twice. Still, every identity counts once, and recounting the archive in counting order gives
    /// the live state.
    #[test]
    fn recounting_what_was_counted_gives_the_same_state(
        events in history(prop_oneof![4 => access(), 1 => inventory()]),
        derived_ids_max in 1_usize..6,
        runs_max in 1_usize..3,
        holes_per_run_max in 1_usize..3,
        delay in 0_usize..20,
    ) {
        let rules = Rules { derived_ids_max, runs_max, holes_per_run_max, ..Rules::default() };
        let mut live = StreamState::new(Stream::lake(0), rules.clone());
        let mut known = BTreeSet::new();
        let mut archive = Vec::new();
        let (mut given, mut on_the_way) = (0, VecDeque::new());
        let last = events.len();
        for (place, event) in events.iter().enumerate() {
            match live.apply(event) {
                Applied::Counted(_) => {
                    prop_assert!(known.insert(event.identity()));
                    archive.push((event, None));
                }
                Applied::Duplicate => prop_assert!(known.contains(&event.identity())),
                Applied::TooOld if known.insert(event.identity()) => {
                    given += 1;
                    on_the_way.push_back((place + delay, given, event));
                }
                Applied::TooOld => {}
            }
            while let Some((due, number, event)) = on_the_way.pop_front() {
                if due > place && place + 1 < last {
                    on_the_way.push_front((due, number, event));
                    break;
                }
                prop_assert_eq!(live.apply_verdict(number + 1, event), AppliedVerdict::Ahead);
                let applied = live.apply_verdict(number, event);
                prop_assert!(matches!(applied, AppliedVerdict::Counted(_)));
                prop_assert_eq!(live.apply_verdict(number, event), AppliedVerdict::Passed);
                archive.push((event, Some(number)));
            }
        }
        let identities: BTreeSet<_> = events.iter().map(Event::identity).collect();
        prop_assert_eq!(known, identities);
        let SideMetrics::Lake(lake) = live.metrics() else { unreachable!() };
        let accesses = archive.iter().filter(|(event, _)| is_access(event)).count();
        prop_assert_eq!(lake.accesses, u64::try_from(accesses).unwrap());
        let mut recounted = StreamState::new(Stream::lake(0), rules);
        for (event, verdict) in archive {
            prop_assert!(matches!(recounted.recount(event, verdict), Applied::Counted(_)));
        }
        prop_assert_eq!(recounted.verdicts(), given);
        prop_assert_eq!(recounted, live);
    }

    #[test]
    fn windows_add_up_to_the_events(events in history(query())) {
        let mut windows = Windows::default();
        events.iter().for_each(|event| windows.add(&[10, 60], event));
        for length_s in [10, 60] {
            let sums: Vec<_> = windows
                .clone()
                .into_iter()
                .filter(|(key, _)| key.length_s == length_s)
                .map(|(_, sums)| sums)
                .collect();
            let counted: i64 = sums.iter().map(|sums| sums.events).sum();
            let sketched: i64 =
                sums.iter().flat_map(|sums| sums.sketch.iter()).map(|(_, count)| count).sum();
            prop_assert_eq!(counted, i64::try_from(events.len()).unwrap());
            prop_assert_eq!(sketched, counted);
        }
    }
}

/// Changes of objects of the largest size: a write each, or a delete where no size is given.
fn largest(changes: impl Iterator<Item = (u64, Operation)>) -> Vec<Event> {
    let event = |(place, (key, operation)): (i64, (u64, Operation))| {
        let is_write = operation == Operation::Write;
        let fact = Fact::LakeAccess(LakeAccess {
            bucket: format!("bucket-{}", key % 3),
            key: format!("key-{key}"),
            operation,
            bytes: QUANTITY_MAX,
            object_bytes: is_write.then_some(QUANTITY_MAX),
            sequencer: None,
            duration_us: QUANTITY_MAX,
            outcome: Outcome::Ok,
            principal: "spark".to_owned(),
        });
        let number = u64::try_from(place).unwrap();
        let id = EventId::sequenced(Run::new(1, 0), number);
        Event { id, occurred_at: Timestamp(START + place * SECOND), fact }
    };
    (0..).zip(changes).map(event).collect()
}

/// For a while, each of three buckets holds more than 2^63 bytes. A sum of 64 bits would be wrong
/// from then on.
#[test]
fn used_space_is_exact_after_the_largest_objects_have_come_and_gone() {
    let writes = (0..3_300).map(|key| (key, Operation::Write));
    let events = largest(writes.chain((0..3_000).map(|key| (key, Operation::Delete))));
    let state = fold(Stream::lake(0), &Rules::default(), &events);
    let SideMetrics::Lake(lake) = state.metrics() else { unreachable!() };
    assert_eq!(lake.used_bytes(), 300 * i128::from(QUANTITY_MAX));
    assert_eq!(lake.used_bytes(), used_by_definition(&events));
    let (_, sums) = lake.buckets().next().unwrap();
    let moved: u128 = sums.transferred.values().sum();
    assert_eq!(moved, (1_100 + 1_000) * u128::from(QUANTITY_MAX), "by writes and by deletes");
}

#[test]
fn an_inventory_corrects_exactly_what_64_bits_cannot_hold() {
    let mut events = largest((0..3_300).map(|key| (key, Operation::Write)));
    for (place, bytes) in [(3_400, QUANTITY_MAX), (3_500, 7)] {
        events.push(Event {
            id: EventId::sequenced(Run::new(1, 0), place),
            occurred_at: Timestamp(START + i64::try_from(place).unwrap() * SECOND),
            fact: Fact::LakeInventory(LakeInventory {
                bucket: "bucket-0".to_owned(),
                objects: 1,
                bytes,
            }),
        });
    }
    let state = fold(Stream::lake(0), &Rules::default(), &events);
    let SideMetrics::Lake(lake) = state.metrics() else { unreachable!() };
    let others = 2_200; // In the two buckets that were not counted.
    assert_eq!(lake.used_bytes(), others * i128::from(QUANTITY_MAX) + 7);
}

/// What withdraws some of these requests: each of them, and of each object that one of them decides
/// the change that decides without them.
fn withdrawal(all: &[Event], is_wrong: impl Fn(&Event) -> bool) -> Vec<Event> {
    let request = |event: &Event| {
        let Fact::LakeAccess(access) = &event.fact else { panic!("{event:?}") };
        access.clone()
    };
    let changes = |event: &&Event| {
        let access = request(event);
        access.outcome == Outcome::Ok
            && matches!(access.operation, Operation::Write | Operation::Copy | Operation::Delete)
    };
    let version = |event: &Event| {
        let sequencer = request(event).sequencer.as_deref().map(Box::from);
        Version { occurred_at: event.occurred_at, sequencer, id: event.id }
    };
    let mut corrections = Vec::new();
    for wrong in all.iter().filter(|event| is_wrong(event)) {
        let access = request(wrong);
        let of_object: Vec<&Event> = all
            .iter()
            .filter(changes)
            .filter(|event| {
                let other = request(event);
                (&other.bucket, &other.key) == (&access.bucket, &access.key)
            })
            .collect();
        let fact = LakeAccessWithdrawn { of: wrong.id, access };
        let fact = Fact::LakeAccessWithdrawn(fact);
        corrections.push(Event { id: wrong.id, occurred_at: wrong.occurred_at, fact });
        let deciding = of_object.iter().max_by_key(|event| version(event));
        if deciding.is_none_or(|deciding| deciding.identity() != wrong.identity()) {
            continue;
        }
        let right = of_object.iter().filter(|event| !is_wrong(event));
        if let Some(right) = right.max_by_key(|event| version(event)) {
            let fact = LakeAccessRestored { of: right.identity(), access: request(right) };
            let fact = Fact::LakeAccessRestored(fact);
            corrections.push(Event { id: right.id, occurred_at: wrong.occurred_at, fact });
        }
    }
    corrections
}

proptest! {
    #[test]
    fn what_is_withdrawn_leaves_used_space_and_windows_as_they_are_without_it(
        parts in prop::collection::vec((access(), time(), any::<bool>()), 1..60),
        seed in any::<u64>(),
    ) {
        let run = Run::new(7, 0);
        let wrong: BTreeSet<EventId> = (0..)
            .zip(&parts)
            .filter(|(_, (_, _, is_wrong))| *is_wrong)
            .map(|(number, _)| EventId::sequenced(run, number))
            .collect();
        let events: Vec<Event> = (0..)
            .zip(parts)
            .map(|(number, (fact, occurred_at, _))| {
                Event { id: EventId::sequenced(run, number), occurred_at, fact }
            })
            .collect();
        let is_wrong = |event: &Event| wrong.contains(&event.id);
        let right: Vec<Event> = events.iter().filter(|event| !is_wrong(event)).cloned().collect();
        let (mut without, mut state) =
            (StreamState::new(Stream::lake(0), Rules::default()),
             StreamState::new(Stream::lake(0), Rules::default()));
        let (mut expected, mut windows) = (Windows::default(), Windows::default());
        for event in shuffle(&right, seed) {
            without.count(&event);
            expected.add(&[10], &event);
        }
        let corrections = withdrawal(&events, is_wrong);
        for event in shuffle(&events, seed.rotate_left(7)).iter().chain(&corrections) {
            state.count(event);
            windows.add(&[10], event);
        }
        let (SideMetrics::Lake(without), SideMetrics::Lake(state)) =
            (without.metrics(), state.metrics()) else { unreachable!("of the lake") };
        // Labels follow the order in which buckets came.
        let objects = |lake: &domain::lake::LakeState| -> Vec<(ObjectKey, Version, Option<u64>)> {
            let kept = lake.objects.kept().iter();
            kept.map(|(key, object)| (*key, object.version.clone(), object.bytes)).collect()
        };
        prop_assert_eq!(objects(without), objects(state));
        let used = |lake: &domain::lake::LakeState| -> BTreeMap<String, i128> {
            let used = lake.buckets().map(|(name, sums)| (name.to_owned(), sums.space.used()));
            used.filter(|(_, bytes)| *bytes != 0).collect()
        };
        prop_assert_eq!(used(without), used(state));
        let withdrawn: u64 = state.buckets().map(|(_, sums)| sums.withdrawn).sum();
        prop_assert_eq!(withdrawn, u64::try_from(wrong.len()).unwrap());
        let left = |windows: Windows| {
            windows.into_iter().filter(|(_, sums)| sums.events != 0).collect::<Vec<_>>()
        };
        prop_assert_eq!(left(windows), left(expected));
    }
}

#[test]
fn windows_of_the_largest_quantities_are_exact() {
    let events = largest((0..4_100).map(|key| (key * 3, Operation::Write)));
    let mut windows = Windows::default();
    events.iter().for_each(|event| windows.add(&[100_000], event));
    let (_, sums) = windows.into_iter().next().unwrap();
    let all = 4_100 * i128::from(QUANTITY_MAX);
    assert_eq!((sums.events, sums.bytes, sums.duration_us), (4_100, all, all));
}

fn is_access(event: &Event) -> bool {
    matches!(event.fact, Fact::LakeAccess(_))
}

/// A permutation that depends on the seed only.
fn shuffle(events: &[Event], seed: u64) -> Vec<Event> {
    let mut shuffled = events.to_vec();
    let mut random = seed | 1;
    for place in (1..shuffled.len()).rev() {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from((random >> 33) % u64::try_from(place + 1).unwrap()).unwrap();
        shuffled.swap(place, other);
    }
    shuffled
}
