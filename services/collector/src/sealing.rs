//! From what was read to the messages that are published: the right stream, the right partition, and
//! nothing that the broker could never take. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::{Event, Reason, Refusal, Side, Stream, partition};
use wire::{Format, Packer, PackerLimits, Sealed, Subjects, seal_refused};

use crate::parsed::{Parsed, RefusedRecord};

/// A message and the stream that it goes to. What is sealed once is published as it is, however often
/// that is tried: the broker knows it again by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub stream: Stream,
    /// The message.
    pub sealed: Sealed,
}

/// How the messages of one source are made.
#[derive(Clone, Debug)]
pub(crate) struct Sealing {
    /// The subjects of the pipeline.
    pub(crate) subjects: Subjects,
    /// The name of the source.
    pub(crate) source: String,
    /// Into how many partitions each side is split.
    pub(crate) partitions: u16,
}

impl Sealing {
    /// The messages of what was read, each of at most so many bytes.
    pub(crate) fn seal(&self, parsed: &Parsed, bytes_max: usize) -> Vec<Outgoing> {
        let events = parsed.events.iter().map(|event| (self.stream(event), event));
        let mut messages = self.pack(events, bytes_max);
        messages.extend(parsed.refused.iter().map(|record| self.letter(record, bytes_max)));
        messages
    }

    /// The messages of an inventory, each of at most so many bytes: one event for each partition of
    /// the lake, in their order, with that partition's part.
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
            // The time is of no matter: what is left at the end goes out at once.
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

    /// A record that was refused has no object, so that it goes to the first partition.
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

/// An event that no broker takes for its length is not one that could be accepted either: its
/// beginning is a dead letter. The publisher would stop at it for ever.
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

    /// What the readers of its stream make of a message.
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
