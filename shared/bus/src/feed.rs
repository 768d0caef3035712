//! The task behind a reader: subscribes, watches over what comes, and steps over what the client
//! can't take.
//!
//! Each subscription has a connection of its own, thrown away with it. At a message whose header
//! block it can't read the client drops the connection, or ends for good; at one that carries a
//! status it takes the message for a word of the server. Neither may disturb anybody else, and
//! neither is told to us. So whatever did not come though it is stored is taken in the server's own
//! description ([`crate::stored`]), message by message, until the client can be trusted again.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Subject, jetstream::consumer::pull};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use wire::Headers;

use crate::{
    connection::Bus,
    delivery::{Delivery, delivery},
    error::BusError,
    read::{Read, ReaderProgress, ReaderSettings},
    stored::{Stored, Which},
    stream::StreamStatus,
    subscription,
};

/// Readable messages in a row after which the client is trusted again: each time that it breaks
/// costs a connection, which is as dear as some hundred messages one by one.
const READABLE_RUN: u32 = 256;

/// Why a subscription ended.
enum End {
    /// Subscribe again.
    Again(String),
    /// Nobody reads any more.
    Unwanted,
}

/// Whether somebody still reads.
type Given = Result<(), Unwanted>;

/// Nobody reads any more.
struct Unwanted;

/// What a [`Feed`] hands over, and the subject that acknowledges it.
#[derive(Debug)]
pub(crate) struct FeedItem {
    pub(crate) read: Read,
    pub(crate) reply: Option<Subject>,
}

/// Reads one stream for a [`crate::Reader`].
pub(crate) struct Feed {
    bus: Bus,
    settings: ReaderSettings,
    /// The position: the sequence given last.
    last: u64,
    /// The broker's timestamp of the message given last.
    last_ns: Option<i64>,
    /// When the stream was made, as the first subscription found it.
    created_ns: Option<i64>,
    /// Whether the last subscription ended without giving anything.
    gave_nothing: bool,
    sender: mpsc::Sender<FeedItem>,
    progress: Arc<ReaderProgress>,
}

impl Feed {
    pub(crate) fn new(
        bus: Bus,
        settings: ReaderSettings,
        sender: mpsc::Sender<FeedItem>,
        progress: Arc<ReaderProgress>,
    ) -> Self {
        Self {
            bus,
            last: settings.after,
            settings,
            last_ns: None,
            created_ns: None,
            gave_nothing: false,
            sender,
            progress,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut backoff = self.settings.backoff_min;
        loop {
            let before = self.last;
            let trouble = match self.connection().await {
                Ok(End::Unwanted) => return,
                Ok(End::Again(why)) => why,
                Err(error) => error.to_string(),
            };
            self.gave_nothing = self.last == before;
            tracing::warn!(
                stream = self.settings.stream,
                position = self.last,
                trouble,
                "subscribing again"
            );
            self.progress.observe_trouble(trouble);
            if !self.gave_nothing {
                backoff = self.settings.backoff_min;
            }
            tokio::time::sleep(backoff).await;
            self.bus.connected().await;
            backoff = backoff.saturating_mul(2).min(self.settings.backoff_max);
        }
    }

    /// One connection from its beginning to its end.
    async fn connection(&mut self) -> Result<End, BusError> {
        let own = tokio::select! {
            own = self.bus.another(&self.settings.stream) => own?,
            () = self.sender.closed() => return Ok(End::Unwanted),
        };
        let mut subscription = Subscription {
            // Taken before anything is asked: a reconnect from here on ends this subscription.
            connections: own.connections(),
            name: own.server_name(&self.settings.stream),
            bus: own,
            feed: self,
        };
        subscription.connections.mark_unchanged();
        subscription.run().await
    }

    async fn give(&self, read: Read, reply: Option<Subject>) -> Given {
        self.sender.send(FeedItem { read, reply }).await.map_err(|_| Unwanted)
    }

    async fn give_message(&mut self, delivery: Delivery, reply: Option<Subject>) -> Given {
        self.last = delivery.sequence;
        self.last_ns = Some(delivery.broker_ns);
        if matches!(delivery.headers, Headers::Unreadable(_)) {
            self.progress.observe_unreadable();
        }
        self.give(Read::Message(delivery), reply).await
    }

    async fn give_deleted(&mut self, last: u64) -> Given {
        let first = self.last.saturating_add(1);
        self.last = last;
        self.last_ns = None;
        self.give(Read::Deleted { first, last }, None).await
    }
}

/// A connection, and what comes over it.
struct Subscription<'a> {
    bus: Bus,
    /// The stream's name on the server.
    name: String,
    connections: watch::Receiver<u64>,
    feed: &'a mut Feed,
}

