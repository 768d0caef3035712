//! Runs `collect folder`: connects to the broker, creates the publishers and starts the walks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bus::Topology;
use domain::Timestamp;
use service_kit::{Clock, Context};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    config::{Config, Folder},
    inventory::inventory,
    standing::Standing,
    walk::{Walk, Walked},
};
use crate::{metrics::CollectorMetrics, outlet::Outlet, parsed::Parsed};

/// The kind of report in metrics.
const REPORT: &str = "folder";

/// Counts the folder again and again until the service drains. Then the current walk or inventory
/// is abandoned; the next start begins a new walk.
///
/// # Errors
///
/// Errors that no retry can correct: refused logins, a broker that stores nothing for another
/// reason than that it is unreachable or full.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let collected = CollectorMetrics::of(&context.registry, &[REPORT]).context("metrics")?;
    let standing = Standing::new(context.readiness.condition(REPORT));
    let outlet = Outlet::connect(&config.bus, &context, &config.source).await?;
    let Some(outlet) = outlet else { return Ok(()) };
    let Folder { path, bucket } = &config.folder;
    tracing::info!(
        path = %path.display(), bucket, interval_s = config.interval_s, "the folder is counted"
    );
    context.not_ready.open();
    let drain = context.lifecycle.drain_token();
    let mut counter = Counter {
        folder: config.folder,
        source: config.source,
        partitions: Topology::partitions(),
        clock: context.clock,
        drain,
        outlet,
        collected,
        standing,
    };
    tokio::select! {
        () = context.lifecycle.draining() => Ok(()),
        ended = counter.run(Duration::from_secs(config.interval_s)) => ended,
    }
}

/// Counts one folder and publishes the inventory.
struct Counter {
    folder: Folder,
    source: String,
    /// Number of partitions of the lake.
    partitions: u16,
    clock: Clock,
    /// Cancelled when the service drains. A running walk then stops at its next entry.
    drain: CancellationToken,
    outlet: Outlet,
    collected: CollectorMetrics,
    standing: Standing,
}

impl Counter {
    /// Begins a walk at each interval. If the previous inventory is stored later than that, the
    /// next walk begins immediately afterwards.
    async fn run(&mut self, interval: Duration) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.count().await?;
        }
    }

    async fn count(&mut self) -> anyhow::Result<()> {
        let as_of = Timestamp(self.clock.now_us());
        match self.walked().await? {
            Walked::Whole(shares) => {
                let events = inventory(&self.source, &self.folder.bucket, as_of, &shares);
                let parsed = Parsed { events, ..Parsed::default() };
                self.outlet.publish(self.outlet.seal_shares(&parsed.events)).await?;
                self.collected.stored(REPORT, &parsed, self.clock.now_us());
                self.standing.whole(as_of, &shares);
            }
            Walked::Incomplete(why) => self.standing.incomplete(as_of, &why),
            Walked::Stopped => {}
        }
        Ok(())
    }

    /// Walks on a thread of its own, because the file system may block for any length of time.
    async fn walked(&self) -> anyhow::Result<Walked> {
        let (folder, partitions, drain) =
            (self.folder.clone(), self.partitions, self.drain.clone());
        let walk = move || {
            let Folder { path, bucket } = &folder;
            let open = |path: &Path| fs::read_dir(path);
            let is_stopped = || drain.is_cancelled();
            Walk { root: path, bucket, partitions, open: &open, is_stopped: &is_stopped }.run()
        };
        tokio::task::spawn_blocking(walk).await.context("the walk through the folder")
    }
}
