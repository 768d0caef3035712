//! The shell around one stream's fold: reads, publishes samples, stores snapshots.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus::{Bus, BusError, Comparison, Delivery, EpochWatch, Newest, Publisher, Read, Reader};
use domain::{Mark, Stream};
use service_kit::{Clock, FailPoint, Lifecycle};
use tokio::sync::watch;
use wire::Subjects;

use crate::{
    fold::{Message, StreamFold},
    metrics::StreamMetrics,
    tenure::Tenure,
};

static SAMPLED: FailPoint = FailPoint::new("aggregator.sampled");
static RECEIVED: FailPoint = FailPoint::new("aggregator.received");
static APPLIED: FailPoint = FailPoint::new("aggregator.applied");
static SNAPSHOT_TAKEN: FailPoint = FailPoint::new("aggregator.snapshot_taken");
static SAMPLES_FLUSHED: FailPoint = FailPoint::new("aggregator.samples_flushed");
static SNAPSHOT_STORED: FailPoint = FailPoint::new("aggregator.snapshot_stored");

/// The fold of a stream, shared with the scrapes: a message is counted whole or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<StreamFold>>);

impl Shared {
    /// Shares a fold.
    pub(crate) fn new(fold: StreamFold) -> Self {
        Self(Arc::new(Mutex::new(fold)))
    }

    /// The fold between two messages.
    pub(crate) fn lock(&self) -> MutexGuard<'_, StreamFold> {
        // The fold is total: nothing panics between its changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ended following.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The service drains, or the partition is another's.
    Drained,
    /// The stream is no longer the one that was counted, whether or not somebody has said so:
    /// find its state again.
    Epoch {
        /// How it differs.
        why: String,
        /// The epoch that ends with it.
        epoch: u32,
    },
    /// Somebody else stored a snapshot: find the state again, if the partition is still ours.
    Superseded(String),
}

/// One stream and what is needed to follow it.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The connection.
    pub(crate) bus: Bus,
    /// The stream.
    pub(crate) stream: Stream,
    /// The name of what is read: that of the stream, or of its replay.
    pub(crate) name: String,
    /// Its state.
    pub(crate) shared: Shared,
    /// Where its samples go.
    pub(crate) samples: Arc<Publisher>,
    /// Under which subject.
    pub(crate) sample_subject: String,
    /// Subjects under our prefix.
    pub(crate) subjects: Subjects,
    /// Its metrics.
    pub(crate) metrics: StreamMetrics,
    /// Raised to true when it has reached what was the stream's last sequence at start.
    pub(crate) caught_up: watch::Sender<bool>,
    /// That sequence.
    pub(crate) target: u64,
    /// How far the stream was seen to reach.
    pub(crate) newest: Arc<Newest>,
    /// Whether the partition is ours: samples are its owner's.
    pub(crate) tenure: Tenure,
}

