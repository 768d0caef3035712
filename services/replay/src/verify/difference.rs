//! The first difference between two states, in words.

use std::{collections::BTreeMap, fmt::Debug};

use domain::{
    Seen, SideMetrics, StreamState,
    lake::{BucketSums, LakeState},
    objects::Objects,
    warehouse::{WarehouseState, WarehouseSums},
};

/// The first key in which two states differ, and the value of each: `kept` is the snapshot,
/// `folded` the archive. `None` if they are equal.
pub(super) fn difference(kept: &StreamState, folded: &StreamState) -> Option<String> {
    if kept == folded {
        return None;
    }
    let metrics = match (kept.metrics(), folded.metrics()) {
        (kept, folded) if kept == folded => None,
        (SideMetrics::Lake(kept), SideMetrics::Lake(folded)) => lake(kept, folded),
        (SideMetrics::Warehouse(kept), SideMetrics::Warehouse(folded)) => warehouse(kept, folded),
        (SideMetrics::Lake(_), SideMetrics::Warehouse(_))
        | (SideMetrics::Warehouse(_), SideMetrics::Lake(_)) => {
            Some("they are of two sides".to_owned())
        }
    };
    metrics
        .or_else(|| seen(kept.seen(), folded.seen()))
        .or_else(|| value("verdicts", &kept.verdicts(), &folded.verdicts()))
        .or_else(|| value("stream", &kept.stream(), &folded.stream()))
        .or_else(|| value("rules", kept.rules(), folded.rules()))
}

fn value<T: PartialEq + Debug>(what: &str, kept: &T, folded: &T) -> Option<String> {
    (kept != folded).then(|| format!("{what}: snapshot {kept:?}, archive {folded:?}"))
}

/// The first key that only one of two maps has, or that has two values.
fn entry<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    kept: &BTreeMap<K, V>,
    folded: &BTreeMap<K, V>,
) -> Option<String> {
    let (key, ours, theirs) = first(kept, folded)?;
    Some(format!("{what} {key:?}: snapshot {}, archive {}", said(ours), said(theirs)))
}

type Differing<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

fn first<'a, K: Ord, V: PartialEq>(
    kept: &'a BTreeMap<K, V>,
    folded: &'a BTreeMap<K, V>,
) -> Option<Differing<'a, K, V>> {
    let of_kept = kept
        .iter()
        .map(|(key, ours)| (key, Some(ours), folded.get(key)))
        .find(|(_, ours, theirs)| ours != theirs);
    let of_folded = folded
        .iter()
        .find(|(key, _)| !kept.contains_key(key))
        .map(|(key, theirs)| (key, None, Some(theirs)));
    of_kept.into_iter().chain(of_folded).min_by(|one, other| one.0.cmp(other.0))
}

fn said<V: Debug>(value: Option<&V>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"))
}

fn lake(kept: &LakeState, folded: &LakeState) -> Option<String> {
    value("accesses", &kept.accesses, &folded.accesses)
        .or_else(|| value("newest event", &kept.newest, &folded.newest))
        .or_else(|| entry("label of bucket", kept.labels.by_name(), folded.labels.by_name()))
        .or_else(|| {
            let (label, ours, theirs) = first(&kept.buckets, &folded.buckets)?;
            let name = name(kept.labels.by_name(), *label);
            let nothing = BucketSums::default();
            let (ours, theirs) = (ours.unwrap_or(&nothing), theirs.unwrap_or(&nothing));
            bucket(&name, ours, theirs)
        })
        .or_else(|| objects(&kept.objects, &folded.objects))
        .or_else(|| Some("the lake's metrics".to_owned()))
}

