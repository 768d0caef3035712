//! What a reader returns, its settings, and its state.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use crate::{delivery::Delivery, stream::StreamStatus};

/// An item of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// There is a subscription: the first one, or another after a reconnect, a gap or a lost
    /// consumer. The caller should compare its durable position with the stream now
    /// ([`crate::Bus::compare`]).
    Subscribed(StreamStatus),
    /// The next message.
    Message(Delivery),
    /// The server reports that these sequences were deleted, both ends included.
    Deleted {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// The stream is no longer the one that was read so far: created again, cut at its end, or an
    /// older copy. The reader ends with this.
    Changed(String),
}

/// What to read, and how much at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderSettings {
    /// The stream's name without the prefix: `LAKE_0`.
    pub stream: String,
    /// The consumer's name; letters, digits, `-` and `_`. With `acknowledge` this is the whole
    /// name, otherwise its beginning.
    pub consumer: String,
    /// The position: reading starts at the sequence after it. 0 is before the first.
    pub after: u64,
    /// Whether [`crate::Reader::acknowledge`] is sent to the server, so that the server can report
    /// the lag. At most one reader of this consumer name may do so at a time.
    pub acknowledge: bool,
    /// Messages asked for at a time. Below 1,000 a third of the throughput is lost.
    pub batch_messages_max: usize,
    /// Bytes asked for at a time; up to 1.5 times as many may be held in memory. If the server
    /// accepts larger messages (`max_payload`), the reader asks for enough bytes for one of them.
    pub batch_bytes_max: usize,
    /// Interval of the server's heartbeats on an idle stream; after twice this time without one,
    /// the subscription counts as lost.
    pub heartbeat: Duration,
    /// While nothing arrives, the reader asks this often whether the stream holds a next message. A
    /// message that was there at two checks and did not arrive is read in another way.
    pub overdue_check: Duration,
    /// The wait before subscribing again; it doubles with each failure in a row.
    pub backoff_min: Duration,
    /// The longest wait before subscribing again.
    pub backoff_max: Duration,
}

impl ReaderSettings {
    /// Reads a stream after a position without telling the server.
    pub fn new(stream: &str, consumer: &str, after: u64) -> Self {
        Self {
            stream: stream.to_owned(),
            consumer: consumer.to_owned(),
            after,
            acknowledge: false,
            batch_messages_max: 2_000,
            batch_bytes_max: 8 * 1_024 * 1_024,
            heartbeat: Duration::from_secs(5),
            overdue_check: Duration::from_secs(1),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// The state of a reader, for metrics and readiness.
#[derive(Debug, Default)]
pub struct ReaderProgress {
    subscriptions: AtomicU64,
    lost_ranges: AtomicU64,
    repeated: AtomicU64,
    unreadable: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl ReaderProgress {
    /// Number of subscriptions, including the first.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Ranges that did not arrive although the server still had them.
    pub fn lost_ranges(&self) -> u64 {
        self.lost_ranges.load(Ordering::Relaxed)
    }

    /// Messages at or before the position, which were dropped.
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Messages whose headers or subject can't be read; they are returned with their bytes.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Why there is no subscription.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn observe_subscription(&self) {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn observe_trouble(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }

    pub(crate) fn observe_lost_range(&self) {
        self.lost_ranges.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn observe_repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn observe_unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }
}
