//! Counts what is in the archive, and what is still missing.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bus::{Bus, BusError, BusSettings};
use event_store::StoreSettings;

use crate::pipeline::RunningParts;
use crate::summary::ArchivedTotals;

/// The streams that are archived.
const STREAMS: &[&str] = &["LAKE_0", "WAREHOUSE_0", "TELEMETRY"];
/// Longest time to count, in milliseconds: every key is read, and the machine may be slow.
const COUNT_MS_MAX: u64 = 600_000;

/// Counts the archive, and the messages that are not in it.
///
/// # Errors
///
/// NATS or PostgreSQL does not answer.
pub(crate) async fn count(pipeline: &RunningParts) -> anyhow::Result<ArchivedTotals> {
    let mut settings = StoreSettings::new(pipeline.database_url("reader")?, "lakegauge-up");
    settings.statement_timeout_ms = COUNT_MS_MAX;
    let tally = event_store::tally(&settings).await?;
    let mut lag = 0_u64;
    for (stream, last) in last_sequences(&connect(pipeline).await?).await? {
        let archived = tally.checkpoints.get(stream).copied().unwrap_or(0);
        lag = lag.saturating_add(last.saturating_sub(archived));
    }
    Ok(ArchivedTotals {
        events: tally.events,
        dead_letters: tally.dead_letters,
        duplicates: tally.duplicates,
        lag,
        sources: tally.sources,
    })
}

/// A connection to the pipeline's NATS.
pub(crate) async fn connect(pipeline: &RunningParts) -> anyhow::Result<Bus> {
    let settings = BusSettings {
        url: pipeline.nats_url().into(),
        name: "lakegauge-up".to_owned(),
        ..BusSettings::default()
    };
    Ok(Bus::connect(&settings).await?)
}

/// The sequence of the newest message of each stream.
pub(crate) async fn last_sequences(bus: &Bus) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let mut last = BTreeMap::new();
    for stream in STREAMS {
        let sequence = match bus.stream(stream).await {
            Ok(status) => status.last_sequence,
            Err(BusError::NoStream { .. }) => 0,
            Err(error) => return Err(error).with_context(|| format!("asking for {stream}")),
        };
        last.insert(*stream, sequence);
    }
    Ok(last)
}
