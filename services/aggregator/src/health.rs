//! How the streams are doing since this process started, as the page and the metrics show it.

use std::sync::{Arc, Mutex, PoisonError};

/// How one stream is doing; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveHealth(Arc<Mutex<HealthNumbers>>);

/// How a stream is doing at one moment. What is not known yet is 0.
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
    /// Events that await the archive's verdict.
    pub(crate) too_old: u64,
    /// Events that were not accepted.
    pub(crate) dead_letters: u64,
    /// Epoch of the stream; 0 before its state is found.
    pub(crate) epoch: u32,
    /// When the last snapshot was stored, in seconds since 1970; `None` before the first.
    pub(crate) snapshot_at_s: Option<i64>,
}

impl LiveHealth {
    /// How it is doing now.
    pub(crate) fn look(&self) -> HealthNumbers {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub(crate) fn update(&self, change: impl FnOnce(&mut HealthNumbers)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
