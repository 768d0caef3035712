//! What a source's parser gives: events, and what did not become one.

use bytes::Bytes;
use domain::{Event, Refusal, Side};

/// What one report brought: each of its records is an event, ignored, or refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// In the order of the records.
    pub events: Vec<Event>,
    /// Records of kinds that are nothing to count: tests, scans, queries that only began.
    pub ignored: u64,
    /// Records that can't be read.
    pub refused: Vec<RefusedRecord>,
    /// What a person has to do in the other system, for the log.
    pub notices: Vec<String>,
    /// How many records there were.
    pub(crate) records: usize,
}

/// A record that can't be read. It becomes a dead letter and hinders no other.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Whose dead letter it is.
    pub side: Side,
    /// Which one of its report, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub refusal: Refusal,
    /// Its bytes, as they came.
    pub bytes: Bytes,
}

/// A report that is not what its way is for: none of it can be taken, not even as a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnreadableReport(pub String);

impl Parsed {
    /// Adds what became of the next record of a report: an event, nothing that counts, or why it
    /// can't be read.
    pub fn add(&mut self, side: Side, read: Result<Option<Event>, Refusal>, record: &[u8]) {
        self.add_all(side, read.map(Vec::from_iter), record);
    }

    /// The same for a record that may be several events.
    pub fn add_all(&mut self, side: Side, read: Result<Vec<Event>, Refusal>, record: &[u8]) {
        match read {
            Ok(events) if events.is_empty() => return self.ignore(),
            Ok(events) => self.events.extend(events),
            Err(refusal) => {
                let (index, bytes) = (self.records, Bytes::copy_from_slice(record));
                self.refused.push(RefusedRecord { side, index, refusal, bytes });
            }
        }
        self.records = self.records.saturating_add(1);
    }

    /// Adds a record that is nothing to count.
    pub fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
        self.records = self.records.saturating_add(1);
    }
}
