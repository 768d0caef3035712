//! The shell around one stream's fold: reads and publishes samples.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{
    Bus, BusError, Delivery, EpochWatch, Publisher, Read, Reader, StreamEpoch,
    backlog::SharedPosition,
};
use domain::Stream;
use event_store::StoreSettings;
use service_kit::{FailPoint, News};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::Subjects;

use crate::{
    fold::StreamFold,
    gap::{self, Archived, GAP_POLL, GAP_POLLS_MAX, Gap},
    metrics::StreamMetrics,
    tenure::Tenure,
};

static SAMPLED: FailPoint = FailPoint::new("aggregator.sampled");
static RECEIVED: FailPoint = FailPoint::new("aggregator.received");
static APPLIED: FailPoint = FailPoint::new("aggregator.applied");

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
    /// Messages are gone that were not counted here and that the archive has, or may have: take the
    /// state from the archive, once that is past them.
    Missed(Gap),
}

impl Ended {
    fn superseded(epoch: u32, now: u32) -> Self {
        Self::Epoch { why: format!("epoch {now} is in force"), epoch }
    }
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
    /// The archive of what is read; none is set, or it is a replay.
    pub(crate) store: Option<StoreSettings>,
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
    /// Its epoch, and how far it was seen to reach.
    pub(crate) epoch: Arc<StreamEpoch>,
    /// Whether the partition is ours: samples are its owner's.
    pub(crate) tenure: Tenure,
    /// How far is counted, for those who ask how far the stream reaches.
    pub(crate) position: Arc<SharedPosition>,
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
        drain: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let mark = self.shared.lock().mark();
        let epoch = mark.epoch;
        self.metrics.observe_position(mark.sequence);
        self.position.moved(mark.sequence);
        self.position.reads(reader.progress());
        self.metrics.observe_epoch(epoch);
        self.reached(mark.sequence);
        self.epoch.saw(epoch, mark.sequence);
        loop {
            let read = tokio::select! {
                () = drain.cancelled() => return Ok(Ended::Drained),
                now = epochs.superseded() => return Ok(Ended::superseded(epoch, now?)),
                read = reader.next() => read?,
            };
            match read {
                Read::Message(delivery) => {
                    self.epoch.saw(epoch, delivery.sequence.saturating_add(delivery.pending));
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
                    let gap = Gap { epoch, first, last };
                    if let Some(ended) = self.missed(gap, &mut epochs, drain).await? {
                        return Ok(ended);
                    }
                    self.position.moved(last);
                    self.reached(last);
                }
                Read::Subscribed(_) => {
                    // The reader has a connection of its own, and what it gives next may be
                    // another stream's.
                    let mark = self.shared.lock().mark();
                    let compared =
                        self.bus.compare_until_answered(&self.name, &mark, drain).await?;
                    let Some(compared) = compared else { return Ok(Ended::Drained) };
                    if let Some(why) = compared.replacement() {
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
            Err(error) if error.is_transient() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What follows from messages that are gone from the middle of the stream before they were
    /// counted here; none: the archive is without them, too, or there is none.
    async fn missed(
        &self,
        gap: Gap,
        epochs: &mut EpochWatch,
        drain: &CancellationToken,
    ) -> anyhow::Result<Option<Ended>> {
        let (stream, Gap { epoch, first, last }) = (self.stream, gap);
        let Some(store) = &self.store else {
            tracing::error!(
                %stream, first, last,
                "deleted messages were not counted, and there is no archive that could have them: \
                 the numbers are without them"
            );
            return Ok(None);
        };
        let mut news = News::default();
        for _ in 0..GAP_POLLS_MAX {
            let why = match gap::ask(store, stream, &gap).await {
                Ok(Archived::Nothing) => return Ok(None),
                Ok(Archived::Something) => return Ok(Some(Ended::Missed(gap))),
                Ok(Archived::NotYet) => "the archiver has not passed them".to_owned(),
                Err(error) => error.to_string(),
            };
            if news.is_new(&why) {
                tracing::warn!(
                    %stream, first, last, why,
                    "waiting for what the archive has of the deleted messages"
                );
            }
            tokio::select! {
                () = drain.cancelled() => return Ok(Some(Ended::Drained)),
                now = epochs.superseded() => return Ok(Some(Ended::superseded(epoch, now?))),
                () = tokio::time::sleep(GAP_POLL) => {}
            }
        }
        Ok(Some(Ended::Missed(gap)))
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
            let sealed = wire::encode_sample(self.sample_subject.clone(), &sample);
            self.samples.publish(sealed).await?;
            SAMPLED.pass();
            self.metrics.observe_sample();
        }
        RECEIVED.pass();
        let counts = self.shared.lock().message(&delivery.message(&self.subjects));
        APPLIED.pass();
        self.metrics.observe_message(&counts, delivery.sequence);
        self.position.moved(delivery.sequence);
        self.reached(delivery.sequence);
        Ok(true)
    }

    fn reached(&self, sequence: u64) {
        if sequence >= self.target {
            self.caught_up.send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
        }
    }
}
