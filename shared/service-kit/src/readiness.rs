//! Whether a service does its job, and if not, why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Clock;

/// The source of `/readyz`. Clones share it.
#[derive(Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

struct Entry {
    name: &'static str,
    health: PartHealth,
    detail: String,
    /// When its health last changed, in microseconds since 1970.
    since_us: i64,
}

/// The health of a part of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartHealth {
    /// It does its job.
    Well,
    /// It has no work, because another process does it; it takes over when that one ends.
    StandsBy,
    /// It does not do its job.
    Failing,
}

/// Nothing can fail yet.
impl Default for Readiness {
    fn default() -> Self {
        Self::new(Clock::system())
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.describe()).finish()
    }
}

impl Readiness {
    /// Nothing can fail yet. `clock` is used to record since when something fails.
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    /// Keeps the service not ready until the latch is dropped: for what must happen once, like
    /// catching up.
    pub fn latch(&self, name: &'static str) -> Latch {
        Latch { _entry: self.enter(name, PartHealth::Failing, "not yet") }
    }

    /// A named part that can fail and recover, like a connection. It begins healthy.
    pub fn condition(&self, name: &'static str) -> Condition {
        Condition(self.enter(name, PartHealth::Well, "ok"))
    }

    /// Whether no latch is held, and every condition is healthy.
    pub fn is_ready(&self) -> bool {
        self.state().entries.values().all(|entry| entry.health == PartHealth::Well)
    }

    /// Whether nothing fails, and something is on standby: the service is not ready, but no person
    /// needs to act.
    pub fn is_standby(&self) -> bool {
        let state = self.state();
        let has = |health| state.entries.values().any(|entry| entry.health == health);
        has(PartHealth::StandsBy) && !has(PartHealth::Failing)
    }

    /// One line per part: `[+]name detail` or `[-]name why not`.
    pub fn describe(&self) -> String {
        let lines = self.parts().into_iter().map(|part| {
            let sign = if part.health == PartHealth::Well { '+' } else { '-' };
            format!("[{sign}]{} {}\n", part.name, part.detail)
        });
        lines.collect()
    }

    /// Every part, in the order of creation.
    pub fn parts(&self) -> Vec<PartState> {
        let state = self.state();
        let parts = state.entries.values().map(|entry| PartState {
            name: entry.name,
            health: entry.health,
            detail: entry.detail.clone(),
            since_us: entry.since_us,
        });
        parts.collect()
    }

    fn enter(&self, name: &'static str, health: PartHealth, detail: &str) -> PartEntry {
        let since_us = self.clock.now_us();
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let detail = detail.to_owned();
        state.entries.insert(number, Entry { name, health, detail, since_us });
        PartEntry { readiness: self.clone(), number }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is a map of complete entries, so a panic elsewhere can't leave a partial
        // change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a part of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartState {
    /// The part's name.
    pub name: &'static str,
    /// Whether it does its job.
    pub health: PartHealth,
    /// The part's detail, or why it does not do its job.
    pub detail: String,
    /// When the health last changed, in microseconds since 1970.
    pub since_us: i64,
}

/// Keeps the service not ready as long as this exists.
#[derive(Debug)]
#[must_use = "the service is ready as soon as this is dropped"]
pub struct Latch {
    _entry: PartEntry,
}

impl Latch {
    /// Ends the latch. The same as dropping it, but easier to read.
    pub fn open(self) {}
}

/// A part of the service that is healthy or not.
#[derive(Debug)]
pub struct Condition(PartEntry);

impl Condition {
    /// The part does not work; the service is not ready.
    pub fn fail(&self, why: impl Into<String>) {
        self.0.set(PartHealth::Failing, why.into());
    }

    /// Another process does the part's work; the service is not ready, but healthy.
    pub fn stand_by(&self, for_whom: impl Into<String>) {
        self.0.set(PartHealth::StandsBy, for_whom.into());
    }

    /// The part works; `/readyz?verbose` shows the text.
    pub fn pass(&self, detail: impl Into<String>) {
        self.0.set(PartHealth::Well, detail.into());
    }
}

#[derive(Debug)]
struct PartEntry {
    readiness: Readiness,
    number: u64,
}

impl PartEntry {
    fn set(&self, health: PartHealth, detail: String) {
        let now_us = self.readiness.clock.now_us();
        if let Some(entry) = self.readiness.state().entries.get_mut(&self.number) {
            if entry.health != health {
                entry.since_us = now_us;
            }
            entry.health = health;
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
    use std::time::Duration;

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

    #[test]
    fn a_part_says_since_when_it_is_as_it_is_whatever_it_says_meanwhile() {
        let clock = Clock::manual(1_000_000);
        let readiness = Readiness::new(clock.clone());
        let database = readiness.condition("database");
        let since = || readiness.parts()[0].since_us;
        clock.advance(Duration::from_secs(1));
        database.fail("does not answer");
        clock.advance(Duration::from_secs(1));
        database.fail("does not answer for 1 s");
        assert_eq!(since(), 2_000_000);
        database.pass("answers");
        assert_eq!(since(), 3_000_000);
    }

    #[test]
    fn who_stands_by_is_not_ready_and_nothing_is_wrong_unless_something_fails() {
        let readiness = Readiness::default();
        let (archive, nats) = (readiness.condition("archive"), readiness.condition("nats"));
        assert!(!readiness.is_standby(), "it works itself");
        archive.stand_by("another archiver holds the lock");
        assert_eq!((readiness.is_ready(), readiness.is_standby()), (false, true));
        nats.fail("no connection");
        assert_eq!((readiness.is_ready(), readiness.is_standby()), (false, false));
    }
}
