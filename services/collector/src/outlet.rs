//! Where what was read goes: into the streams of the pipeline, each message acknowledged.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bus::{
    Bus, BusError, Publisher, PublisherLimits, Topology,
    publishing::{PublishMetrics, PublishWatch},
};
use domain::{Event, Stream};
use service_kit::Context;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use wire::Subjects;

use crate::{
    parsed::Parsed,
    sealing::{Outgoing, Sealing},
};

/// Publishes what a source reported. Each stream has its publisher, so that a full stream holds up
/// nothing of another.
#[derive(Debug)]
pub struct Outlet {
    bus: Bus,
    sealing: Sealing,
    publishers: BTreeMap<Stream, Publisher>,
    failure: watch::Sender<Option<BusError>>,
    watching: Vec<AbortOnDropHandle<Infallible>>,
}

/// Why something was not stored in time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    /// It waits in this process, and is stored once it can be; the sender does not know that.
    #[error("the broker has not stored it within {} ms ({why}); send it again", .waited.as_millis())]
    NotYet {
        /// How long was waited.
        waited: Duration,
        /// What the publishers wait for.
        why: String,
    },
    /// Nothing can be published any more.
    #[error(transparent)]
    Never(#[from] BusError),
}

impl Outlet {
    /// For the reports of a source, by its name, into every event stream that is declared. What the
    /// publishers wait for is shown by metrics and `/readyz`.
    ///
    /// # Errors
    ///
    /// Metrics of that name exist: a mistake of ours.
    pub fn new(
        bus: &Bus,
        context: &Context,
        subjects: Subjects,
        source: &str,
    ) -> prometheus::Result<Self> {
        let (source, metrics) = (source.to_owned(), PublishMetrics::register(&context.registry)?);
        let mut outlet = Self {
            bus: bus.clone(),
            sealing: Sealing { subjects, source, partitions: Topology::partitions() },
            publishers: BTreeMap::new(),
            failure: watch::Sender::new(None),
            watching: Vec::new(),
        };
        for stream in Topology::event_streams() {
            let publisher = bus.publisher(PublisherLimits::default(), |_| {});
            let watch = PublishWatch::new(
                publisher.progress(),
                metrics.of("events", &stream.to_string()),
                context.readiness.condition("publisher"),
            );
            outlet.watching.push(AbortOnDropHandle::new(tokio::spawn(watch.run())));
            outlet.publishers.insert(stream, publisher);
        }
        Ok(outlet)
    }

    /// The messages of what was read. What is sealed once is published as it is, also after a crash:
    /// the same bytes have the same id.
    pub fn seal(&self, parsed: &Parsed) -> Vec<Outgoing> {
        self.sealing.seal(parsed, self.bus.message_bytes_max())
    }

    /// The messages of an inventory: one event for each partition of the lake, in their order, with
    /// that partition's part.
    pub fn seal_shares(&self, shares: &[Event]) -> Vec<Outgoing> {
        self.sealing.seal_shares(shares, self.bus.message_bytes_max())
    }

    /// Publishes messages and returns once the broker has acknowledged all of them, however long it
    /// is away or full. If the call is dropped, messages may be stored all the same.
    ///
    /// # Errors
    ///
    /// What no retry can mend; nothing can be published from then on ([`Outlet::failed`]).
    pub async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        let published = self.publish_all(messages).await;
        if let Err(error) = &published {
            self.failure.send_replace(Some(error.clone()));
        }
        published
    }

    /// The error after which nothing can be published any more: the service ends with it.
    pub async fn failed(&self) -> BusError {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(error)) => error,
            // The sender is here, and what was waited for is there.
            Ok(None) | Err(_) => BusError::Ended { what: "the outlet".to_owned() },
        }
    }

    /// Publishes what was read within a time. What is given up here may be stored all the same: sent
    /// again it has the same ids.
    ///
    /// # Errors
    ///
    /// [`NotStored`].
    pub(crate) async fn publish_within(
        &self,
        parsed: &Parsed,
        wait: Duration,
    ) -> Result<(), NotStored> {
        match tokio::time::timeout(wait, self.publish(self.seal(parsed))).await {
            Ok(published) => Ok(published?),
            Err(_) => {
                let mut troubles =
                    self.publishers.values().filter_map(|one| one.progress().trouble());
                let why = troubles.next();
                let why = why.unwrap_or_else(|| "it does not answer in time".to_owned());
                Err(NotStored::NotYet { waited: wait, why })
            }
        }
    }

    async fn publish_all(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        let mut confirmations = Vec::with_capacity(messages.len());
        for Outgoing { stream, sealed } in messages {
            let publisher = self
                .publishers
                .get(&stream)
                .ok_or_else(|| BusError::NoStream { stream: stream.to_string() })?;
            confirmations.push(publisher.hand_over(sealed).await?);
        }
        for confirmation in confirmations {
            confirmation.stored().await?;
        }
        Ok(())
    }
}
