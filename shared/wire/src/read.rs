//! Reading: bytes to events that may be counted, and to refusals with their reasons.

use domain::{
    Event, EventId, EventIdentity, Reason, Refusal, Rules, Stream, Timestamp, Verdict, accept,
};
use serde_json::value::RawValue;

use crate::{
    Format, Headers, derived,
    json::{self, Decoded, Undecoded},
    refused, replay,
    subject::Subjects,
    text::{foreign, trimmed},
    v1,
};

/// How many items one message may hold. Producers usually pack about a hundred; the bound prevents
/// that one megabyte of line breaks becomes half a million dead letters.
pub const ITEMS_MAX: usize = 20_000;

/// A message as the broker delivered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The broker's sequence.
    pub sequence: u64,
    /// The broker's timestamp, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// The subject, without the prefix.
    pub subject: &'a str,
    /// The headers of the message, readable or not.
    pub headers: &'a Headers,
    /// The body.
    pub payload: &'a [u8],
}

/// The contents of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The items in the order of the message. The index of an item is the index in its position.
    pub items: Vec<Item>,
    /// How many fields were ignored, because they belong to no type or to another type.
    pub fields_ignored: u64,
}

/// One item of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event that may be counted, if it was not counted yet.
    Event(Event),
    /// An event that counts by decision of the archive, if the verdict's number is the next one.
    Verdict(Verdict),
    /// An item that becomes a dead letter.
    Refused(RefusedItem),
}

/// An item that is not counted, with all that a person needs to see why and to send it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedItem {
    /// The reason.
    pub refusal: Refusal,
    /// The bytes of the item if it can be separated from the rest of the message, else all bytes.
    pub bytes: Vec<u8>,
    /// How many bytes at the beginning are the header block of the message. The block is kept only
    /// if it cannot be read.
    pub header_bytes: usize,
    /// The identity of the item, if it contains one.
    pub identity: Option<EventIdentity>,
}

/// One item of a message before acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// The bytes of the item.
    pub bytes: &'a [u8],
    /// The event, perhaps without an id, or why the bytes are not an event.
    pub decoded: Result<Decoded, Undecoded>,
}

/// Decodes a message and decides which of its events are accepted.
///
/// The function is total: any bytes give a result, and the same bytes at the same position give the
/// same result. An event without an id gets one from its position. On the subject of verdicts only
/// verdicts are accepted.
pub fn read(stream: Stream, message: &Message<'_>, rules: &Rules) -> Contents {
    let Message { sequence, broker_ns, subject, headers, payload } = *message;
    let decoded = headers.content_type().and_then(|form| decode_live(form, payload));
    let raw = match decoded {
        Ok(raw) => raw,
        Err(refusal) => {
            let items = vec![Item::Refused(whole(refusal, headers, payload))];
            return Contents { items, fields_ignored: 0 };
        }
    };
    let is_late = Subjects::is_late(subject, stream);
    let broker_time = Timestamp::from_nanos(broker_ns);
    let mut reading = Contents { items: Vec::with_capacity(raw.len()), fields_ignored: 0 };
    for (index, Raw { bytes, decoded }) in (0..).zip(raw) {
        reading.items.push(match decoded {
            Ok(decoded) if is_late => late(stream, decoded, bytes, rules),
            Ok(decoded) => {
                reading.fields_ignored += u64::from(decoded.fields_ignored);
                let event =
                    identified(decoded, || derived::of_place(stream, sequence, index, broker_ns));
                match has_its_id(&event).and_then(|()| accept(&event, stream, broker_time, rules)) {
                    Ok(()) => Item::Event(event),
                    Err(refusal) => refused_item(refusal, bytes, Some(event.identity())),
                }
            }
            Err(undecoded) => refused_item(undecoded.refusal, bytes, undecoded.identity),
        });
    }
    reading
}

