//! The metrics that all collectors share, on the admin port.

use std::time::Duration;

use domain::Reason;
use prometheus::Registry;
use service_kit::metrics::Registrar;

use crate::parsed::Parsed;

service_kit::metrics! {
    /// The reported records and their results, by the kind of report.
    #[derive(Clone, Debug)]
    pub struct CollectorMetrics {
        records: counters("lakegauge_collector_records_total",
            "Records that other systems reported, by what became of them: published, ignored (no \
             request to an object, no finished query), refused (a dead letter).",
            &["report", "result"]),
        refused: counters("lakegauge_collector_refused_records_total",
            "Records that could not be read, by the reason.", &["report", "reason"]),
        lag: float_gauges("lakegauge_collector_lag_seconds",
            "How long after it happened the newest record of the last report was stored; missing \
             until something was.", &["report"]),
        last_success: gauges("lakegauge_collector_last_success_timestamp_seconds",
            "When the last report was stored whole; missing until one was.", &["report"]),
    }
}

/// The results of reading a record.
const RESULTS: [&str; 3] = ["published", "ignored", "refused"];
/// The reasons for which a collector refuses a record. The other reasons are found later in the
/// pipeline.
const REASONS: [Reason; 3] = [Reason::Undecodable, Reason::WrongField, Reason::MissingField];

impl CollectorMetrics {
    /// Registers the metrics with every known label at 0, because a counter whose first value is 1
    /// has not increased.
    ///
    /// # Errors
    ///
    /// A metric's name is taken, which is a programming error.
    pub fn of(registry: &Registry, reports: &[&str]) -> prometheus::Result<Self> {
        let metrics = Self::register(Registrar::from(registry))?;
        for report in reports {
            for result in RESULTS {
                metrics.records.with_label_values(&[*report, result]);
            }
            for reason in REASONS {
                metrics.refused.with_label_values(&[*report, reason.name()]);
            }
        }
        Ok(metrics)
    }

    /// Counts the records of a report that was stored at `now_us`, in microseconds since 1970.
    pub fn stored(&self, report: &str, parsed: &Parsed, now_us: i64) {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let (published, refused) = (count(parsed.events.len()), count(parsed.refused.len()));
        for (result, records) in RESULTS.iter().zip([published, parsed.ignored, refused]) {
            self.records.with_label_values(&[report, result]).inc_by(records);
        }
        for one in &parsed.refused {
            self.refused.with_label_values(&[report, one.refusal.reason.name()]).inc();
        }
        if let Some(newest) = parsed.events.iter().map(|event| event.occurred_at).max() {
            let lag = u64::try_from(now_us.saturating_sub(newest.0)).unwrap_or(0);
            self.lag.with_label_values(&[report]).set(Duration::from_micros(lag).as_secs_f64());
        }
        self.last_success.with_label_values(&[report]).set(now_us / 1_000_000);
    }
}

#[cfg(test)]
mod tests {
    use domain::{Event, EventId, Fact, Refusal, Side, Timestamp};
    use prometheus::TextEncoder;
    use test_support::warehouse_query;

    use super::*;

    #[test]
    fn a_report_shows_what_became_of_its_records_how_late_it_is_and_when_it_came() {
        let registry = Registry::new();
        let metrics = CollectorMetrics::of(&registry, &["trino", "s3-events"]).unwrap();
        let fact = Fact::WarehouseQuery(warehouse_query());
        let (id, occurred_at) = (EventId::from_bytes([1; 16]), Timestamp(7_000_000));
        let mut parsed = Parsed::default();
        parsed.add(Side::Warehouse, Ok(Some(Event { id, occurred_at, fact })), b"");
        parsed.add(Side::Warehouse, Ok(None), b"");
        let refusal = Refusal::whole(Reason::WrongField, "no time");
        parsed.add(Side::Warehouse, Err(refusal), b"{}");
        metrics.stored("trino", &parsed, 9_500_000);
        let page = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "records_total{report=\"trino\",result=\"published\"} 1",
            "records_total{report=\"trino\",result=\"ignored\"} 1",
            "records_total{report=\"trino\",result=\"refused\"} 1",
            "refused_records_total{reason=\"wrong_field\",report=\"trino\"} 1",
            "refused_records_total{reason=\"undecodable\",report=\"trino\"} 0",
            "lag_seconds{report=\"trino\"} 2.5",
            "last_success_timestamp_seconds{report=\"trino\"} 9",
            "records_total{report=\"s3-events\",result=\"published\"} 0",
        ] {
            let line = format!("lakegauge_collector_{line}");
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(!page.contains("lag_seconds{report=\"s3-events\"}"), "{page}");
    }
}