fn bucket(name: &str, kept: &BucketSums, folded: &BucketSums) -> Option<String> {
    let of = |what: &str| format!("bucket {name}, {what}");
    entry(&of("accesses of"), &kept.accesses, &folded.accesses)
        .or_else(|| entry(&of("bytes of"), &kept.transferred, &folded.transferred))
        .or_else(|| value(&of("requests by duration"), &kept.durations, &folded.durations))
        .or_else(|| value(&of("durations in us"), &kept.duration_us, &folded.duration_us))
        .or_else(|| value(&of("used bytes"), &kept.space.used(), &folded.space.used()))
        .or_else(|| value(&of("inventory"), &kept.space.inventory, &folded.space.inventory))
        .or_else(|| entry(&of("bytes from second"), &kept.space.slots, &folded.space.slots))
        .or_else(|| Some(of("an empty entry or its space")))
}

fn objects(kept: &Objects, folded: &Objects) -> Option<String> {
    value("number of objects", &kept.kept().len(), &folded.kept().len())
        .or_else(|| value("floor of objects", &kept.floor(), &folded.floor()))
        .or_else(|| {
            let (key, ours, theirs) = first(kept.kept(), folded.kept())?;
            let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("object {key}: snapshot {}, archive {}", said(ours), said(theirs)))
        })
        .or_else(|| {
            let of = Objects::forgotten_objects;
            value("forgotten objects", &of(kept), &of(folded))
        })
}

fn warehouse(kept: &WarehouseState, folded: &WarehouseState) -> Option<String> {
    value("records", &kept.records, &folded.records)
        .or_else(|| value("newest query", &kept.newest, &folded.newest))
        .or_else(|| {
            let (ours, theirs) = (&kept.responses.seconds, &folded.responses.seconds);
            entry("count and sum of response times in second", ours, theirs)
        })
        .or_else(|| entry("label of warehouse", kept.labels.by_name(), folded.labels.by_name()))
        .or_else(|| {
            let (label, ours, theirs) = first(&kept.warehouses, &folded.warehouses)?;
            let name = name(kept.labels.by_name(), *label);
            let nothing = WarehouseSums::default();
            let (ours, theirs) = (ours.unwrap_or(&nothing), theirs.unwrap_or(&nothing));
            let queries = entry(&format!("warehouse {name}"), &ours.queries, &theirs.queries);
            queries.or_else(|| value(&format!("warehouse {name}"), ours, theirs))
        })
        .or_else(|| Some("the warehouse's metrics".to_owned()))
}

fn name(labels: &BTreeMap<String, u16>, label: u16) -> String {
    let own = labels.iter().find(|(_, own)| **own == label).map(|(name, _)| name.clone());
    own.unwrap_or_else(|| domain::labels::OTHER_NAME.to_owned())
}

fn seen(kept: &Seen, folded: &Seen) -> Option<String> {
    let (runs, others) = (kept.runs(), folded.runs());
    value("floor of runs", &runs.floor(), &others.floor())
        .or_else(|| entry("numbers seen of run", runs.kept(), others.kept()))
        .or_else(|| {
            let (kept, folded) = (kept.derived().floor(), folded.derived().floor());
            value("floor of derived ids", &kept, &folded)
        })
        .or_else(|| {
            let (kept, folded) = (kept.derived().kept(), folded.derived().kept());
            let identity = kept.symmetric_difference(folded).next()?;
            let who = if kept.contains(identity) { "snapshot" } else { "archive" };
            Some(format!("derived id {identity:?}: only in the {who}"))
        })
}

#[cfg(test)]
mod tests {
    use domain::{
        Event, EventId, Fact, LakeAccess, Operation, Outcome, Rules, Run, Statement, Stream,
        Timestamp,
        lake::LakeState,
        objects::{Object, Version, object_key},
        runs::Runs,
        seen::Derived,
    };

    use super::*;

    fn write(number: u64, key: &str, bytes: u64) -> Event {
        let fact = Fact::LakeAccess(LakeAccess {
            key: key.to_owned(),
            operation: Operation::Write,
            bytes,
            ..test_support::lake_access()
        });
        let id = EventId::sequenced(Run::new(1, 1), number);
        Event { id, occurred_at: Timestamp(1_000_000), fact }
    }

