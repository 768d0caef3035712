//! What is known about a stream from one lease to the next.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use bus::{Bus, StreamEpoch};
use domain::Stream;
use prometheus::Registry;

use crate::{config::Config, health::LiveHealth, metrics::StreamMetrics};

/// What is known about a stream from one lease to the next.
#[derive(Debug)]
pub(crate) struct StreamHistory {
    pub(crate) stream: Stream,
    /// While another process owns the partition, the stream may be created again. What was seen
    /// before shows how far the old stream reached.
    pub(crate) epoch: Arc<StreamEpoch>,
    health: LiveHealth,
    /// Registered at the first lease, because a waiting aggregator shows no metrics of streams.
    metrics: OnceLock<StreamMetrics>,
}

impl StreamHistory {
    /// A stream of which nothing was seen yet.
    pub(crate) fn new(bus: &Bus, config: &Config, stream: Stream, health: LiveHealth) -> Self {
        let epoch = Arc::new(StreamEpoch::new(bus, &config.name_of(stream)));
        Self { stream, epoch, health, metrics: OnceLock::new() }
    }

    /// The metrics of the stream, registered at the first call.
    ///
    /// # Errors
    ///
    /// A metric's name is taken, which is a programming error.
    pub(crate) fn metrics(&self, registry: &Registry) -> anyhow::Result<StreamMetrics> {
        if let Some(metrics) = self.metrics.get() {
            return Ok(metrics.clone());
        }
        let name = self.stream.to_string();
        let metrics = StreamMetrics::of_stream(registry, &name, self.health.clone());
        let metrics = metrics.context("metrics")?;
        Ok(self.metrics.get_or_init(|| metrics).clone())
    }
}