/// The event with its own id, or the one that follows from what it corrects, or the given one.
fn identified(decoded: Decoded, otherwise: impl FnOnce() -> EventId) -> Event {
    let correction = derived::of_correction(decoded.occurred_at, &decoded.fact);
    decoded.or_id(|| correction.unwrap_or_else(otherwise))
}

/// Whether the id of a correction is the one that follows from what it corrects: under another one
/// the same event could be withdrawn twice.
fn has_its_id(event: &Event) -> Result<(), Refusal> {
    match derived::of_correction(event.occurred_at, &event.fact) {
        Some(id) if id != event.id => {
            let detail = format!("must be {id}, or left out");
            Err(Refusal::of_field(Reason::WrongField, "id", detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// Decodes a message without acceptance, and without deriving ids from positions. This is for
/// people who look at messages, also at those of a replay run.
///
/// # Errors
///
/// The message as a whole has no known form.
pub fn decode<'a>(headers: &Headers, payload: &'a [u8]) -> Result<Vec<Raw<'a>>, Refusal> {
    let content_type = headers.content_type()?;
    if !replay::is_replay(content_type) {
        return decode_live(content_type, payload);
    }
    let events = v1::split(payload)?.into_iter().map(|item| {
        let (_, bytes) = replay::cut(item)?;
        Ok(Raw { bytes, decoded: v1::decode(bytes) })
    });
    events.collect()
}

fn decode_live<'a>(content_type: Option<&str>, payload: &'a [u8]) -> Result<Vec<Raw<'a>>, Refusal> {
    match Format::from_content_type(content_type) {
        Some(format) => decode_format(format, payload),
        None => {
            let name = content_type.unwrap_or_default();
            Err(refused::refusal(name).unwrap_or_else(|| {
                let detail = format!("content type {name:?} is not known");
                Refusal::whole(Reason::Undecodable, detail)
            }))
        }
    }
}

/// A message that is refused as a whole, with all of its bytes. The header block is included if it
/// cannot be read.
pub fn whole(refusal: Refusal, headers: &Headers, payload: &[u8]) -> RefusedItem {
    let block = match headers {
        Headers::Read { .. } => &[],
        Headers::Unreadable(headers) => headers.block.as_slice(),
    };
    let bytes = [block, payload].concat();
    RefusedItem { refusal, bytes, header_bytes: block.len(), identity: None }
}

/// How many items [`read`] returns for a message, without decoding them.
pub fn count_items(headers: &Headers, payload: &[u8]) -> usize {
    let Ok(content_type) = headers.content_type() else { return 1 };
    let items = match Format::from_content_type(content_type) {
        Some(Format::Json) => json_items(payload),
        Some(Format::Bincode) => v1::split(payload),
        None => return 1,
    };
    match items {
        Ok(items) if items.len() <= ITEMS_MAX => items.len(),
        // The whole message becomes one dead letter.
        Ok(_) | Err(_) => 1,
    }
}

fn decode_format(format: Format, payload: &[u8]) -> Result<Vec<Raw<'_>>, Refusal> {
    let items = match format {
        Format::Json => json_items(payload)?,
        Format::Bincode => v1::split(payload)?,
    };
    if items.len() > ITEMS_MAX {
        let detail = format!("the message has {} items, {ITEMS_MAX} are allowed", items.len());
        return Err(Refusal::whole(Reason::TooLarge, detail));
    }
    let decode_item = match format {
        Format::Json => json::decode_line,
        Format::Bincode => v1::decode,
    };
    Ok(items.into_iter().map(|bytes| Raw { bytes, decoded: decode_item(bytes) }).collect())
}