impl Follower {
    /// Counts the stream until the service drains or the epoch changes.
    ///
    /// # Errors
    ///
    /// What no retry can mend.
    pub(crate) async fn follow(
        &self,
        mut reader: Reader,
        mut epochs: EpochWatch,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<Ended> {
        let mark = self.shared.lock().mark();
        let epoch = mark.epoch;
        self.metrics.observe_position(mark.sequence, self.target.saturating_sub(mark.sequence));
        self.metrics.observe_epoch(epoch);
        self.reached(mark.sequence);
        self.newest.saw(epoch, mark.sequence);
        loop {
            let read = tokio::select! {
                () = lifecycle.draining() => return Ok(Ended::Drained),
                changed = epochs.changed() => {
                    match changed? {
                        Some(now) if now != epoch => {
                            let why = format!("epoch {now} is in force");
                            return Ok(Ended::Epoch { why, epoch });
                        }
                        Some(_) | None => continue,
                    }
                }
                read = reader.next() => read?,
            };
            match read {
                Read::Message(delivery) => {
                    self.newest.saw(epoch, delivery.sequence.saturating_add(delivery.pending));
                    if !self.message(&delivery).await? {
                        return Ok(Ended::Drained);
                    }
                }
                Read::Deleted { first, last } => {
                    tracing::warn!(stream = %self.stream, first, last, "messages were deleted");
                    if self.was_trimmed(last).await? {
                        return Ok(Ended::Superseded(format!(
                            "messages {first} to {last} were trimmed before they were counted here"
                        )));
                    }
                    self.reached(last);
                }
                Read::Subscribed(_) => {
                    if let Some(why) = self.differs().await? {
                        return Ok(Ended::Epoch { why, epoch });
                    }
                }
                Read::Changed(why) => return Ok(Ended::Epoch { why, epoch }),
            }
        }
    }

    /// Whether the stream begins behind a message: another aggregator has counted it meanwhile and
    /// stored a snapshot, or the archiver does not wait for one. What is missing then stands in
    /// that snapshot or in the archive; to go on without it would make every sample wrong.
    async fn was_trimmed(&self, sequence: u64) -> Result<bool, BusError> {
        match self.bus.stream(&self.name).await {
            Ok(status) => Ok(status.first_sequence > sequence),
            // Finding the state again asks until there is an answer.
            Err(error) if error.recovery() == bus::Recovery::Retry => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Counts a message. False: the partition is another's, and nothing was done.
    async fn message(&self, delivery: &Delivery) -> Result<bool, BusError> {
        let sample = self.shared.lock().sample_before(delivery.broker_ns);
        if let Some(sample) = sample {
            if !self.tenure.is_confirmed().await {
                return Ok(false);
            }
            // Before the message is counted, so that a snapshot that holds the message can wait
            // for the sample's acknowledgement.
            let sealed = wire::encode_sample_for(self.sample_subject.clone(), &sample);
            self.samples.publish(sealed).await?;
            SAMPLED.pass();
            self.metrics.observe_sample();
        }
        RECEIVED.pass();
        let message = Message {
            sequence: delivery.sequence,
            broker_ns: delivery.broker_ns,
            subject: self.subjects.strip(&delivery.subject),
            content_type: delivery.content_type.as_deref(),
            payload: &delivery.payload,
        };
        let counts = self.shared.lock().message(&message);
        APPLIED.pass();
        self.metrics.observe_message(&counts, delivery.sequence, delivery.pending);
        self.reached(delivery.sequence);
        Ok(true)
    }

    /// Why the message at our mark is not the one that was counted.
    async fn differs(&self) -> Result<Option<String>, BusError> {
        let mark = self.shared.lock().mark();
        match self.bus.compare(&self.name, &mark).await {
            Ok(compared) => Ok(Comparison::replacement(compared)),
            // The reader will subscribe again, and the question will be asked again.
            Err(error) if error.recovery() == bus::Recovery::Retry => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn reached(&self, sequence: u64) {
        if sequence >= self.target {
            self.caught_up.send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
        }
    }
}

/// Stores snapshots of one stream.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    /// The connection.
    pub(crate) bus: Bus,
    /// The name of what is read, and of the snapshots.
    pub(crate) name: String,
    /// Whether nobody else trims what is read.
    pub(crate) trims: bool,
    /// The state.
    pub(crate) shared: Shared,
    /// The samples: a snapshot is stored only after every sample up to it was acknowledged.
    pub(crate) samples: Arc<Publisher>,
    /// Its metrics.
    pub(crate) metrics: StreamMetrics,
    /// Stamps the metrics.
    pub(crate) clock: Clock,
    /// Revision of the pointer that the next snapshot replaces.
    pub(crate) revision: u64,
    /// How far the snapshot in force reaches; none serves as yet.
    pub(crate) stored: Option<Mark>,
    /// Whether the partition is ours: snapshots are its owner's.
    pub(crate) tenure: Tenure,
}

impl Snapshotter {
    /// Stores a snapshot each interval until told to stop, then one more.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`]: another aggregator stored one. What passes is tried again at the
    /// next interval.
    pub(crate) async fn run(mut self, interval: Duration, stop: Lifecycle) -> Result<(), BusError> {
        loop {
            let draining = tokio::select! {
                () = stop.draining() => true,
                () = tokio::time::sleep(interval) => false,
            };
            match self.store().await {
                Ok(()) => {}
                Err(error) if error.recovery() == bus::Recovery::Retry => {
                    self.metrics.observe_snapshot_failure();
                    tracing::warn!(%error, "snapshot not stored; the next one tries again");
                }
                Err(error) => return Err(error),
            }
            if draining {
                return Ok(());
            }
        }
    }

    async fn store(&mut self) -> Result<(), BusError> {
        let (bytes, mark) = {
            let fold = self.shared.lock();
            let mark = fold.mark();
            // One that is not certain to own the partition waits for the next renewal.
            if self.stored == Some(mark) || !self.tenure.is_current() {
                return Ok(());
            }
            (wire::snapshot::encode_state(fold.state(), &mark), mark)
        };
        SNAPSHOT_TAKEN.pass();
        self.samples.flush().await?;
        SAMPLES_FLUSHED.pass();
        let snapshots = self.bus.snapshots();
        self.revision = snapshots.store(&self.name, &bytes, &mark, self.revision).await?;
        SNAPSHOT_STORED.pass();
        self.stored = Some(mark);
        self.metrics.observe_snapshot(mark.sequence, bytes.len(), self.clock.now_us());
        if self.trims { self.make_room(mark.sequence).await } else { Ok(()) }
    }

    /// Trims a stream that is more than half full, below the message of the snapshot: a replay that
    /// is larger than its stream flows through it.
    async fn make_room(&self, sequence: u64) -> Result<(), BusError> {
        let status = self.bus.stream(&self.name).await?;
        let is_large = u64::try_from(status.max_bytes).is_ok_and(|max| status.bytes > max / 2);
        if is_large {
            let messages = self.bus.trim(&self.name, sequence).await?;
            tracing::info!(stream = self.name, below = sequence, messages, "trimmed the run");
        }
        Ok(())
    }
}
