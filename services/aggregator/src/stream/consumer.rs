//! Counts a stream: reads its messages and publishes samples.

use std::sync::Arc;

use bus::{
    BusError, Delivery, EpochWatch, Publisher, Read, Reader, StreamEpoch, backlog::SharedPosition,
};
use domain::Sample;
use event_store::StoreSettings;
use service_kit::{FailPoint, News};
use tokio::sync::watch;
use wire::Subjects;

use super::{
    context::StreamContext,
    gap::{self, Archived, GAP_POLL, GAP_POLLS_MAX, Gap},
};
use crate::{lease::Lease, shared_fold::SharedFold};

static SAMPLED: FailPoint = FailPoint::new("aggregator.sampled");
static RECEIVED: FailPoint = FailPoint::new("aggregator.received");
static APPLIED: FailPoint = FailPoint::new("aggregator.applied");

/// Why counting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CountingEnd {
    /// The service drains, or another process owns the partition.
    Drained,
    /// The stream is no longer the one that was counted, whether or not the epoch was raised
    /// already: recover the state again.
    Epoch {
        /// How the stream differs.
        why: String,
        /// The epoch that ends because of it.
        epoch: u32,
    },
    /// Somebody else stored a snapshot: recover the state again, if the partition is still ours.
    Superseded(String),
    /// Messages were deleted that were not counted here and that the archive has, or may have:
    /// rebuild the state from the archive, once the archiver is past them.
    Missed(Gap),
}

impl CountingEnd {
    fn superseded(epoch: u32, now: u32) -> Self {
        Self::Epoch { why: format!("epoch {now} is in force"), epoch }
    }
}

/// The only reader of a stream for its fold.
#[derive(Debug)]
pub(super) struct Consumer<'a> {
    pub(super) context: &'a StreamContext,
    /// The archive of the stream; `None` if none is set, or for a replay.
    pub(super) store: Option<&'a StoreSettings>,
    pub(super) subjects: Subjects,
    pub(super) fold: SharedFold,
    pub(super) samples: SamplePublisher,
    pub(super) caught_up: CaughtUp,
    pub(super) epoch: &'a StreamEpoch,
    /// How far the stream is counted, for the backlog.
    pub(super) position: &'a SharedPosition,
}

/// Publishes samples while this process owns the partition.
#[derive(Debug)]
pub(super) struct SamplePublisher {
    pub(super) publisher: Arc<Publisher>,
    pub(super) subject: String,
    pub(super) lease: Lease,
}

/// Whether the consumer has reached the last sequence that the stream had at the start.
#[derive(Debug)]
pub(super) struct CaughtUp {
    pub(super) target: u64,
    /// Set to `true` when it has.
    pub(super) reached: watch::Sender<bool>,
}

impl CaughtUp {
    fn reached(&self, sequence: u64) {
        if sequence >= self.target {
            self.reached.send_if_modified(|reached| !std::mem::replace(reached, true));
        }
    }
}

impl SamplePublisher {
    /// Publishes a sample once it is certain that this process owns the partition. Returns `false`,
    /// and publishes nothing, if another process does.
    async fn publish(&self, sample: &Sample) -> Result<bool, BusError> {
        if !self.lease.is_confirmed().await {
            return Ok(false);
        }
        self.publisher.publish(wire::encode_sample(self.subject.clone(), sample)).await?;
        SAMPLED.pass();
        Ok(true)
    }
}

