//! Whether a service does its job, and if not, why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What `/readyz` answers from; clones show the same.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

struct Entry {
    name: &'static str,
    failing: bool,
    detail: String,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.describe()).finish()
    }
}

impl Readiness {
    /// Holds readiness back until the latch is dropped: for what must happen once, as catching up.
    pub fn latch(&self, name: &'static str) -> Latch {
        Latch { _entry: self.enter(name, true, "not yet") }
    }

    /// A named part that can fail and heal again, as a connection. It begins well.
    pub fn condition(&self, name: &'static str) -> Condition {
        Condition(self.enter(name, false, "ok"))
    }

    /// Whether no latch is held and no condition fails.
    pub fn is_ready(&self) -> bool {
        !self.state().entries.values().any(|entry| entry.failing)
    }

    /// One line a part: `[+]name detail` or `[-]name why not`.
    pub fn describe(&self) -> String {
        let lines = self.parts().into_iter().map(|part| {
            let sign = if part.is_ok { '+' } else { '-' };
            format!("[{sign}]{} {}\n", part.name, part.detail)
        });
        lines.collect()
    }

    /// Every part, in the order in which they were made.
    pub fn parts(&self) -> Vec<PartState> {
        let state = self.state();
        let parts = state.entries.values().map(|entry| PartState {
            name: entry.name,
            is_ok: !entry.failing,
            detail: entry.detail.clone(),
        });
        parts.collect()
    }

    fn enter(&self, name: &'static str, failing: bool, detail: &str) -> PartEntry {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.entries.insert(number, Entry { name, failing, detail: detail.to_owned() });
        PartEntry { readiness: self.clone(), number }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is a map of whole entries: a panic elsewhere can't leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a part of the service is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartState {
    /// Its name.
    pub name: &'static str,
    /// Whether it does its job.
    pub is_ok: bool,
    /// What it says, or why it does not.
    pub detail: String,
}

/// Keeps the service not ready as long as it lives.
#[derive(Debug)]
#[must_use = "the service is ready as soon as this is dropped"]
pub struct Latch {
    _entry: PartEntry,
}

impl Latch {
    /// Ready, as far as this latch goes. The same as dropping it, for those who read it.
    pub fn open(self) {}
}

/// A part of the service that is well or not.
#[derive(Debug)]
pub struct Condition(PartEntry);

impl Condition {
    /// The part does not work; the service is not ready.
    pub fn fail(&self, why: impl Into<String>) {
        self.0.set(true, why.into());
    }

    /// The part works; the text is shown by `/readyz?verbose`.
    pub fn pass(&self, detail: impl Into<String>) {
        self.0.set(false, detail.into());
    }
}

#[derive(Debug)]
struct PartEntry {
    readiness: Readiness,
    number: u64,
}

impl PartEntry {
    fn set(&self, failing: bool, detail: String) {
        if let Some(entry) = self.readiness.state().entries.get_mut(&self.number) {
            entry.failing = failing;
            entry.detail = detail;
        }
    }
}

impl Drop for PartEntry {
    fn drop(&mut self) {
        self.readiness.state().entries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_when_the_last_latch_is_dropped() {
        let readiness = Readiness::default();
        let first = readiness.latch("connected");
        let second = readiness.latch("caught up");
        first.open();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.describe(), "[-]caught up not yet\n");
        drop(second);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_condition_fails_and_heals() {
        let readiness = Readiness::default();
        let database = readiness.condition("database");
        assert!(readiness.is_ready());
        database.fail("does not answer");
        assert!(!readiness.is_ready());
        database.pass("answers in 2 ms");
        assert!(readiness.is_ready());
        assert_eq!(readiness.describe(), "[+]database answers in 2 ms\n");
    }
}
