//! Reads the samples of this partition: those of the last hour, and new ones.
//!
//! The page keeps its history in the stream of samples, so a restart loses nothing.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Read, ReaderSettings};
use service_kit::Clock;

use super::history::{HISTORY_S, SharedHistory};

/// Pause before reading is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// Samples requested at a time; one may contain thousands of buckets.
const BATCH_MESSAGES: usize = 256;

/// Reads samples into the history.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    /// The connection.
    pub(crate) bus: Bus,
    /// The stream of samples.
    pub(crate) name: String,
    /// Samples of other partitions are skipped.
    pub(crate) partition: u16,
    /// The history that is filled.
    pub(crate) history: SharedHistory,
    /// The clock for the beginning of the last hour.
    pub(crate) clock: Clock,
}

impl Samples {
    /// Fills the history for as long as it is polled. While the stream can't be read, the page has
    /// no history.
    pub(crate) async fn run(self) {
        loop {
            let why = match self.read().await {
                Ok(why) => why,
                Err(error) => format!("{error:#}"),
            };
            tracing::warn!(stream = self.name, why, "reading the samples again for the page");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads until the stream is found to be another one; returns how it differs.
    async fn read(&self) -> anyhow::Result<String> {
        let after = self.position_an_hour_ago().await.context("the last hour of samples")?;
        let mut settings = ReaderSettings::new(&self.name, "aggregator-page", after);
        settings.batch_messages_max = BATCH_MESSAGES;
        let mut reader = self.bus.reader(settings);
        loop {
            match reader.next().await? {
                Read::Message(delivery) => {
                    match wire::read_sample(&delivery.headers, &delivery.payload) {
                        Ok(sample) if sample.stream.partition == self.partition => {
                            self.history.lock().push(&sample);
                        }
                        Ok(_) => {}
                        // The archiver keeps the bytes and the reason.
                        Err(refusal) => tracing::debug!(%refusal, "no sample"),
                    }
                }
                Read::Changed(why) => return Ok(why),
                Read::Subscribed(_) | Read::Deleted { .. } => {}
            }
        }
    }

    /// The sequence before the first message that was stored in the last hour.
    async fn position_an_hour_ago(&self) -> anyhow::Result<u64> {
        let since_ns = (self.clock.now_us() - HISTORY_S * 1_000_000).saturating_mul(1_000);
        let status = self.bus.stream(&self.name).await?;
        let within = status.first_sequence..status.last_sequence.saturating_add(1);
        let first = self.bus.first_stored_since(&self.name, since_ns, within).await?;
        Ok(first.saturating_sub(1))
    }
}
