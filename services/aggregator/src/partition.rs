//! The partition that is counted whenever its lease is ours.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use bus::{Bus, StreamEpoch, publishing::PublishMetrics};
use domain::Stream;
use prometheus::Registry;
use service_kit::{Clock, Jitter, Readiness};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    exposed_state::ExposedState,
    health::LiveHealth,
    lease::{Held, Lease, LeaseHolder},
    metrics::StreamMetrics,
    stream::StreamTask,
};

/// What is counted once at a time, and what the tasks on its streams are made from.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) bus: Bus,
    pub(crate) config: Config,
    pub(crate) exposed: ExposedState,
    pub(crate) publishing: PublishMetrics,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    pub(crate) readiness: Readiness,
    pub(crate) streams: [PartitionStream; 2],
}

/// What is known of a stream from one lease to the next.
#[derive(Debug)]
pub(crate) struct PartitionStream {
    pub(crate) stream: Stream,
    /// What was seen before the partition was another's says how far a stream reached that was made
    /// again meanwhile.
    pub(crate) epoch: Arc<StreamEpoch>,
    health: LiveHealth,
    /// Shown from the first lease on: who waits for one shows none.
    metrics: OnceLock<StreamMetrics>,
}

impl PartitionStream {
    /// A stream of which nothing was seen yet.
    pub(crate) fn new(bus: &Bus, config: &Config, stream: Stream, health: LiveHealth) -> Self {
        let epoch = Arc::new(StreamEpoch::new(bus, &config.name_of(stream)));
        Self { stream, epoch, health, metrics: OnceLock::new() }
    }
}

impl PartitionStream {
    /// The metrics of the stream, registered when they are asked for first.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake of ours.
    pub(crate) fn metrics(&self, registry: &Registry) -> anyhow::Result<StreamMetrics> {
        if let Some(metrics) = self.metrics.get() {
            return Ok(metrics.clone());
        }
        let name = self.stream.to_string();
        let metrics = StreamMetrics::of_stream(registry, &name, self.health.clone());
        let metrics = metrics.context("metrics")?;
        Ok(self.metrics.get_or_init(|| metrics).clone())
    }
}

impl Partition {
    /// Counts whenever the partition is ours, until the service drains.
    ///
    /// # Errors
    ///
    /// What no retry can mend.
    pub(crate) async fn run(
        &self,
        mut holder: LeaseHolder,
        drain: &CancellationToken,
        mut jitter: Jitter,
    ) -> anyhow::Result<()> {
        while let Some(lease) = holder.acquire(drain).await? {
            let (term, stop) = (drain.child_token(), CancellationToken::new());
            self.exposed.counted_under(Some(lease.clone()));
            let counting = async {
                let counted = self.count(&lease, &term, &mut jitter).await;
                stop.cancel();
                counted
            };
            let (counted, held) = tokio::join!(counting, holder.hold(&lease, &term, &stop));
            self.exposed.counted_under(None);
            if matches!(held, Ok(Held::Kept)) {
                holder.release().await;
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
        lease: &Lease,
        term: &CancellationToken,
        jitter: &mut Jitter,
    ) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for counted in &self.streams {
            let task = StreamTask::new(self, counted, lease, term.clone())?;
            tasks.spawn(task.run(jitter.fork()));
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
