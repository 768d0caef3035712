//! How large a message may be, and splitting a message that was sealed under a larger bound.

use crate::{Format, Sealed, replay, v1};

/// Size of the largest message that producers make even if the broker accepts more, in bytes: half
/// of what a broker accepts by default.
pub const MESSAGE_BYTES_MAX: usize = 512 << 10;

/// The smallest limit that a broker may have for one message, in bytes. One accepted event with
/// every text at its longest and every character escaped has less than 10 KiB; headers come on top.
pub const PAYLOAD_BYTES_MIN: usize = 16 << 10;

/// Splits a message of several events into messages of at most `bytes_max` bytes, in the same
/// order, and as few as possible. Their ids follow from the id of the original, so that a retry
/// splits it the same way. `None` if one event alone is larger, or if the events in the message
/// cannot be separated.
///
/// If the broker has stored the whole message after all, its events arrive twice, each with its
/// identity, and count once.
pub fn cut(sealed: &Sealed, bytes_max: usize) -> Option<Vec<Sealed>> {
    let form = Form::of(sealed)?;
    let items = form.items(&sealed.payload)?;
    let mut parts = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (place, item) in items.iter().enumerate() {
        let item_bytes = form.bytes(item);
        if item_bytes + form.frame() > bytes_max {
            return None;
        }
        if bytes + item_bytes + form.frame() > bytes_max {
            parts.push(items.get(from..place)?);
            (from, bytes) = (place, 0);
        }
        bytes += item_bytes;
    }
    parts.push(items.get(from..)?);
    let sealed_part = |part: &&[&[u8]]| {
        let (subject, payload) = (sealed.subject.clone(), form.payload(part));
        Sealed::new(subject, sealed.content_type.clone(), payload, part.len())
            .salted(&sealed.message_id)
    };
    Some(parts.iter().map(sealed_part).collect())
}

/// How the events of a message are separated.
enum Form {
    /// One event per line.
    Lines,
    /// Each event after its length.
    Items,
}

impl Form {
    fn of(sealed: &Sealed) -> Option<Self> {
        let content_type = &sealed.content_type;
        if content_type == Format::Json.content_type() {
            Some(Self::Lines)
        } else if content_type == Format::Bincode.content_type()
            || content_type == replay::CONTENT_TYPE
        {
            Some(Self::Items)
        } else {
            None
        }
    }

