//! Ids for events that have none: the UUIDv5 of what identifies the event at its origin.

use domain::{
    EventId, EventIdentity, Fact, LakeAccessRestored, LakeAccessWithdrawn, Stream, Timestamp,
    WarehouseQueryWithdrawn,
};
use uuid::Uuid;

/// The namespace of every id that is derived here. If it changed, known events would be counted
/// again.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c61_6b65_6761_5567_a576_65bb_6964_7331);

/// The id of an event that was published without one: the UUIDv5 of its position and the broker's
/// timestamp.
///
/// The epoch is not part of the id, because a new epoch reads the same message again. An event that
/// is published twice without an id has two positions and counts twice.
pub fn of_place(stream: Stream, sequence: u64, index: u32, broker_ns: i64) -> EventId {
    named(format!("place\n{stream}\n{sequence}\n{index}\n{broker_ns}").as_bytes())
}

/// The id of a line of a source: the UUIDv5 of the source's name, of the line, and of its number
/// among the identical lines of that source, from 0.
///
/// A file that is published again, whole or in another order, therefore gives the same set of ids.
pub fn of_line(source: &str, line: &[u8], occurrence: u64) -> EventId {
    let mut name = format!("line\n{}\n{source}\n{occurrence}\n", source.len()).into_bytes();
    name.extend_from_slice(line);
    named(&name)
}

/// The id of a record that another system reports: the UUIDv5 of the kind of record and of the parts
/// that tell it from every other there. A record that is reported again has the same id.
pub fn of_record(kind: &str, parts: &[&str]) -> EventId {
    let mut name = format!("record\n{kind}\n");
    for part in parts {
        // With its length, so that no two lists of parts are the same text.
        name.push_str(&format!("{}\n{part}\n", part.len()));
    }
    named(name.as_bytes())
}

/// The id of an event that corrects another; `None` for any other event. There is one for each event
/// that is withdrawn, and one for each that is restored at a time, so that what is said again is
/// counted once.
pub fn of_correction(occurred_at: Timestamp, fact: &Fact) -> Option<EventId> {
    let of = |what: &str, (at, id): EventIdentity| {
        named(format!("{what}\n{}\n{}\n{id}", occurred_at.0, at.0).as_bytes())
    };
    match fact {
        Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of: id, .. })
        | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of: id, .. }) => {
            Some(of("withdrawn", (occurred_at, *id)))
        }
        Fact::LakeAccessRestored(LakeAccessRestored { of: identity, .. }) => {
            Some(of("restored", *identity))
        }
        Fact::LakeAccess(_) | Fact::LakeInventory(_) | Fact::WarehouseQuery(_) => None,
    }
}

fn named(name: &[u8]) -> EventId {
    EventId::from_bytes(Uuid::new_v5(&NAMESPACE, name).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::IdKind;

    use super::*;

    #[test]
    fn every_part_of_a_place_makes_another_id_and_the_same_place_the_same() {
        let place = (Stream::lake(0), 7, 0, 1_000);
        let of = |(stream, sequence, index, ns)| of_place(stream, sequence, index, ns);
        assert_eq!(of(place), of(place));
        let others = [
            place,
            (Stream::lake(1), 7, 0, 1_000),
            (Stream::warehouse(0), 7, 0, 1_000),
            (Stream::lake(0), 8, 0, 1_000),
            (Stream::lake(0), 7, 1, 1_000),
            (Stream::lake(0), 7, 0, 1_001),
        ];
        let ids: BTreeSet<EventId> = others.into_iter().map(of).collect();
        assert_eq!(ids.len(), others.len());
    }

    #[test]
    fn every_part_of_a_record_makes_another_id_and_the_same_record_the_same() {
        assert_eq!(of_record("k", &["a", "b"]), of_record("k", &["a", "b"]));
        let records: [(&str, &[&str]); 6] = [
            ("k", &["a", "b"]),
            ("l", &["a", "b"]),
            ("k", &["b", "a"]),
            ("k", &["ab", ""]),
            ("k", &["a\n1\nb"]),
            ("k", &["a", "b", ""]),
        ];
        let ids: BTreeSet<EventId> =
            records.iter().map(|(kind, parts)| of_record(kind, parts)).collect();
        assert_eq!(ids.len(), records.len());
    }

    #[test]
    fn every_part_of_a_line_makes_another_id_and_the_same_line_the_same() {
        let lines = [("a", "x", 0), ("b", "x", 0), ("a", "y", 0), ("a", "x", 1), ("a\nb", "x", 0)];
        let ids: BTreeSet<EventId> = lines
            .into_iter()
            .map(|(source, line, nth)| of_line(source, line.as_bytes(), nth))
            .collect();
        assert_eq!(ids.len(), lines.len());
        assert_eq!(of_line("a", b"x", 1), of_line("a", b"x", 1));
    }

    #[test]
    fn ids_never_change_from_release_to_release() {
        assert_eq!(
            of_place(Stream::lake(0), 1, 0, 1).to_string(),
            "1fbc931a-7426-5aaa-8b3b-f62fecce3de7"
        );
        assert_eq!(
            of_line("source", b"line", 0).to_string(),
            "e75bbecf-6f8e-56a8-a568-d17af788e79d"
        );
    }

    #[test]
    fn they_are_derived_ids() {
        assert_eq!(of_line("source", b"line", 0).kind(), IdKind::Derived);
    }
}
