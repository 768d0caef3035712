//! Wires the aggregator: connection, ownership of the partition, one task a stream, the metrics
//! port.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, StreamEpoch, publishing::PublishMetrics};
use domain::{SAMPLES, Stream};
use event_store::{StoreError, StoreSettings};
use service_kit::{Condition, Context, Jitter, Readiness, http, random};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wire::Subjects;

use crate::{
    board::Board,
    config::Config,
    metrics::Metrics,
    page::{Feed, Samples, SharedHistory},
    stream::StreamTask,
    tenure::{Held, Ownership, Tenure},
};

/// Where Linux keeps the machine's name. Elsewhere people are told the process and the address.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// How late readiness may tell that the numbers are stale.
const FRESHNESS_POLL: Duration = Duration::from_millis(500);

/// Runs the aggregator until it is told to drain.
///
/// # Errors
///
/// What no retry can mend: refused logins, unknown rules, a taken port.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let metrics = Metrics::new(&context.registry).context("metrics")?;
    let publishing = PublishMetrics::register(&context.registry).context("metrics")?;
    // Between two renewals of a long lease nothing is stale.
    let board = Board::new(config.stale_after.max(config.lease));
    let listener = http::bind("the metrics", config.metrics_addr).await?;
    let history = SharedHistory::new(config.page_grain_s);
    let feed = Feed {
        board: board.clone(),
        history: history.clone(),
        metrics: metrics.clone(),
        readiness: context.readiness.clone(),
        clock: context.clock.clone(),
        partition: config.partition,
        links: config.links.clone(),
    };
    let (page, looking) = feed.start();
    let _looking = AbortOnDropHandle::new(tokio::spawn(looking));
    http::serve(listener, page.routes().merge(board.clone().routes()));
    tracing::info!(address = %config.metrics_addr, "metrics port open");

    let Some(bus) = bus::service::connect(&config.bus, &context).await? else { return Ok(()) };
    if let Some(store) = config.store.clone() {
        event_store::service::watch_login(&store, &context).context("metrics")?;
        let drain = context.lifecycle.drain_token();
        context.lifecycle.spawn("the archive's address", async move {
            tokio::select! {
                () = drain.cancelled() => Ok(()),
                looked = look_at_archive(store) => looked,
            }
        });
    }
    let samples = Samples {
        bus: bus.clone(),
        name: config
            .mode
            .replay
            .as_ref()
            .map_or_else(|| SAMPLES.to_owned(), bus::ReplayRun::samples),
        partition: config.partition,
        history,
        clock: context.clock.clone(),
    };
    let _samples = AbortOnDropHandle::new(tokio::spawn(samples.follow()));
    let mut jitter = context.jitter();
    let condition = context.readiness.condition("owner");
    condition.fail("asking who owns the partition");
    let token = random::token().context("a token for the owner")?;
    let ownership = Ownership::new(
        &bus,
        owned(&config),
        (holder(&config), format!("{:032x}", u128::from_be_bytes(token))),
        config.lease,
        context.clock.clone(),
        (condition, metrics.clone()),
    );
    let (changed, shown) = watch::channel(());
    let streams = Stream::of_partition(config.partition).map(|stream| {
        let name = config.name_of(stream);
        (stream, Arc::new(StreamEpoch::new(&bus, &name)))
    });
    let readiness = context.readiness.clone();
    let partition = Partition {
        bus,
        config,
        board: board.clone(),
        metrics,
        publishing,
        streams,
        changed,
        readiness,
    };
    let conditions =
        (context.readiness.condition("caught up"), context.readiness.condition("numbers"));
    let ready = tokio::spawn(keep_ready(conditions, board, shown));
    context.not_ready.open();
    let drain = context.lifecycle.drain_token();
    let counted = partition.run(ownership, &drain, &context.clock, &mut jitter).await;
    ready.abort();
    counted
}

/// The archive is needed for a rebuild only, and is no condition for starting: what is wrong with
/// it is said now. An address through which answers can be wrong is refused all the same.
async fn look_at_archive(store: StoreSettings) -> anyhow::Result<()> {
    match event_store::check_fit(&store).await {
        Ok(()) => {}
        Err(error @ StoreError::Settings(_)) => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "no rebuild from the archive would be possible now");
        }
    }
    Ok(())
}

