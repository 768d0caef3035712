//! What every parser of reports must hold, whatever the bytes.

use collector::{Parsed, UnreadableReport};
use domain::{Reason, Rules, Stream};
use wire::{Format, Headers, Item, Message, Subjects, seal};

/// Reads a report, and its events once more from the messages that they become.
///
/// # Panics
///
/// The same bytes give other events, or a reader of the stream sees another event than the parser
/// gave: one that it can't decode, or one of other values.
pub fn read_report(
    parse: impl Fn(&[u8]) -> Result<Parsed, UnreadableReport>,
    payload: &[u8],
) {
    let parsed = parse(payload);
    assert_eq!(parsed, parse(payload), "a report that comes twice counts once");
    for event in parsed.iter().flat_map(|parsed| &parsed.events) {
        let stream = Stream { side: event.fact.side(), partition: 0 };
        let subject = Subjects::default().of(&event.fact, 0, "fuzz");
        let sealed = seal(&subject, Format::Json, std::slice::from_ref(event));
        let message = Message {
            sequence: 1,
            broker_ns: event.occurred_at.0.saturating_mul(1_000),
            subject: &subject,
            headers: &Headers::of(&sealed.content_type),
            payload: &sealed.payload,
        };
        match &wire::read(stream, &message, &Rules::default()).items[..] {
            [Item::Event(read)] => assert_eq!(read, event),
            [Item::Refused(read)] => {
                assert_ne!(read.refusal.reason, Reason::Undecodable, "{event:?}: {read:?}");
            }
            items => panic!("{event:?} became {items:?}"),
        }
    }
}
