//! What the archiver says of the archive to whoever shows it.

use std::sync::{Arc, Mutex, PoisonError};

use bus::status::{ArchiveStatus, ArchivedStreamStatus, LedgerStatus};

/// How the archive is; clones show the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArchiveBoard(Arc<Mutex<ArchiveStatus>>);

impl ArchiveBoard {
    /// How it is now.
    pub(crate) fn look(&self) -> ArchiveStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the archive of a stream is from now on. What is not known of the lag stays as it was.
    pub(crate) fn stream(&self, name: &str, status: ArchivedStreamStatus) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = board.streams.entry(name.to_owned()).or_default();
        let lag_messages = status.lag_messages.or(shown.lag_messages);
        *shown = ArchivedStreamStatus { lag_messages, ..status };
    }

    /// What a look at the ledger found.
    pub(crate) fn ledger(&self, found: LedgerStatus) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ledger = Some(found);
    }
}
