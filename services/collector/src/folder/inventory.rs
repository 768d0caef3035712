//! Converts the sums of a walk to events. Pure.

use domain::{Event, Fact, LakeInventory, Timestamp};

use super::walk::Share;

/// The inventory of a bucket, with one event for each partition, in the order of the partitions.
/// `as_of` is the time at which the walk began. The same source, bucket and time give the same ids,
/// so that an inventory that is published twice counts once.
pub(crate) fn inventory(
    source: &str,
    bucket: &str,
    as_of: Timestamp,
    shares: &[Share],
) -> Vec<Event> {
    let time = as_of.0.to_string();
    let event = |(partition, share): (usize, &Share)| {
        let parts = [source, bucket, &time, &partition.to_string()];
        let fact = Fact::LakeInventory(LakeInventory {
            bucket: bucket.to_owned(),
            objects: share.objects,
            bytes: share.bytes,
        });
        Event { id: wire::derived::of_record("folder", &parts), occurred_at: as_of, fact }
    };
    shares.iter().enumerate().map(event).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::EventId;

    use super::*;

    #[test]
    fn an_inventory_has_the_part_of_each_partition_at_the_time_of_the_walk() {
        let shares = [Share { objects: 1, bytes: 10 }, Share { objects: 0, bytes: 0 }];
        let events = inventory("folder", "raw", Timestamp(7), &shares);
        assert_eq!(events.len(), 2);
        for (event, share) in events.iter().zip(shares) {
            let bucket = "raw".to_owned();
            let Share { objects, bytes } = share;
            let fact = Fact::LakeInventory(LakeInventory { bucket, objects, bytes });
            assert_eq!((event.occurred_at, &event.fact), (Timestamp(7), &fact));
        }
    }

    #[test]
    fn source_bucket_time_and_partition_make_the_id_and_what_was_found_does_not() {
        let of = |source, bucket, at, bytes| {
            let shares = [Share { objects: 1, bytes }; 2];
            inventory(source, bucket, Timestamp(at), &shares).into_iter().map(|event| event.id)
        };
        let ids: BTreeSet<EventId> = [("s", "b", 1), ("t", "b", 1), ("s", "c", 1), ("s", "b", 2)]
            .into_iter()
            .flat_map(|(source, bucket, at)| of(source, bucket, at, 1))
            .collect();
        assert_eq!(ids.len(), 8);
        assert!(of("s", "b", 1, 5).all(|id| ids.contains(&id)));
    }
}
