//! Which errors are transient, so that the operation is tried again.

use bus::BusError;
use event_store::{SqlRecovery, StoreError};

/// Whether another round may succeed.
pub(super) fn passes(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<BusError>() {
        return error.is_transient();
    }
    // Fenced by another writer: the next round reads the checkpoint and the sets again.
    error.downcast_ref::<StoreError>().is_some_and(waits) || is_fenced(error)
}

/// Whether an error of the archive ends by itself or after somebody has acted, without a restart.
pub(super) fn waits(error: &StoreError) -> bool {
    match error.recovery() {
        SqlRecovery::Retry | SqlRecovery::RetryAlarm | SqlRecovery::Pause => true,
        SqlRecovery::Duplicate
        | SqlRecovery::MakePartition
        | SqlRecovery::IsolateRow
        | SqlRecovery::Stop => false,
    }
}

/// Whether another program wrote into the archive.
pub(super) fn is_fenced(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Fenced { .. }))
}
