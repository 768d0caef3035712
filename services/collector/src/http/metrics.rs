//! The receiver's metrics, on the admin port.

use prometheus::Registry;
use service_kit::metrics::Registrar;

service_kit::metrics! {
    /// Requests by the class of their answer.
    #[derive(Clone, Debug)]
    pub(crate) struct RequestMetrics {
        requests: counters("lakegauge_collector_requests_total",
            "Requests of other systems, by the class of the answer: 2xx, 4xx (the sender has to \
             change something), 5xx (the sender tries again).", &["status"]),
    }
}

/// The classes of answers.
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

impl RequestMetrics {
    /// Registers the metrics with every known label at 0, because a counter whose first value is 1
    /// has not increased.
    ///
    /// # Errors
    ///
    /// A metric's name is taken, which is a programming error.
    pub(crate) fn of(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::register(Registrar::from(registry))?;
        for class in CLASSES {
            metrics.requests.with_label_values(&[class]);
        }
        Ok(metrics)
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        let class = match status {
            200..=299 => "2xx",
            300..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[class]).inc();
    }
}
