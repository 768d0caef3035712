//! Reads the last hour of this partition's samples, and those that come.
//!
//! The stream of samples is the page's memory: nothing of it is lost with the process.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Read, ReaderSettings};
use service_kit::Clock;

use super::history::{HISTORY_S, SharedHistory};

/// Before reading is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// Samples asked for at a time; one may hold thousands of buckets.
const BATCH_MESSAGES: usize = 256;

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    /// The connection.
    pub(crate) bus: Bus,
    /// The stream of samples.
    pub(crate) name: String,
    /// Samples of other partitions are not ours.
    pub(crate) partition: u16,
    /// Where they go.
    pub(crate) history: SharedHistory,
    /// Says since when.
    pub(crate) clock: Clock,
}

impl Samples {
    /// Fills the history for as long as it is polled. The page does without it while the stream
    /// can't be read.
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

    /// Reads until the stream is another; says how it differs.
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
                        // The archiver keeps its bytes and the reason.
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
