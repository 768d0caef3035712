//! The one reader: every message of a stream after a position, once, in ascending order.
//!
//! The position is the caller's. What the broker knows about acknowledgements never decides what is
//! read: two pullers on one consumer skip each other's ranges, and a client that reconnects can
//! lose a range, both without an error. The work is done by [`Feed`].

use std::{collections::VecDeque, sync::Arc};

use async_nats::Subject;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api::no_answer,
    connection::Bus,
    error::BusError,
    feed::{Feed, FeedItem},
    read::{Read, ReaderProgress, ReaderSettings},
};

/// Messages that may wait for the caller here; the request to the server bounds the rest.
const HANDED_OVER_MAX: usize = 32;

/// Reads one stream. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Reader {
    items: mpsc::Receiver<FeedItem>,
    progress: Arc<ReaderProgress>,
    bus: Bus,
    stream: String,
    acknowledge: bool,
    /// Messages returned and not acknowledged, with the subjects that acknowledge them.
    unacknowledged: VecDeque<(u64, Subject)>,
    _task: AbortOnDropHandle<()>,
}

impl Bus {
    /// Reads a stream after a position. Must be called within a runtime. The reader connects in the
    /// background and recovers by itself.
    pub fn reader(&self, settings: ReaderSettings) -> Reader {
        let (sender, items) = mpsc::channel(HANDED_OVER_MAX);
        let progress: Arc<ReaderProgress> = Arc::default();
        let (stream, acknowledge) = (settings.stream.clone(), settings.acknowledge);
        let feed = Feed::new(self.clone(), settings, sender, Arc::clone(&progress));
        Reader {
            items,
            progress,
            bus: self.clone(),
            stream,
            acknowledge,
            unacknowledged: VecDeque::new(),
            _task: AbortOnDropHandle::new(tokio::spawn(feed.run())),
        }
    }
}

impl Reader {
    /// Waits for the next item. Losing the server is no error here: the reader waits and subscribes
    /// again, which [`Reader::progress`] shows. Cancelling the call loses nothing.
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
            // This is another consumer, which does not know what the previous one delivered.
            Read::Subscribed(_) => self.unacknowledged.clear(),
            Read::Deleted { .. } | Read::Changed(_) => {}
        }
        Ok(item.read)
    }

    /// Reports to the server that everything up to a sequence is done, so that the server can
    /// report the lag. The report may be lost, because nothing depends on it.
    ///
    /// # Errors
    ///
    /// [`BusError::NoAnswer`] if the client can't send the report.
    pub async fn acknowledge(&mut self, sequence: u64) -> Result<(), BusError> {
        let done = self.unacknowledged.partition_point(|(given, _)| *given <= sequence);
        let Some((_, reply)) = self.unacknowledged.drain(..done).next_back() else {
            return Ok(());
        };
        self.bus.client().publish(reply, "+ACK".into()).await.map_err(|error| {
            no_answer(
                &error,
                &format!("acknowledging message {sequence} of stream {}", self.stream),
            )
        })
    }

    /// The state of the reader.
    pub fn progress(&self) -> Arc<ReaderProgress> {
        Arc::clone(&self.progress)
    }
}
