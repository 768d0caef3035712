//! Snapshots of one stream's state: stored each interval, and told when they can't be.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bus::{Bus, BusError, Publisher};
use domain::Mark;
use service_kit::{Clock, Condition, FailPoint};
use tokio_util::sync::CancellationToken;

use crate::{follow::Shared, metrics::StreamMetrics, tenure::Tenure};

/// Between two looks at how long something is in no snapshot.
const LOOK: Duration = Duration::from_millis(500);

static SNAPSHOT_TAKEN: FailPoint = FailPoint::new("aggregator.snapshot_taken");
static SAMPLES_FLUSHED: FailPoint = FailPoint::new("aggregator.samples_flushed");
static SNAPSHOT_STORED: FailPoint = FailPoint::new("aggregator.snapshot_stored");

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

/// Since when something counted is in no snapshot, and why.
#[derive(Debug)]
pub(crate) struct Unsaved {
    name: String,
    clock: Clock,
    metrics: StreamMetrics,
    condition: Condition,
    overdue_after: Duration,
    /// When all that was counted was in a snapshot.
    saved: Duration,
    why: String,
}

impl Unsaved {
    /// Of the stream of this name, told by these.
    pub(crate) fn new(
        name: String,
        clock: Clock,
        (condition, metrics): (Condition, StreamMetrics),
        overdue_after: Duration,
    ) -> Self {
        let saved = clock.monotonic();
        let why = "no answer from NATS yet, or samples that are not acknowledged".to_owned();
        Self { name, clock, metrics, condition, overdue_after, saved, why }
    }

    fn saved(&mut self) {
        self.saved = self.clock.monotonic();
        self.look();
    }

    fn look(&self) {
        let unsaved = self.clock.monotonic().saturating_sub(self.saved);
        self.metrics.observe_unsaved(unsaved);
        let (name, seconds) = (&self.name, unsaved.as_secs());
        if unsaved < self.overdue_after {
            self.condition.pass(format!("{name}: stored"));
        } else {
            self.condition.fail(format!(
                "{name}: what was counted in the last {seconds} s is in no snapshot, so that a \
                 restart takes longer and the stream can't be trimmed: {}",
                self.why
            ));
        }
    }

    async fn watch(&self) -> Infallible {
        loop {
            self.look();
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Unsaved {
    fn drop(&mut self) {
        self.metrics.observe_unsaved(Duration::ZERO);
    }
}

impl Snapshotter {
    /// Stores a snapshot each interval until told to stop, then one more. Where none serves as yet,
    /// the first is stored at once: a state that was rebuilt, which may have taken long, is not
    /// rebuilt again after a kill.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`]: another aggregator stored one. What passes is tried again at the
    /// next interval.
    pub(crate) async fn run(
        mut self,
        interval: Duration,
        mut unsaved: Unsaved,
        stop: CancellationToken,
    ) -> Result<(), BusError> {
        let mut wait = if self.stored.is_some() { interval } else { Duration::ZERO };
        loop {
            let draining = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(wait) => false,
                never = unsaved.watch() => match never {},
            };
            wait = interval;
            // To store may have to wait for long.
            let stored = tokio::select! {
                stored = self.store() => stored,
                never = unsaved.watch() => match never {},
            };
            match stored {
                Ok(true) => unsaved.saved(),
                Ok(false) => unsaved.why = "owning the partition is not renewed".to_owned(),
                Err(error) if error.is_transient() => {
                    self.metrics.observe_snapshot_failure();
                    tracing::warn!(%error, "snapshot not stored; the next one tries again");
                    unsaved.why = error.to_string();
                }
                Err(error) => return Err(error),
            }
            if draining {
                return Ok(());
            }
        }
    }

    /// Stores a snapshot of what is counted, unless it is stored; whether it is.
    async fn store(&mut self) -> Result<bool, BusError> {
        let (bytes, mark) = {
            let fold = self.shared.lock();
            let mark = fold.mark();
            if self.stored == Some(mark) {
                return Ok(true);
            }
            // One that is not certain to own the partition waits for the next renewal.
            if !self.tenure.is_current() {
                return Ok(false);
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
        if self.trims {
            self.make_room(mark.sequence).await?;
        }
        Ok(true)
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
