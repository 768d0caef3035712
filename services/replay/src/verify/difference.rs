//! The first difference between two states, in words.

use std::{collections::BTreeMap, fmt::Debug};

use domain::{
    Seen, SideMetrics, StreamState,
    lake::{BucketSums, LakeState},
    objects::Objects,
    warehouse::{WarehouseState, WarehouseSums},
};

/// In which key two states differ first, and what each has there: `kept` is the snapshot, `folded`
/// the archive. None: they are equal.
pub(super) fn difference(kept: &StreamState, folded: &StreamState) -> Option<String> {
    if kept == folded {
        return None;
    }
    let metrics = match (kept.metrics(), folded.metrics()) {
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
    use domain::{Event, EventId, Fact, LakeAccess, Operation, Rules, Run, Stream, Timestamp};

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
}
