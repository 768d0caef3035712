//! What the parts report while they run.
//!
//! The aggregator answers `/api/now`. Simulators and archiver have only metrics for what is read
//! here.

use std::collections::BTreeMap;

use aggregator::api::{KeyMetrics, Now};
use anyhow::Context as _;
use service_kit::http_client;
use service_kit::metrics::float;
use service_kit::scrape::Scrape;

use crate::config::Config;

/// The names of the four metrics, in the order in which they are shown.
pub(crate) const USED_GB: &str = "data_lake_espaco_utilizado_gb";
pub(crate) const ACCESSES: &str = "data_lake_numero_acessos";
pub(crate) const RESPONSE_MS: &str = "data_warehouse_tempo_resposta_ms";
pub(crate) const RECORDS: &str = "data_warehouse_registros_processados";

/// Distinct events that a simulator has published.
const PUBLISHED: &str = "lakegauge_simulator_events_total";
/// Events that the archiver has committed.
const ARCHIVED: &str = "lakegauge_archiver_events_total";
/// Messages of each stream that are not archived.
const ARCHIVER_LAG: &str = "lakegauge_archiver_lag_messages";
/// Sequence of the last message of each stream that is archived.
const ARCHIVER_POSITION: &str = "lakegauge_archiver_committed_sequence";
/// The streams that are counted; the samples are only archived.
const COUNTED: &[&str] = &["LAKE_0", "WAREHOUSE_0"];

/// The growth of the four metrics since an earlier reading. The response time is not a sum, and
/// stays as it is.
pub(crate) fn growth(now: &KeyMetrics, earlier: &KeyMetrics) -> KeyMetrics {
    KeyMetrics {
        used_gb: bytes_of(now.used_gb, earlier.used_gb),
        accesses: now.accesses - earlier.accesses,
        response_ms: now.response_ms,
        records: now.records - earlier.records,
    }
}

/// The difference of two amounts in GB, exact to the byte: each is a whole number of bytes.
fn bytes_of(now_gb: f64, then_gb: f64) -> f64 {
    ((now_gb * 1e9).round() - (then_gb * 1e9).round()) / 1e9
}

/// All readings at one moment; `None` for what did not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PartReadings {
    pub(crate) four: Option<KeyMetrics>,
    pub(crate) published: Option<f64>,
    pub(crate) archived: Option<f64>,
    pub(crate) archiver_lag: Option<f64>,
    pub(crate) aggregator_lag: Option<f64>,
}

impl PartReadings {
    /// Asks every part at the same time.
    pub(crate) async fn take(config: &Config) -> Self {
        let ports = &config.ports;
        let (now, lake, warehouse, archiver) = tokio::join!(
            now(config),
            page(config, ports.lake_admin),
            page(config, ports.warehouse_admin),
            page(config, ports.archiver_admin),
        );
        let now = now.ok();
        let sum = |page: &Option<Scrape>, name: &str, label: &str| page.as_ref()?.sum(name, label);
        let all = |parts: Vec<f64>| (!parts.is_empty()).then(|| parts.iter().sum());
        let published = [&lake, &warehouse];
        let inserted = |stream: &&str| {
            sum(&archiver, ARCHIVED, &format!("result=\"inserted\",stream=\"{stream}\""))
        };
        let lag = |now: &Now| now.health.streams.iter().map(|stream| stream.lag_messages).sum();
        Self {
            published: all(published
                .into_iter()
                .filter_map(|page| sum(page, PUBLISHED, ""))
                .collect()),
            archived: all(COUNTED.iter().filter_map(inserted).collect()),
            archiver_lag: sum(&archiver, ARCHIVER_LAG, ""),
            aggregator_lag: now.as_ref().map(lag),
            four: now.and_then(|now| now.numbers).map(|numbers| numbers.key_metrics),
        }
    }
}

/// How far archiver and aggregator have come.
///
/// A lag does not include messages that the service has not heard of yet. These positions and the
/// streams' last sequences show whether everything is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Positions {
    archiver: Scrape,
    aggregator: Now,
}

impl Positions {
    /// Asks both; `None` if one does not answer.
    pub(crate) async fn take(config: &Config) -> Option<Self> {
        let (archiver, aggregator) =
            tokio::join!(page(config, config.ports.archiver_admin), now(config));
        Some(Self { archiver: archiver?, aggregator: aggregator.ok()? })
    }

    /// Whether both have come as far as the last message of each stream.
    pub(crate) fn reach(&self, last: &BTreeMap<&'static str, u64>) -> bool {
        last.iter().filter(|(_, last)| **last > 0).all(|(stream, last)| {
            let last = float(*last);
            let label = format!("stream=\"{stream}\"");
            let archived = self.archiver.sum(ARCHIVER_POSITION, &label);
            let mut counted = self.aggregator.health.streams.iter();
            archived.is_some_and(|at| at >= last)
                && (!COUNTED.contains(stream)
                    || counted.any(|counted| counted.name == *stream && counted.position >= last))
        })
    }
}

/// Whether the aggregator shows the four metrics.
///
/// # Errors
///
/// It does not, or does not answer.
pub(crate) async fn has_numbers(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(now(config).await?.numbers.is_some(), "the metrics are not shown yet");
    Ok(())
}

/// The aggregator's answer to `/api/now`, which has no numbers while they may not be shown.
async fn now(config: &Config) -> anyhow::Result<Now> {
    let (_, text) = http_client::get(config.reach(config.ports.metrics), "/api/now").await?;
    serde_json::from_str(&text).context("the answer of /api/now can't be read")
}

async fn page(config: &Config, port: u16) -> Option<Scrape> {
    match http_client::get(config.reach(port), "/metrics").await {
        Ok((200, text)) => Some(Scrape::parse(&text)),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use aggregator::api::{CountedStream, Health};

    use super::*;

    #[test]
    fn growth_of_used_space_is_exact_to_the_byte() {
        let then = KeyMetrics { used_gb: 0.3, accesses: 7.0, response_ms: 5.0, records: 1.0 };
        let now = KeyMetrics {
            used_gb: 12_345.678_901_234,
            accesses: 9.0,
            response_ms: 6.0,
            records: 4.0,
        };
        let growth = growth(&now, &then);
        assert_eq!(growth.used_gb, 12_345_378_901_234.0 / 1e9);
        assert_eq!((growth.accesses, growth.response_ms, growth.records), (2.0, 6.0, 3.0));
    }

    #[test]
    fn everything_is_done_when_both_have_come_to_the_end_of_each_stream() {
        let last = BTreeMap::from([("LAKE_0", 12), ("WAREHOUSE_0", 0), ("TELEMETRY", 3)]);
        let positions = |archived: u64, counted: u64, samples: u64| Positions {
            archiver: Scrape::parse(&format!(
                "{ARCHIVER_POSITION}{{stream=\"LAKE_0\"}} {archived}\n\
                 {ARCHIVER_POSITION}{{stream=\"TELEMETRY\"}} {samples}\n"
            )),
            aggregator: Now {
                health: Health {
                    streams: vec![CountedStream {
                        name: "LAKE_0".to_owned(),
                        position: float(counted),
                        ..CountedStream::default()
                    }],
                    ..Health::default()
                },
                ..Now::default()
            },
        };
        assert!(positions(12, 12, 3).reach(&last));
        assert!(!positions(11, 12, 3).reach(&last));
        assert!(!positions(12, 11, 3).reach(&last));
        assert!(!positions(12, 12, 2).reach(&last));
        assert!(!Positions::default().reach(&last));
    }
}
