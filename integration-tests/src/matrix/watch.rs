//! Looks at the pipeline from outside, all the time: the order of its effects, and its counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use domain::Progress;
use event_store::{StoreSettings, read_checkpoint};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::pipeline::{Four, four};
use crate::raw_nats::RawNats;

/// Between two looks at the order of effects.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two scrapes.
const SCRAPE_EVERY: Duration = Duration::from_millis(30);
/// What the archiver writes.
const WRITTEN: [&str; 3] = ["LAKE_0", "WAREHOUSE_0", "TELEMETRY"];

/// Watches until it is asked what it saw.
#[derive(Debug)]
pub struct Watch {
    order: AbortOnDropHandle<Result<()>>,
    looks: Arc<AtomicBool>,
    scrapes: JoinHandle<Result<u64>>,
}

impl Watch {
    /// Begins to watch. Must be called within a runtime.
    pub fn start(nats_port: u16, store: StoreSettings, metrics_port: u16) -> Self {
        let looks = Arc::new(AtomicBool::new(true));
        let (order, scrapes) = (Arc::clone(&looks), Arc::clone(&looks));
        Self {
            order: AbortOnDropHandle::new(tokio::spawn(async move {
                watch_order(nats_port, &store, &order).await
            })),
            looks,
            scrapes: std::thread::spawn(move || watch_counters(metrics_port, &scrapes)),
        }
    }

    /// Stops; gives the number of scrapes that were answered.
    ///
    /// # Errors
    ///
    /// What was seen that must never be.
    pub async fn finish(self) -> Result<u64> {
        self.looks.store(false, Ordering::Relaxed);
        self.order.await.context("the watch of the order")??;
        let scrapes = tokio::task::spawn_blocking(move || self.scrapes.join()).await?;
        scrapes.map_err(|_| anyhow!("the scrapes panicked"))?
    }
}

/// Acknowledgement floor and trim are never above the checkpoint, and that never goes back.
async fn watch_order(nats_port: u16, store: &StoreSettings, goes_on: &AtomicBool) -> Result<()> {
    let mut known: BTreeMap<&str, Progress> = BTreeMap::new();
    let mut client = None;
    while goes_on.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut connected = match client.take() {
            Some(client) => client,
            None => match RawNats::connect(nats_port).await {
                Ok(client) => client,
                // It is being killed.
                Err(_) => continue,
            },
        };
        let mut is_whole = true;
        for stream in WRITTEN {
            // The effects first: the checkpoint may only have moved on when it is read.
            let Ok(effects) = effects(&mut connected, stream).await else {
                is_whole = false;
                break;
            };
            let Ok(Some(mark)) = read_checkpoint(store, stream).await else { continue };
            let progress = known.entry(stream).or_default();
            let (acknowledged, first_sequence) = effects;
            progress
                .commit(mark)
                .and_then(|()| acknowledged.map_or(Ok(()), |up_to| progress.acknowledge(up_to)))
                .and_then(|()| progress.trim(first_sequence))
                .with_context(|| format!("stream {stream}"))?;
        }
        client = is_whole.then_some(connected);
    }
    Ok(())
}

/// Up to which sequence a reader acknowledged, and the first sequence that is left.
async fn effects(client: &mut RawNats, stream: &str) -> Result<(Option<u64>, u64)> {
    let consumer = client.ask(&format!("CONSUMER.INFO.{stream}.archiver"), &json!({})).await?;
    let floor = &consumer["ack_floor"];
    // A consumer that was never acknowledged through shows where it began.
    let acknowledged = floor["consumer_seq"].as_u64().filter(|delivered| *delivered > 0);
    let acknowledged = acknowledged.and(floor["stream_seq"].as_u64());
    let info = client.ask(&format!("STREAM.INFO.{stream}"), &json!({})).await?;
    let state: &Value = &info["state"];
    Ok((acknowledged, state["first_seq"].as_u64().context("no first sequence")?))
}

/// No scrape shows half a page, and no counter goes back.
fn watch_counters(port: u16, goes_on: &AtomicBool) -> Result<u64> {
    let (mut last, mut answered) = (Four::default(), 0);
    while goes_on.load(Ordering::Relaxed) {
        std::thread::sleep(SCRAPE_EVERY);
        let Some(now) = four(port)? else { continue };
        ensure!(now[1] >= last[1] && now[3] >= last[3], "a counter went back: {last:?} {now:?}");
        last = now;
        answered += 1;
    }
    Ok(answered)
}
