//! What is known of a stream from one lease to the next.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use bus::{Bus, StreamEpoch};
use domain::Stream;
use prometheus::Registry;

use crate::{config::Config, health::LiveHealth, metrics::StreamMetrics};

/// What is known of a stream from one lease to the next.
#[derive(Debug)]
pub(crate) struct StreamHistory {
    pub(crate) stream: Stream,
    /// What was seen before the partition was another's says how far a stream reached that was made
    /// again meanwhile.
    pub(crate) epoch: Arc<StreamEpoch>,
    health: LiveHealth,
    /// Shown from the first lease on: who waits for one shows none.
    metrics: OnceLock<StreamMetrics>,
}

impl StreamHistory {
    /// A stream of which nothing was seen yet.
    pub(crate) fn new(bus: &Bus, config: &Config, stream: Stream, health: LiveHealth) -> Self {
        let epoch = Arc::new(StreamEpoch::new(bus, &config.name_of(stream)));
        Self { stream, epoch, health, metrics: OnceLock::new() }
    }

    /// The metrics of the stream, registered when they are asked for first.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake of ours.
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
