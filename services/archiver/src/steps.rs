//! Holds the archiver to the order of its own effects: commit, then acknowledge, publish verdicts
//! and trim.

use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{OutOfOrder, Progress};

use crate::{metrics::StreamMetrics, stream::Committed};

/// The steps of one round on one stream. A step out of order is refused, and an alarm.
#[derive(Debug)]
pub(crate) struct Steps {
    progress: Mutex<Progress>,
    metrics: StreamMetrics,
}

impl Steps {
    /// Goes on after a checkpoint.
    pub(crate) fn new(checkpoint: &Committed, metrics: StreamMetrics) -> Self {
        let mut progress = Progress::new(Some(checkpoint.mark));
        progress.give(checkpoint.verdicts.given);
        Self { progress: Mutex::new(progress), metrics }
    }

    /// A transaction was committed. It is too late to refuse one that went back.
    pub(crate) fn committed(&self, now: &Committed) {
        let step = {
            let mut progress = self.progress();
            progress.give(now.verdicts.given);
            progress.commit(now.mark)
        };
        let _alarm_only = self.is_in_order(step);
    }

    /// Whether verdicts up to a number may be published.
    pub(crate) fn may_publish(&self, number: u64) -> bool {
        let step = self.progress().publish(number);
        self.is_in_order(step)
    }

    /// Whether the broker may be told that everything up to a sequence is done.
    pub(crate) fn may_acknowledge(&self, sequence: u64) -> bool {
        self.is_in_order(self.progress().acknowledge(sequence))
    }

    /// Whether everything below a sequence may be deleted.
    pub(crate) fn may_trim(&self, below: u64) -> bool {
        self.is_in_order(self.progress().trim(below))
    }

    fn is_in_order(&self, step: Result<(), OutOfOrder>) -> bool {
        let Err(broken) = step else { return true };
        self.metrics.observe_out_of_order();
        tracing::error!(%broken, "a step out of order was refused");
        debug_assert!(false, "{broken}");
        false
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Its changes are whole.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