impl Consumer<'_> {
    /// Counts the stream until the service drains or the epoch changes.
    ///
    /// # Errors
    ///
    /// An error that no retry can correct.
    pub(super) async fn run(
        &self,
        mut reader: Reader,
        mut epochs: EpochWatch,
    ) -> anyhow::Result<CountingEnd> {
        let StreamContext { stream, name, bus, drain, metrics, .. } = self.context;
        let mark = self.fold.lock().mark();
        let epoch = mark.epoch;
        metrics.observe_position(mark.sequence);
        metrics.observe_epoch(epoch);
        self.position.reads(reader.progress());
        self.passed(mark.sequence);
        self.epoch.saw(epoch, mark.sequence);
        loop {
            let read = tokio::select! {
                () = drain.cancelled() => return Ok(CountingEnd::Drained),
                now = epochs.superseded() => return Ok(CountingEnd::superseded(epoch, now?)),
                read = reader.next() => read?,
            };
            match read {
                Read::Message(delivery) => {
                    self.epoch.saw(epoch, delivery.sequence.saturating_add(delivery.pending));
                    if !self.message(&delivery).await? {
                        return Ok(CountingEnd::Drained);
                    }
                }
                Read::Deleted { first, last } => {
                    tracing::warn!(%stream, first, last, "messages were deleted");
                    if self.was_trimmed(last).await? {
                        return Ok(CountingEnd::Superseded(format!(
                            "messages {first} to {last} were trimmed before they were counted here"
                        )));
                    }
                    let gap = Gap { epoch, first, last };
                    if let Some(ended) = self.missed(gap, &mut epochs).await? {
                        return Ok(ended);
                    }
                    self.passed(last);
                }
                Read::Subscribed(_) => {
                    // The reader has a connection of its own, and its next message may belong to
                    // another stream.
                    let mark = self.fold.lock().mark();
                    let compared = bus.compare_until_answered(name, &mark, drain).await?;
                    let Some(compared) = compared else { return Ok(CountingEnd::Drained) };
                    if let Some(why) = compared.replacement() {
                        return Ok(CountingEnd::Epoch { why, epoch });
                    }
                }
                Read::Changed(why) => return Ok(CountingEnd::Epoch { why, epoch }),
            }
        }
    }

    /// Whether the stream begins after a message. Then another aggregator has counted the message
    /// and stored a snapshot, or the archiver does not wait for snapshots. The missing messages are
    /// in that snapshot or in the archive; without them every sample would be wrong.
    async fn was_trimmed(&self, sequence: u64) -> Result<bool, BusError> {
        match self.context.bus.stream(&self.context.name).await {
            Ok(status) => Ok(status.first_sequence > sequence),
            // Recovering the state asks again until there is an answer.
            Err(error) if error.is_transient() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Decides how to continue after messages were deleted from the middle of the stream before
    /// they were counted. `None` if the archive does not have them either, or there is no archive.
    async fn missed(
        &self,
        gap: Gap,
        epochs: &mut EpochWatch,
    ) -> anyhow::Result<Option<CountingEnd>> {
        let stream = self.context.stream;
        let Gap { epoch, first, last } = gap;
        let Some(store) = self.store else {
            tracing::error!(
                %stream, first, last,
                "deleted messages were not counted, and there is no archive that may have them; \
                 they are missing in the numbers"
            );
            return Ok(None);
        };
        let mut news = News::default();
        for _ in 0..GAP_POLLS_MAX {
            let why = match gap::ask(store, stream, &gap).await {
                Ok(Archived::Nothing) => return Ok(None),
                Ok(Archived::Something) => return Ok(Some(CountingEnd::Missed(gap))),
                Ok(Archived::NotYet) => "the archiver has not passed them".to_owned(),
                Err(error) => error.to_string(),
            };
            if news.is_new(&why) {
                tracing::warn!(
                    %stream, first, last, why,
                    "waiting until it is known whether the archive has the deleted messages"
                );
            }
            tokio::select! {
                () = self.context.drain.cancelled() => return Ok(Some(CountingEnd::Drained)),
                now = epochs.superseded() => {
                    return Ok(Some(CountingEnd::superseded(epoch, now?)));
                }
                () = tokio::time::sleep(GAP_POLL) => {}
            }
        }
        Ok(Some(CountingEnd::Missed(gap)))
    }

    /// Counts a message. Returns `false`, and changes nothing, if another process owns the
    /// partition.
    async fn message(&self, delivery: &Delivery) -> Result<bool, BusError> {
        let metrics = &self.context.metrics;
        let sample = self.fold.lock().sample_before(delivery.broker_ns);
        if let Some(sample) = sample {
            // The sample is published before the message is counted, so that a snapshot with the
            // message can wait for the sample's acknowledgement.
            if !self.samples.publish(&sample).await? {
                return Ok(false);
            }
            metrics.observe_sample();
        }
        RECEIVED.pass();
        let message = delivery.message(&self.subjects);
        let counts = self.fold.lock().message(&message);
        APPLIED.pass();
        metrics.observe_message(&counts, delivery.sequence);
        metrics.observe_source(&message, counts.counted);
        self.passed(delivery.sequence);
        Ok(true)
    }

    /// Records that everything up to a sequence is counted, or known to be lost.
    fn passed(&self, sequence: u64) {
        self.position.moved(sequence);
        self.caught_up.reached(sequence);
    }
}