/// The texts of the items: the elements of an array, or the only value of the payload, or its
/// lines.
fn json_items(payload: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if let Some(foreign) = foreign(payload) {
        let detail = format!("the payload {foreign}");
        return Err(Refusal::whole(Reason::Undecodable, detail));
    }
    let payload = trimmed(payload);
    if payload.is_empty() {
        return Err(Refusal::whole(Reason::Undecodable, "the payload is empty"));
    }
    if payload.first() == Some(&b'[')
        && let Ok(items) = serde_json::from_slice::<Vec<&RawValue>>(payload)
    {
        return Ok(items.into_iter().map(|item| item.get().as_bytes()).collect());
    }
    // Most payloads are JSON lines, where a line that ends an object is followed by a line that
    // begins another; these need no second look. Any other payload with line breaks may be one
    // object over several lines.
    if payload.contains(&b'\n')
        && !payload.windows(3).any(|three| three == b"}\n{")
        && serde_json::from_slice::<&RawValue>(payload).is_ok()
    {
        return Ok(vec![payload]);
    }
    let lines = payload.split(|byte| *byte == b'\n').map(trimmed);
    Ok(lines.filter(|line| !line.is_empty()).collect())
}

/// A verdict, which has a number and an id.
///
/// The event was accepted at its first position, but the verdict does not say when that was.
/// Everything is therefore checked again except the times relative to the broker's. An event that
/// passed the retention while its verdict waited is in the archive and counts.
fn late(stream: Stream, decoded: Decoded, bytes: &[u8], rules: &Rules) -> Item {
    let identity = decoded.id.map(|id| (decoded.occurred_at, id));
    let missing = |field| {
        let refusal =
            Refusal::of_field(Reason::MissingField, field, "every verdict must have this field");
        refused_item(refusal, bytes, identity)
    };
    let Some(number) = decoded.verdict else { return missing("verdict") };
    let Some(id) = decoded.id else { return missing("id") };
    let event = decoded.or_id(|| id);
    match accept(&event, stream, event.occurred_at, rules) {
        Ok(()) => Item::Verdict(Verdict { number, event }),
        Err(refusal) => refused_item(refusal, bytes, identity),
    }
}

