//! The health of the streams since this process started, for the page and the metrics.

use std::sync::{Arc, Mutex, PoisonError};

/// The health of one stream. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveHealth(Arc<Mutex<HealthNumbers>>);

/// The health of a stream at one moment. A number that is not known yet is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HealthNumbers {
    /// Messages that are not counted yet.
    pub(crate) lag_messages: u64,
    /// Sequence of the last message counted.
    pub(crate) position: u64,
    /// Events counted.
    pub(crate) counted: u64,
    /// Events that were counted before.
    pub(crate) duplicates: u64,
    /// Events that wait for the archive's verdict.
    pub(crate) too_old: u64,
    /// Events that were not accepted.
    pub(crate) dead_letters: u64,
    /// Epoch of the stream; 0 before its state is recovered.
    pub(crate) epoch: u32,
    /// When the last snapshot was stored, in seconds since 1970; `None` before the first.
    pub(crate) snapshot_at_s: Option<i64>,
}

impl LiveHealth {
    /// The current health.
    pub(crate) fn look(&self) -> HealthNumbers {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the health.
    pub(crate) fn update(&self, change: impl FnOnce(&mut HealthNumbers)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
