//! Holds the archiver to the order of its own effects: commit, then acknowledge, publish verdicts
//! and trim.

use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{EffectOrder, OutOfOrder};

use crate::{metrics::StreamMetrics, stream::Committed};

/// The steps of one round on one stream. A step out of order is refused, and an alarm.
#[derive(Debug)]
pub(crate) struct Steps {
    order: Mutex<EffectOrder>,
    metrics: StreamMetrics,
}

impl Steps {
    /// Goes on after a checkpoint.
    pub(crate) fn new(checkpoint: &Committed, metrics: StreamMetrics) -> Self {
        let mut order = EffectOrder::new(Some(checkpoint.mark));
        order.give(checkpoint.verdicts.given);
        Self { order: Mutex::new(order), metrics }
    }

    /// A transaction was committed. It is too late to refuse one that went back.
    pub(crate) fn committed(&self, now: &Committed) {
        let step = {
            let mut order = self.order();
            order.give(now.verdicts.given);
            order.commit(now.mark)
        };
        let _alarm_only = self.is_in_order(step);
    }

    /// Whether verdicts up to a number may be published.
    pub(crate) fn may_publish(&self, number: u64) -> bool {
        let step = self.order().publish(number);
        self.is_in_order(step)
    }

    /// Whether the broker may be told that everything up to a sequence is done.
    pub(crate) fn may_acknowledge(&self, sequence: u64) -> bool {
        self.is_in_order(self.order().acknowledge(sequence))
    }

    /// Whether everything below a sequence may be deleted.
    pub(crate) fn may_trim(&self, below: u64) -> bool {
        self.is_in_order(self.order().trim(below))
    }

    fn is_in_order(&self, step: Result<(), OutOfOrder>) -> bool {
        let Err(broken) = step else { return true };
        self.metrics.observe_out_of_order();
        tracing::error!(%broken, "a step out of order was refused");
        debug_assert!(false, "{broken}");
        false
    }

    fn order(&self) -> MutexGuard<'_, EffectOrder> {
        // Its changes are whole.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
