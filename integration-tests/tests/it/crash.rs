//! `kill -9` in the middle: nothing that is shown or kept may tell of it.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::Side;
use integration_tests::pipeline::{Four, Part, Pipeline, STREAMS, Simulator, Traffic, four};
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::laws::{self, Shown};

/// Between two scrapes.
const SCRAPE_EVERY: Duration = Duration::from_millis(10);

/// Lake and warehouse: some seconds, or with `LAKEGAUGE_TEST_FULL` 20 s at 20,000 events/s.
fn traffic() -> [Traffic; 2] {
    let format = "bincode";
    if std::env::var_os("LAKEGAUGE_TEST_FULL").is_some() {
        return [
            Traffic { events: 300_000, rate: 15_000, format },
            Traffic { events: 100_000, rate: 5_000, format },
        ];
    }
    [
        Traffic { events: 24_000, rate: 4_000, format },
        Traffic { events: 8_000, rate: 1_333, format },
    ]
}

/// A pipeline with both services and both simulators at work.
async fn under_load(settings: &[(&str, &str)]) -> (Pipeline, [Simulator; 2]) {
    let mut pipeline = Pipeline::start(settings).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
    let [lake, warehouse] = traffic();
    let simulators = [
        pipeline.simulate(Side::Lake, lake).unwrap(),
        pipeline.simulate(Side::Warehouse, warehouse).unwrap(),
    ];
    (pipeline, simulators)
}

async fn finish(pipeline: &Pipeline, simulators: [Simulator; 2]) -> Shown {
    let mut expected = Vec::new();
    for simulator in simulators {
        expected.push(simulator.finish().await.unwrap());
    }
    let shown = laws::hold(pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &expected);
    shown
}

/// What the same events show when nothing happens.
async fn undisturbed() -> &'static Shown {
    static SHOWN: OnceCell<Shown> = OnceCell::const_new();
    SHOWN
        .get_or_init(async || {
            let (pipeline, simulators) = under_load(&[]).await;
            finish(&pipeline, simulators).await
        })
        .await
}

/// Scrapes all the time, as an impatient Prometheus would.
struct Scraping {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Option<Four>>>,
}

impl Scraping {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                // Half a page, or one without a metric, fails the test here.
                seen.push(four(port).unwrap());
                std::thread::sleep(SCRAPE_EVERY);
            }
            seen
        });
        Self { stop, thread }
    }

    /// What was seen: refused scrapes are `None`.
    fn finish(self) -> Vec<Option<Four>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Waits until a share of the lake's events is counted and a snapshot stands that is not the last
/// word: what a restart has to begin with.
async fn in_the_middle(pipeline: &Pipeline, tenths: u32) {
    let events = f64::from(u32::try_from(traffic()[0].events).unwrap());
    let wanted = events * f64::from(tenths) / 10.0;
    let snapshot = "lakegauge_aggregator_snapshot_sequence{stream=\"LAKE_0\"}";
    let middle = until("middle of the run", async || {
        let counted = pipeline.four()?.is_some_and(|[_, accesses, ..]| accesses >= wanted);
        let snapshots = pipeline.part(Part::Aggregator)?.metric(snapshot);
        Ok(counted && snapshots.is_some_and(|position| position > 0.0))
    });
    middle.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_aggregator_changes_nothing_that_is_shown() {
    let undisturbed = undisturbed().await;
    let (mut pipeline, mut simulators) = under_load(&[]).await;
    let scraping = Scraping::start(pipeline.metrics_port());
    for tenths in [2, 5] {
        in_the_middle(&pipeline, tenths).await;
        pipeline.kill(Part::Aggregator).unwrap();
        pipeline.run(Part::Aggregator).unwrap();
    }
    for simulator in &mut simulators {
        assert!(simulator.process.is_running().unwrap(), "it was killed in the middle");
    }
    let shown = finish(&pipeline, simulators).await;
    let rebuilds = "lakegauge_aggregator_rebuilds_total{stream=\"LAKE_0\"}";
    let rebuilds = pipeline.part(Part::Aggregator).unwrap().metric(rebuilds);
    assert_eq!(rebuilds, Some(0.0), "it went on from its snapshot");
    let seen = scraping.finish();
    assert!(seen.contains(&None), "no scrape met the restart");
    let mut last = Four::default();
    for now in seen.into_iter().flatten() {
        assert!(now[1] >= last[1] && now[3] >= last[3], "a counter went back: {last:?} {now:?}");
        last = now;
    }
    shown.assert_equals(undisturbed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_archiver_in_the_middle_leaves_every_event_once() {
    let undisturbed = undisturbed().await;
    let (mut pipeline, simulators) = under_load(&[]).await;
    for tenths in [2, 4, 6] {
        in_the_middle(&pipeline, tenths).await;
        pipeline.kill(Part::Archiver).unwrap();
        pipeline.run(Part::Archiver).unwrap();
    }
    finish(&pipeline, simulators).await.assert_equals(undisturbed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_snapshot_and_with_a_trimmed_stream_the_archive_gives_the_same_metrics() {
    // Nothing stays in the stream that both services have passed.
    let (mut pipeline, simulators) = under_load(&[("ARCHIVER_STREAM_KEEP_S", "0")]).await;
    let before = finish(&pipeline, simulators).await;
    let bus = pipeline.bus().await.unwrap();
    let trimmed = until("trimmed streams", async || {
        Ok(bus.stream("LAKE_0").await?.first_sequence > 1
            && bus.stream("WAREHOUSE_0").await?.first_sequence > 1)
    });
    trimmed.await.unwrap();
    let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
    for damage in ["no pointer", "a damaged pointer"] {
        pipeline.stop(Part::Aggregator).await.unwrap();
        for stream in STREAMS {
            let subject = format!("$KV.LAKEGAUGE.snapshot.{stream}");
            if damage == "no pointer" {
                let purge = json!({ "filter": subject });
                operator.demand("STREAM.PURGE.KV_LAKEGAUGE", &purge).await.unwrap();
            } else {
                operator.publish(&subject, "no pointer at all").await.unwrap();
            }
        }
        pipeline.run(Part::Aggregator).unwrap();
        laws::hold(&pipeline).await.assert_equals(&before);
        for stream in STREAMS {
            let rebuilds = format!("lakegauge_aggregator_rebuilds_total{{stream=\"{stream}\"}}");
            let rebuilds = pipeline.part(Part::Aggregator).unwrap().metric(&rebuilds);
            assert_eq!(rebuilds, Some(1.0), "{damage}: it was rebuilt from the archive");
        }
    }
}
