//! The shell around one stream: opens its archive, reads, commits, acknowledges.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use bus::{
    Bus, BusError, Delivery, EpochWatch, Read, Reader, ReaderSettings, StreamEpoch,
    backlog::{BacklogWatch, SharedPosition},
    publishing::PublisherMetrics,
};
use domain::{Mark, Rules, Stream, verdict::Progress};
use event_store::{Archive, Batch, StoreError, StoreSettings};
use service_kit::{Backoff, Clock, Condition, FailPoint, Jitter, News, Readiness};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::Subjects;

use crate::{
    batcher::{BatchLimits, Batcher},
    committer::{Committer, waits},
    intake::{Carries, Intake},
    meeting,
    metrics::StreamMetrics,
    steps::Steps,
    trim::{self, TrimRules, Trimmed},
    verdicts,
};

/// First and longest pause before what failed is tried again.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_LONGEST: Duration = Duration::from_secs(5);

static RECEIVED: FailPoint = FailPoint::new("archiver.received");
static JUDGED: FailPoint = FailPoint::new("archiver.judged");
static SEALED: FailPoint = FailPoint::new("archiver.sealed");
static ACKNOWLEDGED: FailPoint = FailPoint::new("archiver.acknowledged");

/// One stream and what is needed to archive it.
#[derive(Debug)]
pub(crate) struct StreamTask {
    pub(crate) bus: Bus,
    pub(crate) store: StoreSettings,
    /// Its name, without the prefix.
    pub(crate) name: String,
    /// Which events it carries; none: samples.
    pub(crate) stream: Option<Stream>,
    pub(crate) limits: BatchLimits,
    pub(crate) trim_rules: TrimRules,
    pub(crate) trim_interval: Duration,
    pub(crate) retention_interval: Duration,
    pub(crate) epoch_check: Duration,
    pub(crate) subjects: Subjects,
    pub(crate) metrics: StreamMetrics,
    /// Of the verdicts.
    pub(crate) publishing: PublisherMetrics,
    pub(crate) readiness: Readiness,
    pub(crate) condition: Condition,
    pub(crate) backlog: BacklogWatch,
    /// How far is committed, for those who ask how far the stream reaches.
    pub(crate) position: Arc<SharedPosition>,
    pub(crate) drain: CancellationToken,
    pub(crate) clock: Clock,
    /// Tells this writer from every other.
    pub(crate) token: [u8; 16],
    /// Its epoch, and how far it was seen to reach.
    pub(crate) epoch: StreamEpoch,
    /// The epoch closed last, and up to where it is archived or declared lost.
    pub(crate) closed: Mutex<Option<(u32, u64)>>,
}

/// What ended one round.
pub(crate) enum Ended {
    Drained,
    /// Start again from the checkpoint.
    Again(String),
}

/// How far a stream is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) mark: Mark,
    pub(crate) verdicts: Progress,
}

/// The archive of a stream at a position in an epoch that is in force.
struct Opened {
    archive: Archive,
    carries: Carries,
    at: Committed,
}

impl StreamTask {
    /// Archives the stream until the service drains.
    ///
    /// # Errors
    ///
    /// What only a person can change.
    pub(crate) async fn run(self, mut jitter: Jitter) -> anyhow::Result<()> {
        tokio::select! {
            ended = self.rounds(&mut jitter) => ended,
            never = self.watch_room() => match never {},
            never = self.backlog.run(|backlog| self.metrics.observe_backlog(backlog)) => {
                match never {}
            }
        }
    }

    /// Shows how full the stream is. Asked whether or not there is a database: without one it fills.
    async fn watch_room(&self) -> Infallible {
        loop {
            match self.bus.stream(&self.name).await {
                Ok(status) => self.metrics.observe_stream(status.bytes, status.max_bytes),
                Err(error) => tracing::debug!(stream = self.name, %error, "can't look at the room"),
            }
            tokio::time::sleep(self.trim_interval).await;
        }
    }