/// Keeps readiness true to what the board shows, and to how old it is.
async fn keep_ready(
    (complete, fresh): (Condition, Condition),
    board: Board,
    mut shown: watch::Receiver<()>,
) {
    let mut was_stale = false;
    loop {
        if board.is_complete() {
            complete.pass("both streams");
        } else {
            complete.fail("reading what the streams held at start");
        }
        let stale = board.stale();
        match &stale {
            Some(stale) => fresh.fail(stale.to_string()),
            None => fresh.pass("not stale"),
        }
        if std::mem::replace(&mut was_stale, stale.is_some()) != stale.is_some() {
            match stale {
                Some(stale) => tracing::error!("the numbers are {stale}"),
                None => tracing::warn!("the numbers are not stale any more"),
            }
        }
        tokio::select! {
            changed = shown.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(FRESHNESS_POLL) => {}
        }
    }
}

/// What is owned: a replay run is counted beside live.
fn owned(config: &Config) -> String {
    match &config.mode.replay {
        Some(run) => format!("aggregator.{}.{}", config.partition, run.name()),
        None => format!("aggregator.{}", config.partition),
    }
}

/// Who we are, for the people who read for whom another aggregator waits.
fn holder(config: &Config) -> String {
    let host = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
    format!("aggregator {}:{} at {}", host.trim(), std::process::id(), config.metrics_addr)
}

/// What is counted once at a time.
struct Partition {
    bus: Bus,
    config: Config,
    board: Board,
    metrics: Metrics,
    publishing: PublishMetrics,
    /// The streams with their epochs. These outlive a tenure: what was seen before the partition was
    /// another's says how far a stream reached that was made again meanwhile.
    streams: [(Stream, Arc<StreamEpoch>); 2],
    changed: watch::Sender<()>,
    readiness: Readiness,
}

impl Partition {
    /// Counts whenever the partition is ours, until the service drains.
    async fn run(
        &self,
        mut ownership: Ownership,
        drain: &CancellationToken,
        clock: &service_kit::Clock,
        jitter: &mut Jitter,
    ) -> anyhow::Result<()> {
        while let Some(tenure) = ownership.acquire(drain).await? {
            let (term, stop) = (drain.child_token(), CancellationToken::new());
            self.board.owned(Some(tenure.clone()));
            let streams = async {
                let counted = self.count(&term, &tenure, clock, jitter).await;
                stop.cancel();
                counted
            };
            let (counted, held) = tokio::join!(streams, ownership.hold(&tenure, &term, &stop));
            self.board.owned(None);
            if matches!(held, Ok(Held::Kept)) {
                ownership.release().await;
            }
            held?;
            counted?;
            if drain.is_cancelled() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Counts both streams until the term ends; one that fails ends it for the other.
    async fn count(
        &self,
        term: &CancellationToken,
        tenure: &Tenure,
        clock: &service_kit::Clock,
        jitter: &mut Jitter,
    ) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for (stream, epoch) in &self.streams {
            let task = StreamTask {
                bus: self.bus.clone(),
                store: self.config.store.clone(),
                stream: *stream,
                epoch: Arc::clone(epoch),
                board: self.board.clone(),
                metrics: self.metrics.of_stream(&stream.to_string()),
                publishing: self.publishing.of("samples", &stream.to_string()),
                readiness: self.readiness.clone(),
                drain: term.clone(),
                tenure: tenure.clone(),
                clock: clock.clone(),
                snapshot_interval: self.config.snapshot_interval,
                snapshot_overdue_after: self.config.snapshot_overdue_after,
                epoch_check: self.config.epoch_check,
                subjects: Subjects::new(&self.config.bus.settings.subject_prefix),
                from_archive: self.config.mode.from_archive,
                replay: self.config.mode.replay.clone(),
                changed: self.changed.clone(),
                backlog: self.config.backlog,
                position: Arc::default(),
            };
            tasks.spawn(task.run(Jitter::seeded(jitter.below(u64::MAX))));
        }
        let mut counted = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.context("a stream's task panicked").and_then(|ended| ended);
            if counted.is_ok() {
                counted = ended;
            }
            term.cancel();
        }
        counted
    }
}
