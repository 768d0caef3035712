//! What waits in a stream behind a position, for the tools that look whether somebody takes it.

use bus::{Bus, BusError};

/// Age of the oldest message from which on nobody seems to take it: far above a batch, a snapshot's
/// interval, or a restart.
const OVERDUE_S: i64 = 120;

/// Messages behind a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitingMessages {
    /// How many.
    pub(crate) messages: u64,
    /// For how long the oldest has been there, in seconds.
    pub(crate) oldest_s: i64,
}

impl WaitingMessages {
    /// Looks behind a position; nothing waits there: none.
    ///
    /// # Errors
    ///
    /// The broker can't be asked.
    pub(crate) async fn look(
        bus: &Bus,
        stream: &str,
        after: u64,
        now_us: i64,
    ) -> Result<Option<Self>, BusError> {
        let Some(oldest) = bus.first_after(stream, after).await? else { return Ok(None) };
        let messages = bus.stored_after(stream, after).await?;
        let oldest_s = (now_us - oldest.broker_ns / 1_000) / 1_000_000;
        Ok(Some(Self { messages, oldest_s }))
    }

    /// Whether somebody should have taken them by now.
    pub(crate) const fn is_overdue(&self) -> bool {
        self.oldest_s >= OVERDUE_S
    }
}
