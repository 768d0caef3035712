//! Looks at the pipeline from outside, all the time: the order of its effects, its counters, and
//! whether it says that all is well while something waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use domain::EffectOrder;
use event_store::{StoreSettings, read_checkpoint};
use serde_json::{Value, json};
use service_kit::Clock;
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use crate::http::{get, metric};
use crate::pipeline::{Four, Part, STREAMS, four};
use crate::raw_nats::RawNats;

/// Between two looks at the order of effects.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two scrapes.
const SCRAPE_EVERY: Duration = Duration::from_millis(30);
/// Between two looks at what waits.
const WAITING_EVERY: Duration = Duration::from_millis(250);
/// A service that stands still for so long while messages wait says so. Above every pause of a
/// fault, with the longest of the waits for an answer that the services of a round have.
const SAID_AFTER: Duration = Duration::from_secs(10);
/// What the archiver writes.
const WRITTEN: [&str; 3] = ["LAKE_0", "WAREHOUSE_0", "TELEMETRY"];

/// Watches until it is asked what it saw.
#[derive(Debug)]
pub struct Watch {
    order: AbortOnDropHandle<Result<()>>,
    honesty: AbortOnDropHandle<Result<()>>,
    looks: Arc<AtomicBool>,
    scrapes: JoinHandle<Result<u64>>,
}

impl Watch {
    /// Begins to watch. Must be called within a runtime.
    pub fn start(
        nats_port: u16,
        store: StoreSettings,
        metrics_port: u16,
        admins: [(Part, u16); 2],
    ) -> Self {
        let looks = Arc::new(AtomicBool::new(true));
        let (order, scrapes) = (Arc::clone(&looks), Arc::clone(&looks));
        let (honesty, archive) = (Arc::clone(&looks), store.clone());
        Self {
            honesty: AbortOnDropHandle::new(tokio::spawn(async move {
                watch_honesty(nats_port, &archive, admins, &honesty).await
            })),
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
        self.honesty.await.context("the watch of what waits")??;
        let scrapes = spawn_blocking(move || self.scrapes.join()).await?;
        scrapes.map_err(|_| anyhow!("the scrapes panicked"))?
    }
}

/// Looks this far apart, also behind one that took long.
fn every(period: Duration) -> Interval {
    let mut looks = tokio::time::interval(period);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// The connection that is left, or another; none: the broker is being killed.
async fn connected(client: Option<RawNats>, port: u16) -> Option<RawNats> {
    match client {
        Some(client) => Some(client),
        None => RawNats::connect(port).await.ok(),
    }
}

/// Acknowledgement floor and trim are never above the checkpoint, and that never goes back.
async fn watch_order(nats_port: u16, store: &StoreSettings, goes_on: &AtomicBool) -> Result<()> {
    let mut known: BTreeMap<&str, EffectOrder> = BTreeMap::new();
    let (mut client, mut looks) = (None, every(LOOK_EVERY));
    while goes_on.load(Ordering::Relaxed) {
        looks.tick().await;
        let Some(mut connected) = connected(client.take(), nats_port).await else { continue };
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
                .with_context(|| {
                    format!(
                        "stream {stream}: acknowledged {acknowledged:?}, first {first_sequence}, \
                         then in the archive {mark:?}"
                    )
                })?;
        }
        client = is_whole.then_some(connected);
    }
    Ok(())
}

/// How long a service has stood at a position of a stream while messages waited behind it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    position: u64,
    since: Duration,
}

/// No service is ready with nothing left to do while messages wait and it does not move.
async fn watch_honesty(
    nats_port: u16,
    store: &StoreSettings,
    admins: [(Part, u16); 2],
    goes_on: &AtomicBool,
) -> Result<()> {
    let clock = Clock::system();
    let mut standing: BTreeMap<(u16, &str), Standing> = BTreeMap::new();
    let (mut client, mut looks) = (None, every(WAITING_EVERY));
    while goes_on.load(Ordering::Relaxed) {
        looks.tick().await;
        let Some(mut connected) = connected(client.take(), nats_port).await else { continue };
        let mut is_whole = true;
        for stream in STREAMS {
            // The positions first: what is stored by then is behind them, or waits.
            let mut positions = Vec::new();
            for (part, port) in admins {
                positions.push((part, port, position(part, port, store, stream).await));
            }
            let info = connected.ask(&format!("STREAM.INFO.{stream}"), &json!({})).await;
            let last = info.ok().and_then(|info| info["state"]["last_seq"].as_u64());
            let Some(last) = last else {
                is_whole = false;
                break;
            };
            for (part, port, position) in positions {
                let Some(position) = position.filter(|position| *position < last) else {
                    standing.remove(&(port, stream));
                    continue;
                };
                let now = clock.monotonic();
                let stands = standing
                    .entry((port, stream))
                    .and_modify(|stands| {
                        if stands.position != position {
                            *stands = Standing { position, since: now };
                        }
                    })
                    .or_insert(Standing { position, since: now });
                let stood = now.saturating_sub(stands.since);
                if stood >= SAID_AFTER {
                    let told = told(part, port, stream).await;
                    ensure!(
                        told != Some((200, 0.0)),
                        "{part:?} is ready with nothing to do at {position} of {stream}, which \
                         reaches to {last}, for {} s",
                        stood.as_secs()
                    );
                }
            }
        }
        client = is_whole.then_some(connected);
    }
    Ok(())
}

/// Where a service stands in a stream; none: it does not say.
async fn position(part: Part, port: u16, store: &StoreSettings, stream: &str) -> Option<u64> {
    match part {
        Part::Archiver => {
            read_checkpoint(store, stream).await.ok().flatten().map(|mark| mark.sequence)
        }
        Part::Aggregator => {
            let series = format!("lakegauge_aggregator_counted_sequence{{stream=\"{stream}\"}}");
            whole(shown(port, series).await?)
        }
    }
}

/// The status of `/readyz`, and how many messages of a stream a service says that wait. Both of one
/// process: none if it was started again in between.
async fn told(part: Part, port: u16, stream: &str) -> Option<(u16, f64)> {
    let service = match part {
        Part::Aggregator => "aggregator",
        Part::Archiver => "archiver",
    };
    let started = || shown(port, "process_start_time_seconds".to_owned());
    let before = started().await?;
    let ready = spawn_blocking(move || get(port, "/readyz")).await.ok()?.ok()?;
    // After readiness, which waits for the first look at it.
    let series = format!("lakegauge_{service}_lag_messages{{stream=\"{stream}\"}}");
    let lag = shown(port, series).await?;
    (started().await? == before).then_some((ready.0, lag))
}

/// One series of an admin port; one that is stopped makes the thread wait.
async fn shown(port: u16, series: String) -> Option<f64> {
    spawn_blocking(move || metric(port, &series)).await.ok().flatten()
}

/// A sequence as a metric shows it.
fn whole(value: f64) -> Option<u64> {
    format!("{value:.0}").parse().ok()
}

/// Up to which sequence a reader acknowledged, and the first sequence that is left.
async fn effects(client: &mut RawNats, stream: &str) -> Result<(Option<u64>, u64)> {
    let consumer = client.ask(&format!("CONSUMER.INFO.{stream}.archiver"), &json!({})).await?;
    // A reader that subscribes again begins where it has read, before that is committed, and the
    // floor shows where it began: an acknowledgement moves it there or further.
    let began = consumer["config"]["opt_start_seq"].as_u64().context("no beginning")?;
    let floor = consumer["ack_floor"]["stream_seq"].as_u64();
    let acknowledged = floor.filter(|acknowledged| *acknowledged >= began);
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
