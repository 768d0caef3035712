//! Converts a line to an event with its identity.

use std::collections::{BTreeMap, HashSet};

use domain::{Event, Refusal};
use wire::{derived, json};

/// Converts lines to events. A line without an id gets one from the source, the line, and its
/// number among identical lines. So the same file gives the same ids, in any order.
#[derive(Debug)]
pub(crate) struct Identifier {
    source: String,
    occurrences: Occurrences,
}

/// Why a line did not become an event.
#[derive(Debug)]
pub(crate) enum NoEvent {
    /// The line is wrong.
    Refused(Refusal),
    /// Too many lines without an id: further ones can't be distinguished.
    TooMany(TooManyLines),
}

/// There is no room to remember another line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {0} lines have no id: publish the file in parts with a --source each, or raise \
     --lines-without-id-max (about 40 bytes of memory each)"
)]
pub(crate) struct TooManyLines(pub(crate) usize);

impl Identifier {
    /// For the lines of one source, with the most lines without an id.
    pub(crate) fn new(source: String, lines_max: usize) -> Self {
        Self { source, occurrences: Occurrences::new(lines_max) }
    }

    /// The event of a line.
    ///
    /// # Errors
    ///
    /// The line is no event, or there is no room to remember it.
    pub(crate) fn event(&mut self, line: &[u8]) -> Result<Event, NoEvent> {
        let decoded =
            json::decode_line(line).map_err(|undecoded| NoEvent::Refused(undecoded.refusal))?;
        if let Some(id) = decoded.id {
            return Ok(decoded.or_id(|| id));
        }
        let occurrence = self.occurrences.count(line).map_err(NoEvent::TooMany)?;
        Ok(decoded.or_id(|| derived::of_line(&self.source, line, occurrence)))
    }
}

/// Counts identical lines. Remembers 16 bytes of each line, and a count for repeated ones.
#[derive(Debug)]
struct Occurrences {
    seen: HashSet<u128>,
    repeated: BTreeMap<u128, u64>,
    lines_max: usize,
}

impl Occurrences {
    fn new(lines_max: usize) -> Self {
        Self { seen: HashSet::new(), repeated: BTreeMap::new(), lines_max }
    }

    /// The number of the line among identical ones, from 0.
    fn count(&mut self, line: &[u8]) -> Result<u64, TooManyLines> {
        let mut digest = [0; 16];
        blake3::Hasher::new().update(line).finalize_xof().fill(&mut digest);
        let digest = u128::from_le_bytes(digest);
        if self.seen.contains(&digest) {
            let count = self.repeated.entry(digest).or_default();
            *count += 1;
            return Ok(*count);
        }
        if self.seen.len() >= self.lines_max {
            return Err(TooManyLines(self.lines_max));
        }
        self.seen.insert(digest);
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::EventId;

    use super::*;

    fn line(key: &str) -> String {
        format!(
            r#"{{"type":"lake.access","occurred_at":1,"bucket":"b","key":"{key}","operation":"read","bytes":1,"duration_us":2,"outcome":"ok","principal":""}}"#
        )
    }

    fn ids(source: &str, lines: &[String]) -> Vec<EventId> {
        let mut identifier = Identifier::new(source.to_owned(), 100);
        lines.iter().map(|line| identifier.event(line.as_bytes()).unwrap().id).collect()
    }

    #[test]
    fn a_file_gives_the_same_ids_whole_and_shuffled_and_each_line_its_own() {
        let mut lines: Vec<String> = ["a", "b", "a", "c", "a"].map(line).to_vec();
        let first = ids("git", &lines);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), lines.len());
        assert_eq!(ids("git", &lines), first);
        lines.rotate_left(2);
        lines.swap(0, 1);
        assert_eq!(
            ids("git", &lines).into_iter().collect::<BTreeSet<_>>(),
            first.into_iter().collect()
        );
    }

    #[test]
    fn another_source_gives_other_ids() {
        let lines = ["a", "b"].map(line);
        let both = [ids("one", &lines), ids("two", &lines)].concat();
        assert_eq!(both.into_iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn an_id_in_the_line_is_kept_however_often_it_comes() {
        let id = "01a20724-c520-81a6-aaf3-780000000000";
        let line = line("a").replacen('{', &format!("{{\"id\":\"{id}\","), 1);
        let ids = ids("git", &[line.clone(), line]);
        assert_eq!(ids.iter().map(EventId::to_string).collect::<Vec<_>>(), [id, id]);
    }

    #[test]
    fn what_may_be_remembered_is_bounded() {
        let mut identifier = Identifier::new("git".to_owned(), 2);
        for key in ["a", "b", "a", "b"] {
            identifier.event(line(key).as_bytes()).unwrap();
        }
        let error = identifier.event(line("c").as_bytes()).unwrap_err();
        assert!(matches!(error, NoEvent::TooMany(TooManyLines(2))), "{error:?}");
    }

    #[test]
    fn a_line_that_is_no_event_says_why() {
        let error = Identifier::new("git".to_owned(), 2).event(b"{}").unwrap_err();
        let NoEvent::Refused(refusal) = error else { panic!("{error:?}") };
        assert_eq!(refusal.field, Some("type"));
    }
}
