//! One stream's task: finds the state, follows it, and again after each change of epoch.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{
    Bus, BusError, Newest, PublisherLimits, ReaderSettings, ReplayRun,
    backlog::{Backlog, BacklogLimits, WatchedPosition},
    publishing::{PublishWatch, PublisherMetrics},
    until_answered,
};
use domain::Stream;
use event_store::StoreSettings;
use service_kit::{Backoff, Clock, Condition, Jitter, Lifecycle, News, Readiness};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
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
    /// How far the stream was seen to reach.
    pub(crate) newest: Arc<Newest>,
    pub(crate) board: Board,
    pub(crate) metrics: StreamMetrics,
    /// Of the samples.
    pub(crate) publishing: PublisherMetrics,
    pub(crate) readiness: Readiness,
    /// Drains with the service, or when the partition is another's.
    pub(crate) lifecycle: Lifecycle,
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
    /// Whether messages wait and none is counted.
    pub(crate) backlog_condition: Condition,
    /// How far is counted, for those who ask how far the stream reaches.
    pub(crate) watched: Arc<WatchedPosition>,
}

impl StreamTask {
    /// Counts the stream until its lifecycle drains.
    ///
    /// # Errors
    ///
    /// What no retry can mend.
    pub(crate) async fn run(self, mut jitter: Jitter) -> anyhow::Result<()> {
        let counted = tokio::select! {
            counted = self.count(&mut jitter) => counted,
            never = self.watch_backlog() => match never {},
        };
        self.show(None);
        counted
    }

    /// Asks how much waits, whether or not something is read.
    async fn watch_backlog(&self) -> Infallible {
        let shown = (&self.backlog_condition, "counted");
        let told = |backlog: &Backlog| self.metrics.observe_backlog(backlog);
        self.bus
            .watch_backlog(&self.name(), &self.watched, self.backlog, shown, &self.clock, told)
            .await
    }

    async fn count(&self, jitter: &mut Jitter) -> anyhow::Result<()> {
        let (mut from_archive, mut missed) = (self.from_archive, None);
        while !self.lifecycle.is_draining() {
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
                    tracing::error!(stream = %self.stream, epoch, why, "the stream is another");
                    self.report_other(epoch).await?;
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

    /// Says that the stream is another, and how far it reached, until the broker has heard it:
    /// forgotten, the stream could look the same from the last snapshot.
    async fn report_other(&self, epoch: u32) -> anyhow::Result<()> {
        let newest = self.newest.of(epoch);
        let (epochs, name) = (self.bus.epochs(), self.name());
        let report = || epochs.report(&name, epoch, newest);
        let waits = "telling others that the epoch ended";
        let told = until_answered(&name, waits, &self.lifecycle, report).await?;
        if let Some(now) = told {
            tracing::error!(stream = %self.stream, ended = epoch, epoch = now, "epoch raised");
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
            newest: &self.newest,
            metrics: &self.metrics,
        };
        let mut news = News::default();
        loop {
            let found = match &self.replay {
                Some(run) => replayed::find(&self.bus, run, self.stream, &self.lifecycle).await,
                None => origin::find(&sources, &self.lifecycle).await,
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
                () = self.lifecycle.draining() => return Ok(None),
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
            Err(error) if error.recovery() == bus::Recovery::Retry => {
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
        let epochs = self.bus.epochs().watch(&name, self.epoch_check);
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
            newest: Arc::clone(&self.newest),
            tenure: self.tenure.clone(),
            watched: Arc::clone(&self.watched),
        };
        let stop = Lifecycle::default();
        let unsaved = Unsaved::new(
            self.name(),
            self.clock.clone(),
            (self.readiness.condition("snapshot"), self.metrics.clone()),
            self.snapshot_overdue_after,
        );
        let snapshots = snapshotter.run(self.snapshot_interval, unsaved, stop.clone());
        let snapshots = tokio::spawn(snapshots);
        let mut snapshots = AbortOnDropHandle::new(snapshots);
        let lifecycle = &self.lifecycle;
        let following = async move {
            let ended = tokio::select! {
                ended = follower.follow(reader, epochs, lifecycle) => ended?,
                stored = &mut snapshots => return snapshots_ended(stored),
            };
            // With the follower goes the sender that `show_when` waits for.
            drop(follower);
            if ended == Ended::Drained {
                // One more. In any other case there is nothing left to store.
                stop.drain();
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
            () = self.lifecycle.draining() => {}
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
        return error.recovery() == bus::Recovery::Retry;
    }
    error.downcast_ref::<event_store::StoreError>().is_some_and(|error| {
        matches!(
            error.recovery(),
            event_store::SqlRecovery::Retry | event_store::SqlRecovery::RetryAlarm
        )
    })
}