fn refused_item(refusal: Refusal, bytes: &[u8], identity: Option<EventIdentity>) -> Item {
    Item::Refused(RefusedItem { refusal, bytes: bytes.to_vec(), header_bytes: 0, identity })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{fixtures, fixtures::AT, seal};

    const LAKE: Stream = Stream::lake(0);
    const SUBJECT: &str = "lake.access.0.test";
    const BROKER_NS: i64 = AT.0 * 1_000;

    fn read_with(headers: &Headers, payload: &[u8]) -> Contents {
        let (sequence, broker_ns, subject) = (7, BROKER_NS, SUBJECT);
        let message = Message { sequence, broker_ns, subject, headers, payload };
        read(LAKE, &message, &Rules::default())
    }

    fn read_lake(content_type: Option<&str>, payload: &[u8]) -> Contents {
        read_with(&content_type.into(), payload)
    }

    fn refusals(reading: &Contents) -> Vec<Option<(Reason, Option<&'static str>)>> {
        let of = |item: &Item| match item {
            Item::Event(_) | Item::Verdict(_) => None,
            Item::Refused(item) => Some((item.refusal.reason, item.refusal.field)),
        };
        reading.items.iter().map(of).collect()
    }

    fn line(key: &str) -> String {
        json::encode_line(&fixtures::access_of(key))
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_message_or_a_line() {
        let bom = "\u{feff}";
        for payload in [
            format!("{bom}{}", line("a")),
            format!(" {bom}\r\n{bom}{}\n{bom}{}\n{bom}", line("a"), line("b")),
            format!("{bom}[{},{}]", line("a"), line("b")),
            format!("{bom}{}", line("a").replace(',', ",\n")),
        ] {
            let reading = read_lake(None, payload.as_bytes());
            let refused: Vec<_> = refusals(&reading).into_iter().flatten().collect();
            assert_eq!(refused, [], "{payload}");
            assert_eq!(count_items(&Headers::default(), payload.as_bytes()), reading.items.len());
        }
    }

    #[test]
    fn a_payload_of_another_format_is_one_dead_letter_that_names_it() {
        let utf_16: Vec<u8> = line("a").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = [b"\xff\xfe", &utf_16[..]].concat();
        let payloads: [(&[u8], &str); 5] = [
            (&utf_16, "UTF-16"),
            (&marked, "UTF-16"),
            (b"\x1f\x8b\x08\n\n\n", "gzip"),
            (b"\x28\xb5\x2f\xfd\n\n", "zstd"),
            (b"\xfd7zXZ\x00\n\n", "xz"),
        ];
        for (payload, name) in payloads {
            let reading = read_lake(None, payload);
            let [Item::Refused(letter)] = &reading.items[..] else { panic!("{reading:?}") };
            assert!(letter.refusal.to_string().contains(name), "{}", letter.refusal);
            assert_eq!(letter.bytes, payload);
            assert_eq!(count_items(&Headers::default(), payload), 1);
        }
    }

    #[test]
    fn a_message_whose_headers_cannot_be_read_is_one_letter_that_holds_all_its_bytes() {
        let payload = format!("{}\n{}", line("a"), line("b"));
        let headers = Headers::read(SUBJECT, b"NATS/1.0\r\nx: Jo\xe3o\r\n\r\n");
        let reading = read_with(&headers, payload.as_bytes());
        assert_eq!(refusals(&reading), [Some((Reason::UnreadableHeaders, None))]);
        assert_eq!(count_items(&headers, payload.as_bytes()), 1);
        let Item::Refused(item) = &reading.items[0] else { panic!("it was read") };
        let (block, body) = item.bytes.split_at(item.header_bytes);
        assert_eq!(
            (block, body),
            (b"NATS/1.0\r\nx: Jo\xe3o\r\n\r\n".as_slice(), payload.as_bytes())
        );
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_read_in_either_form(events in vec(fixtures::any_event(), 0..5)) {
            for format in [Format::Json, Format::Bincode] {
                let sealed = seal("s", format, &events);
                let reading = read_lake(Some(&sealed.content_type), &sealed.payload);
                prop_assert_eq!(reading.items.len(), events.len());
                let counted = count_items(&Headers::of(&sealed.content_type), &sealed.payload);
                prop_assert_eq!(counted, events.len());
                prop_assert_eq!(reading.fields_ignored, 0);
                for (item, event) in reading.items.iter().zip(&events) {
                    let accepted = accept(event, LAKE, AT, &Rules::default());
                    match item {
                        Item::Event(read) => {
                            prop_assert_eq!(read, event);
                            prop_assert_eq!(accepted, Ok(()));
                        }
                        Item::Verdict(_) => prop_assert!(false, "{:?}", item),
                        Item::Refused(refused) => {
                            prop_assert_eq!(Some(event.identity()), refused.identity);
                            prop_assert_eq!(accepted, Err(refused.refusal.clone()));
                        }
                    }
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            payload in vec(any::<u8>(), 0..300),
            binary in any::<bool>(),
            version in any::<bool>(),
        ) {
            let mut payload = payload;
            if version {
                payload.insert(0, v1::VERSION);
            }
            let format = if binary { Format::Bincode } else { Format::Json };
            let reading = read_lake(Some(format.content_type()), &payload);
            let counted = count_items(&Headers::of(format.content_type()), &payload);
            prop_assert_eq!(counted, reading.items.len());
        }

        #[test]
        fn no_damage_to_a_message_makes_it_panic(
            events in vec(fixtures::any_event(), 1..4),
            binary in any::<bool>(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let format = if binary { Format::Bincode } else { Format::Json };
            let mut payload = seal("s", format, &events).payload.to_vec();
            for (place, byte) in damage {
                let place = place.index(payload.len());
                payload[place] = byte;
            }
            read_lake(Some(format.content_type()), &payload);
        }
    }

    #[test]
    fn one_bad_line_does_not_spoil_the_others() {
        let payload = format!("{}\n{{\"type\":\"lake.access\"\n\n{}\r\n", line("a"), line("b"));
        let reading = read_lake(None, payload.as_bytes());
        assert_eq!(refusals(&reading), [None, Some((Reason::Undecodable, None)), None]);
        let Item::Refused(refused) = &reading.items[1] else { unreachable!() };
        assert_eq!(refused.bytes, b"{\"type\":\"lake.access\"");
    }

    #[test]
    fn one_bad_item_of_an_array_does_not_spoil_the_others() {
        let payload = format!("[{}, 17,\n {}]", line("a"), line("b"));
        let reading = read_lake(None, payload.as_bytes());
        assert_eq!(refusals(&reading), [None, Some((Reason::Undecodable, None)), None]);
        let Item::Refused(refused) = &reading.items[1] else { unreachable!() };
        assert_eq!(refused.bytes, b"17");
    }

    #[test]
    fn an_object_may_stand_on_several_lines() {
        let payload = line("a").replace(',', ",\n  ");
        assert_eq!(refusals(&read_lake(None, payload.as_bytes())), [None]);
    }

    #[test]
    fn garbage_is_one_dead_letter_with_its_bytes() {
        for garbage in [&b"hello"[..], b"", b" \n", b"\xff\x00", b"{", b"null", b"{}"] {
            for content_type in [None, Some("application/x-bincode; v=1"), Some("text/plain")] {
                let reading = read_lake(content_type, garbage);
                let [Item::Refused(refused)] = &reading.items[..] else {
                    panic!("{garbage:?}: {reading:?}")
                };
                assert_eq!(count_items(&content_type.into(), garbage), 1);
                assert_eq!(refused.bytes.trim_ascii(), garbage.trim_ascii());
            }
        }
    }

    #[test]
    fn a_message_of_too_many_items_is_one_dead_letter() {
        let payload = "x\n".repeat(ITEMS_MAX + 1);
        let reading = read_lake(None, payload.as_bytes());
        assert_eq!(refusals(&reading), [Some((Reason::TooLarge, None))]);
        let fits = &payload.as_bytes()[2..];
        assert_eq!(read_lake(None, fits).items.len(), ITEMS_MAX);
        let counted = |payload| count_items(&Headers::default(), payload);
        assert_eq!((counted(payload.as_bytes()), counted(fits)), (1, ITEMS_MAX));
    }

    #[test]
    fn an_event_without_an_id_gets_that_of_its_place() {
        let without = |key: &str| {
            let line = line(key);
            let start = line.find("\"id\"").unwrap();
            let end = line[start..].find(',').unwrap() + start + 1;
            format!("{}{}", &line[..start], &line[end..])
        };
        let payload = format!("{}\n{}\n", without("a"), without("a"));
        let reading = read_lake(None, payload.as_bytes());
        for (index, item) in (0..).zip(&reading.items) {
            let Item::Event(event) = item else { panic!("{item:?}") };
            assert_eq!(event.id, derived::of_place(LAKE, 7, index, BROKER_NS));
        }
    }

    #[test]
    fn what_acceptance_refuses_keeps_its_bytes_and_identity() {
        let event = &fixtures::one_of_each()[2];
        let line = json::encode_line(event);
        let reading = read_lake(None, line.as_bytes());
        assert_eq!(refusals(&reading), [Some((Reason::WrongStream, None))]);
        let Item::Refused(refused) = &reading.items[0] else { unreachable!() };
        assert_eq!(
            (&refused.bytes[..], refused.identity),
            (line.as_bytes(), Some(event.identity()))
        );
    }

    #[test]
    fn unknown_fields_are_ignored_and_counted() {
        let line = line("a").replacen('{', "{\"colour\":[1,{\"a\":2}],\"rows_returned\":3,", 1);
        let reading = read_lake(None, line.as_bytes());
        assert_eq!(refusals(&reading), [None]);
        assert_eq!(reading.fields_ignored, 2);
    }
}
