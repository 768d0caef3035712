//! Waits for the acknowledgement of one message.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::error::BusError;

/// The first error of a publisher that no retry can correct, if there was one. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstFailure(Arc<Mutex<Option<BusError>>>);

impl FirstFailure {
    /// Records an error, unless there was one before.
    pub(crate) fn record(&self, failure: BusError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    pub(crate) fn check(&self) -> Result<(), BusError> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map_or(Ok(()), Err)
    }
}

/// Waits until the server has stored one message. If it is dropped, the publisher still sends the
/// message until it is acknowledged.
pub struct Confirmation {
    stored: oneshot::Receiver<()>,
    failure: FirstFailure,
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirmation").finish_non_exhaustive()
    }
}

impl Confirmation {
    pub(crate) fn new(failure: FirstFailure) -> (oneshot::Sender<()>, Self) {
        let (tell, stored) = oneshot::channel();
        (tell, Self { stored, failure })
    }

    /// Returns once the server has acknowledged the message.
    ///
    /// # Errors
    ///
    /// The first error of any message of the publisher that no retry can correct. While the stream is
    /// full or the server can't be reached, this waits without a limit; the caller sets one.
    pub async fn stored(self) -> Result<(), BusError> {
        match self.stored.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure.check().err().unwrap_or_else(BusError::publisher_ended)),
        }
    }
}
