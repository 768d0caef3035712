//! One stream's task: recovers the state, counts from there, and does so again after each change of
//! epoch.

mod consumer;
mod context;
mod gap;
mod rebuild;
mod recovery;
mod replayed;
mod snapshotter;
mod stream_history;

use std::sync::Arc;

use anyhow::Context as _;
use bus::{
    Bus, BusError, EpochWatch, PublisherLimits, Reader, ReaderSettings, StreamEpoch,
    backlog::{BacklogWatch, SharedPosition},
    publishing::{PublishMetrics, PublishWatch, PublisherMetrics},
};
use event_store::StoreError;
use prometheus::Registry;
use service_kit::{Backoff, Clock, Jitter, News, Readiness};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wire::Subjects;

pub(crate) use self::stream_history::StreamHistory;
use self::{
    consumer::{CaughtUp, Consumer, CountingEnd, SamplePublisher},
    context::StreamContext,
    gap::Gap,
    rebuild::Recovery,
    recovery::Recovered,
    snapshotter::{Snapshotter, Unsaved},
};
use crate::{config::Config, exposed_state::ExposedState, lease::Lease, shared_fold::SharedFold};

/// The error if the snapshot task did not end by itself.
const PANICKED: &str = "the snapshot task panicked";

/// What the tasks on the streams of a partition are made from.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    pub(crate) config: Config,
    pub(crate) exposed: ExposedState,
    pub(crate) publishing: PublishMetrics,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    pub(crate) readiness: Readiness,
}

/// One stream and all that is needed to count it, under one lease.
#[derive(Debug)]
pub(crate) struct StreamTask {
    context: StreamContext,
    config: Config,
    epoch: Arc<StreamEpoch>,
    lease: Lease,
    exposed: ExposedState,
    /// Metrics of publishing samples.
    publishing: PublisherMetrics,
    readiness: Readiness,
    /// How far the stream is counted.
    position: Arc<SharedPosition>,
    backlog: BacklogWatch,
}

impl StreamTask {
    /// A task on a stream of a partition. It ends when `drain` is cancelled.
    ///
    /// # Errors
    ///
    /// A metric's name is taken, which is a programming error.
    pub(crate) fn new(
        shared: &Shared,
        counted: &StreamHistory,
        lease: &Lease,
        drain: CancellationToken,
    ) -> anyhow::Result<Self> {
        let Shared { bus, config, clock, readiness, .. } = shared;
        let (stream, name) = (counted.stream, config.name_of(counted.stream));
        let position: Arc<SharedPosition> = Arc::default();
        let backlog = BacklogWatch {
            bus: bus.clone(),
            stream: name.clone(),
            position: Arc::clone(&position),
            limits: config.backlog,
            condition: readiness.condition("backlog"),
            done: "counted",
            clock: clock.clone(),
        };
        Ok(Self {
            config: config.clone(),
            epoch: Arc::clone(&counted.epoch),
            lease: lease.clone(),
            exposed: shared.exposed.clone(),
            publishing: shared.publishing.of("samples", &stream.to_string()),
            readiness: readiness.clone(),
            position,
            backlog,
            context: StreamContext {
                stream,
                name,
                bus: bus.clone(),
                clock: clock.clone(),
                drain,
                metrics: counted.metrics(&shared.registry)?,
            },
        })
    }

    /// Counts the stream until it drains.
    ///
    /// # Errors
    ///
    /// An error that no retry can correct.
    pub(crate) async fn run(self, mut jitter: Jitter) -> anyhow::Result<()> {
        let metrics = &self.context.metrics;
        let counted = tokio::select! {
            counted = self.rounds(&mut jitter) => counted,
            never = self.backlog.run(|backlog| metrics.observe_backlog(backlog)) => match never {},
        };
        self.expose(None);
        counted
    }

    async fn rounds(&self, jitter: &mut Jitter) -> anyhow::Result<()> {
        let StreamContext { stream, drain, metrics, .. } = &self.context;
        let (mut from_archive, mut missed) = (self.config.mode.from_archive, None);
        while !drain.is_cancelled() {
            let recovered = self.recover(jitter, from_archive, missed).await?;
            let Some(recovered) = recovered else { return Ok(()) };
            // A rebuild is requested at the start, not after each change of epoch.
            (from_archive, missed) = (false, None);
            if recovered.rebuilt {
                metrics.observe_rebuild();
            }
            let ended = self.count(recovered).await?;
            self.expose(None);
            match ended {
                CountingEnd::Drained => return Ok(()),
                CountingEnd::Epoch { why, epoch } => {
                    metrics.observe_epoch_ended();
                    self.epoch.end_until_heard(epoch, &why, drain).await?;
                }
                CountingEnd::Missed(gap) => {
                    tracing::error!(
                        %stream, first = gap.first, last = gap.last,
                        "deleted messages were not counted; rebuilding the state from the archive"
                    );
                    (from_archive, missed) = (true, Some(gap));
                }
                CountingEnd::Superseded(why) => {
                    tracing::warn!(%stream, why, "recovering the state again");
                }
            }
        }
        Ok(())
    }

    /// The state from which counting continues, however long the broker or the archive need; `None`
    /// if the stream drains first.
    async fn recover(
        &self,
        jitter: &mut Jitter,
        from_archive: bool,
        missed: Option<Gap>,
    ) -> anyhow::Result<Option<Recovered>> {
        let StreamContext { stream, drain, .. } = &self.context;
        let (mut backoff, mut news) = (Backoff::default(), News::default());
        let recovery = Recovery {
            context: &self.context,
            store: self.config.store.as_ref(),
            epoch: &self.epoch,
            from_archive,
            missed,
        };
        loop {
            let recovered = match &self.config.mode.replay {
                Some(run) => replayed::find(&self.context, run, &self.epoch).await,
                None => recovery.run().await,
            };
            let error = match recovered {
                Ok(recovered) => return Ok(recovered),
                Err(error) if passes(&error) => format!("{error:#}"),
                Err(error) => return Err(error),
            };
            if news.is_new(&error) {
                tracing::warn!(%stream, error, "not yet");
            }
            tokio::select! {
                () = drain.cancelled() => return Ok(None),
                () = tokio::time::sleep(backoff.next(jitter)) => {}
            }
        }
    }

