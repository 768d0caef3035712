//! The fold of a stream, shared by its consumer, the snapshots and the scrapes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fold::StreamFold;

/// A fold. Clones share it. A message is counted whole or not at all.
#[derive(Clone, Debug)]
pub(crate) struct SharedFold(Arc<Mutex<StreamFold>>);

impl SharedFold {
    /// Shares a fold.
    pub(crate) fn new(fold: StreamFold) -> Self {
        Self(Arc::new(Mutex::new(fold)))
    }

    /// The fold between two messages.
    pub(crate) fn lock(&self) -> MutexGuard<'_, StreamFold> {
        // The fold never panics in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
