//! The collector's own metrics, on the admin port.

use prometheus::Registry;
use service_kit::metrics::Registrar;

service_kit::metrics! {
    /// What came, and what became of it.
    #[derive(Clone, Debug)]
    pub(crate) struct CollectorMetrics {
        records: counters("lakegauge_collector_records_total",
            "Records that other systems reported, by what became of them: published, ignored (no \
             request to an object), refused (a dead letter).", &["result"]),
        requests: counters("lakegauge_collector_requests_total",
            "Requests of other systems, by the class of the answer: 2xx, 4xx (the sender has to \
             change something), 5xx (the sender tries again).", &["status"]),
        last_success: known_gauge("lakegauge_collector_last_success_timestamp_seconds",
            "When the last request was stored whole."),
    }
}

/// What becomes of a record.
const RESULTS: [&str; 3] = ["published", "ignored", "refused"];
/// Classes of answers.
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

impl CollectorMetrics {
    /// Every known label at 0: a counter that begins at 1 has not increased.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake of ours.
    pub(crate) fn of(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::register(Registrar::from(registry))?;
        for result in RESULTS {
            metrics.records.with_label_values(&[result]);
        }
        for class in CLASSES {
            metrics.requests.with_label_values(&[class]);
        }
        Ok(metrics)
    }

    /// What was stored of a request, at a time in microseconds since 1970.
    pub(crate) fn stored(&self, published: u64, ignored: u64, refused: u64, now_us: i64) {
        for (result, records) in RESULTS.iter().zip([published, ignored, refused]) {
            self.records.with_label_values(&[result]).inc_by(records);
        }
        self.last_success.set(now_us / 1_000_000);
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        let class = CLASSES[match status {
            200..=299 => 0,
            300..=499 => 1,
            _ => 2,
        }];
        self.requests.with_label_values(&[class]).inc();
    }
}
