//! Routes events: a publisher for each stream, a packer for each subject.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use bus::{Bus, BusSettings, Publisher, PublisherLimits};
use domain::{Event, Refusal, Rules, Stream, Timestamp, accept::accept, partition};
use wire::{Format, Packer, PackerLimits, Sealed, Subjects};

use super::progress::PublishCounts;

/// Partitions of each side. The format allows more, for a later release.
pub(super) const PARTITIONS: u16 = 1;

/// What became of an event.
pub(crate) enum Pushed {
    Accepted,
    Refused(Refusal),
}

/// Publishes events to their streams.
pub(crate) struct Lanes {
    bus: Bus,
    subjects: Subjects,
    source: String,
    format: Format,
    counts: Arc<PublishCounts>,
    lanes: BTreeMap<Stream, PublishLane>,
}

/// One stream.
struct PublishLane {
    /// The rules of both services: events that are refused here would be dead letters there.
    rules: Rules,
    publisher: Publisher,
    packers: BTreeMap<String, Packer>,
}

impl Lanes {
    pub(crate) fn new(
        bus: Bus,
        settings: &BusSettings,
        source: &str,
        format: Format,
        counts: Arc<PublishCounts>,
    ) -> Self {
        Self {
            bus,
            subjects: Subjects::new(&settings.subject_prefix),
            source: source.to_owned(),
            format,
            counts,
            lanes: BTreeMap::new(),
        }
    }

    /// Adds an event, and sends the message that it completed. Waits while too much is unconfirmed.
    ///
    /// # Errors
    ///
    /// Nothing can be published any more.
    pub(crate) async fn push(
        &mut self,
        event: &Event,
        now: Timestamp,
        now_ms: u64,
    ) -> anyhow::Result<Pushed> {
        let partition = partition::of(event, PARTITIONS);
        let stream = Stream { side: event.fact.side(), partition };
        let subject = self.subjects.of(&event.fact, partition, &self.source);
        let (format, message_bytes_max) = (self.format, self.bus.message_bytes_max());
        let lane = self.lane(stream).await?;
        if let Err(refusal) = accept(event, stream, now, &lane.rules) {
            return Ok(Pushed::Refused(refusal));
        }
        let packer = lane.packers.entry(subject).or_insert_with_key(|subject| {
            Packer::new(subject.clone(), format, PackerLimits::default())
        });
        packer.bound(message_bytes_max);
        if let Some(sealed) = packer.push(now_ms, event) {
            lane.publisher.publish(sealed).await?;
        }
        Ok(Pushed::Accepted)
    }

    /// When the next message is due, in the milliseconds of [`Lanes::push`].
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let packers = self.lanes.values().flat_map(|lane| lane.packers.values());
        packers.filter_map(Packer::poll_timeout).min()
    }

    /// Sends messages that are due.
    ///
    /// # Errors
    ///
    /// Nothing can be published any more.
    pub(crate) async fn handle_timeout(&mut self, now_ms: u64) -> anyhow::Result<()> {
        self.send(|packer| packer.handle_timeout(now_ms)).await
    }

    /// Sends everything and waits until it is stored.
    ///
    /// # Errors
    ///
    /// Nothing can be published any more.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        self.send(Packer::flush).await?;
        for lane in self.lanes.values() {
            lane.publisher.flush().await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        mut take: impl FnMut(&mut Packer) -> Option<Sealed>,
    ) -> anyhow::Result<()> {
        for lane in self.lanes.values_mut() {
            for packer in lane.packers.values_mut() {
                if let Some(sealed) = take(packer) {
                    lane.publisher.publish(sealed).await?;
                }
            }
        }
        Ok(())
    }

    async fn lane(&mut self, stream: Stream) -> anyhow::Result<&mut PublishLane> {
        let lane = match self.lanes.remove(&stream) {
            Some(lane) => lane,
            None => self.open(stream).await?,
        };
        Ok(self.lanes.entry(stream).or_insert(lane))
    }

    async fn open(&self, stream: Stream) -> anyhow::Result<PublishLane> {
        let name = stream.to_string();
        let status = self.bus.stream(&name).await.context(
            "there is no stream to publish to; is the pipeline running (`lakegauge up`)?",
        )?;
        let rules = Rules::from_metadata(&status.metadata)
            .with_context(|| format!("stream {name} can't be published to by this release"))?;
        let counts = Arc::clone(&self.counts);
        let publisher = self.bus.publisher(PublisherLimits::default(), move |acknowledged| {
            let events = u64::try_from(acknowledged.sealed.events).unwrap_or(u64::MAX);
            counts.acknowledged.fetch_add(events, Ordering::Relaxed);
            if acknowledged.duplicate {
                counts.duplicates.fetch_add(events, Ordering::Relaxed);
            }
        });
        self.counts.watch(publisher.progress());
        Ok(PublishLane { rules, publisher, packers: BTreeMap::new() })
    }
}
