//! What the parts say of themselves while they run.

use super::config::Config;
use super::probe::{self, Page};

/// The four metrics, in the order in which they are shown.
pub(crate) const USED_GB: &str = "data_lake_espaco_utilizado_gb";
pub(crate) const ACCESSES: &str = "data_lake_numero_acessos";
pub(crate) const RESPONSE_MS: &str = "data_warehouse_tempo_resposta_ms";
pub(crate) const RECORDS: &str = "data_warehouse_registros_processados";

/// Events acknowledged to a simulator.
const PUBLISHED: &str = "lakegauge_simulator_acknowledged_total";
/// Events that the archiver has committed.
const ARCHIVED: &str = "lakegauge_archiver_events_total";
/// Messages of each stream that are not archived.
const ARCHIVER_LAG: &str = "lakegauge_archiver_lag_messages";
/// Messages of each stream that are not counted.
const AGGREGATOR_LAG: &str = "lakegauge_aggregator_lag_messages";

/// The four metrics at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Four {
    pub(crate) used_gb: f64,
    pub(crate) accesses: f64,
    pub(crate) response_ms: f64,
    pub(crate) records: f64,
}

impl Four {
    /// From the page at `:8000/metrics`; nothing unless all four are there.
    pub(crate) fn read(page: &Page) -> Option<Self> {
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
pub(crate) struct Readings {
    pub(crate) four: Option<Four>,
    pub(crate) published: Option<f64>,
    pub(crate) archived: Option<f64>,
    pub(crate) archiver_lag: Option<f64>,
    pub(crate) aggregator_lag: Option<f64>,
}

impl Readings {
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
        let sum =
            |page: &Option<Page>, name: &str| page.as_ref().and_then(|page| page.sum(name, ""));
        let published = [&lake, &warehouse].into_iter().filter_map(|page| sum(page, PUBLISHED));
        let published: Vec<f64> = published.collect();
        Self {
            four: metrics.as_ref().and_then(Four::read),
            published: (!published.is_empty()).then(|| published.iter().sum()),
            archived: sum(&archiver, ARCHIVED),
            archiver_lag: sum(&archiver, ARCHIVER_LAG),
            aggregator_lag: sum(&aggregator, AGGREGATOR_LAG),
        }
    }

    /// Whether everything that was published is archived and counted, by what the services say.
    pub(crate) fn is_drained(&self) -> bool {
        let nothing = |lag: Option<f64>| lag.is_some_and(|lag| lag < 0.5);
        nothing(self.archiver_lag) && nothing(self.aggregator_lag)
    }
}

async fn page(config: &Config, port: u16) -> Option<Page> {
    match probe::get(config.reach(port), "/metrics").await {
        Ok((200, text)) => Some(Page::parse(&text)),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_of_used_space_is_exact_to_the_byte() {
        let then = Four { used_gb: 0.3, accesses: 7.0, response_ms: 5.0, records: 1.0 };
        let now =
            Four { used_gb: 12_345.678_901_234, accesses: 9.0, response_ms: 6.0, records: 4.0 };
        let growth = now.since(&then);
        assert_eq!(growth.used_gb, 12_345_378_901_234.0 / 1e9);
        assert_eq!((growth.accesses, growth.response_ms, growth.records), (2.0, 6.0, 3.0));
    }

    #[test]
    fn a_part_that_does_not_answer_is_not_drained() {
        let mut readings =
            Readings { archiver_lag: Some(0.0), aggregator_lag: None, ..Readings::default() };
        assert!(!readings.is_drained());
        readings.aggregator_lag = Some(0.0);
        assert!(readings.is_drained());
    }
}