impl Subscription<'_> {
    async fn run(&mut self) -> Result<End, BusError> {
        let mut is_told = false;
        let status = loop {
            let status = self.bus.stream(&self.feed.settings.stream).await?;
            if let Some(change) = self.change().await? {
                let _unwanted = self.feed.give(Read::Changed(change), None).await;
                return Ok(End::Unwanted);
            }
            self.feed.created_ns = Some(status.created_ns);
            let Some(first) = self.to_step_over().await? else { break status };
            if !is_told && self.tell(status.clone()).await.is_err() {
                return Ok(End::Unwanted);
            }
            is_told = true;
            if self.step_over(first, status.last_sequence).await?.is_err() {
                return Ok(End::Unwanted);
            }
        };
        let feed = &self.feed;
        let messages = subscription::subscribe(&self.bus, &feed.settings, feed.last).await?;
        if !is_told && self.tell(status).await.is_err() {
            return Ok(End::Unwanted);
        }
        self.pump(messages).await
    }

    async fn tell(&self, status: StreamStatus) -> Given {
        self.feed.progress.observe_subscription();
        self.feed.give(Read::Subscribed(status), None).await
    }

    /// How the stream differs from the one that was read so far.
    async fn change(&self) -> Result<Option<String>, BusError> {
        let mark = domain::Mark {
            epoch: 0,
            sequence: self.feed.last,
            broker_ns: self.feed.last_ns.unwrap_or(0),
            created_ns: self.feed.created_ns.unwrap_or(0),
        };
        Ok(self.bus.compare(&self.feed.settings.stream, &mark).await?.replacement())
    }

    /// The message after the position, if it must be taken in another form, or had better be.
    async fn to_step_over(&self) -> Result<Option<Stored>, BusError> {
        let stored = self.after_position().await?;
        Ok(stored.filter(|stored| {
            let headers = Headers::read(&stored.subject, &stored.block);
            // One that looks readable did not come the last time, perhaps.
            self.feed.gave_nothing || matches!(headers, Headers::Unreadable(_))
        }))
    }

    async fn after_position(&self) -> Result<Option<Stored>, BusError> {
        self.bus.stored(&self.name, Which::From(self.feed.last.saturating_add(1), ">")).await
    }

    /// Gives messages in the server's description from one on, until so many in a row are readable
    /// or none is left. `last_sequence` is where the stream ended a moment ago.
    async fn step_over(&mut self, first: Stored, last_sequence: u64) -> Result<Given, BusError> {
        tracing::warn!(
            stream = self.name,
            sequence = first.sequence,
            "taking messages one by one: the client can't take this one, or did not"
        );
        self.feed.gave_nothing = false;
        let (mut next, mut readable) = (Some(first), 0);
        while let Some(stored) = next.take().filter(|_| readable < READABLE_RUN) {
            let sequence = stored.sequence;
            // By the server's word there is nothing between the position and this one.
            if sequence > self.feed.last.saturating_add(1)
                && self.feed.give_deleted(sequence - 1).await.is_err()
            {
                return Ok(Err(Unwanted));
            }
            let from = Which::From(sequence.saturating_add(1), ">");
            next = self.bus.stored(&self.name, from).await?;
            let behind = |next: &Stored| last_sequence.max(next.sequence) - sequence;
            let delivery = stored.delivery(next.as_ref().map_or(0, behind));
            match &delivery.headers {
                Headers::Read { .. } => readable += 1,
                Headers::Unreadable(headers) => {
                    tracing::debug!(stream = self.name, sequence, why = headers.why, "unreadable");
                    readable = 0;
                }
            }
            if self.feed.give_message(delivery, None).await.is_err() {
                return Ok(Err(Unwanted));
            }
        }
        Ok(Ok(()))
    }

    async fn pump(&mut self, mut messages: pull::Stream) -> Result<End, BusError> {
        let again = |why: &str| Ok(End::Again(why.to_owned()));
        let mut quiet = Quiet::new(self.feed.settings.overdue_check);
        loop {
            let item = tokio::select! {
                // What has arrived is good even if the connection is gone by now.
                biased;
                item = messages.next() => item,
                _changed = self.connections.changed() => {
                    return again("the connection was made again");
                }
                () = self.feed.sender.closed() => return Ok(End::Unwanted),
                () = quiet.check() => {
                    let stored = self.after_position().await?.map(|stored| stored.sequence);
                    match quiet.overdue(stored) {
                        Some(sequence) => return Ok(End::Again(format!(
                            "message {sequence} is stored and does not come"
                        ))),
                        None => continue,
                    }
                }
            };
            quiet.heard();
            let message = match item {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    return Err(subscription::item_error(&error, &self.feed.settings.stream));
                }
                None => return again("the client ended the subscription"),
            };
            let (delivery, reply) = delivery(message)?;
            if delivery.sequence <= self.feed.last {
                self.feed.progress.observe_repeated();
                continue;
            }
            match self.close_gap(delivery.sequence).await? {
                None => return again("messages were lost on the way"),
                Some(Err(Unwanted)) => return Ok(End::Unwanted),
                Some(Ok(())) => {}
            }
            let delivery = self.as_stored(delivery).await?;
            if self.feed.give_message(delivery, reply).await.is_err() {
                return Ok(End::Unwanted);
            }
        }
    }

    /// Tells of the gap before a sequence, if everything in it was deleted by the server's word;
    /// nothing: it was not.
    async fn close_gap(&mut self, sequence: u64) -> Result<Option<Given>, BusError> {
        let first = self.feed.last.saturating_add(1);
        if first == sequence {
            return Ok(Some(Ok(())));
        }
        let next = self.bus.next_sequence(&self.feed.settings.stream, first).await?;
        if next.is_some_and(|next| next < sequence) {
            self.feed.progress.observe_lost_range();
            return Ok(None);
        }
        Ok(Some(self.feed.give_deleted(sequence - 1).await))
    }

    /// A message whose subject the server's description could not tell from an unreadable one is
    /// taken from there, so that both ways give the same.
    async fn as_stored(&self, delivery: Delivery) -> Result<Delivery, BusError> {
        if wire::headers::unreadable_subject(&delivery.subject).is_none() {
            return Ok(delivery);
        }
        let stored = self.bus.stored(&self.name, Which::At(delivery.sequence)).await?;
        Ok(stored.map_or(delivery.clone(), |stored| stored.delivery(delivery.pending)))
    }
}

/// Notices that something is stored which does not come.
struct Quiet {
    interval: tokio::time::Interval,
    /// What stood after the position at the last check, since which nothing came.
    waiting: Option<u64>,
}

impl Quiet {
    fn new(every: Duration) -> Self {
        let mut interval = tokio::time::interval(every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.reset();
        Self { interval, waiting: None }
    }

    /// Waits until a check is due.
    async fn check(&mut self) {
        self.interval.tick().await;
    }

    /// Something came.
    fn heard(&mut self) {
        self.interval.reset();
        self.waiting = None;
    }

    /// Whether what is stored after the position was so at the check before, too.
    fn overdue(&mut self, stored: Option<u64>) -> Option<u64> {
        let before = std::mem::replace(&mut self.waiting, stored);
        stored.filter(|_| before == stored)
    }
}
