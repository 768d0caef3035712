//! One stream's task: finds the state, follows it, and again after each change of epoch.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{
    Bus, BusError, PublisherLimits, ReaderSettings, ReplayRun, StreamEpoch,
    backlog::{BacklogLimits, BacklogWatch, SharedPosition},
    publishing::{PublishWatch, PublisherMetrics},
};
use domain::Stream;
use event_store::StoreSettings;
use service_kit::{Backoff, Clock, Jitter, News, Readiness};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wire::Subjects;

use crate::{
    board::Board,
    follow::{Ended, Follower, Shared},
    gap::Gap,
    metrics::StreamMetrics,
    origin::{self, Origin, Sources},
    replayed,
    snapshotter::{Snapshotter, Unsaved},
    tenure::Tenure,
};

/// First and longest pause before what failed is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(5);

/// Everything that one stream's task needs.
#[derive(Debug)]
pub(crate) struct StreamTask {
    pub(crate) bus: Bus,
    pub(crate) store: Option<StoreSettings>,
    pub(crate) stream: Stream,
    /// Its epoch, and how far it was seen to reach.
    pub(crate) epoch: Arc<StreamEpoch>,
    pub(crate) board: Board,
    pub(crate) metrics: StreamMetrics,
    /// Of the samples.
    pub(crate) publishing: PublisherMetrics,
    pub(crate) readiness: Readiness,
    /// Cancelled when the service drains, or when the partition is another's.
    pub(crate) drain: CancellationToken,
    pub(crate) tenure: Tenure,
    pub(crate) clock: Clock,
    pub(crate) snapshot_interval: Duration,
    /// From when on it is told that no snapshot could be stored.
    pub(crate) snapshot_overdue_after: Duration,
    pub(crate) epoch_check: Duration,
    pub(crate) subjects: Subjects,
    /// Whether the first state is rebuilt from the archive, whatever the snapshot says.
    pub(crate) from_archive: bool,
    /// The replay run that is counted instead of live.
    pub(crate) replay: Option<ReplayRun>,
    /// Told when what the board shows has changed.
    pub(crate) changed: watch::Sender<()>,
    pub(crate) backlog: BacklogLimits,
    /// How far is counted, for those who ask how far the stream reaches.
    pub(crate) position: Arc<SharedPosition>,
}

impl StreamTask {
    /// Counts the stream until it drains.
    ///
    /// # Errors
    ///
    /// What no retry can mend.
    pub(crate) async fn run(self, mut jitter: Jitter) -> anyhow::Result<()> {
        let backlog = BacklogWatch {
            bus: self.bus.clone(),
            stream: self.name(),
            position: Arc::clone(&self.position),
            limits: self.backlog,
            condition: self.readiness.condition("backlog"),
            done: "counted",
            clock: self.clock.clone(),
        };
        let counted = tokio::select! {
            counted = self.count(&mut jitter) => counted,
            never = backlog.run(|backlog| self.metrics.observe_backlog(backlog)) => match never {},
        };
        self.show(None);
        counted
    }

    async fn count(&self, jitter: &mut Jitter) -> anyhow::Result<()> {
        let (mut from_archive, mut missed) = (self.from_archive, None);
        while !self.drain.is_cancelled() {
            let found = self.origin(jitter, from_archive, missed).await?;
            let Some(origin) = found else { return Ok(()) };
            // Asked for at start, not after each change of epoch.
            (from_archive, missed) = (false, None);
            if origin.rebuilt {
                self.metrics.observe_rebuild();
            }
            let ended = self.follow(origin).await?;
            self.show(None);
            match ended {
                Ended::Drained => return Ok(()),
                Ended::Epoch { why, epoch } => {
                    self.metrics.observe_epoch_ended();
                    self.epoch.end_until_heard(epoch, &why, &self.drain).await?;
                }
                Ended::Missed(gap) => {
                    tracing::error!(
                        stream = %self.stream, first = gap.first, last = gap.last,
                        "deleted messages were not counted: taking the state from the archive"
                    );
                    (from_archive, missed) = (true, Some(gap));
                }
                Ended::Superseded(why) => {
                    tracing::warn!(stream = %self.stream, why, "starting again from what is stored");
                }
            }
        }
        Ok(())
    }

