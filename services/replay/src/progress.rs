//! Progress of a replay, for the person who waits.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bus::PublishProgress;

/// Counters that one task increments and another task reads. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct ReplayProgress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    doing: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
    publishers: Mutex<Vec<Arc<PublishProgress>>>,
}

impl ReplayProgress {
    /// Begins another step, with this many events to expect; 0 if the number is not known.
    pub fn begin(&self, doing: impl Into<String>, total: u64) {
        *self.0.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing.into();
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Increases the number of expected events.
    pub fn expect(&self, events: u64) {
        self.0.total.fetch_add(events, Ordering::Relaxed);
    }

    /// Increases the number of finished events.
    pub fn add(&self, events: u64) {
        self.0.done.fetch_add(events, Ordering::Relaxed);
    }

    /// Also reports the problems of a publisher.
    pub(crate) fn watch(&self, publisher: Arc<PublishProgress>) {
        self.0.publishers.lock().unwrap_or_else(PoisonError::into_inner).push(publisher);
    }

    /// Why publishing waits and what to do about it; `None` if it does not wait.
    pub fn trouble(&self) -> Option<String> {
        let publishers = self.0.publishers.lock().unwrap_or_else(PoisonError::into_inner);
        publishers.iter().find_map(|publisher| publisher.trouble())
    }

    /// The current step.
    pub fn doing(&self) -> String {
        self.0.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Events finished and expected.
    pub fn events(&self) -> (u64, u64) {
        (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }
}
