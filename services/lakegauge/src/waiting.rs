//! Messages that wait behind a position in a stream, for the tools that check this.

use bus::{Bus, BusError};

/// Age of the oldest message at which nobody seems to handle it: much more than a batch, a
/// snapshot's interval, or a restart takes.
const OVERDUE_S: i64 = 120;

/// Messages behind a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitingMessages {
    /// The number of messages.
    pub(crate) messages: u64,
    /// How long ago the oldest was stored, in seconds.
    pub(crate) oldest_s: i64,
}

impl WaitingMessages {
    /// The messages behind a position; `None` if there are none.
    ///
    /// # Errors
    ///
    /// The broker can't be read.
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

    /// Whether the messages should have been handled by now.
    pub(crate) const fn is_overdue(&self) -> bool {
        self.oldest_s >= OVERDUE_S
    }
}