    fn state(events: &[Event]) -> StreamState {
        let mut state = StreamState::new(Stream::lake(0), Rules::default());
        for event in events {
            state.apply(event);
        }
        state
    }

    #[test]
    fn equal_states_have_no_difference() {
        let events = [write(1, "a", 5), write(2, "b", 6)];
        assert_eq!(difference(&state(&events), &state(&events)), None);
    }

    #[test]
    fn what_differs_first_is_named_with_both_values() {
        let kept = state(&[write(1, "a", 5), write(2, "b", 6)]);
        for (other, words) in [
            (vec![write(1, "a", 5)], "accesses: snapshot 2, archive 1"),
            (vec![write(1, "a", 5), write(2, "b", 7)], "bucket raw, bytes of Write"),
            (vec![write(1, "a", 5), write(2, "c", 6)], "object "),
            (vec![write(1, "a", 5), write(3, "b", 6)], "object "),
        ] {
            let said = difference(&kept, &state(&other)).unwrap();
            assert!(said.starts_with(words), "{said}");
        }
    }

    /// The text about two lake states that were equal before one was changed.
    fn of_lake(change: impl Fn(&mut LakeState)) -> String {
        let kept = state(&[write(1, "a", 5)]);
        let SideMetrics::Lake(lake) = kept.metrics() else { unreachable!() };
        let mut folded = lake.clone();
        change(&mut folded);
        said_of(&kept, kept.seen().clone(), 0, SideMetrics::Lake(folded))
    }

    /// The same for two states of a warehouse without a query.
    fn of_warehouse(change: impl Fn(&mut WarehouseState)) -> String {
        let kept = StreamState::new(Stream::warehouse(0), Rules::default());
        let mut folded = WarehouseState::new(&Rules::default());
        change(&mut folded);
        said_of(&kept, kept.seen().clone(), 0, SideMetrics::Warehouse(folded))
    }

    /// The same for two lake states that differ in their sets.
    fn of_seen(runs: Runs, derived: Derived) -> String {
        let kept = StreamState::new(Stream::lake(0), Rules::default());
        said_of(&kept, Seen::restore(runs, derived), 0, kept.metrics().clone())
    }

    fn said_of(kept: &StreamState, seen: Seen, verdicts: u64, metrics: SideMetrics) -> String {
        let rules = kept.rules().clone();
        let folded = StreamState::restore(kept.stream(), rules, seen, verdicts, metrics);
        difference(kept, &folded).unwrap()
    }

    #[test]
    fn each_sum_of_the_lake_is_named() {
        let accesses = of_lake(|lake| lake.accesses = 3);
        assert_eq!(accesses, "accesses: snapshot 1, archive 3");
        let newest = of_lake(|lake| lake.newest = Timestamp(7));
        assert_eq!(newest, "newest event: snapshot Timestamp(1000000), archive Timestamp(7)");
        let label = of_lake(|lake| {
            lake.labels.label("new");
        });
        assert_eq!(label, "label of bucket \"new\": snapshot nothing, archive 2");
        let other_rules = Rules { sample_interval_s: 20, ..Rules::default() };
        let interval = of_lake(|lake| {
            *lake = LakeState::new(&other_rules);
            lake.apply(&write(1, "a", 5));
            lake.buckets.values_mut().for_each(|sums| sums.space.slots = [(0, 5)].into());
        });
        assert_eq!(interval, "the lake's metrics");
    }

