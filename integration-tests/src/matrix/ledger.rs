//! What the producer did, written down before sending and after the acknowledgement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use bytes::Bytes;
use domain::EventIdentity;

/// Differences that are named; the number of all is said.
const NAMED_MAX: usize = 5;

/// The producer's ledger. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    attempted: BTreeSet<EventIdentity>,
    acknowledged: BTreeSet<EventIdentity>,
    /// By message id, until it is acknowledged.
    open: BTreeMap<String, Vec<EventIdentity>>,
    /// By their bytes: whether a poisonous message was acknowledged.
    poison: BTreeMap<Bytes, bool>,
    disorder: Disorder,
}

/// What the producer did on purpose, in events; of poison in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disorder {
    /// Sent again: the same message under another id, or the same event in another message.
    pub duplicates: u64,
    /// Dated minutes before they were sent.
    pub late: u64,
    /// Sent behind later ones.
    pub reordered: u64,
    /// Messages that no decoder takes.
    pub poison: u64,
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Distinct identities handed to a publisher.
    pub attempted: u64,
    /// Distinct identities in acknowledged messages.
    pub acknowledged: u64,
    /// What was done on purpose.
    pub disorder: Disorder,
}

impl Counts {
    /// Adds those of another producer.
    pub fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.disorder.duplicates += other.disorder.duplicates;
        self.disorder.late += other.disorder.late;
        self.disorder.reordered += other.disorder.reordered;
        self.disorder.poison += other.disorder.poison;
    }
}

impl Ledger {
    /// Before a message is sent.
    pub fn attempt(&self, message_id: &str, identities: &[EventIdentity]) {
        let mut entries = self.entries();
        entries.attempted.extend(identities);
        entries.open.insert(message_id.to_owned(), identities.to_vec());
    }

    /// Before a message is sent that no event comes of, with all bytes that its dead letter will
    /// keep.
    pub fn attempt_poison(&self, payload: &Bytes) {
        let mut entries = self.entries();
        entries.disorder.poison += 1;
        entries.poison.entry(payload.clone()).or_insert(false);
    }

    /// After a message was acknowledged.
    pub fn acknowledge(&self, message_id: &str, payload: &Bytes) {
        let mut entries = self.entries();
        if let Some(identities) = entries.open.remove(message_id) {
            entries.acknowledged.extend(identities);
            return;
        }
        drop(entries);
        self.acknowledge_poison(payload);
    }

    /// After a message that no event comes of was stored.
    pub fn acknowledge_poison(&self, payload: &Bytes) {
        if let Some(acknowledged) = self.entries().poison.get_mut(payload) {
            *acknowledged = true;
        }
    }

    /// Notes what was done on purpose.
    pub fn note(&self, change: impl FnOnce(&mut Disorder)) {
        change(&mut self.entries().disorder);
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        let entries = self.entries();
        let count = |set: &BTreeSet<EventIdentity>| u64::try_from(set.len()).unwrap_or(u64::MAX);
        Counts {
            attempted: count(&entries.attempted),
            acknowledged: count(&entries.acknowledged),
            disorder: entries.disorder,
        }
    }

    /// How many acknowledged events are not among the archived ones.
    pub fn lost(&self, archived: &BTreeSet<EventIdentity>) -> u64 {
        let entries = self.entries();
        u64::try_from(entries.acknowledged.difference(archived).count()).unwrap_or(u64::MAX)
    }

    /// Acknowledged ⊆ archived ⊆ attempted, by identity; the archived ones are of this producer.
    ///
    /// # Errors
    ///
    /// What is lost or came from nowhere: how many, and the first of them.
    pub fn holds_of(&self, archived: &BTreeSet<EventIdentity>) -> Result<()> {
        let entries = self.entries();
        let lost: Vec<&EventIdentity> = entries.acknowledged.difference(archived).collect();
        let from_nowhere: Vec<&EventIdentity> = archived.difference(&entries.attempted).collect();
        ensure!(
            lost.is_empty() && from_nowhere.is_empty(),
            "{} lost, among them {:?}; {} from nowhere, among them {:?}",
            lost.len(),
            lost.get(..lost.len().min(NAMED_MAX)),
            from_nowhere.len(),
            from_nowhere.get(..from_nowhere.len().min(NAMED_MAX)),
        );
        Ok(())
    }

    /// Acknowledged poison ⊆ dead letters ⊆ attempted poison, by bytes.
    ///
    /// # Errors
    ///
    /// What is lost or came from nowhere.
    pub fn holds_of_letters(&self, letters: &BTreeSet<Vec<u8>>) -> Result<()> {
        let entries = self.entries();
        let lost = entries
            .poison
            .iter()
            .find(|(bytes, acknowledged)| **acknowledged && !letters.contains(bytes.as_ref()));
        ensure!(lost.is_none(), "an acknowledged message is in no dead letter: {lost:?}");
        let unknown = letters.iter().find(|bytes| !entries.poison.contains_key(bytes.as_slice()));
        ensure!(
            unknown.is_none(),
            "a dead letter of bytes that nobody sent: {:?}",
            unknown.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        );
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
