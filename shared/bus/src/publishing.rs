//! What publishers wait for, shown in the same way by every service: as metrics and readiness.

use std::convert::Infallible;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGauge};
use service_kit::{Condition, metrics::clamped};

use crate::progress::PublishProgress;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// What is published, and to which stream.
const LABELS: &[&str] = &["messages", "stream"];

service_kit::metrics! {
    /// The metrics of every publisher of a process.
    #[derive(Clone, Debug)]
    pub struct PublishMetrics {
        oldest: float_gauges("lakegauge_publisher_oldest_unconfirmed_seconds",
            "How long the oldest published message without an acknowledgement has waited; 0 if \
             none waits.", LABELS),
        unconfirmed: gauges("lakegauge_publisher_unconfirmed_messages",
            "Messages that were published but not acknowledged.", LABELS),
        full: gauges("lakegauge_publisher_stream_full",
            "1 while the stream is full and publishing waits.", LABELS),
        acknowledged: counters("lakegauge_publisher_acknowledged_messages_total",
            "Messages acknowledged. The rate distinguishes an idle publisher from a waiting one.",
            LABELS),
    }
}

impl PublishMetrics {
    /// The metrics of one publisher: what it publishes (`events`, `samples`, `verdicts`), and to
    /// which stream.
    pub fn of(&self, messages: &str, stream: &str) -> PublisherMetrics {
        let labels = [messages, stream];
        PublisherMetrics {
            oldest: self.oldest.with_label_values(&labels),
            unconfirmed: self.unconfirmed.with_label_values(&labels),
            full: self.full.with_label_values(&labels),
            acknowledged: self.acknowledged.with_label_values(&labels),
        }
    }
}

/// The metrics of one publisher.
#[derive(Clone, Debug)]
pub struct PublisherMetrics {
    oldest: Gauge,
    unconfirmed: IntGauge,
    full: IntGauge,
    acknowledged: IntCounter,
}

/// Shows the state of a publisher as metrics and as readiness.
#[derive(Debug)]
pub struct PublishWatch {
    progress: Arc<PublishProgress>,
    metrics: PublisherMetrics,
    condition: Condition,
    /// Messages acknowledged at the last look.
    acknowledged: AtomicU64,
}

impl PublishWatch {
    /// Uses these metrics and this condition, which must be the publisher's own. When the watch is
    /// dropped, the metrics show a publisher that waits for nothing.
    pub const fn new(
        progress: Arc<PublishProgress>,
        metrics: PublisherMetrics,
        condition: Condition,
    ) -> Self {
        Self { progress, metrics, condition, acknowledged: AtomicU64::new(0) }
    }

    /// Updates the metrics and the condition once.
    pub fn look(&self) {
        let (progress, metrics) = (&self.progress, &self.metrics);
        let unconfirmed = progress.unconfirmed();
        metrics.oldest.set(unconfirmed.oldest.as_secs_f64());
        metrics.unconfirmed.set(clamped(unconfirmed.messages));
        metrics.full.set(i64::from(progress.is_full()));
        let acknowledged = progress.messages();
        let before = self.acknowledged.swap(acknowledged, Ordering::Relaxed);
        metrics.acknowledged.inc_by(acknowledged.saturating_sub(before));
        match progress.trouble() {
            Some(trouble) => self.condition.fail(trouble),
            None => self.condition.pass(format!("{acknowledged} messages acknowledged")),
        }
    }

    /// Updates the metrics and the condition again and again.
    pub async fn run(self) -> Infallible {
        loop {
            self.look();
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for PublishWatch {
    fn drop(&mut self) {
        // Counts what was acknowledged since the last look.
        self.look();
        self.metrics.oldest.set(0.0);
        self.metrics.unconfirmed.set(0);
        self.metrics.full.set(0);
    }
}
