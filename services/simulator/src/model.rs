//! What a model is: one thing that happens after another, and the oracle beside it.

use std::collections::BTreeMap;

use domain::{Fact, Timestamp};

use crate::arrivals::Arrival;

/// Something that happened and has no identity yet: that is given when it is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft<N> {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub fact: Fact,
    /// What the oracle needs to know of it, where it is more than that it happened.
    pub note: Option<N>,
}

/// A pure model of one side of the house.
pub trait Model {
    /// What its oracle needs of one event.
    type Note: Clone + std::fmt::Debug;
    /// Its oracle.
    type Oracle: Oracle<Note = Self::Note>;

    /// Lets the next thing happen. Times ascend.
    fn happen(&mut self, arrival: Arrival) -> Draft<Self::Note>;
}

/// What a model itself knows of the metrics, from its own state and without the pipeline's code.
///
/// Entries may come in any order: acknowledgements do.
pub trait Oracle: Default {
    /// What is entered.
    type Note;

    /// Enters what an acknowledged event did.
    fn enter(&mut self, note: &Self::Note);

    /// What the metrics must be after `published` distinct events, by their names.
    fn metrics(&self, published: u64) -> BTreeMap<&'static str, serde_json::Value>;
}

/// The part of the oracle that one message fills.
#[derive(Clone, Debug, PartialEq)]
pub struct OraclePage<N> {
    /// Events in it for the first time.
    pub distinct: u64,
    /// Events in it that were sent before.
    pub duplicates: u64,
    /// What the former did.
    pub notes: Vec<N>,
}

impl<N> Default for OraclePage<N> {
    fn default() -> Self {
        Self { distinct: 0, duplicates: 0, notes: Vec::new() }
    }
}

/// What is expected of a run: only what the broker has acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Expected<B> {
    /// Distinct events acknowledged.
    pub published: u64,
    /// Events sent again, and acknowledged.
    pub duplicates_sent: u64,
    /// What the model knows.
    pub oracle: B,
}

impl<B: Oracle> Expected<B> {
    /// Enters an acknowledged message.
    pub fn enter(&mut self, page: &OraclePage<B::Note>) {
        self.published += page.distinct;
        self.duplicates_sent += page.duplicates;
        page.notes.iter().for_each(|note| self.oracle.enter(note));
    }

    /// As one JSON object, of a simulator that publishes under this source.
    pub fn to_json(&self, source: &str) -> serde_json::Value {
        serde_json::json!({
            "source": source,
            "published": self.published,
            "duplicates_sent": self.duplicates_sent,
            "metrics": self.oracle.metrics(self.published),
        })
    }
}
