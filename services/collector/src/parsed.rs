//! The result of reading a report: its events, and the records that did not become events.

use bytes::Bytes;
use domain::{Event, Refusal, Side};

/// The content of one report. Each of its records became an event, was ignored, or was refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The events, in the order of the records.
    pub events: Vec<Event>,
    /// Number of records whose kind is not counted: tests, scans, queries that have only begun.
    pub ignored: u64,
    /// Records that can't be read.
    pub refused: Vec<RefusedRecord>,
    /// Tasks for a person in the other system; they are logged.
    pub notices: Vec<String>,
    /// Number of records in the report.
    pub(crate) records: usize,
}

/// A record that can't be read. It becomes a dead letter and does not affect other records.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// The side, lake or warehouse, that the dead letter belongs to.
    pub side: Side,
    /// Index of the record in its report, from 0.
    pub index: usize,
    /// Why the record was refused.
    pub refusal: Refusal,
    /// The bytes that the dead letter keeps. Some sources remove texts and secrets from them first.
    pub bytes: Bytes,
}

/// A body that is not the kind of report that was expected. Nothing in it can be used, not even as
/// a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnreadableReport(pub String);

impl Parsed {
    /// Adds the result of the next record: an event, `None` if the record is not counted, or the
    /// reason why it can't be read.
    pub fn add(&mut self, side: Side, read: Result<Option<Event>, Refusal>, record: &[u8]) {
        self.add_all(side, read.map(Vec::from_iter), record);
    }

    /// Like [`Parsed::add`], for a record that may become several events.
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

    /// Adds a record that is not counted.
    pub fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
        self.records = self.records.saturating_add(1);
    }
}
