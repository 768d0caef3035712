//! The one reader: every message of a stream after a position, once, in ascending order.
//!
//! The position is the caller's. What the broker knows about acknowledgements never decides what is
//! read: two pullers on one consumer skip each other's ranges, and a client that reconnects can lose
//! a range, both without an error.

use std::collections::VecDeque;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;

use async_nats::{Subject, jetstream::consumer::pull};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    connection::Bus,
    error::BusError,
    stream::{self, Delivery, StreamStatus},
    subscription,
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
    /// Bytes asked for at a time: half as much again may be held in memory. Must be above the
    /// server's `max_payload`.
    pub batch_bytes_max: usize,
    /// The server's sign of life on an idle stream; twice this without any is a lost subscription.
    pub heartbeat: Duration,
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
    subscribed: AtomicBool,
    subscriptions: AtomicU64,
    lost_ranges: AtomicU64,
    repeated: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl ReaderProgress {
    /// Whether a subscription stands.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed)
    }

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

    /// Why no subscription stands.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads one stream. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Reader {
    items: mpsc::Receiver<Item>,
    progress: Arc<ReaderProgress>,
    bus: Bus,
    stream: String,
    acknowledge: bool,
    /// Messages given and not acknowledged, with the subjects that acknowledge them.
    unacknowledged: VecDeque<(u64, Subject)>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Item {
    read: Read,
    reply: Option<Subject>,
}

impl Reader {
    pub(crate) fn new(bus: Bus, settings: ReaderSettings) -> Self {
        let (sender, items) = mpsc::channel(HANDED_OVER_MAX);
        let progress: Arc<ReaderProgress> = Arc::default();
        let (stream, acknowledge) = (settings.stream.clone(), settings.acknowledge);
        let feed = Feed {
            bus: bus.clone(),
            last: settings.after,
            settings,
            last_ns: None,
            created_ns: None,
            sender,
            progress: Arc::clone(&progress),
        };
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

/// Why a subscription ended.
enum End {
    /// Subscribe again.
    Again(String),
    /// Nobody reads any more.
    Unwanted,
}

/// The task behind a [`Reader`].
struct Feed {
    bus: Bus,
    settings: ReaderSettings,
    /// The position: the sequence given last.
    last: u64,
    /// The broker's timestamp of the message given last.
    last_ns: Option<i64>,
    /// When the stream was made, as the first subscription found it.
    created_ns: Option<i64>,
    sender: mpsc::Sender<Item>,
    progress: Arc<ReaderProgress>,
}

impl Feed {
    async fn run(mut self) {
        let mut backoff = self.settings.backoff_min;
        loop {
            let before = self.last;
            let trouble = match self.subscription().await {
                Ok(End::Unwanted) => return,
                Ok(End::Again(why)) => why,
                Err(error) => error.to_string(),
            };
            self.progress.subscribed.store(false, Ordering::Relaxed);
            tracing::warn!(
                stream = self.settings.stream,
                position = self.last,
                trouble,
                "subscribing again"
            );
            *self.progress.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
            if self.last > before {
                backoff = self.settings.backoff_min;
            }
            tokio::time::sleep(backoff).await;
            self.bus.connected().await;
            backoff = backoff.saturating_mul(2).min(self.settings.backoff_max);
        }
    }

    /// One subscription from its beginning to its end.
    async fn subscription(&mut self) -> Result<End, BusError> {
        // Taken before anything is asked: a reconnect from here on ends this subscription.
        let mut connections = self.bus.connections();
        connections.mark_unchanged();
        let status = self.bus.stream(&self.settings.stream).await?;
        if let Some(change) = self.change().await? {
            let _unwanted = self.give(Read::Changed(change), None).await;
            return Ok(End::Unwanted);
        }
        self.created_ns = Some(status.created_ns);
        let messages = subscription::subscribe(&self.bus, &self.settings, self.last).await?;
        self.progress.subscriptions.fetch_add(1, Ordering::Relaxed);
        self.progress.subscribed.store(true, Ordering::Relaxed);
        *self.progress.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.give(Read::Subscribed(status), None).await.is_err() {
            return Ok(End::Unwanted);
        }
        self.pump(messages, connections).await
    }

    /// How the stream differs from the one that was read so far.
    async fn change(&self) -> Result<Option<String>, BusError> {
        let mark = domain::Mark {
            epoch: 0,
            sequence: self.last,
            broker_ns: self.last_ns.unwrap_or(0),
            created_ns: self.created_ns.unwrap_or(0),
        };
        Ok(self.bus.compare(&self.settings.stream, &mark).await?.replacement())
    }

    async fn pump(
        &mut self,
        mut messages: pull::Stream,
        mut connections: watch::Receiver<u64>,
    ) -> Result<End, BusError> {
        let again = |why: &str| Ok(End::Again(why.to_owned()));
        loop {
            let item = tokio::select! {
                // What has arrived is good even if the connection is gone by now.
                biased;
                item = messages.next() => item,
                _changed = connections.changed() => return again("the connection was made again"),
                () = self.sender.closed() => return Ok(End::Unwanted),
            };
            let message = match item {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    return Err(subscription::item_error(&error, &self.settings.stream));
                }
                None => return again("the client ended the subscription"),
            };
            let (delivery, reply) = stream::delivery(message)?;
            if delivery.sequence <= self.last {
                self.progress.repeated.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if !self.close_gap(delivery.sequence).await? {
                return again("messages were lost on the way");
            }
            self.last = delivery.sequence;
            self.last_ns = Some(delivery.broker_ns);
            if self.give(Read::Message(delivery), reply).await.is_err() {
                return Ok(End::Unwanted);
            }
        }
    }

    /// Whether everything between the position and this sequence was deleted, by the server's word.
    async fn close_gap(&mut self, sequence: u64) -> Result<bool, BusError> {
        let first = self.last.saturating_add(1);
        if first == sequence {
            return Ok(true);
        }
        let next = self.bus.next_sequence(&self.settings.stream, first).await?;
        if next.is_some_and(|next| next < sequence) {
            self.progress.lost_ranges.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let last = sequence - 1;
        self.last = last;
        self.last_ns = None;
        // If nobody reads any more, the message after it finds out.
        let _unwanted = self.give(Read::Deleted { first, last }, None).await;
        Ok(true)
    }

    async fn give(&self, read: Read, reply: Option<Subject>) -> Result<(), ()> {
        self.sender.send(Item { read, reply }).await.map_err(|_| ())
    }
}
