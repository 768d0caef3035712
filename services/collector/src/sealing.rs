//! Converts events to the messages that are published. Chooses the stream and the partition, and
//! keeps each message within the size that the broker accepts. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::{Event, Reason, Refusal, Side, Stream, partition};
use wire::{Format, Packer, PackerLimits, Sealed, Subjects, seal_refused};

use crate::parsed::{Parsed, RefusedRecord};

/// A message and its stream. A sealed message is published unchanged at every attempt, so that the
/// broker recognises it by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The stream to which the message is published.
    pub stream: Stream,
    /// The message.
    pub sealed: Sealed,
}

/// Makes the messages of one source.
#[derive(Clone, Debug)]
pub(crate) struct Sealing {
    /// The subjects of the pipeline.
    pub(crate) subjects: Subjects,
    /// The name of the source.
    pub(crate) source: String,
    /// Number of partitions of each side.
    pub(crate) partitions: u16,
}

impl Sealing {
    /// The messages for the events and refused records of a report, each of at most `bytes_max`
    /// bytes.
    pub(crate) fn seal(&self, parsed: &Parsed, bytes_max: usize) -> Vec<Outgoing> {
        let events = parsed.events.iter().map(|event| (self.stream(event), event));
        let mut messages = self.pack(events, bytes_max);
        messages.extend(parsed.refused.iter().map(|record| self.letter(record, bytes_max)));
        messages
    }

    /// The messages of an inventory, each of at most `bytes_max` bytes. `shares` has one event for
    /// each partition of the lake, in the order of the partitions.
    pub(crate) fn seal_shares(&self, shares: &[Event], bytes_max: usize) -> Vec<Outgoing> {
        self.pack((0..).map(Stream::lake).zip(shares), bytes_max)
    }

    fn pack<'a>(
        &self,
        events: impl Iterator<Item = (Stream, &'a Event)>,
        bytes_max: usize,
    ) -> Vec<Outgoing> {
        let mut messages = Vec::new();
        let mut packers: BTreeMap<(Stream, String), Packer> = BTreeMap::new();
        for (stream, event) in events {
            let subject = self.subjects.of(&event.fact, stream.partition, &self.source);
            let packer = packers.entry((stream, subject)).or_insert_with_key(|(_, subject)| {
                let mut packer =
                    Packer::new(subject.clone(), Format::Json, PackerLimits::default());
                packer.bound(bytes_max);
                packer
            });
            // The time does not matter, because the packers are flushed immediately below.
            let full = packer.push(0, event);
            messages.extend(full.map(|sealed| Outgoing { stream, sealed }));
        }
        for ((stream, _), mut packer) in packers {
            messages.extend(packer.flush().map(|sealed| Outgoing { stream, sealed }));
        }
        for message in &mut messages {
            as_letter_if_too_long(&mut message.sealed, bytes_max);
        }
        messages
    }

    fn stream(&self, event: &Event) -> Stream {
        let (side, partition) = (event.fact.side(), partition::of(event, self.partitions));
        Stream { side, partition }
    }

    /// The dead letter of a refused record. Such a record has no object that decides on its
    /// partition, so the dead letter is published to the first partition.
    fn letter(&self, record: &RefusedRecord, bytes_max: usize) -> Outgoing {
        let (stream, subject) = match record.side {
            Side::Lake => (Stream::lake(0), self.subjects.lake_access(0, &self.source)),
            Side::Warehouse => {
                (Stream::warehouse(0), self.subjects.warehouse_query(0, &self.source))
            }
        };
        let bytes = record.bytes.clone();
        Outgoing { stream, sealed: seal_refused(subject, &record.refusal, bytes, bytes_max) }
    }
}

