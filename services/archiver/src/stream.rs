//! One stream: opens its archive, then runs the tasks of a round until one of them ends the round.

mod committer;
mod epoch;
mod order_guard;
mod reading;
mod retention;
mod retry;
mod rollups;
mod trim;
mod verdicts;

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{
    Bus, ReaderSettings, StreamEpoch,
    backlog::{Backlog, BacklogWatch, ReadPosition, SharedPosition},
    publishing::{PublishMetrics, PublishWatch, PublisherMetrics},
    status::ArchivedStreamStatus,
};
use domain::{ArchivedStream, Mark, Rules, verdict::VerdictProgress};
use event_store::{Archive, StreamId};
use service_kit::{Backoff, Clock, Condition, Context, Jitter, News, Readiness, random};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::Subjects;

use self::{
    committer::Committer,
    epoch::{ClosedEpoch, EpochOpener},
    order_guard::OrderGuard,
    reading::Reading,
    retention::Retention,
    rollups::RollupKeeper,
    trim::{TrimRules, Trimmer},
    verdicts::{Outgoing, VerdictPublisher},
};
use crate::{
    batcher::{BatchLimits, Batcher},
    config::Config,
    intake::{Carries, Intake},
    meeting,
    metrics::StreamMetrics,
    rollup_lag::RollupWaits,
    shared_status::SharedArchiveStatus,
};

/// What all tasks on one stream share: the name of the stream, and where its state is reported.
#[derive(Clone, Debug)]
struct StreamContext {
    /// The name of the stream, without the prefix.
    name: String,
    bus: Bus,
    clock: Clock,
    /// Cancelled when the service drains.
    drain: CancellationToken,
    metrics: StreamMetrics,
}

/// One stream and all that is needed to archive it.
#[derive(Debug)]
pub(crate) struct StreamTask {
    context: StreamContext,
    stream: ArchivedStream,
    config: Config,
    /// Metrics of publishing verdicts.
    publishing: PublisherMetrics,
    readiness: Readiness,
    /// Whether the archive is being written, for readiness.
    condition: Condition,
    backlog: BacklogWatch,
    /// How far the stream is committed.
    position: Arc<SharedPosition>,
    /// Shows the state of the archive to people.
    status: SharedArchiveStatus,
    /// Says what the rollups wait for.
    rollup_waits: RollupWaits,
    epoch: StreamEpoch,
    /// Distinguishes this writer from every other one.
    token: [u8; 16],
}

/// Why a round ended.
enum RoundEnd {
    Drained,
    /// Start again from the checkpoint, for this reason.
    Again(String),
}

/// How far a stream is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    mark: Mark,
    verdicts: VerdictProgress,
}

/// The archive of a stream, opened at a position in the epoch that is in force.
struct Opened {
    archive: Archive,
    carries: Carries,
    at: Committed,
    closed: Option<ClosedEpoch>,
}

impl StreamTask {
    /// A task on a stream, which is ready once its archive is open.
    ///
    /// # Errors
    ///
    /// The operating system gives no randomness, or the stream has a task already.
    pub(crate) fn new(
        service: &Context,
        config: &Config,
        bus: &Bus,
        publishing: &PublishMetrics,
        (status, rollup_waits): (&SharedArchiveStatus, &RollupWaits),
        stream: ArchivedStream,
    ) -> anyhow::Result<Self> {
        let name = stream.to_string();
        let condition = service.readiness.condition("archive");
        condition.fail(format!("{name}: opening the archive"));
        let position: Arc<SharedPosition> = Arc::default();
        let backlog = BacklogWatch {
            bus: bus.clone(),
            stream: name.clone(),
            position: Arc::clone(&position),
            limits: config.backlog,
            condition: service.readiness.condition("backlog"),
            done: "archived",
            clock: service.clock.clone(),
        };
        Ok(Self {
            stream,
            config: config.clone(),
            publishing: publishing.of("verdicts", &name),
            readiness: service.readiness.clone(),
            condition,
            backlog,
            position,
            status: status.clone(),
            rollup_waits: rollup_waits.clone(),
            epoch: StreamEpoch::new(bus, &name),
            // The token prevents that a writer takes the checkpoint of another writer for its own.
            token: random::token().context("a token for the writer")?,
            context: StreamContext {
                bus: bus.clone(),
                clock: service.clock.clone(),
                drain: service.lifecycle.drain_token(),
                metrics: StreamMetrics::of_stream(&service.registry, &name).context("metrics")?,
                name,
            },
        })
    }

