//! Where what was read goes: into the stream of the lake, acknowledged before anybody is answered.

use std::time::Duration;

use bus::{Bus, BusError, Publisher, PublisherLimits};
use domain::{Event, Stream};
use wire::{Format, Packer, PackerLimits, Sealed, Subjects};

use crate::s3_events::RefusedRecord;

/// The partition that collected events go to. Splitting is a later release's.
const PARTITION: u16 = 0;
/// The media type of a record that was refused: nobody takes it for an event.
const AS_IT_CAME: &str = "application/json";

/// Publishes events and refused records.
#[derive(Debug)]
pub(crate) struct Outlet {
    bus: Bus,
    publisher: Publisher,
    subject: String,
    ack_wait: Duration,
}

/// Why something was not stored in time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    /// It waits in this process, and is stored once it can be; the sender does not know that.
    #[error("the broker has not stored it within {} ms ({why}); send it again", .waited.as_millis())]
    NotYet {
        /// How long was waited.
        waited: Duration,
        /// What the publisher waits for.
        why: String,
    },
    /// Nothing can be published any more.
    #[error(transparent)]
    Never(#[from] BusError),
}

impl Outlet {
    /// For the events of a source.
    pub(crate) fn new(bus: &Bus, subjects: &Subjects, source: &str, ack_wait: Duration) -> Self {
        let publisher = bus.publisher(PublisherLimits::default(), |_| {});
        let subject = subjects.lake_access(PARTITION, source);
        Self { bus: bus.clone(), publisher, subject, ack_wait }
    }

    /// The stream that is published to.
    pub(crate) const fn stream() -> Stream {
        Stream::lake(PARTITION)
    }

    /// The publisher, to be watched.
    pub(crate) const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Stores events and refused records; returns once the broker has acknowledged all of them. What
    /// is given up here may be stored all the same: sent again it has the same ids.
    ///
    /// # Errors
    ///
    /// [`NotStored`].
    pub(crate) async fn store(
        &self,
        events: &[Event],
        refused: &[RefusedRecord],
    ) -> Result<(), NotStored> {
        let stored = async {
            for sealed in self.messages(events, refused) {
                self.publisher.publish(sealed).await?;
            }
            self.publisher.flush().await.map(drop)
        };
        match tokio::time::timeout(self.ack_wait, stored).await {
            Ok(stored) => Ok(stored?),
            Err(_) => {
                let trouble = self.publisher.progress().trouble();
                let why = trouble.unwrap_or_else(|| "it does not answer in time".to_owned());
                Err(NotStored::NotYet { waited: self.ack_wait, why })
            }
        }
    }

    fn messages(&self, events: &[Event], refused: &[RefusedRecord]) -> Vec<Sealed> {
        let limits = PackerLimits::default();
        let mut packer = Packer::new(self.subject.clone(), Format::Json, limits);
        packer.bound(self.bus.message_bytes_max());
        // The time is of no matter: what is left at the end goes out at once.
        let mut messages: Vec<Sealed> =
            events.iter().filter_map(|event| packer.push(0, event)).collect();
        messages.extend(packer.flush());
        // The archiver refuses it as no event, and keeps its bytes as a dead letter.
        messages.extend(
            refused.iter().map(|record| {
                Sealed::new(self.subject.clone(), AS_IT_CAME, record.bytes.clone(), 1)
            }),
        );
        messages
    }
}
