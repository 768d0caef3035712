//! What the parts say of themselves while they run.

use std::collections::BTreeMap;

use service_kit::http_client;
use service_kit::metrics::float;
use service_kit::scrape::Scrape;

use crate::config::Config;

/// The four metrics, in the order in which they are shown.
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
/// Messages of each stream that are not counted.
const AGGREGATOR_LAG: &str = "lakegauge_aggregator_lag_messages";
/// Sequence of the last message of each stream that is archived.
const ARCHIVER_POSITION: &str = "lakegauge_archiver_committed_sequence";
/// Sequence of the last message of each stream that is counted.
const AGGREGATOR_POSITION: &str = "lakegauge_aggregator_counted_sequence";
/// The streams that are counted; the samples are only archived.
const COUNTED: &[&str] = &["LAKE_0", "WAREHOUSE_0"];

/// The four metrics at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ScrapedMetrics {
    pub(crate) used_gb: f64,
    pub(crate) accesses: f64,
    pub(crate) response_ms: f64,
    pub(crate) records: f64,
}

impl ScrapedMetrics {
    /// From the page at `:8000/metrics`; nothing unless all four are there.
    pub(crate) fn read(page: &Scrape) -> Option<Self> {
        Some(Self {
            used_gb: page.bare(USED_GB)?,
            accesses: page.bare(ACCESSES)?,
            response_ms: page.bare(RESPONSE_MS)?,
            records: page.bare(RECORDS)?,
        })
    }

    /// What came on top of an earlier reading; the response time is no sum and stays.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            used_gb: bytes_of(self.used_gb, earlier.used_gb),
            accesses: self.accesses - earlier.accesses,
            response_ms: self.response_ms,
            records: self.records - earlier.records,
        }
    }
}

/// The difference of two amounts in GB, to the byte: each is a whole number of bytes.
fn bytes_of(now_gb: f64, then_gb: f64) -> f64 {
    ((now_gb * 1e9).round() - (then_gb * 1e9).round()) / 1e9
}

/// Everything at one moment; nothing for what did not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PartReadings {
    pub(crate) four: Option<ScrapedMetrics>,
    pub(crate) published: Option<f64>,
    pub(crate) archived: Option<f64>,
    pub(crate) archiver_lag: Option<f64>,
    pub(crate) aggregator_lag: Option<f64>,
}

impl PartReadings {
    /// Asks every part at once.
    pub(crate) async fn take(config: &Config) -> Self {
        let ports = &config.ports;
        let (metrics, lake, warehouse, aggregator, archiver) = tokio::join!(
            page(config, ports.metrics),
            page(config, ports.lake_admin),
            page(config, ports.warehouse_admin),
            page(config, ports.aggregator_admin),
            page(config, ports.archiver_admin),
        );
        let sum = |page: &Option<Scrape>, name: &str, label: &str| page.as_ref()?.sum(name, label);
        let all = |parts: Vec<f64>| (!parts.is_empty()).then(|| parts.iter().sum());
        let published = [&lake, &warehouse];
        let inserted = |stream: &&str| {
            sum(&archiver, ARCHIVED, &format!("result=\"inserted\",stream=\"{stream}\""))
        };
        Self {
            four: metrics.as_ref().and_then(ScrapedMetrics::read),
            published: all(published
                .into_iter()
                .filter_map(|page| sum(page, PUBLISHED, ""))
                .collect()),
            archived: all(COUNTED.iter().filter_map(inserted).collect()),
            archiver_lag: sum(&archiver, ARCHIVER_LAG, ""),
            aggregator_lag: sum(&aggregator, AGGREGATOR_LAG, ""),
        }
    }
}

/// How far archiver and aggregator have come.
///
/// Lag is what a service heard of; a message that it has not been sent yet is not in it. Whether
/// everything is done is seen from the streams' last sequences and these.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Positions {
    archiver: Scrape,
    aggregator: Scrape,
}

impl Positions {
    /// Asks both; nothing if one does not answer.
    pub(crate) async fn take(config: &Config) -> Option<Self> {
        let (archiver, aggregator) = tokio::join!(
            page(config, config.ports.archiver_admin),
            page(config, config.ports.aggregator_admin),
        );
        Some(Self { archiver: archiver?, aggregator: aggregator? })
    }

    /// Whether both have come as far as the last message of each stream.
    pub(crate) fn reach(&self, last: &BTreeMap<&'static str, u64>) -> bool {
        last.iter().filter(|(_, last)| **last > 0).all(|(stream, last)| {
            let label = format!("stream=\"{stream}\"");
            let at =
                |page: &Scrape, name| page.sum(name, &label).is_some_and(|at| at >= float(*last));
            at(&self.archiver, ARCHIVER_POSITION)
                && (!COUNTED.contains(stream) || at(&self.aggregator, AGGREGATOR_POSITION))
        })
    }
}

async fn page(config: &Config, port: u16) -> Option<Scrape> {
    match http_client::get(config.reach(port), "/metrics").await {
        Ok((200, text)) => Some(Scrape::parse(&text)),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_of_used_space_is_exact_to_the_byte() {
        let then = ScrapedMetrics { used_gb: 0.3, accesses: 7.0, response_ms: 5.0, records: 1.0 };
        let now = ScrapedMetrics {
            used_gb: 12_345.678_901_234,
            accesses: 9.0,
            response_ms: 6.0,
            records: 4.0,
        };
        let growth = now.since(&then);
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
            aggregator: Scrape::parse(&format!(
                "{AGGREGATOR_POSITION}{{stream=\"LAKE_0\"}} {counted}\n"
            )),
        };
        assert!(positions(12, 12, 3).reach(&last));
        assert!(!positions(11, 12, 3).reach(&last));
        assert!(!positions(12, 11, 3).reach(&last));
        assert!(!positions(12, 12, 2).reach(&last));
        assert!(!Positions::default().reach(&last));
    }
}
