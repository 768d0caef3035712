//! Enforces the order of the archiver's own effects: commit first, then acknowledge, publish
//! verdicts and trim.

use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{EffectOrder, OutOfOrder};

use super::Committed;
use crate::metrics::StreamMetrics;

/// The effects of one round on one stream. An effect out of order is refused and raises an alert.
#[derive(Debug)]
pub(super) struct OrderGuard {
    order: Mutex<EffectOrder>,
    metrics: StreamMetrics,
}

impl OrderGuard {
    /// Continues after a checkpoint.
    pub(super) fn new(checkpoint: &Committed, metrics: StreamMetrics) -> Self {
        let mut order = EffectOrder::new(Some(checkpoint.mark));
        order.give(checkpoint.verdicts.given);
        Self { order: Mutex::new(order), metrics }
    }

    /// Records that a transaction was committed. It is too late to refuse one whose checkpoint
    /// moved back.
    pub(super) fn committed(&self, now: &Committed) {
        let effect = {
            let mut order = self.order();
            order.give(now.verdicts.given);
            order.commit(now.mark)
        };
        let _alarm_only = self.is_in_order(effect);
    }

    /// Whether verdicts up to a number may be published.
    pub(super) fn may_publish(&self, number: u64) -> bool {
        let effect = self.order().publish(number);
        self.is_in_order(effect)
    }

    /// Whether everything up to a sequence may be acknowledged to the broker.
    pub(super) fn may_acknowledge(&self, sequence: u64) -> bool {
        self.is_in_order(self.order().acknowledge(sequence))
    }

    /// Whether everything below a sequence may be deleted.
    pub(super) fn may_trim(&self, below: u64) -> bool {
        self.is_in_order(self.order().trim(below))
    }

    fn is_in_order(&self, effect: Result<(), OutOfOrder>) -> bool {
        let Err(broken) = effect else { return true };
        self.metrics.observe_out_of_order();
        tracing::error!(%broken, "a step out of order was refused");
        debug_assert!(false, "{broken}");
        false
    }

    fn order(&self) -> MutexGuard<'_, EffectOrder> {
        // Every change is complete when the lock is released, even after a panic.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
