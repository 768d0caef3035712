//! Waits for the acknowledgement of one message.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{error::BusError, publisher::Inner};

/// Waits until the server has stored one message. If it is dropped, the publisher still sends the
/// message until it is acknowledged.
pub struct Confirmation {
    stored: oneshot::Receiver<()>,
    publisher: Arc<Inner>,
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirmation").finish_non_exhaustive()
    }
}

impl Confirmation {
    pub(crate) fn new(publisher: Arc<Inner>) -> (oneshot::Sender<()>, Self) {
        let (tell, stored) = oneshot::channel();
        (tell, Self { stored, publisher })
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
            Err(_) => Err(self.publisher.failure().err().unwrap_or_else(BusError::publisher_ended)),
        }
    }
}
