//! The acknowledgement of one message, awaited apart from those of others.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{error::BusError, publisher::Inner};

/// Tells when the server has stored one message. Dropped, it changes nothing: the message is seen
/// through to its acknowledgement all the same.
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
    /// The first error of any message of the publisher that no retry can mend. While the stream is
    /// full or the server away it goes on waiting: bound it from outside.
    pub async fn stored(self) -> Result<(), BusError> {
        match self.stored.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.publisher.failure().err().unwrap_or_else(BusError::publisher_ended)),
        }
    }
}