    fn items<'a>(&self, payload: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let items: Vec<&[u8]> = match self {
            Self::Lines => payload.split_inclusive(|byte| *byte == b'\n').collect(),
            Self::Items => v1::split(payload).ok()?,
        };
        (!items.is_empty()).then_some(items)
    }

    const fn frame(&self) -> usize {
        match self {
            Self::Lines => 0,
            Self::Items => v1::HEAD_BYTES_MAX,
        }
    }

    const fn bytes(&self, item: &[u8]) -> usize {
        match self {
            Self::Lines => item.len(),
            Self::Items => item.len() + v1::LENGTH_BYTES_MAX,
        }
    }

    fn payload(&self, items: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Lines => items.concat(),
            Self::Items => {
                let mut body = Vec::new();
                for item in items {
                    v1::append_item(&mut body, item);
                }
                v1::payload(items.len(), &body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        Event, Fact, LakeAccessRestored, LakeAccessWithdrawn, Position, Stream, Verdict,
        WarehouseQueryWithdrawn,
        accept::{KEY_BYTES_MAX, NAME_BYTES_MAX, SEQUENCER_BYTES_MAX},
    };
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        Headers, Subjects, decode, fixtures,
        replay::{ReplayLimits, ReplayPacker, read_replay},
        seal, seal_verdicts,
    };

    fn events_in(sealed: &Sealed) -> Vec<Event> {
        let raw = decode(&Headers::of(&sealed.content_type), &sealed.payload).unwrap();
        raw.into_iter()
            .map(|raw| raw.decoded.unwrap().or_id(|| panic!("an event without an id")))
            .collect()
    }

    proptest! {
        #[test]
        fn the_parts_of_a_message_are_small_enough_and_hold_its_events_in_order(
            events in vec(fixtures::any_event(), 1..40),
            bytes_max in 200_usize..4_000,
        ) {
            for format in [Format::Json, Format::Bincode] {
                let whole = seal("lake.access.0.s", format, &events);
                let largest = events.iter().map(|event| {
                    seal("s", format, std::slice::from_ref(event)).payload.len()
                });
                let Some(parts) = cut(&whole, bytes_max) else {
                    prop_assert!(largest.max().unwrap() + v1::FRAME_BYTES_MAX > bytes_max);
                    continue;
                };
                prop_assert!(parts.iter().all(|part| part.payload.len() <= bytes_max));
                prop_assert_eq!(parts.iter().map(|part| part.events).sum::<usize>(), whole.events);
                let inside: Vec<Event> = parts.iter().flat_map(events_in).collect();
                prop_assert_eq!(&inside, &events);
                prop_assert_eq!(cut(&whole, bytes_max), Some(parts));
            }
        }
    }

    #[test]
    fn the_parts_of_a_message_are_as_few_as_the_bound_gives() {
        let events = vec![fixtures::access_of("k"); 12];
        for (format, form, head) in
            [(Format::Json, Form::Lines, 0), (Format::Bincode, Form::Items, v1::HEAD_BYTES_MAX)]
        {
            let whole = seal("lake.access.0.s", format, &events);
            let item_bytes = form.bytes(form.items(&whole.payload).unwrap()[0]);
            let sizes = |bytes_max: usize| -> Option<Vec<usize>> {
                Some(cut(&whole, bytes_max)?.iter().map(|part| part.events).collect())
            };
            for count in 1..=12 {
                let fits = head + count * item_bytes;
                let expected = |count: usize| -> Option<Vec<usize>> {
                    (count > 0).then(|| events.chunks(count).map(<[Event]>::len).collect())
                };
                assert_eq!(sizes(fits), expected(count), "{format:?} {count}");
                assert_eq!(sizes(fits - 1), expected(count - 1), "{format:?} {count}, less a byte");
            }
        }
    }

    #[test]
    fn verdicts_and_messages_of_a_replay_are_cut_with_their_numbers_and_positions() {
        let event = fixtures::access_of("k");
        let verdicts: Vec<Verdict> =
            (1..=9).map(|number| Verdict { number, event: event.clone() }).collect();
        let subjects = Subjects::default();
        let whole =
            seal_verdicts(&subjects, Stream::lake(0), &verdicts, 1, MESSAGE_BYTES_MAX).unwrap();
        let parts = cut(&whole, whole.payload.len() / 2).unwrap();
        assert!(parts.len() >= 2, "{parts:?}");
        let payload: Vec<u8> = parts.iter().flat_map(|part| part.payload.to_vec()).collect();
        assert_eq!(payload, whole.payload);

        let mut packer = ReplayPacker::new("replay.r.lake.0".to_owned(), ReplayLimits::default());
        let place = |sequence| Position { epoch: 1, sequence, index: 0 };
        for sequence in 1..=9 {
            packer.push(place(sequence), &event);
        }
        let whole = packer.flush().unwrap();
        let parts = cut(&whole, whole.payload.len() / 2).unwrap();
        let positions: Vec<Position> = parts
            .iter()
            .flat_map(|part| read_replay(&Headers::of(&part.content_type), &part.payload).unwrap())
            .map(|(position, _)| position)
            .collect();
        assert_eq!(positions, (1..=9).map(place).collect::<Vec<_>>());
    }

    #[test]
    fn parts_have_ids_of_their_own_that_follow_from_the_message_s() {
        let events = vec![fixtures::access_of("k"); 4];
        let whole = seal("lake.access.0.s", Format::Json, &events);
        let ids = |whole: &Sealed| -> Vec<String> {
            let parts = cut(whole, whole.payload.len() / 2).unwrap();
            parts.into_iter().map(|part| part.message_id).collect()
        };
        let other = Sealed { message_id: format!("{}-1", whole.message_id), ..whole.clone() };
        assert_ne!(ids(&whole), ids(&other), "another attempt is another message");
        assert!(!ids(&whole).contains(&whole.message_id));
    }

    #[test]
    fn one_event_that_is_too_large_is_not_cut() {
        let events = [fixtures::access_of("k"), fixtures::access_of(&"k".repeat(1_000))];
        for format in [Format::Json, Format::Bincode] {
            assert_eq!(cut(&seal("s", format, &events), 900), None);
        }
    }

    /// The reason for the bound: every accepted event fits a broker that is accepted.
    #[test]
    fn the_largest_event_that_is_accepted_fits_into_the_smallest_payload_that_is_accepted() {
        let text = |bytes: usize| "\u{1}".repeat(bytes);
        let mut all = fixtures::one_of_each();
        for event in &mut all {
            match &mut event.fact {
                Fact::LakeAccess(fact)
                | Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access: fact, .. })
                | Fact::LakeAccessRestored(LakeAccessRestored { access: fact, .. }) => {
                    fact.bucket = text(NAME_BYTES_MAX);
                    fact.key = text(KEY_BYTES_MAX);
                    fact.sequencer = Some(text(SEQUENCER_BYTES_MAX));
                    fact.principal = text(NAME_BYTES_MAX);
                }
                Fact::LakeInventory(fact) => fact.bucket = text(NAME_BYTES_MAX),
                Fact::WarehouseQuery(fact)
                | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { query: fact, .. }) => {
                    fact.warehouse = text(NAME_BYTES_MAX);
                    fact.database = text(NAME_BYTES_MAX);
                    fact.principal = text(NAME_BYTES_MAX);
                    fact.fingerprint = text(NAME_BYTES_MAX);
                }
            }
        }
        for event in all {
            let sealed = seal("s", Format::Json, &[event]);
            assert!(sealed.payload.len() < 10 << 10, "{}", sealed.payload.len());
            assert!(sealed.payload.len() + (4 << 10) < PAYLOAD_BYTES_MIN, "with room for headers");
        }
    }
}
