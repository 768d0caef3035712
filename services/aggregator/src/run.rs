//! Wires the aggregator: connection, one task a stream, the metrics port.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, BusError, PublisherLimits, ReaderSettings, Run};
use domain::Stream;
use event_store::StoreSettings;
use service_kit::{Backoff, Clock, Context, Jitter, Lifecycle, http};
use tokio::sync::watch;
use wire::Subjects;

use crate::{
    board::Board,
    config::Config,
    follow::{Ended, Follower, Shared, Snapshotter},
    metrics::{Metrics, StreamMetrics},
    origin::{self, Origin},
    replayed,
};

/// First and longest pause before what failed is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(5);

/// Runs the aggregator until it is told to drain.
///
/// # Errors
///
/// What no retry can mend: refused logins, unknown rules, a taken port, another aggregator.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let metrics = Metrics::new(&context.registry).context("metrics")?;
    let board = Board::default();
    let listener = http::bind("the metrics", config.metrics_addr).await?;
    let answers = board.clone();
    http::serve(listener, move |asked| answers.answer(asked));
    tracing::info!(address = %config.metrics_addr, "metrics port open");

    let Some(bus) = bus::service::connect(&config.bus, &context).await? else { return Ok(()) };
    let (ready, mut all_ready) = watch::channel(());
    for stream in [Stream::lake(config.partition), Stream::warehouse(config.partition)] {
        let task = StreamTask {
            bus: bus.clone(),
            store: config.store.clone(),
            stream,
            board: board.clone(),
            metrics: metrics.of_stream(&stream.to_string()),
            lifecycle: context.lifecycle.clone(),
            clock: context.clock.clone(),
            snapshot_interval: config.snapshot_interval,
            epoch_check: config.epoch_check,
            subjects: Subjects::new(&config.bus.settings.subject_prefix),
            from_archive: config.from_archive,
            replay: config.replay.clone(),
            changed: ready.clone(),
        };
        let jitter = context.jitter();
        context.lifecycle.spawn("stream", task.run(jitter));
    }
    let condition = context.readiness.condition("caught up");
    condition.fail("reading what the streams held at start");
    context.not_ready.open();
    loop {
        if board.is_complete() {
            condition.pass("both streams");
        } else {
            condition.fail("reading what the streams held at start");
        }
        tokio::select! {
            () = context.lifecycle.draining() => return Ok(()),
            changed = all_ready.changed() => changed.context("every stream task ended")?,
        }
    }
}

/// Everything that one stream's task needs.
struct StreamTask {
    bus: Bus,
    store: Option<StoreSettings>,
    stream: Stream,
    board: Board,
    metrics: StreamMetrics,
    lifecycle: Lifecycle,
    clock: Clock,
    snapshot_interval: Duration,
    epoch_check: Duration,
    subjects: Subjects,
    from_archive: bool,
    replay: Option<Run>,
    changed: watch::Sender<()>,
}

impl StreamTask {
    /// Finds the state, follows the stream, and again after each change of epoch.
    async fn run(self, mut jitter: Jitter) -> anyhow::Result<()> {
        let mut from_archive = self.from_archive;
        while !self.lifecycle.is_draining() {
            let found = self.origin(&mut jitter, from_archive).await?;
            let Some(origin) = found else { return Ok(()) };
            // Asked for at start, not after each change of epoch.
            from_archive = false;
            if origin.rebuilt {
                self.metrics.observe_rebuild();
            }
            let ended = self.follow(origin).await?;
            self.show(None);
            match ended {
                Ended::Drained => return Ok(()),
                Ended::Epoch(why) => {
                    tracing::error!(stream = %self.stream, why, "the epoch ended: starting again");
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
    ) -> anyhow::Result<Option<Origin>> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST).context("backoff")?;
        loop {
            let (bus, store, stream) = (&self.bus, self.store.as_ref(), self.stream);
            let found = match &self.replay {
                Some(run) => replayed::find(bus, run, stream, &self.lifecycle).await,
                None => origin::find(bus, store, stream, from_archive, &self.lifecycle).await,
            };
            let error = match found {
                Ok(origin) => return Ok(origin),
                Err(error) if passes(&error) => error,
                Err(error) => return Err(error),
            };
            tracing::warn!(stream = %self.stream, error = format!("{error:#}"), "not yet");
            tokio::select! {
                () = self.lifecycle.draining() => return Ok(None),
                () = tokio::time::sleep(backoff.next(jitter)) => {}
            }
        }
    }

    async fn follow(&self, origin: Origin) -> anyhow::Result<Ended> {
        let name = match &self.replay {
            Some(run) => run.stream(self.stream),
            None => self.stream.to_string(),
        };
        let sample_subject = match &self.replay {
            Some(run) => self.subjects.replay_sample(run.name()),
            None => self.subjects.sample(self.stream.partition),
        };
        let mark = origin.fold.mark();
        let target = match self.bus.stream(&name).await {
            Ok(status) => status.last_sequence,
            Err(error) if error.recovery() == bus::Recovery::Retry => {
                return Ok(Ended::Epoch(format!("its last sequence is not known: {error}")));
            }
            Err(error) => return Err(error.into()),
        };
        let shared = Shared::new(origin.fold);
        let samples = Arc::new(self.bus.publisher(PublisherLimits::default(), |_| {}));
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
            stored: mark,
        };
        let follower = Follower {
            bus: self.bus.clone(),
            stream: self.stream,
            name,
            shared: shared.clone(),
            samples,
            sample_subject,
            subjects: self.subjects.clone(),
            metrics: self.metrics.clone(),
            caught_up,
            target,
        };
        let stop = Lifecycle::default();
        let snapshots = tokio::spawn(snapshotter.run(self.snapshot_interval, stop.clone()));
        let lifecycle = &self.lifecycle;
        let following = async move {
            let ended = follower.follow(reader, epochs, lifecycle).await;
            // With the follower goes the sender that `show_when` waits for.
            drop(follower);
            stop.drain();
            ended
        };
        let (ended, (), stored) =
            tokio::join!(following, self.show_when(waiting, shared), self.snapshots(snapshots));
        stored?;
        ended
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

    /// Ends the service if snapshots can't be stored for good.
    async fn snapshots(
        &self,
        task: tokio::task::JoinHandle<Result<u64, BusError>>,
    ) -> anyhow::Result<()> {
        let stored = task.await.context("the snapshot task panicked")?;
        if stored.is_err() {
            self.lifecycle.drain();
        }
        stored.map(|_| ()).context("snapshots can't be stored")
    }

    fn show(&self, shared: Option<Shared>) {
        self.board.show(self.stream.side, shared);
        // Nobody listens only when the service ends.
        self.changed.send_replace(());
    }
}

/// Whether an error passes by itself.
fn passes(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<BusError>() {
        return error.recovery() == bus::Recovery::Retry;
    }
    error.downcast_ref::<event_store::StoreError>().is_some_and(|error| {
        matches!(error.recovery(), event_store::Recovery::Retry | event_store::Recovery::RetryAlarm)
    })
}
