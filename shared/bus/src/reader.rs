//! The one reader: every message of a stream after a position, once, in ascending order.
//!
//! The position is the caller's. What the broker knows about acknowledgements never decides what is
//! read: two pullers on one consumer skip each other's ranges, and a client that reconnects can lose
//! a range, both without an error. Behind it stands [`Feed`].

use std::collections::VecDeque;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use async_nats::Subject;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    connection::Bus,
    error::BusError,
    feed::Feed,
    stream::{Delivery, StreamStatus},
};

/// Messages handed over before the caller takes them; the request to the server bounds the rest.
const HANDED_OVER_MAX: usize = 32;

/// What to read, and how much at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderSettings {
    /// Without the prefix: `LAKE_0`.
    pub stream: String,
    /// The consumer's name; letters, digits, `-` and `_`. With `acknowledge` it is exactly this,
    /// otherwise its beginning.
    pub consumer: String,
    /// The position: reading starts at the sequence after it. 0 is before the first.
    pub after: u64,
    /// Whether [`Reader::acknowledge`] tells the server, so that it can report the lag. At most one
    /// reader of this consumer name may do so at a time.
    pub acknowledge: bool,
    /// Messages asked for at a time. Below 1,000 a third of the throughput is lost.
    pub batch_messages_max: usize,
    /// Bytes asked for at a time: half as much again may be held in memory. Where the server takes
    /// larger messages (`max_payload`), as many as one of them needs.
    pub batch_bytes_max: usize,
    /// The server's sign of life on an idle stream; twice this without any is a lost subscription.
    pub heartbeat: Duration,
    /// Between two questions, while nothing comes, whether the stream has something. What is there
    /// at two of them and did not come is taken in another form.
    pub overdue_check: Duration,
    /// The wait before subscribing again, doubled with each failure in a row.
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

/// What a reader gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A subscription stands: the first one, or another after a reconnect, a gap or a lost
    /// consumer. Compare the durable position with the stream now ([`Bus::compare`]).
    Subscribed(StreamStatus),
    /// The next message.
    Message(Delivery),
    /// The server says that these sequences were deleted, both ends included.
    Deleted {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// The stream is no longer the one that was read so far: made again, cut at its end, or an
    /// older copy. Nothing more comes from this reader.
    Changed(String),
}

/// How a reader is doing, for metrics and readiness.
#[derive(Debug, Default)]
pub struct ReaderProgress {
    subscriptions: AtomicU64,
    lost_ranges: AtomicU64,
    repeated: AtomicU64,
    unreadable: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl ReaderProgress {
    /// Subscriptions made, the first among them.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Ranges that did not arrive though the server still had them.
    pub fn lost_ranges(&self) -> u64 {
        self.lost_ranges.load(Ordering::Relaxed)
    }

    /// Messages at or before the position, which were dropped.
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Messages whose headers or subject can't be read, given with their bytes.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Why no subscription stands.
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

/// Reads one stream. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Reader {
    items: mpsc::Receiver<FeedItem>,
    progress: Arc<ReaderProgress>,
    bus: Bus,
    stream: String,
    acknowledge: bool,
    /// Messages given and not acknowledged, with the subjects that acknowledge them.
    unacknowledged: VecDeque<(u64, Subject)>,
    _task: AbortOnDropHandle<()>,
}

/// What a [`Feed`] hands over, and the subject that acknowledges it.
#[derive(Debug)]
pub(crate) struct FeedItem {
    pub(crate) read: Read,
    pub(crate) reply: Option<Subject>,
}

impl Reader {
    pub(crate) fn new(bus: Bus, settings: ReaderSettings) -> Self {
        let (sender, items) = mpsc::channel(HANDED_OVER_MAX);
        let progress: Arc<ReaderProgress> = Arc::default();
        let (stream, acknowledge) = (settings.stream.clone(), settings.acknowledge);
        let feed = Feed::new(bus.clone(), settings, sender, Arc::clone(&progress));
        Self {
            items,
            progress,
            bus,
            stream,
            acknowledge,
            unacknowledged: VecDeque::new(),
            _task: AbortOnDropHandle::new(tokio::spawn(feed.run())),
        }
    }

    /// What comes next; waits for it. Losing the server is no error here: it waits and subscribes
    /// again ([`Reader::progress`] tells). Cancelling the call loses nothing.
    ///
    /// # Errors
    ///
    /// [`BusError::Ended`] after [`Read::Changed`].
    pub async fn next(&mut self) -> Result<Read, BusError> {
        let Some(item) = self.items.recv().await else {
            return Err(BusError::Ended { what: format!("the reader of stream {}", self.stream) });
        };
        match &item.read {
            Read::Message(delivery) => {
                if let (true, Some(reply)) = (self.acknowledge, item.reply) {
                    self.unacknowledged.push_back((delivery.sequence, reply));
                }
            }
            // Another consumer: it knows nothing of what the one before it gave.
            Read::Subscribed(_) => self.unacknowledged.clear(),
            Read::Deleted { .. } | Read::Changed(_) => {}
        }
        Ok(item.read)
    }

    /// Tells the server that everything up to a sequence is done, so that it can report the lag.
    /// Nothing depends on it: it may be lost.
    ///
    /// # Errors
    ///
    /// [`BusError::NoAnswer`] if the client can't send it.
    pub async fn acknowledge(&mut self, sequence: u64) -> Result<(), BusError> {
        let done = self.unacknowledged.partition_point(|(given, _)| *given <= sequence);
        let Some((_, reply)) = self.unacknowledged.drain(..done).next_back() else {
            return Ok(());
        };
        self.bus.client().publish(reply, "+ACK".into()).await.map_err(|error| {
            crate::api::no_answer(
                &error,
                &format!("acknowledging message {sequence} of stream {}", self.stream),
            )
        })
    }

    /// How it is doing.
    pub fn progress(&self) -> Arc<ReaderProgress> {
        Arc::clone(&self.progress)
    }
}