    /// Counts from a state, and exposes the state once it has caught up.
    async fn count(&self, recovered: Recovered) -> anyhow::Result<CountingEnd> {
        let StreamContext { stream, name, bus, .. } = &self.context;
        let target = match bus.stream(name).await {
            Ok(status) => status.last_sequence,
            Err(error) if error.is_transient() => {
                let why = format!("the stream's last sequence is not known: {error}");
                return Ok(CountingEnd::Superseded(why));
            }
            Err(error) => return Err(error.into()),
        };
        let Recovered { fold, revision, rebuilt } = recovered;
        // From here on no earlier owner can store a snapshot, even if it wakes up.
        let revision = match bus.snapshots().claim(name, revision).await {
            Ok(revision) => revision,
            Err(error) if error.is_transient() || matches!(error, BusError::Superseded { .. }) => {
                return Ok(CountingEnd::Superseded(format!("snapshots not claimed: {error}")));
            }
            Err(error) => return Err(error.into()),
        };
        let (mark, fold) = (fold.mark(), SharedFold::new(fold));
        let replay = self.config.mode.replay.as_ref();
        let subjects = Subjects::new(&self.config.bus.settings.subject_prefix);
        let publisher = Arc::new(bus.publisher(PublisherLimits::default(), |_| {}));
        let publishing = PublishWatch::new(
            publisher.progress(),
            self.publishing.clone(),
            self.readiness.condition("publisher"),
        );
        let reader = bus.reader(ReaderSettings::new(name, "aggregator", mark.sequence));
        let epochs = bus.epochs().watch(name, mark.epoch, self.config.epoch_check);
        let (reached, caught_up) = watch::channel(false);
        let snapshotter = Snapshotter {
            context: self.context.clone(),
            trims: replay.is_some(),
            fold: fold.clone(),
            samples: Arc::clone(&publisher),
            revision,
            stored: (!rebuilt).then_some(mark),
            lease: self.lease.clone(),
        };
        let samples = SamplePublisher {
            publisher,
            subject: match replay {
                Some(run) => subjects.replay_sample(run.name()),
                None => subjects.sample(stream.partition),
            },
            lease: self.lease.clone(),
        };
        let consumer = Consumer {
            context: &self.context,
            store: self.config.store.as_ref().filter(|_| replay.is_none()),
            subjects,
            fold: fold.clone(),
            samples,
            caught_up: CaughtUp { target, reached },
            epoch: &self.epoch,
            position: &self.position,
        };
        let counting = self.count_and_store(consumer, snapshotter, reader, epochs);
        let exposing = self.expose_when(caught_up, fold);
        tokio::select! {
            (ended, ()) = async { tokio::join!(counting, exposing) } => ended,
            never = publishing.run() => match never {},
        }
    }

    /// Counts and stores snapshots; stores one more when the stream drains.
    async fn count_and_store(
        &self,
        consumer: Consumer<'_>,
        snapshotter: Snapshotter,
        reader: Reader,
        epochs: EpochWatch,
    ) -> anyhow::Result<CountingEnd> {
        let stop = CancellationToken::new();
        let unsaved = Unsaved::new(
            self.context.clone(),
            self.readiness.condition("snapshot"),
            self.config.snapshot_overdue_after,
        );
        let storing = snapshotter.run(self.config.snapshot_interval, unsaved, stop.clone());
        let mut storing = AbortOnDropHandle::new(tokio::spawn(storing));
        let ended = tokio::select! {
            ended = consumer.run(reader, epochs) => ended?,
            stored = &mut storing => return storing_ended(stored.context(PANICKED)?),
        };
        // Drops the sender that `expose_when` waits for.
        drop(consumer);
        if ended == CountingEnd::Drained {
            // In the other cases nothing needs to be stored.
            stop.cancel();
            storing_ended(storing.await.context(PANICKED)?)?;
        }
        Ok(ended)
    }

    /// Exposes the state once it has caught up; ends with the consumer at the latest.
    async fn expose_when(&self, mut caught_up: watch::Receiver<bool>, fold: SharedFold) {
        tokio::select! {
            () = self.context.drain.cancelled() => {}
            reached = caught_up.wait_for(|reached| *reached) => {
                if reached.is_ok() {
                    tracing::info!(stream = %self.context.stream, "caught up");
                    self.expose(Some(fold));
                }
            }
        }
    }

    fn expose(&self, fold: Option<SharedFold>) {
        self.exposed.show(self.context.stream.side, fold);
    }
}

/// What the end of the snapshot task means for the stream.
fn storing_ended(stored: Result<(), BusError>) -> anyhow::Result<CountingEnd> {
    match stored {
        Ok(()) => Ok(CountingEnd::Drained),
        Err(error @ BusError::Superseded { .. }) => Ok(CountingEnd::Superseded(error.to_string())),
        Err(error) => Err(error).context("snapshots can't be stored"),
    }
}

/// Whether an error ends by itself.
fn passes(error: &anyhow::Error) -> bool {
    error.downcast_ref::<BusError>().is_some_and(BusError::is_transient)
        || error.downcast_ref::<StoreError>().is_some_and(|error| {
            matches!(
                error.recovery(),
                event_store::SqlRecovery::Retry | event_store::SqlRecovery::RetryAlarm
            )
        })
}
