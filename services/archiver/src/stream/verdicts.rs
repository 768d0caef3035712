//! Publishes the verdicts of one stream into the stream itself, where both services count them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bus::{Bus, BusError, PublishProgress, Publisher, PublisherLimits};
use domain::{Stream, verdict::Outbox};
use event_store::{StoreError, StoreSettings, StreamId, VerdictsToCome};
use service_kit::{Backoff, FailPoint, Jitter};
use tokio::sync::watch;
use wire::{Subjects, VERDICTS_PER_MESSAGE_MAX};

use super::{Committed, OrderGuard, StreamContext, retry::waits};

static DUE: FailPoint = FailPoint::new("archiver.verdicts_due");
static PUBLISHED: FailPoint = FailPoint::new("archiver.verdicts_published");

/// At most one message is sent and not acknowledged at a time, so that no message is ever stored
/// before another one with lower numbers.
const UNCONFIRMED_MAX: usize = 1;

/// Publishes verdicts that are given and not noted. It reads only committed rows, on its own
/// connection: neither a full stream nor a slow database that blocks it affects anything else.
///
/// Dropping it abandons messages that are not acknowledged. A crash at any point repeats at most
/// numbers that are ignored, because what is not noted is published again.
pub(super) struct VerdictPublisher<'a> {
    pub(super) context: &'a StreamContext,
    pub(super) store: &'a StoreSettings,
    pub(super) stream: Stream,
    pub(super) id: StreamId,
    pub(super) subjects: Subjects,
    pub(super) guard: &'a OrderGuard,
    pub(super) outgoing: Outgoing,
    pub(super) jitter: Jitter,
}

/// Why verdicts were not published.
enum NotPublished {
    Store(StoreError),
    Bus(BusError),
}

impl From<StoreError> for NotPublished {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<BusError> for NotPublished {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl VerdictPublisher<'_> {
    /// Publishes for ever.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct: the subject is not allowed, or rows are missing.
    pub(super) async fn run(
        mut self,
        mut commits: watch::Receiver<Committed>,
    ) -> anyhow::Result<Infallible> {
        let StreamContext { name: stream, metrics, .. } = self.context;
        let mut outbox = Outbox::new(commits.borrow().verdicts);
        // Opened when the first verdict is due: most streams never have one.
        let mut rows = None;
        let mut backoff = Backoff::default();
        loop {
            if outbox.commit(commits.borrow_and_update().verdicts) {
                tracing::error!(
                    stream,
                    "verdicts were deleted before they were read back: publishing them again"
                );
                metrics.observe_verdicts_again();
            }
            let error = match self.send_due(&mut outbox, &mut rows).await {
                Ok(true) => {
                    backoff.reset();
                    continue;
                }
                Ok(false) => {
                    // The channel closes only when this task ends, too.
                    if commits.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    continue;
                }
                Err(NotPublished::Store(error)) if waits(&error) => error,
                Err(NotPublished::Store(error)) => return Err(error.into()),
                Err(NotPublished::Bus(error)) => return Err(error.into()),
            };
            rows = None;
            tracing::warn!(stream, %error, "verdicts wait");
            tokio::time::sleep(backoff.next(&mut self.jitter)).await;
        }
    }

    /// Publishes one message, if one is due, and waits until it is stored. Returns whether one was
    /// published.
    async fn send_due(
        &self,
        outbox: &mut Outbox,
        rows: &mut Option<VerdictsToCome>,
    ) -> Result<bool, NotPublished> {
        let Some((after, last)) = outbox.due() else { return Ok(false) };
        let rows = match rows {
            Some(rows) => rows,
            None => rows.insert(VerdictsToCome::open(self.store, self.id).await?),
        };
        let verdicts = rows.read(after, last, VERDICTS_PER_MESSAGE_MAX).await?;
        let attempt = outbox.attempt();
        let bytes_max = self.context.bus.message_bytes_max();
        let sealed =
            wire::seal_verdicts(&self.subjects, self.stream, &verdicts, attempt, bytes_max);
        let Some(sealed) = sealed else { return Ok(false) };
        let Some(last) = verdicts.get(sealed.events - 1).map(|verdict| verdict.number) else {
            return Ok(false);
        };
        if !self.guard.may_publish(last) {
            return Ok(false);
        }
        DUE.pass();
        let sequence = self.outgoing.publish(sealed).await?;
        PUBLISHED.pass();
        outbox.stored(last, sequence);
        tracing::debug!(stream = self.context.name, after, last, sequence, "verdicts published");
        Ok(true)
    }
}

/// A publisher that returns where a message was stored.
pub(super) struct Outgoing {
    publisher: Publisher,
    sequence: Arc<AtomicU64>,
}

impl Outgoing {
    pub(super) fn new(bus: &Bus) -> Self {
        let sequence = Arc::new(AtomicU64::new(0));
        let limits =
            PublisherLimits { unconfirmed_max: UNCONFIRMED_MAX, ..PublisherLimits::default() };
        let told = Arc::clone(&sequence);
        let publisher = bus.publisher(limits, move |acknowledged| {
            told.store(acknowledged.sequence, Ordering::Release);
        });
        Self { publisher, sequence }
    }

    pub(super) fn progress(&self) -> Arc<PublishProgress> {
        self.publisher.progress()
    }

    /// Waits as long as the stream is full or the server unreachable.
    async fn publish(&self, sealed: wire::Sealed) -> Result<u64, BusError> {
        self.publisher.publish(sealed).await?;
        self.publisher.flush().await?;
        Ok(self.sequence.load(Ordering::Acquire))
    }
}
