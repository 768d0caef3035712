//! Verdicts as a message: JSON lines of events, each with its verdict number.

use domain::{Stream, Verdict};

use crate::{Format, Sealed, Subjects, json};

/// How many verdicts one message may hold. Such a message has about as many bytes as a message of
/// events, so publishing one at a time is fast enough.
pub const VERDICTS_PER_MESSAGE_MAX: usize = 1_000;

/// Writes and seals the first of these verdicts: as many as fit into one message of at most
/// `bytes_max` bytes, but at least one. [`Sealed::events`] is their number. Without verdicts there
/// is no message.
///
/// The same verdicts and the same attempt give the same message, so that the broker stores it once.
/// A new attempt is needed if the broker still knows the id of a message that was deleted; it
/// changes only the id.
pub fn seal_verdicts(
    subjects: &Subjects,
    stream: Stream,
    verdicts: &[Verdict],
    attempt: u32,
    bytes_max: usize,
) -> Option<Sealed> {
    let mut payload = Vec::new();
    let mut taken = 0;
    for verdict in verdicts.iter().take(VERDICTS_PER_MESSAGE_MAX) {
        let before = payload.len();
        json::write_verdict(&mut payload, verdict.number, &verdict.event);
        payload.push(b'\n');
        if taken > 0 && payload.len() > bytes_max {
            payload.truncate(before);
            break;
        }
        taken += 1;
    }
    if taken == 0 {
        return None;
    }
    let content_type = Format::Json.content_type();
    let mut sealed = Sealed::new(subjects.late(stream), content_type, payload, taken);
    if attempt > 0 {
        sealed.message_id = format!("{}-{attempt}", sealed.message_id);
    }
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use domain::{
        Fact, LakeAccess, Reason, Rules,
        accept::{KEY_BYTES_MAX, TIME_START},
    };
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Contents, Item, Message, fixtures, read, seal};
    use crate::{Headers, MESSAGE_BYTES_MAX};

    const STREAM: Stream = Stream::lake(0);

    fn read_at(subject: &str, headers: &Headers, payload: &[u8], rules: &Rules) -> Contents {
        let (sequence, broker_ns) = (7, fixtures::AT.0 * 1_000);
        read(STREAM, &Message { sequence, broker_ns, subject, headers, payload }, rules)
    }

    fn numbered(first: u64, events: Vec<domain::Event>) -> Vec<Verdict> {
        (first..).zip(events).map(|(number, event)| Verdict { number, event }).collect()
    }

    fn seal_lake(verdicts: &[Verdict], attempt: u32) -> Sealed {
        seal_verdicts(&Subjects::default(), STREAM, verdicts, attempt, MESSAGE_BYTES_MAX).unwrap()
    }

    fn read_late(sealed: &Sealed, rules: &Rules) -> Vec<Item> {
        read_at("lake.late.0", &Headers::of(&sealed.content_type), &sealed.payload, rules).items
    }

    fn refusal(item: &Item) -> (Reason, Option<&'static str>) {
        let Item::Refused(refused) = item else { panic!("{item:?}") };
        (refused.refusal.reason, refused.refusal.field)
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_read_back_with_its_numbers(
            events in vec(fixtures::accepted_event(), 1..5),
            first in 1_u64..1_000_000,
        ) {
            let events = events.into_iter().filter(|event| event.fact.side() == STREAM.side);
            let verdicts = numbered(first, events.collect());
            prop_assume!(!verdicts.is_empty());
            let sealed = seal_lake(&verdicts, 0);
            prop_assert_eq!(&sealed, &seal_lake(&verdicts, 0));
            prop_assert_eq!(&sealed.subject, "lake.late.0");
            prop_assert_eq!(sealed.events, verdicts.len());
            let items: Vec<Item> = verdicts.into_iter().map(Item::Verdict).collect();
            prop_assert_eq!(read_late(&sealed, &Rules::default()), items);
        }
    }

    #[test]
    fn a_verdict_is_a_readable_line() {
        let verdicts = numbered(17, vec![fixtures::one_of_each().remove(1)]);
        assert_eq!(
            seal_lake(&verdicts, 0).payload,
            r#"{"type":"lake.inventory","id":"01a20724-c520-81a6-aaf3-780000000001","bucket":"raw","objects":1200,"bytes":98765432,"as_of":"2026-11-23T06:43:00.123456Z","verdict":17}
"#
        );
    }

    #[test]
    fn another_attempt_has_another_id_and_the_same_bytes() {
        let verdicts = numbered(1, vec![fixtures::access_of("k")]);
        let (first, second) = (seal_lake(&verdicts, 0), seal_lake(&verdicts, 1));
        let hash = Sealed::new(
            first.subject.clone(),
            first.content_type.clone(),
            first.payload.clone(),
            1,
        );
        assert_eq!(first.message_id, hash.message_id);
        assert_eq!(second.message_id, format!("{}-1", hash.message_id));
        assert_eq!(first.payload, second.payload);
    }

    #[test]
    fn a_message_has_its_bounds_and_holds_one_verdict_at_least() {
        assert_eq!(seal_verdicts(&Subjects::default(), STREAM, &[], 0, MESSAGE_BYTES_MAX), None);
        let many = numbered(1, vec![fixtures::access_of("k"); VERDICTS_PER_MESSAGE_MAX + 1]);
        assert_eq!(seal_lake(&many, 0).events, VERDICTS_PER_MESSAGE_MAX);
        let long = fixtures::access_of(&"\u{1}".repeat(KEY_BYTES_MAX));
        let long = seal_lake(&numbered(1, vec![long; 200]), 0);
        assert!(long.payload.len() <= MESSAGE_BYTES_MAX);
        assert!((2..200).contains(&long.events), "{}", long.events);
        let bounded = |bytes_max: usize| {
            seal_verdicts(&Subjects::default(), STREAM, &many[..5], 0, bytes_max).unwrap().events
        };
        let of_three = seal_lake(&many[..3], 0).payload.len();
        assert_eq!((bounded(of_three), bounded(of_three - 1)), (3, 2), "as many as fit");
        let huge = fixtures::access_of(&"k".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(seal_lake(&numbered(1, vec![huge; 2]), 0).events, 1);
    }

    #[test]
    fn where_verdicts_travel_anything_else_is_a_dead_letter() {
        let rules = Rules::default();
        let event = fixtures::access_of("k");
        for format in [Format::Json, Format::Bincode] {
            let items =
                read_late(&seal("lake.late.0", format, std::slice::from_ref(&event)), &rules);
            assert_eq!(refusal(&items[0]), (Reason::MissingField, Some("verdict")));
        }
        let query = fixtures::one_of_each().remove(2);
        let items = read_late(&seal_lake(&numbered(1, vec![query]), 0), &rules);
        assert_eq!(refusal(&items[0]), (Reason::WrongStream, None));
        let sealed = seal_lake(&numbered(1, vec![event]), 0);
        let text = String::from_utf8(sealed.payload.to_vec()).unwrap();
        for (from, to, field) in [
            ("\"verdict\":1", "\"verdict\":-1", "verdict"),
            ("\"verdict\":1", "\"verdict\":\"1\"", "verdict"),
            ("\"id\"", "\"no_id\"", "id"),
        ] {
            let text = text.replace(from, to);
            let items = read_at("lake.late.0", &Headers::default(), text.as_bytes(), &rules).items;
            assert_eq!(refusal(&items[0]), (Reason::MissingField, Some(field)), "{to}");
        }
    }

    #[test]
    fn elsewhere_the_number_is_a_field_that_is_ignored() {
        let event = fixtures::access_of("k");
        let sealed = seal_lake(&numbered(1, vec![event.clone()]), 0);
        let reading =
            read_at("lake.access.0.x", &Headers::default(), &sealed.payload, &Rules::default());
        assert_eq!(reading.items, [Item::Event(event)]);
        assert_eq!(reading.fields_ignored, 1);
    }

    #[test]
    fn what_passed_the_retention_while_its_verdict_waited_counts() {
        let rules = Rules { retention_days: 1, ..Rules::default() };
        let mut event = fixtures::access_of("k");
        event.occurred_at = TIME_START;
        assert!(matches!(event.fact, Fact::LakeAccess(LakeAccess { .. })));
        let items = read_late(&seal_lake(&numbered(1, vec![event]), 0), &rules);
        assert!(matches!(items[..], [Item::Verdict(_)]), "{items:?}");
    }
}