    /// Archives the stream until the service drains.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct.
    pub(crate) async fn run(self, mut jitter: Jitter) -> anyhow::Result<()> {
        tokio::select! {
            ended = self.rounds(&mut jitter) => ended,
            never = self.context.watch_room(self.config.trim_interval) => match never {},
            never = self.backlog.run(|backlog| self.tell_backlog(backlog)) => match never {},
        }
    }

    /// Reports how many messages wait, and how far the stream is committed.
    fn tell_backlog(&self, backlog: &Backlog) {
        let StreamContext { name, metrics, .. } = &self.context;
        metrics.observe_backlog(backlog);
        let at = self.position.position();
        self.status.stream(
            name,
            ArchivedStreamStatus {
                standby: at == ReadPosition::StandsBy,
                lag_messages: backlog.messages,
                position: if let ReadPosition::After(sequence) = at { sequence } else { 0 },
                last_commit_ms: metrics.last_commit_ms(),
            },
        );
    }

    async fn rounds(&self, jitter: &mut Jitter) -> anyhow::Result<()> {
        let stream = &self.context.name;
        let (mut backoff, mut news) = (Backoff::default(), News::default());
        loop {
            match self.round(jitter).await {
                Ok(RoundEnd::Drained) => return Ok(()),
                Ok(RoundEnd::Again(why)) => {
                    tracing::warn!(stream, why, "starting again from the checkpoint");
                    backoff.reset();
                    news.is_over();
                }
                Err(error) if retry::passes(&error) => {
                    let error = format!("{error:#}");
                    self.condition.fail(format!("{stream}: {error}"));
                    if news.is_new(&error) {
                        tracing::warn!(stream, error, "waiting");
                    }
                }
                Err(error) => return Err(error.context(format!("stream {stream}"))),
            }
            tokio::select! {
                () = self.context.drain.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff.next(jitter)) => {}
            }
        }
    }

    async fn round(&self, jitter: &mut Jitter) -> anyhow::Result<RoundEnd> {
        let opened = tokio::select! {
            () = self.context.drain.cancelled() => return Ok(RoundEnd::Drained),
            opened = self.open() => opened?,
        };
        let Opened { mut archive, carries, at, closed } = opened;
        let seen = match &carries {
            Carries::Events(_, rules) => archive.seen(rules).await?,
            Carries::Samples => domain::Seen::new(&Rules::default()),
        };
        let sources = archive.sources().await?;
        self.show(&at);
        let context = &self.context;
        let reader = context.bus.reader(ReaderSettings {
            acknowledge: true,
            ..ReaderSettings::new(&context.name, "archiver", at.mark.sequence)
        });
        self.position.reads(reader.progress());
        let (batches, to_commit) = mpsc::channel(1);
        let (committed, commits) = watch::channel(at);
        let guard = &OrderGuard::new(&at, context.metrics.clone());
        let verdicts = self.verdicts(archive.stream(), commits.clone(), guard, jitter.fork());
        let trimmer = Trimmer {
            context,
            rules: TrimRules {
                keep: self.config.keep,
                await_snapshot: self.config.await_aggregator
                    && self.stream != ArchivedStream::Samples,
            },
            interval: self.config.trim_interval,
            closed,
            commits: commits.clone(),
            guard,
            condition: self.readiness.condition("trimming"),
        };
        let retention_days = carries.retention_days();
        let rollups = || RollupKeeper {
            context,
            store: &self.config.store,
            id: archive.stream(),
            waits: &self.rollup_waits,
            interval: self.config.rollup_interval,
            keys: self.config.keys,
            retention_days,
        };
        let retention = Retention {
            context,
            days: retention_days,
            ladder: carries.ladder(),
            rollups: rollups(),
        };
        let rollups = rollups().run(commits.clone());
        let reading = Reading {
            context,
            subjects: Subjects::new(&self.config.bus.settings.subject_prefix),
            reader,
            epoch: &self.epoch,
            epochs: context.bus.epochs().watch(
                &context.name,
                at.mark.epoch,
                self.config.epoch_check,
            ),
            intake: Intake::new(archive.stream(), carries, seen, sources, at.mark),
            batcher: Batcher::new(BatchLimits {
                events_max: self.config.batch_events_max,
                age_ms_max: self.config.batch_age_ms_max,
            }),
            batches,
            commits,
            position: &self.position,
            guard,
        };
        let committer = Committer {
            context,
            archive,
            committed,
            guard,
            retention,
            retention_interval: self.config.retention_interval,
            condition: &self.condition,
            jitter: jitter.fork(),
        };
        tokio::select! {
            // The order matters: a commit that is ready is handled before the end of trimming.
            biased;
            ended = async { tokio::join!(reading.run(), committer.run(to_commit)) } => {
                let (ended, committed) = ended;
                committed?;
                ended
            }
            failed = verdicts => match failed? {},
            failed = rollups => match failed? {},
            // The current batch is committed or not; the next round reads the checkpoint to find
            // out.
            why = trimmer.run() => Ok(RoundEnd::Again(why)),
        }
    }

    /// Opens the archive, and makes its epoch the one in force.
    async fn open(&self) -> anyhow::Result<Opened> {
        let (name, bus, store) = (&self.context.name, &self.context.bus, &self.config.store);
        let waiting_for = Arc::new(watch::Sender::new(None));
        let mut waits = waiting_for.subscribe();
        // Before the lock, so that a service that is refused does not wait until another one ends.
        let broker = meeting::join(bus, store, name).await?;
        let opening = Archive::open(store, name, self.token, waiting_for, Some(broker));
        tokio::pin!(opening);
        let mut archive = loop {
            tokio::select! {
                opened = &mut opening => break opened?,
                Ok(()) = waits.changed() => {
                    if let Some(holder) = waits.borrow_and_update().clone() {
                        self.position.stands_by();
                        self.condition.stand_by(format!(
                            "{name}: waiting for the lock that {holder} holds"
                        ));
                    }
                }
            }
        };
        // After the lock, because either side may have changed in the meantime.
        meeting::join(bus, store, name).await?;
        let status = bus.stream(name).await?;
        let carries = Carries::of(self.stream, &status.metadata)?;
        let epochs = EpochOpener { context: &self.context, epoch: &self.epoch };
        let closed = epochs.open(&mut archive, &status).await?;
        let checkpoint = archive.checkpoint().context("an opened archive has a checkpoint")?;
        let at = Committed { mark: checkpoint.mark, verdicts: checkpoint.verdicts() };
        Ok(Opened { archive, carries, at, closed })
    }

    /// Reports the position at which the round begins.
    fn show(&self, at: &Committed) {
        let StreamContext { name, metrics, .. } = &self.context;
        let Mark { epoch, sequence, .. } = at.mark;
        tracing::info!(stream = name, epoch, sequence, "archiving after the checkpoint");
        self.condition.pass(format!("{name}: archiving"));
        metrics.observe_epoch(epoch);
        metrics.observe_position(sequence);
        metrics.observe_verdicts(&at.verdicts);
        self.position.moved(sequence);
    }

    /// Publishes verdicts for ever. A stream of samples has none, because no sample is too old to
    /// judge.
    async fn verdicts(
        &self,
        id: StreamId,
        commits: watch::Receiver<Committed>,
        guard: &OrderGuard,
        jitter: Jitter,
    ) -> anyhow::Result<Infallible> {
        let ArchivedStream::Events(stream) = self.stream else {
            return std::future::pending().await;
        };
        let outgoing = Outgoing::new(&self.context.bus);
        let condition = self.readiness.condition("publisher");
        let watch = PublishWatch::new(outgoing.progress(), self.publishing.clone(), condition);
        let subjects = Subjects::new(&self.config.bus.settings.subject_prefix);
        let publisher = VerdictPublisher {
            context: &self.context,
            store: &self.config.store,
            stream,
            id,
            subjects,
            guard,
            outgoing,
            jitter,
        };
        tokio::select! {
            ended = publisher.run(commits) => ended,
            never = watch.run() => match never {},
        }
    }
}

impl StreamContext {
    /// Reports how full the stream is. This does not depend on the database: without one, the
    /// stream fills.
    async fn watch_room(&self, interval: Duration) -> Infallible {
        loop {
            match self.bus.stream(&self.name).await {
                Ok(status) => self.metrics.observe_stream(status.bytes, status.max_bytes),
                Err(error) => {
                    tracing::debug!(stream = self.name, %error, "cannot read how full the stream is")
                }
            }
            tokio::time::sleep(interval).await;
        }
    }
}
