//! Snapshots of one stream's state: stored at each interval, and reported when they can't be.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bus::{BusError, Publisher};
use domain::Mark;
use service_kit::{Condition, FailPoint};
use tokio_util::sync::CancellationToken;

use super::context::StreamContext;
use crate::{lease::Lease, shared_fold::SharedFold};

/// How often the age of unsaved events is checked.
const LOOK: Duration = Duration::from_millis(500);

static SNAPSHOT_TAKEN: FailPoint = FailPoint::new("aggregator.snapshot_taken");
static SAMPLES_FLUSHED: FailPoint = FailPoint::new("aggregator.samples_flushed");
static SNAPSHOT_STORED: FailPoint = FailPoint::new("aggregator.snapshot_stored");

/// Stores snapshots of one stream.
#[derive(Debug)]
pub(super) struct Snapshotter {
    pub(super) context: StreamContext,
    /// Whether this process must trim the stream, because nobody else does.
    pub(super) trims: bool,
    pub(super) fold: SharedFold,
    /// The publisher of samples: a snapshot is stored only after every sample up to it was
    /// acknowledged.
    pub(super) samples: Arc<Publisher>,
    /// Revision of the pointer that the next snapshot replaces.
    pub(super) revision: u64,
    /// How far the snapshot in force reaches; `None` if there is no usable one yet.
    pub(super) stored: Option<Mark>,
    /// Only the lease's holder stores snapshots.
    pub(super) lease: Lease,
}

/// Since when counted events are in no snapshot, and why.
#[derive(Debug)]
pub(super) struct Unsaved {
    context: StreamContext,
    condition: Condition,
    overdue_after: Duration,
    /// When a snapshot last contained everything that was counted.
    saved: Duration,
    why: String,
}

impl Unsaved {
    /// Begins with nothing unsaved. The condition fails when events are unsaved for
    /// `overdue_after`.
    pub(super) fn new(
        context: StreamContext,
        condition: Condition,
        overdue_after: Duration,
    ) -> Self {
        let saved = context.clock.monotonic();
        let why = "no answer from NATS yet, or samples that are not acknowledged".to_owned();
        Self { context, condition, overdue_after, saved, why }
    }

    fn saved(&mut self) {
        self.saved = self.context.clock.monotonic();
        self.look();
    }

    fn look(&self) {
        let unsaved = self.context.clock.monotonic().saturating_sub(self.saved);
        self.context.metrics.observe_unsaved(unsaved);
        let (name, seconds) = (&self.context.name, unsaved.as_secs());
        if unsaved < self.overdue_after {
            self.condition.pass(format!("{name}: stored"));
        } else {
            self.condition.fail(format!(
                "{name}: what was counted in the last {seconds} s is in no snapshot, so a \
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
        self.context.metrics.observe_unsaved(Duration::ZERO);
    }
}

impl Snapshotter {
    /// Stores a snapshot at each interval until `stop` is cancelled, then one more. If there is no
    /// usable snapshot, the first one is stored at once, so that a rebuild, which may have taken
    /// long, is not repeated after a kill.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`] if another aggregator stored a snapshot. After errors that end by
    /// themselves, storing is tried again at the next interval.
    pub(super) async fn run(
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
            // Storing may have to wait for a long time.
            let stored = tokio::select! {
                stored = self.store() => stored,
                never = unsaved.watch() => match never {},
            };
            match stored {
                Ok(true) => unsaved.saved(),
                Ok(false) => unsaved.why = "the lease of the partition is not renewed".to_owned(),
                Err(error) if error.is_transient() => {
                    self.context.metrics.observe_snapshot_failure();
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

    /// Stores a snapshot of what is counted, unless it is stored already. Returns `false` if this
    /// process may not store one now.
    async fn store(&mut self) -> Result<bool, BusError> {
        let StreamContext { name, bus, clock, metrics, .. } = &self.context;
        let (bytes, mark) = {
            let fold = self.fold.lock();
            let mark = fold.mark();
            if self.stored == Some(mark) {
                return Ok(true);
            }
            // If the lease is not certain, the snapshot waits for the next renewal.
            if !self.lease.is_current() {
                return Ok(false);
            }
            (wire::snapshot::encode_state(fold.state(), &mark), mark)
        };
        SNAPSHOT_TAKEN.pass();
        self.samples.flush().await?;
        SAMPLES_FLUSHED.pass();
        self.revision = bus.snapshots().store(name, &bytes, &mark, self.revision).await?;
        SNAPSHOT_STORED.pass();
        self.stored = Some(mark);
        metrics.observe_snapshot(mark.sequence, bytes.len(), clock.now_us());
        if self.trims {
            self.make_room(mark.sequence).await?;
        }
        Ok(true)
    }

    /// Trims a stream that is more than half full, below the message of the snapshot, so that a
    /// replay may be larger than its stream.
    async fn make_room(&self, sequence: u64) -> Result<(), BusError> {
        let StreamContext { name: stream, bus, .. } = &self.context;
        let status = bus.stream(stream).await?;
        let is_large = u64::try_from(status.max_bytes).is_ok_and(|max| status.bytes > max / 2);
        if is_large {
            let messages = bus.trim(stream, sequence).await?;
            tracing::info!(stream, below = sequence, messages, "trimmed the run");
        }
        Ok(())
    }
}
