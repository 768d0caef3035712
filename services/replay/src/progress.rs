//! How far it is, for the one who waits.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bus::PublishProgress;

/// Counts that one task adds to and another looks at. Clones are the same.
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
    /// Something else begins: so many events are expected, 0 if nobody knows.
    pub fn begin(&self, doing: impl Into<String>, total: u64) {
        *self.0.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing.into();
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// So many more events are expected.
    pub fn expect(&self, events: u64) {
        self.0.total.fetch_add(events, Ordering::Relaxed);
    }

    /// So many more events are done.
    pub fn add(&self, events: u64) {
        self.0.done.fetch_add(events, Ordering::Relaxed);
    }

    /// Watches a publisher, too.
    pub(crate) fn watch(&self, publisher: Arc<PublishProgress>) {
        self.0.publishers.lock().unwrap_or_else(PoisonError::into_inner).push(publisher);
    }

    /// Why publishing waits and what to do, if it does.
    pub fn trouble(&self) -> Option<String> {
        let publishers = self.0.publishers.lock().unwrap_or_else(PoisonError::into_inner);
        publishers.iter().find_map(|publisher| publisher.trouble())
    }

    /// What is being done.
    pub fn doing(&self) -> String {
        self.0.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Events done and expected.
    pub fn events(&self) -> (u64, u64) {
        (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }
}
