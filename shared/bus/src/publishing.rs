//! What publishers wait for, as every service shows it: metrics and readiness.

use std::convert::Infallible;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGauge};
use service_kit::{Condition, metrics::clamped};

use crate::progress::PublishProgress;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// What is published, and of which stream.
const LABELS: &[&str] = &["messages", "stream"];

service_kit::metrics! {
    /// The metrics of every publisher of a process.
    #[derive(Clone, Debug)]
    pub struct PublishMetrics {
        oldest: float_gauges("lakegauge_publisher_oldest_unconfirmed_seconds",
            "How long the oldest message that was published and is not acknowledged has waited; 0 \
             where none waits.", LABELS),
        unconfirmed: gauges("lakegauge_publisher_unconfirmed_messages",
            "Messages that were published and are not acknowledged.", LABELS),
        full: gauges("lakegauge_publisher_stream_full",
            "1 while the stream is full and publishing waits.", LABELS),
        acknowledged: counters("lakegauge_publisher_acknowledged_messages_total",
            "Messages acknowledged; it tells what is idle from what waits.", LABELS),
    }
}

impl PublishMetrics {
    /// Those of one publisher: what it publishes (`events`, `samples`, `verdicts`), and of which
    /// stream.
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

/// Shows how a publisher is doing.
#[derive(Debug)]
pub struct PublishWatch {
    progress: Arc<PublishProgress>,
    metrics: PublisherMetrics,
    condition: Condition,
    /// Messages that were acknowledged at the last look.
    acknowledged: AtomicU64,
}

impl PublishWatch {
    /// Shows it by these metrics and this condition, which is the publisher's own. Dropped, it
    /// shows a publisher that waits for nothing.
    pub const fn new(
        progress: Arc<PublishProgress>,
        metrics: PublisherMetrics,
        condition: Condition,
    ) -> Self {
        Self { progress, metrics, condition, acknowledged: AtomicU64::new(0) }
    }

    /// Looks once.
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

    /// Looks for ever.
    pub async fn run(self) -> Infallible {
        loop {
            self.look();
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for PublishWatch {
    fn drop(&mut self) {
        // What was acknowledged since the last look.
        self.look();
        self.metrics.oldest.set(0.0);
        self.metrics.unconfirmed.set(0);
        self.metrics.full.set(0);
    }
}
