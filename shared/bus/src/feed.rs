//! The task behind a reader: subscribes, notices missing messages, and reads those that the client
//! can't deliver in another way.
//!
//! Each subscription has a connection of its own, which is closed with it. When the client gets a
//! message whose header block it can't read, it drops the connection, or ends for good; a message
//! that carries a status looks to it like an answer of the server. The client reports neither, and
//! neither may disturb other users of the connection. So a message that is stored but was not
//! delivered is read from the server's own description ([`crate::stored`]), one by one, until the
//! client can be trusted again.

use std::convert::Infallible;
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

/// Number of readable messages in a row after which the client is trusted again. Each failure costs
/// a connection, which is as expensive as some hundred messages read one by one.
const READABLE_RUN: u32 = 256;

/// Why a subscription ended.
enum End {
    /// Subscribe again.
    Again(String),
    /// Nobody reads any more.
    Unwanted,
}

impl From<BusError> for End {
    fn from(error: BusError) -> Self {
        Self::Again(error.to_string())
    }
}

/// What a [`Feed`] sends to its reader, and the subject that acknowledges the message.
#[derive(Debug)]
pub(crate) struct FeedItem {
    pub(crate) read: Read,
    pub(crate) reply: Option<Subject>,
}

/// Reads one stream for a [`crate::Reader`].
pub(crate) struct Feed {
    bus: Bus,
    settings: ReaderSettings,
    /// The position: the sequence sent last.
    last: u64,
    /// The broker's timestamp of the message sent last.
    last_ns: Option<i64>,
    /// When the stream was created, as the first subscription found it.
    created_ns: Option<i64>,
    /// Whether the last subscription ended without sending a message.
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
                End::Unwanted => return,
                End::Again(why) => why,
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

    /// Runs one connection from its beginning to its end.
    async fn connection(&mut self) -> End {
        let own = tokio::select! {
            own = self.bus.another(&self.settings.stream) => match own {
                Ok(own) => own,
                Err(error) => return error.into(),
            },
            () = self.sender.closed() => return End::Unwanted,
        };
        let mut subscription = Subscription {
            // Taken before any request: a reconnect from here on ends this subscription.
            connections: own.connections(),
            name: own.server_name(&self.settings.stream),
            bus: own,
            feed: self,
        };
        subscription.connections.mark_unchanged();
        match subscription.run().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn give(&self, read: Read, reply: Option<Subject>) -> Result<(), End> {
        self.sender.send(FeedItem { read, reply }).await.map_err(|_| End::Unwanted)
    }

    async fn give_message(
        &mut self,
        delivery: Delivery,
        reply: Option<Subject>,
    ) -> Result<(), End> {
        self.last = delivery.sequence;
        self.last_ns = Some(delivery.broker_ns);
        if matches!(delivery.headers, Headers::Unreadable(_)) {
            self.progress.observe_unreadable();
        }
        self.give(Read::Message(delivery), reply).await
    }

    async fn give_deleted(&mut self, last: u64) -> Result<(), End> {
        let first = self.last.saturating_add(1);
        self.last = last;
        self.last_ns = None;
        self.give(Read::Deleted { first, last }, None).await
    }
}

/// A connection and its subscription.
struct Subscription<'a> {
    bus: Bus,
    /// The stream's name on the server.
    name: String,
    connections: watch::Receiver<u64>,
    feed: &'a mut Feed,
}