    #[test]
    fn each_sum_of_a_bucket_is_named_with_its_bucket() {
        let of = |change: fn(&mut BucketSums)| {
            of_lake(|lake| lake.buckets.values_mut().for_each(change))
        };
        for (said, expected) in [
            (
                of(|raw| *raw.accesses.entry((Operation::Write, Outcome::Ok)).or_default() += 1),
                "accesses of (Write, Ok): snapshot 1, archive 2",
            ),
            (
                of(|raw| *raw.transferred.entry(Operation::Write).or_default() += 1),
                "bytes of Write: snapshot 5, archive 6",
            ),
            (of(|raw| raw.duration_us += 1), "durations in us: snapshot 0, archive 1"),
            (of(|raw| raw.space.tracked += 1), "used bytes: snapshot 5, archive 6"),
            (
                of(|raw| _ = raw.space.slots.insert(7, 8)),
                "bytes from second 7: snapshot nothing, archive 8",
            ),
            (
                of(|raw| (raw.space.tracked, raw.space.offset) = (6, -1)),
                "an empty entry or its space",
            ),
        ] {
            assert_eq!(said, format!("bucket raw, {expected}"));
        }
        let identity = write(1, "a", 5).identity();
        let inventory = of_lake(|lake| {
            lake.buckets.values_mut().for_each(|raw| raw.space.inventory = Some((identity, 9)));
        });
        let expected = format!("snapshot None, archive {:?}", Some((identity, 9)));
        assert_eq!(inventory, format!("bucket raw, inventory: {expected}"));
        let other = of_lake(|lake| {
            let sums = BucketSums {
                accesses: [((Operation::Read, Outcome::Ok), 4)].into(),
                ..Default::default()
            };
            lake.buckets.insert(domain::labels::OTHER, sums);
        });
        assert_eq!(other, "bucket other, accesses of (Read, Ok): snapshot nothing, archive 4");
    }

    #[test]
    fn the_first_key_is_named_whichever_side_has_it() {
        let labelled = |names: [&str; 2]| {
            let mut lake = LakeState::new(&Rules::default());
            lake.labels.label(names[0]);
            lake.labels.label(names[1]);
            let (rules, seen) = (Rules::default(), Seen::new(&Rules::default()));
            StreamState::restore(Stream::lake(0), rules, seen, 0, SideMetrics::Lake(lake))
        };
        let (first, second) = (labelled(["both", "a"]), labelled(["both", "b"]));
        assert_eq!(
            difference(&first, &second).unwrap(),
            "label of bucket \"a\": snapshot 2, archive nothing"
        );
        assert_eq!(
            difference(&second, &first).unwrap(),
            "label of bucket \"a\": snapshot nothing, archive 2"
        );
    }

    #[test]
    fn what_is_known_of_objects_is_named() {
        let key = object_key("raw", "a");
        let objects_max = Rules::default().objects_max;
        let of = |kept: Option<&Object>, floor: Option<Version>, forgotten| {
            let kept: BTreeMap<_, _> =
                kept.map(|object| (key, object.clone())).into_iter().collect();
            of_lake(|lake| {
                lake.objects =
                    Objects::restore(objects_max, kept.clone(), floor.clone(), forgotten);
            })
        };
        let write = write(1, "a", 5);
        let version = Version { occurred_at: write.occurred_at, sequencer: None, id: write.id };
        let object = Object { version: version.clone(), bytes: Some(5), label: 1 };
        assert_eq!(of(None, None, 0), "number of objects: snapshot 1, archive 0");
        let floor = of(Some(&object), Some(version.clone()), 0);
        let expected = format!("snapshot None, archive {:?}", Some(version));
        assert_eq!(floor, format!("floor of objects: {expected}"));
        let forgotten = of(Some(&object), None, 2);
        assert_eq!(forgotten, "forgotten objects: snapshot 0, archive 2");
        let deleted = Object { bytes: None, ..object.clone() };
        let said = of(Some(&deleted), None, 0);
        let key = u128::from_be_bytes(key);
        assert_eq!(said, format!("object {key:032x}: snapshot {object:?}, archive {deleted:?}"));
    }

