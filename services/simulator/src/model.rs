//! A model produces one event after another, and has an oracle of the metrics.

use std::collections::BTreeMap;

use domain::{Fact, Timestamp};

use crate::arrivals::Arrival;

/// An event without an identity; the identity is given when the event is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft<N> {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub fact: Fact,
    /// What the oracle needs to know about the event, besides the fact that it happened.
    pub note: Option<N>,
}

/// A pure model of one side.
pub trait Model {
    /// What the oracle needs to know about one event.
    type Note: Clone + std::fmt::Debug;
    /// The oracle of the model.
    type Oracle: Oracle<Note = Self::Note>;

    /// Produces the next event. Times ascend.
    fn happen(&mut self, arrival: Arrival) -> Draft<Self::Note>;
}

/// The metrics as the model itself computes them, from its own state and without the pipeline's
/// code.
///
/// Entries may come in any order, because acknowledgements do.
pub trait Oracle: Default {
    /// One entry.
    type Note;

    /// Enters the effect of an acknowledged event.
    fn enter(&mut self, note: &Self::Note);

    /// The expected metrics after `published` distinct events, by their names.
    fn metrics(&self, published: u64) -> BTreeMap<&'static str, serde_json::Value>;
}

/// The entries of one message.
#[derive(Clone, Debug, PartialEq)]
pub struct OraclePage<N> {
    /// Number of events in the message that are sent for the first time.
    pub distinct: u64,
    /// Number of events in the message that were sent before.
    pub duplicates: u64,
    /// Entries of the events that are sent for the first time.
    pub notes: Vec<N>,
}

impl<N> Default for OraclePage<N> {
    fn default() -> Self {
        Self { distinct: 0, duplicates: 0, notes: Vec::new() }
    }
}

/// The expected result of a run. Only what the broker has acknowledged counts.
#[derive(Clone, Debug, Default)]
pub struct Expected<B> {
    /// Number of distinct events that were acknowledged.
    pub published: u64,
    /// Number of events that were sent again and acknowledged.
    pub duplicates_sent: u64,
    /// The oracle of the model.
    pub oracle: B,
}

impl<B: Oracle> Expected<B> {
    /// Enters an acknowledged message.
    pub fn enter(&mut self, page: &OraclePage<B::Note>) {
        self.published += page.distinct;
        self.duplicates_sent += page.duplicates;
        page.notes.iter().for_each(|note| self.oracle.enter(note));
    }

    /// The expected result as a JSON object, for a simulator that publishes under this source.
    pub fn to_json(&self, source: &str) -> serde_json::Value {
        serde_json::json!({
            "source": source,
            "published": self.published,
            "duplicates_sent": self.duplicates_sent,
            "metrics": self.oracle.metrics(self.published),
        })
    }
}
