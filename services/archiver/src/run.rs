//! Wires the archiver: connections, one task a stream, and the watch of the ledger.

use anyhow::Context as _;
use bus::publishing::PublishMetrics;
use domain::ArchivedStream;
use service_kit::Context;

use crate::{config::Config, ledger::LedgerWatch, stream::StreamTask};

/// Runs the archiver until it is told to drain.
///
/// # Errors
///
/// What no retry can mend: refused logins, unknown rules, a database of another version.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let publishing = PublishMetrics::register(&context.registry).context("metrics")?;
    event_store::service::watch_login(&config.store, &context).context("metrics")?;
    let Some(bus) = bus::service::connect(&config.bus, &context).await? else { return Ok(()) };
    let mut jitter = context.jitter();
    for stream in ArchivedStream::of_partitions(&config.partitions) {
        let task = StreamTask::new(&context, &config, &bus, &publishing, stream)?;
        context.lifecycle.spawn("stream", task.run(jitter.fork()));
    }
    let ledger = LedgerWatch::new(&config, &context).context("metrics")?;
    context.lifecycle.spawn("ledger", ledger.run());
    context.not_ready.open();
    context.lifecycle.draining().await;
    Ok(())
}
