//! The collectors' own metrics, on the admin port.

use prometheus::Registry;
use service_kit::metrics::Registrar;

use crate::parsed::Parsed;

service_kit::metrics! {
    /// What came, and what became of it.
    #[derive(Clone, Debug)]
    pub struct CollectorMetrics {
        records: counters("lakegauge_collector_records_total",
            "Records that other systems reported, by what became of them: published, ignored (no \
             request to an object, no finished query), refused (a dead letter).", &["result"]),
        last_success: known_gauge("lakegauge_collector_last_success_timestamp_seconds",
            "When the last report was stored whole."),
    }
}

/// What becomes of a record.
const RESULTS: [&str; 3] = ["published", "ignored", "refused"];

impl CollectorMetrics {
    /// Every known label at 0: a counter that begins at 1 has not increased.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake of ours.
    pub fn of(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::register(Registrar::from(registry))?;
        for result in RESULTS {
            metrics.records.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    /// What was stored of a report, at a time in microseconds since 1970.
    pub fn stored(&self, parsed: &Parsed, now_us: i64) {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let (published, refused) = (count(parsed.events.len()), count(parsed.refused.len()));
        for (result, records) in RESULTS.iter().zip([published, parsed.ignored, refused]) {
            self.records.with_label_values(&[result]).inc_by(records);
        }
        self.last_success.set(now_us / 1_000_000);
    }
}
