//! Which errors pass, so that the same is tried again.

use bus::BusError;
use event_store::{SqlRecovery, StoreError};

/// Whether another round may succeed.
pub(super) fn passes(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<BusError>() {
        return error.is_transient();
    }
    // Fenced: the checkpoint is read again, and what is judged with it.
    error.downcast_ref::<StoreError>().is_some_and(waits) || is_fenced(error)
}

/// Whether an error of the archive passes by itself, or once somebody has acted, without a restart.
pub(super) fn waits(error: &StoreError) -> bool {
    match error.recovery() {
        SqlRecovery::Retry | SqlRecovery::RetryAlarm | SqlRecovery::Pause => true,
        SqlRecovery::Duplicate
        | SqlRecovery::MakePartition
        | SqlRecovery::IsolateRow
        | SqlRecovery::Stop => false,
    }
}

/// Whether somebody else wrote into the archive.
pub(super) fn is_fenced(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Fenced { .. }))
}