    async fn rounds(&self, jitter: &mut Jitter) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST).context("backoff")?;
        let mut news = News::default();
        loop {
            match self.round(jitter).await {
                Ok(Ended::Drained) => return Ok(()),
                Ok(Ended::Again(why)) => {
                    tracing::warn!(stream = self.name, why, "starting again from the checkpoint");
                    backoff.reset();
                    news.is_over();
                }
                Err(error) if passes(&error) => {
                    let error = format!("{error:#}");
                    self.condition.fail(format!("{}: {error}", self.name));
                    if news.is_new(&error) {
                        tracing::warn!(stream = self.name, error, "waiting");
                    }
                }
                Err(error) => return Err(error.context(format!("stream {}", self.name))),
            }
            tokio::select! {
                () = self.drain.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff.next(jitter)) => {}
            }
        }
    }

    async fn round(&self, jitter: &mut Jitter) -> anyhow::Result<Ended> {
        let opened = tokio::select! {
            () = self.drain.cancelled() => return Ok(Ended::Drained),
            opened = self.open() => opened?,
        };
        let Opened { mut archive, carries, at } = opened;
        let mark = at.mark;
        let seen = match &carries {
            Carries::Events(_, rules) => archive.seen(rules).await?,
            Carries::Samples => domain::Seen::new(&Rules::default()),
        };
        let sources = archive.sources().await?;
        tracing::info!(
            stream = self.name,
            epoch = mark.epoch,
            sequence = mark.sequence,
            "archiving after the checkpoint"
        );
        self.condition.pass(format!("{}: archiving", self.name));
        self.metrics.observe_position(mark.sequence);
        self.metrics.observe_verdicts(&at.verdicts);
        self.position.moved(mark.sequence);
        let reader = self.bus.reader(ReaderSettings {
            acknowledge: true,
            ..ReaderSettings::new(&self.name, "archiver", mark.sequence)
        });
        self.position.reads(reader.progress());
        let epochs = self.bus.epochs().watch(&self.name, mark.epoch, self.epoch_check);
        let retention_days = match &carries {
            Carries::Events(_, rules) => rules.retention_days,
            Carries::Samples => 0,
        };
        let ladder = carries.ladder();
        let id = archive.stream();
        let intake = Intake::new(id, carries, seen, sources, mark);
        let (batches, to_commit) = mpsc::channel(1);
        let (committed, commits) = watch::channel(at);
        let steps = Steps::new(&at, self.metrics.clone());
        let seed = jitter.below(u64::MAX);
        let verdicts = verdicts::publish(self, id, commits.clone(), &steps, seed);
        let jitter = Jitter::seeded(jitter.below(u64::MAX));
        let committer = Committer {
            task: self,
            archive,
            committed,
            steps: &steps,
            retention_days,
            ladder,
            jitter,
        };
        let trimming = self.trim_forever(commits.clone(), &steps);
        let reading = Reading {
            task: self,
            reader,
            epochs,
            intake,
            batcher: Batcher::new(self.limits),
            batches,
            commits,
            steps: &steps,
        };
        tokio::select! {
            // In this order: what is committed is never overtaken by the end of trimming.
            biased;
            ended = async { tokio::join!(reading.run(), committer.run(to_commit)) } => {
                let (ended, committed) = ended;
                committed?;
                ended
            }
            failed = verdicts => match failed? {},
            // What is being committed is committed or not: the checkpoint tells.
            why = trimming => Ok(Ended::Again(why)),
        }
    }

    /// Opens the archive, and makes its epoch the one in force.
    async fn open(&self) -> anyhow::Result<Opened> {
        let waiting_for = Arc::new(watch::Sender::new(None));
        let mut waits = waiting_for.subscribe();
        // Before the lock: who is refused does not wait until another ends.
        let broker = meeting::join(&self.bus, &self.store, &self.name).await?;
        let opening = Archive::open(&self.store, &self.name, self.token, waiting_for, Some(broker));
        tokio::pin!(opening);
        let mut archive = loop {
            tokio::select! {
                opened = &mut opening => break opened?,
                Ok(()) = waits.changed() => {
                    if let Some(holder) = waits.borrow_and_update().clone() {
                        let name = &self.name;
                        self.position.stands_by();
                        self.condition.fail(format!(
                            "{name}: waiting for the lock that {holder} holds"
                        ));
                    }
                }
            }
        };
        // After the lock: either side may be another by now.
        meeting::join(&self.bus, &self.store, &self.name).await?;
        let status = self.bus.stream(&self.name).await?;
        let carries = match self.stream {
            Some(stream) => {
                let rules = Rules::from_metadata(&status.metadata)
                    .with_context(|| format!("the rules of stream {stream}"))?;
                Carries::Events(stream, rules)
            }
            None => Carries::Samples,
        };
        self.enter_epoch(&mut archive, &status).await?;
        let checkpoint = archive.checkpoint().context("an opened archive has a checkpoint")?;
        let at = Committed { mark: checkpoint.mark, verdicts: checkpoint.verdicts() };
        Ok(Opened { archive, carries, at })
    }

    /// Trims until the stream looks like another; says how. Whether it is shows the checkpoint in
    /// the archive: another archiver may have taken over and trimmed since ours.
    async fn trim_forever(&self, commits: watch::Receiver<Committed>, steps: &Steps) -> String {
        let condition = self.readiness.condition("trimming");
        let mut failures = 0_u64;
        loop {
            tokio::time::sleep(self.trim_interval).await;
            let mark = commits.borrow().mark;
            match self.bus.compare(&self.name, &mark).await.map(bus::Comparison::difference) {
                Ok(Some(why)) => return why,
                Ok(None) => {}
                Err(error) => tracing::debug!(stream = self.name, %error, "can't compare yet"),
            }
            if let Ok(Some(news)) = self.late_news().await {
                return news;
            }
            let now_us = self.clock.now_us();
            let trimmed =
                trim::trim(&self.bus, &self.name, &mark, &self.trim_rules, now_us, steps).await;
            match trimmed {
                Ok(Trimmed { below, held }) => {
                    tracing::debug!(stream = self.name, below, "trimmed as far as is allowed");
                    self.metrics.observe_trim(below);
                    match held {
                        Some(why) => condition.fail(why),
                        None => condition.pass(format!("{}: as far as is allowed", self.name)),
                    }
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(stream = self.name, %error, "not trimmed yet");
                    } else {
                        // An answer that was lost once says nothing.
                        condition.fail(format!("{} is not trimmed: {error}", self.name));
                    }
                }
            }
        }
    }
}

