//! Publishes the records of reports to the streams, and waits for every acknowledgement.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use bus::{
    Bus, BusError, Publisher, PublisherLimits, Topology,
    publishing::{PublishMetrics, PublishWatch},
    service::BusConfig,
    status::Announcer,
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

/// Publishes the reports of one source. Each stream has its own publisher, so that a full stream
/// delays no message of another stream.
#[derive(Debug)]
pub struct Outlet {
    bus: Bus,
    sealing: Sealing,
    publishers: BTreeMap<Stream, Publisher>,
    failure: watch::Sender<Option<BusError>>,
    watching: Vec<AbortOnDropHandle<Infallible>>,
}

/// Why a report was not stored in time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    /// The report still waits in this process, and is stored when the broker can store it. The
    /// sender does not know that.
    #[error("the broker has not stored it within {} ms ({why}); send it again", .waited.as_millis())]
    NotYet {
        /// How long the call waited.
        waited: Duration,
        /// The reason why the publishers wait.
        why: String,
    },
    /// Nothing can be published any more.
    #[error(transparent)]
    Never(#[from] BusError),
}

impl Outlet {
    /// Connects to the broker, announces the service there, and creates the publishers; `None` if
    /// the service is stopped before there is a connection.
    ///
    /// # Errors
    ///
    /// Errors that no retry can correct, such as a refused login.
    pub(crate) async fn connect(
        config: &BusConfig,
        context: &Context,
        source: &str,
    ) -> anyhow::Result<Option<Self>> {
        let Some(bus) = bus::service::connect(config, context).await? else { return Ok(None) };
        Announcer::new(&bus, context, source).spawn(context, || None);
        let subjects = Subjects::new(&config.settings.subject_prefix);
        Self::new(&bus, context, subjects, source).context("metrics").map(Some)
    }

    /// Creates an outlet for the source with this name, with a publisher for every event stream
    /// that is declared. Metrics and `/readyz` show why a publisher waits.
    ///
    /// # Errors
    ///
    /// A metric's name is taken, which is a programming error.
    fn new(
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

    /// Converts the records of a report to messages. A sealed message must be published unchanged,
    /// even after a crash, because the same bytes have the same id.
    pub fn seal(&self, parsed: &Parsed) -> Vec<Outgoing> {
        self.sealing.seal(parsed, self.bus.message_bytes_max())
    }

    /// Converts an inventory to messages: one event for each partition of the lake, in the order of
    /// the partitions.
    pub fn seal_shares(&self, shares: &[Event]) -> Vec<Outgoing> {
        self.sealing.seal_shares(shares, self.bus.message_bytes_max())
    }

    /// Publishes messages, and returns after the broker has acknowledged all of them. While the
    /// broker is unreachable or full, the call waits without a limit. If the call is dropped,
    /// messages may be stored nevertheless.
    ///
    /// # Errors
    ///
    /// The first error that no retry can correct. Nothing can be published after it
    /// ([`Outlet::failed`]).
    pub async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        let published = self.publish_all(messages).await;
        if let Err(error) = &published {
            self.failure.send_replace(Some(error.clone()));
        }
        published
    }

    /// Waits for the error after which nothing can be published any more. The service ends with
    /// this error.
    pub async fn failed(&self) -> BusError {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(error)) => error,
            // This can't happen: `self` owns the sender, and the awaited value is `Some`.
            Ok(None) | Err(_) => BusError::Ended { what: "the outlet".to_owned() },
        }
    }

    /// Publishes the records of a report, but waits at most `wait`. A report that was not stored in
    /// time may be stored later nevertheless; if it is sent again, it has the same ids.
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
