//! Publishes the verdicts of one stream into the stream itself, where both services count them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use bus::{BusError, Publisher, PublisherLimits, publishing::PublishWatch};
use domain::{Stream, verdict::Outbox};
use event_store::{StoreError, StreamId, VerdictsToCome};
use service_kit::{Backoff, FailPoint, Jitter};
use tokio::sync::watch;
use wire::VERDICTS_PER_MESSAGE_MAX;

use crate::{
    committer::waits,
    steps::Steps,
    stream::{BACKOFF_FIRST, BACKOFF_LONGEST, Committed, StreamTask},
};

static DUE: FailPoint = FailPoint::new("archiver.verdicts_due");
static PUBLISHED: FailPoint = FailPoint::new("archiver.verdicts_published");

/// One message at a time is sent and not confirmed, so that no message is ever stored before one
/// that holds the numbers below its own.
const UNCONFIRMED_MAX: usize = 1;

/// Publishes what is given and not noted, for ever. It reads only committed rows, on a connection
/// of its own: neither a full stream nor a slow database that makes it wait holds up anything else.
///
/// Dropping it gives up what is not confirmed. A crash at any point repeats at most numbers that
/// are ignored: what is not noted is published again.
///
/// # Errors
///
/// What only a person can change: the subject is not allowed, or rows are missing.
pub(crate) async fn publish(
    task: &StreamTask,
    id: StreamId,
    commits: watch::Receiver<Committed>,
    steps: &Steps,
    seed: u64,
) -> anyhow::Result<Infallible> {
    let Some(stream) = task.stream else { return std::future::pending().await };
    let bus = Outgoing::new(task);
    let outbox = Outbox::new(commits.borrow().verdicts);
    let condition = task.readiness.condition("publisher");
    let watch = PublishWatch::new(bus.publisher.progress(), task.publishing.clone(), condition);
    let sender = Sender { task, steps, stream, id, outbox, rows: None, bus };
    tokio::select! {
        ended = sender.send_forever(commits, seed) => ended,
        never = watch.run() => match never {},
    }
}

enum Failure {
    Store(StoreError),
    Bus(BusError),
}

struct Sender<'a> {
    task: &'a StreamTask,
    steps: &'a Steps,
    stream: Stream,
    id: StreamId,
    outbox: Outbox,
    /// Opened when the first verdict is due: most streams never have one.
    rows: Option<VerdictsToCome>,
    bus: Outgoing,
}

impl Sender<'_> {
    async fn send_forever(
        mut self,
        mut commits: watch::Receiver<Committed>,
        seed: u64,
    ) -> anyhow::Result<Infallible> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST).context("backoff")?;
        let mut jitter = Jitter::seeded(seed);
        loop {
            if self.outbox.commit(commits.borrow_and_update().verdicts) {
                tracing::error!(
                    stream = self.task.name,
                    "verdicts were deleted before they were read back: publishing them again"
                );
                self.task.metrics.observe_verdicts_again();
            }
            let error = match self.send_due().await {
                Ok(true) => {
                    backoff.reset();
                    continue;
                }
                Ok(false) => {
                    // The committer is gone only together with this task.
                    if commits.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    continue;
                }
                Err(Failure::Store(error)) if waits(error.recovery()) => error,
                Err(Failure::Store(error)) => return Err(error.into()),
                Err(Failure::Bus(error)) => return Err(error.into()),
            };
            self.rows = None;
            tracing::warn!(stream = self.task.name, %error, "verdicts wait");
            tokio::time::sleep(backoff.next(&mut jitter)).await;
        }
    }

    /// Publishes one message, if one is due, and waits until it is stored.
    async fn send_due(&mut self) -> Result<bool, Failure> {
        let Some((after, last)) = self.outbox.due() else { return Ok(false) };
        let rows = match &mut self.rows {
            Some(rows) => rows,
            None => {
                let rows = VerdictsToCome::open(&self.task.store, self.id).await;
                self.rows.insert(rows.map_err(Failure::Store)?)
            }
        };
        let verdicts =
            rows.read(after, last, VERDICTS_PER_MESSAGE_MAX).await.map_err(Failure::Store)?;
        let attempt = self.outbox.attempt();
        let bytes_max = self.task.bus.message_bytes_max();
        let sealed =
            wire::seal_verdicts(&self.task.subjects, self.stream, &verdicts, attempt, bytes_max);
        let Some(sealed) = sealed else { return Ok(false) };
        let Some(last) = verdicts.get(sealed.events - 1).map(|verdict| verdict.number) else {
            return Ok(false);
        };
        if !self.steps.may_publish(last) {
            return Ok(false);
        }
        DUE.pass();
        let sequence = self.bus.publish(sealed).await.map_err(Failure::Bus)?;
        PUBLISHED.pass();
        self.outbox.stored(last, sequence);
        tracing::debug!(stream = self.task.name, after, last, sequence, "verdicts published");
        Ok(true)
    }
}

/// A publisher that tells where a message was stored.
struct Outgoing {
    publisher: Publisher,
    sequence: Arc<AtomicU64>,
}

impl Outgoing {
    fn new(task: &StreamTask) -> Self {
        let sequence = Arc::new(AtomicU64::new(0));
        let limits =
            PublisherLimits { unconfirmed_max: UNCONFIRMED_MAX, ..PublisherLimits::default() };
        let told = Arc::clone(&sequence);
        let publisher = task.bus.publisher(limits, move |acknowledged| {
            told.store(acknowledged.sequence, Ordering::Release);
        });
        Self { publisher, sequence }
    }

    /// Waits as long as the stream is full or the server away.
    async fn publish(&self, sealed: wire::Sealed) -> Result<u64, BusError> {
        self.publisher.publish(sealed).await?;
        self.publisher.flush().await?;
        Ok(self.sequence.load(Ordering::Acquire))
    }
}