    /// The state to go on from, however long the broker or the archive need; none: we drain.
    async fn origin(
        &self,
        jitter: &mut Jitter,
        from_archive: bool,
        missed: Option<Gap>,
    ) -> anyhow::Result<Option<Origin>> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST).context("backoff")?;
        let sources = Sources {
            bus: &self.bus,
            store: self.store.as_ref(),
            stream: self.stream,
            from_archive,
            missed,
            epoch: &self.epoch,
            metrics: &self.metrics,
        };
        let mut news = News::default();
        loop {
            let found = match &self.replay {
                Some(run) => replayed::find(&self.bus, run, self.stream, &self.drain).await,
                None => origin::find(&sources, &self.drain).await,
            };
            let error = match found {
                Ok(origin) => return Ok(origin),
                Err(error) if passes(&error) => error,
                Err(error) => return Err(error),
            };
            let error = format!("{error:#}");
            if news.is_new(&error) {
                tracing::warn!(stream = %self.stream, error, "not yet");
            }
            tokio::select! {
                () = self.drain.cancelled() => return Ok(None),
                () = tokio::time::sleep(backoff.next(jitter)) => {}
            }
        }
    }

    async fn follow(&self, origin: Origin) -> anyhow::Result<Ended> {
        let name = self.name();
        let sample_subject = match &self.replay {
            Some(run) => self.subjects.replay_sample(run.name()),
            None => self.subjects.sample(self.stream.partition),
        };
        let mark = origin.fold.mark();
        let target = match self.bus.stream(&name).await {
            Ok(status) => status.last_sequence,
            Err(error) if error.is_transient() => {
                return Ok(Ended::Superseded(format!("its last sequence is not known: {error}")));
            }
            Err(error) => return Err(error.into()),
        };
        let shared = Shared::new(origin.fold);
        let samples = Arc::new(self.bus.publisher(PublisherLimits::default(), |_| {}));
        let publishing = PublishWatch::new(
            samples.progress(),
            self.publishing.clone(),
            self.readiness.condition("publisher"),
        );
        let reader = self.bus.reader(ReaderSettings::new(&name, "aggregator", mark.sequence));
        let epochs = self.bus.epochs().watch(&name, mark.epoch, self.epoch_check);
        let (caught_up, waiting) = watch::channel(false);
        let snapshotter = Snapshotter {
            bus: self.bus.clone(),
            name: name.clone(),
            trims: self.replay.is_some(),
            shared: shared.clone(),
            samples: Arc::clone(&samples),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            revision: origin.revision,
            stored: (!origin.rebuilt).then_some(mark),
            tenure: self.tenure.clone(),
        };
        let follower = Follower {
            bus: self.bus.clone(),
            stream: self.stream,
            name,
            store: self.store.clone().filter(|_| self.replay.is_none()),
            shared: shared.clone(),
            samples,
            sample_subject,
            subjects: self.subjects.clone(),
            metrics: self.metrics.clone(),
            caught_up,
            target,
            epoch: Arc::clone(&self.epoch),
            tenure: self.tenure.clone(),
            position: Arc::clone(&self.position),
        };
        let stop = CancellationToken::new();
        let unsaved = Unsaved::new(
            self.name(),
            self.clock.clone(),
            (self.readiness.condition("snapshot"), self.metrics.clone()),
            self.snapshot_overdue_after,
        );
        let snapshots = snapshotter.run(self.snapshot_interval, unsaved, stop.clone());
        let snapshots = tokio::spawn(snapshots);
        let mut snapshots = AbortOnDropHandle::new(snapshots);
        let drain = &self.drain;
        let following = async move {
            let ended = tokio::select! {
                ended = follower.follow(reader, epochs, drain) => ended?,
                stored = &mut snapshots => return snapshots_ended(stored),
            };
            // With the follower goes the sender that `show_when` waits for.
            drop(follower);
            if ended == Ended::Drained {
                // One more. In any other case there is nothing left to store.
                stop.cancel();
                snapshots_ended(snapshots.await)?;
            }
            Ok(ended)
        };
        let showing = self.show_when(waiting, shared);
        tokio::select! {
            (ended, ()) = async { tokio::join!(following, showing) } => ended,
            never = publishing.run() => match never {},
        }
    }

    /// Shows the state once it has caught up; ends with the follower at the latest.
    async fn show_when(&self, mut waiting: watch::Receiver<bool>, shared: Shared) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            reached = waiting.wait_for(|caught_up| *caught_up) => {
                if reached.is_ok() {
                    tracing::info!(stream = %self.stream, "caught up");
                    self.show(Some(shared));
                }
            }
        }
    }

    /// The name of what is read: that of the stream, or of its replay.
    fn name(&self) -> String {
        match &self.replay {
            Some(run) => run.stream(self.stream),
            None => self.stream.to_string(),
        }
    }

    fn show(&self, shared: Option<Shared>) {
        self.board.show(self.stream.side, shared);
        // Nobody listens only when the service ends.
        self.changed.send_replace(());
    }
}

/// What the end of the snapshots means for the stream.
fn snapshots_ended(
    stored: Result<Result<(), BusError>, tokio::task::JoinError>,
) -> anyhow::Result<Ended> {
    match stored.context("the snapshot task panicked")? {
        Ok(()) => Ok(Ended::Drained),
        Err(error @ BusError::Superseded { .. }) => Ok(Ended::Superseded(error.to_string())),
        Err(error) => Err(error).context("snapshots can't be stored"),
    }
}

/// Whether an error passes by itself.
fn passes(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<BusError>() {
        return error.is_transient();
    }
    error.downcast_ref::<event_store::StoreError>().is_some_and(|error| {
        matches!(
            error.recovery(),
            event_store::SqlRecovery::Retry | event_store::SqlRecovery::RetryAlarm
        )
    })
}
