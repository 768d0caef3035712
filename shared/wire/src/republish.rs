//! Dead letters in the form in which they are published again.

use domain::{Event, EventId, Position, Reason, Refusal, Stream};

use crate::{
    Format, Headers, Raw, Sealed, decode, derived,
    json::{self, Undecoded},
    v1,
};

/// The first position of a dead letter, from which an event without an id gets its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstPlace {
    /// The stream from which the dead letter was read.
    pub stream: Stream,
    /// The position in that stream.
    pub position: Position,
    /// The broker's timestamp of its message, in nanoseconds since 1970.
    pub broker_ns: i64,
}

/// The events in the bytes of a dead letter: one item, or the whole message if it could not be
/// separated. An event without an id gets the id of its first position.
///
/// The form is recognized from the bytes, because a dead letter does not keep its header.
///
/// # Errors
///
/// Why some of the bytes are still not an event.
pub fn reread(first: &FirstPlace, bytes: &[u8]) -> Result<Vec<Event>, Refusal> {
    let form = Format::of_bytes(bytes);
    let whole = message(first, form, bytes);
    let Err(refusal) = whole else { return whole };
    // An item of a binary message has no version byte, and may begin with any byte.
    match v1::decode(bytes) {
        Ok(decoded) => Ok(vec![decoded.or_id(|| place_id(first, 0))]),
        Err(_) => Err(refusal),
    }
}

fn message(first: &FirstPlace, form: Format, bytes: &[u8]) -> Result<Vec<Event>, Refusal> {
    let items = decode(&Headers::of(form.content_type()), bytes)?;
    if items.is_empty() {
        return Err(Refusal::whole(Reason::Undecodable, "there is no event in it"));
    }
    let event = |(index, raw): (u32, Raw<'_>)| match raw.decoded {
        Ok(decoded) => Ok(decoded.or_id(|| place_id(first, index))),
        Err(Undecoded { refusal, .. }) => Err(refusal),
    };
    (0..).zip(items).map(event).collect()
}

/// The one event that replaces a dead letter.
///
/// `known` is the id of the dead letter, if an id could be read: it stays the same.
///
/// # Errors
///
/// The text is not an event, or has another id than the dead letter.
pub fn replacement(
    first: &FirstPlace,
    known: Option<EventId>,
    json: &[u8],
) -> Result<Event, Refusal> {
    let decoded = json::decode_line(json).map_err(|undecoded| undecoded.refusal)?;
    if let (Some(known), Some(given)) = (known, decoded.id)
        && known != given
    {
        let detail = format!("{given} is another event: the id of the dead letter is {known}");
        return Err(Refusal::of_field(Reason::WrongField, "id", detail));
    }
    Ok(decoded.or_id(|| known.unwrap_or_else(|| place_id(first, 0))))
}

fn place_id(first: &FirstPlace, index: u32) -> EventId {
    let Position { sequence, index: begins, .. } = first.position;
    derived::of_place(first.stream, sequence, begins.saturating_add(index), first.broker_ns)
}

/// Seals the events of a dead letter for one attempt at publishing them. The message id is a hash
/// of dead letter, attempt and bytes: the broker may still remember the message of the first
/// position, or of an attempt whose response was lost, and would take this message for the same.
pub fn seal_again(subject: &str, events: &[Event], letter: u64, attempt: u32) -> Sealed {
    let sealed = crate::seal(subject, Format::Json, events);
    let salt = format!("letter {letter}, attempt {attempt}");
    sealed.salted(&salt)
}

#[cfg(test)]
mod tests {
    use domain::Side;

    use super::*;
    use crate::fixtures;

    const FIRST: FirstPlace = FirstPlace {
        stream: Stream { side: Side::Lake, partition: 0 },
        position: Position { epoch: 1, sequence: 7, index: 3 },
        broker_ns: 1_000,
    };

    fn without_id(key: &str) -> String {
        let line = json::encode_line(&fixtures::access_of(key));
        let start = line.find("\"id\"").unwrap();
        let end = line[start..].find(',').unwrap() + start + 1;
        format!("{}{}", &line[..start], &line[end..])
    }

    #[test]
    fn an_item_of_either_form_is_read_again_and_keeps_its_id() {
        let event = fixtures::access_of("a");
        let line = json::encode_line(&event);
        assert_eq!(reread(&FIRST, line.as_bytes()), Ok(vec![event.clone()]));
        let mut item = Vec::new();
        v1::write_item(&mut item, &event);
        assert_eq!(reread(&FIRST, &item), Ok(vec![event.clone()]));
        let events = vec![event, fixtures::access_of("b")];
        assert_eq!(reread(&FIRST, &v1::encode(&events)), Ok(events));
    }

    #[test]
    fn an_event_without_an_id_gets_that_of_its_first_place() {
        let text = format!("{}\n{}", without_id("a"), without_id("b"));
        let events = reread(&FIRST, text.as_bytes()).unwrap();
        let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
        let of = |index| derived::of_place(FIRST.stream, 7, index, 1_000);
        assert_eq!(ids, [of(3), of(4)]);
    }

    #[test]
    fn what_is_no_event_still_says_why() {
        for bytes in [&b"garbage"[..], b"", b"{\"type\":\"lake.access\"}", b"\x01\xff\xff"] {
            assert!(reread(&FIRST, bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_replacement_keeps_the_id_of_its_letter() {
        let (known, other) = (fixtures::access_of("a"), derived::of_line("s", b"x", 0));
        let line = json::encode_line(&known);
        assert_eq!(replacement(&FIRST, None, line.as_bytes()).unwrap().id, known.id);
        assert_eq!(replacement(&FIRST, Some(known.id), line.as_bytes()).unwrap().id, known.id);
        let refused = replacement(&FIRST, Some(other), line.as_bytes()).unwrap_err();
        assert_eq!(refused.field, Some("id"));
        let bare = without_id("a");
        assert_eq!(replacement(&FIRST, Some(other), bare.as_bytes()).unwrap().id, other);
        let placed = replacement(&FIRST, None, bare.as_bytes()).unwrap().id;
        assert_eq!(placed, derived::of_place(FIRST.stream, 7, 3, 1_000));
    }

    #[test]
    fn each_letter_and_each_attempt_has_a_message_id_of_its_own() {
        let events = [fixtures::access_of("a")];
        let first = crate::seal("s", Format::Json, &events);
        let again = seal_again("s", &events, 1, 1);
        assert_eq!((&again.payload, &again.subject), (&first.payload, &first.subject));
        assert_eq!(again, seal_again("s", &events, 1, 1));
        let ids = [
            first.message_id,
            again.message_id,
            seal_again("s", &events, 1, 2).message_id,
            seal_again("s", &events, 2, 1).message_id,
        ];
        let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