    #[test]
    fn each_sum_of_the_warehouses_is_named() {
        let records = of_warehouse(|state| state.records = 3);
        assert_eq!(records, "records: snapshot 0, archive 3");
        let newest = of_warehouse(|state| state.newest = Timestamp(7));
        assert_eq!(newest, "newest query: snapshot Timestamp(0), archive Timestamp(7)");
        let second = of_warehouse(|state| _ = state.responses.seconds.insert(9, (1, 2)));
        let expected = "second 9: snapshot nothing, archive (1, 2)";
        assert_eq!(second, format!("count and sum of response times in {expected}"));
        let label = of_warehouse(|state| _ = state.labels.label("etl"));
        assert_eq!(label, "label of warehouse \"etl\": snapshot nothing, archive 1");
        let labels_max = of_warehouse(|state| {
            *state = WarehouseState::new(&Rules { labels_max: 7, ..Rules::default() });
        });
        assert_eq!(labels_max, "the warehouse's metrics");
        let sums = |sums: &WarehouseSums| {
            of_warehouse(|state| {
                state.warehouses.insert(domain::labels::OTHER, sums.clone());
            })
        };
        let queries = [((Statement::Select, Outcome::Ok), 2)].into();
        let queries = sums(&WarehouseSums { queries, ..WarehouseSums::default() });
        assert_eq!(queries, "warehouse other (Select, Ok): snapshot nothing, archive 2");
        let hits = WarehouseSums { cache_hits: 1, ..WarehouseSums::default() };
        let expected = format!("snapshot {:?}, archive {hits:?}", WarehouseSums::default());
        assert_eq!(sums(&hits), format!("warehouse other: {expected}"));
    }

    #[test]
    fn what_differs_in_the_sets_is_named_where_the_metrics_are_equal() {
        let rules = Rules::default();
        let runs = || Runs::new(rules.runs_max, rules.holes_per_run_max);
        let derived = || Derived::new(rules.derived_ids_max);
        let run = Run::new(1, 1);
        let restored = |kept, floor| {
            let (runs_max, holes_max) = (rules.runs_max, rules.holes_per_run_max);
            Runs::restore(runs_max, holes_max, kept, floor)
        };
        let floor = of_seen(restored([].into(), Some(run)), derived());
        assert_eq!(floor, format!("floor of runs: snapshot None, archive {:?}", Some(run)));
        let mut judged = runs();
        judged.judge(run, 0);
        let expected = format!("snapshot nothing, archive {:?}", judged.kept()[&run]);
        let numbers = of_seen(judged, derived());
        assert_eq!(numbers, format!("numbers seen of run {run:?}: {expected}"));
        let identity = (Timestamp(5), EventId::from_bytes([7; 16]));
        let ids_max = rules.derived_ids_max;
        let floor = of_seen(runs(), Derived::restore(ids_max, [].into(), Some(identity)));
        let expected = format!("snapshot None, archive {:?}", Some(identity));
        assert_eq!(floor, format!("floor of derived ids: {expected}"));
        let one = of_seen(runs(), Derived::restore(ids_max, [identity].into(), None));
        assert_eq!(one, format!("derived id {identity:?}: only in the archive"));
    }

    #[test]
    fn states_of_other_streams_rules_or_verdicts_are_told_apart() {
        let new = |stream, rules| StreamState::new(stream, rules);
        let kept = new(Stream::lake(0), Rules::default());
        let verdicts = said_of(&kept, kept.seen().clone(), 3, kept.metrics().clone());
        assert_eq!(verdicts, "verdicts: snapshot 0, archive 3");
        let of = |other: &StreamState| difference(&kept, other).unwrap();
        let stream = of(&new(Stream::lake(1), Rules::default()));
        let expected = format!("{:?}, archive {:?}", Stream::lake(0), Stream::lake(1));
        assert_eq!(stream, format!("stream: snapshot {expected}"));
        let rules = Rules { retention_days: 3, ..Rules::default() };
        let expected = format!("rules: snapshot {:?}, archive {rules:?}", Rules::default());
        assert_eq!(of(&new(Stream::lake(0), rules)), expected);
        let side = of(&new(Stream::warehouse(0), Rules::default()));
        assert_eq!(side, "they are of two sides");
    }
}
