//! Reads a stream, judges its messages and sends batches to the committer.

use std::time::Duration;

use bus::{Delivery, EpochWatch, Read, Reader, StreamEpoch, backlog::SharedPosition};
use event_store::Batch;
use service_kit::FailPoint;
use tokio::sync::{mpsc, watch};
use wire::Subjects;

use super::{Committed, OrderGuard, RoundEnd, StreamContext};
use crate::{batcher::Batcher, intake::Intake};

static RECEIVED: FailPoint = FailPoint::new("archiver.received");
static JUDGED: FailPoint = FailPoint::new("archiver.judged");
static SEALED: FailPoint = FailPoint::new("archiver.sealed");
static ACKNOWLEDGED: FailPoint = FailPoint::new("archiver.acknowledged");

/// The only reader of a stream for the archive.
pub(super) struct Reading<'a> {
    pub(super) context: &'a StreamContext,
    pub(super) subjects: Subjects,
    pub(super) reader: Reader,
    pub(super) epoch: &'a StreamEpoch,
    pub(super) epochs: EpochWatch,
    pub(super) intake: Intake,
    pub(super) batcher: Batcher,
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) commits: watch::Receiver<Committed>,
    /// How far the stream is committed, for tasks that compare the position with the stream's end.
    pub(super) position: &'a SharedPosition,
    pub(super) guard: &'a OrderGuard,
}

impl Reading<'_> {
    /// Reads until the service drains, or the round must begin again.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct.
    pub(super) async fn run(mut self) -> anyhow::Result<RoundEnd> {
        let ended = self.read().await?;
        if matches!(ended, RoundEnd::Drained) && !self.batcher.is_empty() {
            // The batch that was read is finished. If the committer has ended, the committer
            // reports why.
            let batch = self.intake.seal();
            drop(self.batches.send(batch).await);
        }
        Ok(ended)
    }

    async fn read(&mut self) -> anyhow::Result<RoundEnd> {
        let batches = self.batches.clone();
        loop {
            let now_ms = self.context.clock.monotonic_ms();
            let is_due = self.batcher.is_due(now_ms);
            let wait = self.batcher.poll_timeout().map(|at| at.saturating_sub(now_ms));
            tokio::select! {
                () = self.context.drain.cancelled() => return Ok(RoundEnd::Drained),
                place = batches.reserve(), if is_due => match place {
                    Ok(place) => {
                        place.send(self.intake.seal());
                        SEALED.pass();
                        self.batcher.flush();
                    }
                    Err(_) => return Ok(RoundEnd::Again("the committer ended".to_owned())),
                },
                () = tokio::time::sleep(Duration::from_millis(wait.unwrap_or(0))),
                    if wait.is_some() && !is_due => {}
                changed = self.commits.changed() => {
                    if changed.is_err() {
                        return Ok(RoundEnd::Again("the committer ended".to_owned()));
                    }
                    self.acknowledge().await;
                }
                now = self.epochs.superseded() => {
                    return Ok(RoundEnd::Again(format!("epoch {} is in force", now?)));
                }
                read = self.reader.next(), if !self.batcher.is_full() => {
                    if let Some(ended) = self.take(read?).await? {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    /// Acknowledges what is committed to the broker. This serves only `nats consumer report`:
    /// nothing depends on it.
    async fn acknowledge(&mut self) {
        let committed = self.commits.borrow_and_update().mark;
        self.position.moved(committed.sequence);
        if self.guard.may_acknowledge(committed.sequence) {
            drop(self.reader.acknowledge(committed.sequence).await);
        }
        ACKNOWLEDGED.pass();
    }

    async fn take(&mut self, read: Read) -> anyhow::Result<Option<RoundEnd>> {
        let StreamContext { name: stream, bus, drain, metrics, .. } = self.context;
        match read {
            Read::Message(delivery) => {
                self.message(&delivery);
                Ok(None)
            }
            Read::Deleted { first, last } => {
                tracing::error!(
                    stream,
                    first,
                    last,
                    "deleted before they were archived: declared lost"
                );
                metrics.observe_loss(last - first + 1);
                self.intake.lost(first, last);
                Ok(None)
            }
            Read::Subscribed(_) => {
                let mark = self.commits.borrow().mark;
                match bus.compare(stream, &mark).await {
                    Ok(compared) => Ok(compared.difference().map(RoundEnd::Again)),
                    // The reader has its own connection, so it may continue and return messages of
                    // another stream.
                    Err(error) if error.is_transient() => {
                        let why = format!("the stream can't be compared: {error}");
                        Ok(Some(RoundEnd::Again(why)))
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Read::Changed(why) => {
                let epoch = self.commits.borrow().mark.epoch;
                let heard = self.epoch.end_until_heard(epoch, &why, drain).await?;
                Ok(Some(heard.map_or(RoundEnd::Drained, |_epoch| RoundEnd::Again(why))))
            }
        }
    }

    fn message(&mut self, delivery: &Delivery) {
        RECEIVED.pass();
        let counts = self.intake.message(&delivery.message(&self.subjects));
        JUDGED.pass();
        for reason in counts.refused {
            self.context.metrics.observe_refusal(reason);
        }
        self.batcher.push(self.context.clock.monotonic_ms(), counts.events);
        let newest = delivery.sequence.saturating_add(delivery.pending);
        self.epoch.saw(self.commits.borrow().mark.epoch, newest);
    }
}