impl Subscription<'_> {
    async fn run(&mut self) -> Result<Infallible, End> {
        let mut is_told = false;
        let status = loop {
            let status = self.bus.stream(&self.feed.settings.stream).await?;
            if let Some(change) = self.change().await? {
                self.feed.give(Read::Changed(change), None).await?;
                return Err(End::Unwanted);
            }
            self.feed.created_ns = Some(status.created_ns);
            let Some(first) = self.to_step_over().await? else { break status };
            if !std::mem::replace(&mut is_told, true) {
                self.tell(status.clone()).await?;
            }
            self.step_over(first, status.last_sequence).await?;
        };
        let feed = &self.feed;
        let messages = subscription::subscribe(&self.bus, &feed.settings, feed.last).await?;
        if !is_told {
            self.tell(status).await?;
        }
        self.pump(messages).await
    }

    async fn tell(&self, status: StreamStatus) -> Result<(), End> {
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

    /// The message after the position, if the client can't deliver it or probably can't.
    async fn to_step_over(&self) -> Result<Option<Stored>, BusError> {
        let stored = self.after_position().await?;
        Ok(stored.filter(|stored| {
            let headers = Headers::read(&stored.subject, &stored.block);
            // A message that looks readable may still be the one that did not arrive the last time.
            self.feed.gave_nothing || matches!(headers, Headers::Unreadable(_))
        }))
    }

    async fn after_position(&self) -> Result<Option<Stored>, BusError> {
        self.bus.stored(&self.name, Which::From(self.feed.last.saturating_add(1), ">")).await
    }

    /// Sends messages read from the server's description, until enough in a row are readable or
    /// none is left. `last_sequence` is where the stream ended a moment ago.
    async fn step_over(&mut self, first: Stored, last_sequence: u64) -> Result<(), End> {
        tracing::warn!(
            stream = self.name,
            sequence = first.sequence,
            "reading messages one by one: the client can't deliver this one, or did not"
        );
        self.feed.gave_nothing = false;
        let (mut next, mut readable) = (Some(first), 0);
        while let Some(stored) = next.take().filter(|_| readable < READABLE_RUN) {
            let sequence = stored.sequence;
            // The server returned the next stored message, so everything before it was deleted.
            if sequence > self.feed.last.saturating_add(1) {
                self.feed.give_deleted(sequence - 1).await?;
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
            self.feed.give_message(delivery, None).await?;
        }
        Ok(())
    }

    async fn pump(&mut self, mut messages: pull::Stream) -> Result<Infallible, End> {
        let again = |why: &str| Err(End::Again(why.to_owned()));
        let mut quiet = Quiet::new(self.feed.settings.overdue_check);
        loop {
            let item = tokio::select! {
                // Messages that have arrived are good even if the connection is gone by now.
                biased;
                item = messages.next() => item,
                _changed = self.connections.changed() => {
                    return again("the client reconnected");
                }
                () = self.feed.sender.closed() => return Err(End::Unwanted),
                () = quiet.check() => {
                    let stored = self.after_position().await?.map(|stored| stored.sequence);
                    match quiet.overdue(stored) {
                        Some(sequence) => return Err(End::Again(format!(
                            "message {sequence} is stored but was not delivered"
                        ))),
                        None => continue,
                    }
                }
            };
            quiet.heard();
            let message = match item {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    return Err(subscription::item_error(&error, &self.feed.settings.stream).into());
                }
                None => return again("the client ended the subscription"),
            };
            let (delivery, reply) = delivery(message)?;
            if delivery.sequence <= self.feed.last {
                self.feed.progress.observe_repeated();
                continue;
            }
            self.close_gap(delivery.sequence).await?;
            let delivery = self.as_stored(delivery).await?;
            self.feed.give_message(delivery, reply).await?;
        }
    }

    /// Sends the gap before a sequence to the reader. If the server still has one of its messages,
    /// the subscription ends instead.
    async fn close_gap(&mut self, sequence: u64) -> Result<(), End> {
        let first = self.feed.last.saturating_add(1);
        if first == sequence {
            return Ok(());
        }
        let next = self.bus.next_sequence(&self.feed.settings.stream, first).await?;
        if next.is_some_and(|next| next < sequence) {
            self.feed.progress.observe_lost_range();
            return Err(End::Again("messages were lost on the way".to_owned()));
        }
        self.feed.give_deleted(sequence - 1).await
    }

    /// If the subject of a message looks unreadable, the message is read from the server's
    /// description, so that both ways give the same result.
    async fn as_stored(&self, delivery: Delivery) -> Result<Delivery, BusError> {
        if wire::headers::unreadable_subject(&delivery.subject).is_none() {
            return Ok(delivery);
        }
        let stored = self.bus.stored(&self.name, Which::At(delivery.sequence)).await?;
        Ok(stored.map_or(delivery.clone(), |stored| stored.delivery(delivery.pending)))
    }
}

/// Notices a message that is stored but not delivered.
struct Quiet {
    interval: tokio::time::Interval,
    /// What was stored after the position at the last check, if nothing arrived since.
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

    /// Resets the check, because something arrived.
    fn heard(&mut self) {
        self.interval.reset();
        self.waiting = None;
    }

    /// Returns the stored sequence after the position if it was the same at the check before.
    fn overdue(&mut self, stored: Option<u64>) -> Option<u64> {
        let before = std::mem::replace(&mut self.waiting, stored);
        stored.filter(|_| before == stored)
    }
}