/// Reads, judges and hands batches over.
struct Reading<'a> {
    task: &'a StreamTask,
    reader: Reader,
    epochs: EpochWatch,
    intake: Intake,
    batcher: Batcher,
    batches: mpsc::Sender<Batch>,
    commits: watch::Receiver<Committed>,
    steps: &'a Steps,
}

impl Reading<'_> {
    async fn run(mut self) -> anyhow::Result<Ended> {
        let ended = self.read().await?;
        if matches!(ended, Ended::Drained) && !self.batcher.is_empty() {
            // What was read is finished; a committer that is gone says itself why.
            let batch = self.intake.seal();
            drop(self.batches.send(batch).await);
        }
        Ok(ended)
    }

    async fn read(&mut self) -> anyhow::Result<Ended> {
        let batches = self.batches.clone();
        loop {
            let now_ms = self.task.clock.monotonic_ms();
            let is_due = self.batcher.is_due(now_ms);
            let wait = self.batcher.poll_timeout().map(|at| at.saturating_sub(now_ms));
            tokio::select! {
                () = self.task.drain.cancelled() => return Ok(Ended::Drained),
                place = batches.reserve(), if is_due => match place {
                    Ok(place) => {
                        place.send(self.intake.seal());
                        SEALED.pass();
                        self.batcher.flush();
                    }
                    Err(_) => return Ok(Ended::Again("the committer ended".to_owned())),
                },
                () = tokio::time::sleep(Duration::from_millis(wait.unwrap_or(0))),
                    if wait.is_some() && !is_due => {}
                changed = self.commits.changed() => {
                    if changed.is_err() {
                        return Ok(Ended::Again("the committer ended".to_owned()));
                    }
                    let committed = self.commits.borrow_and_update().mark;
                    self.task.position.moved(committed.sequence);
                    // Only for `nats consumer report`: nothing depends on it.
                    if self.steps.may_acknowledge(committed.sequence) {
                        drop(self.reader.acknowledge(committed.sequence).await);
                    }
                    ACKNOWLEDGED.pass();
                }
                now = self.epochs.superseded() => {
                    return Ok(Ended::Again(format!("epoch {} is in force", now?)));
                }
                read = self.reader.next(), if !self.batcher.is_full() => {
                    if let Some(ended) = self.take(read?).await? {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    async fn take(&mut self, read: Read) -> anyhow::Result<Option<Ended>> {
        match read {
            Read::Message(delivery) => {
                self.message(&delivery);
                Ok(None)
            }
            Read::Deleted { first, last } => {
                tracing::error!(
                    stream = self.task.name,
                    first,
                    last,
                    "deleted before they were archived: declared lost"
                );
                self.task.metrics.observe_loss(last - first + 1);
                self.intake.lost(first, last);
                Ok(None)
            }
            Read::Subscribed(_) => {
                let mark = self.commits.borrow().mark;
                match self.task.bus.compare(&self.task.name, &mark).await {
                    Ok(compared) => Ok(compared.difference().map(Ended::Again)),
                    // The reader has a connection of its own, and what it gives next may be
                    // another stream's.
                    Err(error) if error.is_transient() => {
                        Ok(Some(Ended::Again(format!("the stream can't be compared: {error}"))))
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Read::Changed(why) => {
                let epoch = self.commits.borrow().mark.epoch;
                let heard = self.task.epoch.end_until_heard(epoch, &why, &self.task.drain).await?;
                Ok(Some(heard.map_or(Ended::Drained, |_epoch| Ended::Again(why))))
            }
        }
    }

    fn message(&mut self, delivery: &Delivery) {
        RECEIVED.pass();
        let counts = self.intake.message(&delivery.message(&self.task.subjects));
        JUDGED.pass();
        for reason in counts.refused {
            self.task.metrics.observe_refusal(reason);
        }
        self.batcher.push(self.task.clock.monotonic_ms(), counts.events);
        let newest = delivery.sequence.saturating_add(delivery.pending);
        let epoch = self.commits.borrow().mark.epoch;
        self.task.epoch.saw(epoch, newest);
    }
}

/// Whether another round may succeed.
pub(crate) fn passes(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<BusError>() {
        return error.is_transient();
    }
    error.downcast_ref::<StoreError>().is_some_and(|error| {
        // Fenced: the checkpoint is read again, and what is judged with it.
        matches!(error, StoreError::Fenced { .. }) || waits(error.recovery())
    })
}
