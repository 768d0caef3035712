//! The state of the archive, as the archiver shows it to other parts.

use std::sync::{Arc, Mutex, PoisonError};

use bus::status::{ArchiveStatus, ArchivedStreamStatus, LedgerStatus};

/// The state of the archive. Clones show the same state.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedArchiveStatus(Arc<Mutex<ArchiveStatus>>);

impl SharedArchiveStatus {
    /// The current state.
    pub(crate) fn look(&self) -> ArchiveStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the state of a stream's archive. If the lag is not known, its last value stays.
    pub(crate) fn stream(&self, name: &str, status: ArchivedStreamStatus) {
        let mut status_of_all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = status_of_all.streams.entry(name.to_owned()).or_default();
        let lag_messages = status.lag_messages.or(shown.lag_messages);
        *shown = ArchivedStreamStatus { lag_messages, ..status };
    }

    /// Sets the latest sums of the ledger.
    pub(crate) fn ledger(&self, found: LedgerStatus) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ledger = Some(found);
    }
}