/// Replaces an event that is too long for the broker by a dead letter with the beginning of the
/// event. Such an event could not be accepted anyway, and the publisher would wait for it forever.
fn as_letter_if_too_long(sealed: &mut Sealed, bytes_max: usize) {
    if sealed.payload.len() > bytes_max {
        let refusal = Refusal::whole(Reason::TooLong, "the event is longer than the broker takes");
        let payload = std::mem::replace(&mut sealed.payload, Bytes::new());
        *sealed = seal_refused(sealed.subject.clone(), &refusal, payload, bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{EventId, Fact, LakeAccess, LakeInventory, Rules, Timestamp, WarehouseQuery};
    use test_support::{lake_access, warehouse_query};
    use wire::{Headers, Item, Message};

    use super::*;

    const AT: Timestamp = Timestamp(1_795_848_180_000_000);

    fn sealing() -> Sealing {
        Sealing { subjects: Subjects::default(), source: "s".to_owned(), partitions: 4 }
    }

    fn event(number: u8, fact: Fact) -> Event {
        Event { id: EventId::from_bytes([number; 16]), occurred_at: AT, fact }
    }

    fn access(number: u8, key: &str) -> Event {
        event(number, Fact::LakeAccess(LakeAccess { key: key.to_owned(), ..lake_access() }))
    }

    /// The items that readers of the stream get from a message.
    fn items(message: &Outgoing) -> Vec<Item> {
        let Outgoing { stream, sealed } = message;
        let headers = Headers::of(&sealed.content_type);
        let message = Message {
            sequence: 1,
            broker_ns: AT.0 * 1_000,
            subject: &sealed.subject,
            headers: &headers,
            payload: &sealed.payload,
        };
        wire::read(*stream, &message, &Rules::default()).items
    }

    #[test]
    fn every_event_goes_to_the_stream_and_partition_that_its_object_is_of() {
        let mut events: Vec<Event> =
            (0..40).map(|number| access(number, &number.to_string())).collect();
        events.extend((40..80).map(|number| {
            event(number, Fact::WarehouseQuery(WarehouseQuery { ..warehouse_query() }))
        }));
        let parsed = Parsed { events: events.clone(), ..Parsed::default() };
        let messages = sealing().seal(&parsed, 100_000);
        let streams: BTreeSet<Stream> = messages.iter().map(|message| message.stream).collect();
        assert_eq!(streams.len(), 8, "{streams:?}");
        let mut read = Vec::new();
        for message in &messages {
            let Outgoing { stream, sealed } = message;
            let side = if stream.side == Side::Lake { "lake.access" } else { "warehouse.query" };
            assert_eq!(sealed.subject, format!("{side}.{}.s", stream.partition));
            for item in items(message) {
                let Item::Event(event) = item else { panic!("{item:?}") };
                assert_eq!(partition::of(&event, 4), stream.partition);
                read.push(event);
            }
        }
        read.sort_by_key(Event::identity);
        assert_eq!(read, events);
    }

    #[test]
    fn each_partition_gets_its_part_of_an_inventory() {
        let shares: Vec<Event> = (0..4)
            .map(|bytes| {
                let bucket = "raw".to_owned();
                let inventory = LakeInventory { bucket, objects: 1, bytes: u64::from(bytes) };
                event(bytes, Fact::LakeInventory(inventory))
            })
            .collect();
        let messages = sealing().seal_shares(&shares, 100_000);
        assert_eq!(messages.len(), shares.len());
        for ((partition, share), message) in (0..).zip(shares).zip(&messages) {
            assert_eq!(message.stream, Stream::lake(partition));
            assert_eq!(message.sealed.subject, format!("lake.inventory.{partition}.s"));
            assert_eq!(items(message), [Item::Event(share)]);
        }
    }

    #[test]
    fn a_refused_record_is_a_letter_on_its_side_however_long_it_is() {
        let mut parsed = Parsed::default();
        let refusal = || Refusal::whole(Reason::Undecodable, "no JSON");
        parsed.add(Side::Lake, Err(refusal()), b"abc");
        parsed.add(Side::Warehouse, Err(refusal()), &[b'x'; 5_000]);
        let messages = sealing().seal(&parsed, 1_000);
        let found: Vec<_> = messages.iter().map(|one| (one.stream, items(one))).collect();
        let [(Stream { side: Side::Lake, .. }, lake), (Stream { side: Side::Warehouse, .. }, long)] =
            &found[..]
        else {
            panic!("{found:?}")
        };
        let [Item::Refused(lake)] = &lake[..] else { panic!("{lake:?}") };
        assert_eq!((&lake.bytes[..], &lake.refusal), (&b"abc"[..], &refusal()));
        let [Item::Refused(long)] = &long[..] else { panic!("{long:?}") };
        assert_eq!(long.bytes.len(), 1_000);
    }

    #[test]
    fn an_event_that_the_broker_never_takes_is_a_letter_and_holds_up_no_other() {
        let events = vec![access(1, "a"), access(2, &"x".repeat(5_000)), access(3, "b")];
        let parsed = Parsed { events, ..Parsed::default() };
        let one_partition = Sealing { partitions: 1, ..sealing() };
        let messages = one_partition.seal(&parsed, 1_000);
        assert!(messages.iter().all(|message| message.sealed.payload.len() <= 1_000));
        let items: Vec<Item> = messages.iter().flat_map(items).collect();
        let kinds: Vec<bool> = items.iter().map(|item| matches!(item, Item::Event(_))).collect();
        assert_eq!(kinds, [true, false, true], "{items:?}");
    }
}
