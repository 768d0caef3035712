//! Which partition an event belongs to. One function serves both subjects and state.

use crate::{
    event::{Event, Fact, LakeAccessRestored, LakeAccessWithdrawn, WarehouseQueryWithdrawn},
    id::EventId,
    objects::{ObjectKey, object_key},
};

/// The partition of an object, out of `partitions`: of its changes and of its state.
pub fn of_object(name: &ObjectKey, partitions: u16) -> u16 {
    let place = u128::from_be_bytes(*name) % u128::from(partitions.max(1));
    u16::try_from(place).unwrap_or(0)
}

/// The partition of an event, out of `partitions`. A change follows its object, so that all changes
/// of an object are in one stream, in their order. A query follows the hash of its id, and what
/// corrects an event follows that event.
///
/// An inventory has no object: its producer publishes one inventory to each partition, with the
/// share of that partition, and this function returns 0.
pub fn of(event: &Event, partitions: u16) -> u16 {
    match &event.fact {
        Fact::LakeAccess(access)
        | Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access, .. })
        | Fact::LakeAccessRestored(LakeAccessRestored { access, .. }) => {
            of_object(&object_key(&access.bucket, &access.key), partitions)
        }
        Fact::LakeInventory(_) => 0,
        Fact::WarehouseQuery(_) => of_id(event.id, partitions),
        Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, .. }) => of_id(*of, partitions),
    }
}

fn of_id(id: EventId, partitions: u16) -> u16 {
    let mut name = [0; 16];
    name.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
    of_object(&name, partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Operation,
        test_util::{at, change, query},
    };

    fn access(key: &str) -> Event {
        change(1, at(1), Operation::Write, key, Some(1))
    }

    #[test]
    fn partitions_are_stable_and_even_and_one_is_always_zero() {
        assert_eq!(of(&access("a/b.parquet"), 1), 0);
        assert_eq!(of(&access("a/b.parquet"), 0), 0);
        let mut counts = [[0_u32; 4]; 2];
        for number in 0..4_000 {
            counts[0][usize::from(of(&access(&format!("key-{number}")), 4))] += 1;
            counts[1][usize::from(of(&query(number, at(1), 1, 1), 4))] += 1;
        }
        assert!(counts.iter().flatten().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_partition_of_an_event_is_never_another_one() {
        let partitions = [of(&access("a/b.parquet"), 1_000), of(&query(7, at(1), 1, 1), 1_000)];
        assert_eq!(partitions, [186, 605]);
    }
}
