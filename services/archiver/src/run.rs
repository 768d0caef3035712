//! Starts the archiver: connections, one task per stream, and the ledger's metrics.

use anyhow::Context as _;
use bus::{publishing::PublishMetrics, status::Announcer};
use domain::ArchivedStream;
use service_kit::Context;

use crate::{
    config::Config, ledger::LedgerWatch, rollup_lag::RollupWaits,
    shared_status::SharedArchiveStatus, stream::StreamTask,
};

/// Runs the archiver until the service drains.
///
/// # Errors
///
/// Errors that no retry can correct: refused logins, unknown rules, a database of another version.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let publishing = PublishMetrics::register(&context.registry).context("metrics")?;
    event_store::service::watch_connection(&config.store, &context).context("metrics")?;
    let Some(bus) = bus::service::connect(&config.bus, &context).await? else { return Ok(()) };
    let (status, rollups) = (SharedArchiveStatus::default(), RollupWaits::default());
    let (told, partitions) = (status.clone(), config.partitions.iter().map(u16::to_string));
    let work = partitions.collect::<Vec<_>>().join(",");
    Announcer::new(&bus, &context, &work).spawn(&context, move || Some(told.look()));
    let mut jitter = context.jitter();
    for stream in ArchivedStream::of_partitions(&config.partitions) {
        let shown = (&status, &rollups);
        let task = StreamTask::new(&context, &config, &bus, &publishing, shown, stream)?;
        context.lifecycle.spawn("stream", task.run(jitter.fork()));
    }
    let ledger = LedgerWatch::new(&config, &context, status, rollups).context("metrics")?;
    context.lifecycle.spawn("ledger", ledger.run());
    context.not_ready.open();
    context.lifecycle.draining().await;
    Ok(())
}
