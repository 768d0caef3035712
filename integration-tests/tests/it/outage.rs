//! Servers that are away for a while under load, and a stream that is full: seen, and healed
//! without anybody's help.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::time::Duration;

use domain::Side;
use event_store::read_checkpoint;
use integration_tests::pipeline::{Part, Pipeline, Simulator, Traffic, to_f64};
use integration_tests::waiting::until;

use crate::laws;

const TRAFFIC: Traffic = Traffic { events: 24_000, rate: 4_000, format: "json" };
/// The same rate for half a minute: the outages take twenty seconds of it.
const LONG_TRAFFIC: Traffic = Traffic { events: 120_000, ..TRAFFIC };
/// How long a server stays away with `LAKEGAUGE_TEST_FULL`, from when it was noticed on.
const AWAY: Duration = Duration::from_secs(20);
/// About a quarter of the events' bytes: the stream is full long before the end.
const SMALL_STREAM_BYTES: &str = "2000000";

fn is_full() -> bool {
    std::env::var_os("LAKEGAUGE_TEST_FULL").is_some()
}

fn traffic() -> Traffic {
    if is_full() { LONG_TRAFFIC } else { TRAFFIC }
}

/// The outage itself: nothing waits for its end but the services.
async fn stay_away() {
    if is_full() {
        tokio::time::sleep(AWAY).await;
    }
}

async fn start(settings: &[(&str, &str)], parts: &[Part]) -> (Pipeline, Simulator) {
    let mut pipeline = Pipeline::start(settings).await.unwrap();
    for part in parts {
        pipeline.run(*part).unwrap();
    }
    let simulator = pipeline.simulate(Side::Lake, traffic()).unwrap();
    (pipeline, simulator)
}

/// Waits until so many of the lake's messages are archived.
async fn archived(pipeline: &Pipeline, messages: u64) {
    let archived = until("archived messages", async || {
        let mark = read_checkpoint(&pipeline.database.archiver(), "LAKE_0").await?;
        Ok(mark.is_some_and(|mark| mark.sequence >= messages))
    });
    archived.await.unwrap();
}

/// Waits until a service says that it does not do its job.
async fn not_ready(pipeline: &Pipeline, part: Part) {
    let noticed = until("notice of the outage", async || {
        Ok(pipeline.part(part)?.readiness().is_some_and(|(status, _)| status == 503))
    });
    noticed.await.unwrap();
}

async fn nothing_is_lost(pipeline: &Pipeline, simulator: Simulator) {
    let expected = simulator.finish().await.unwrap();
    assert_eq!(expected["published"], traffic().events);
    let shown = laws::hold(pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &[expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_stopped_under_load_and_the_archiver_catches_up_by_itself() {
    let (mut pipeline, simulator) = start(&[], &[Part::Archiver, Part::Aggregator]).await;
    archived(&pipeline, 20).await;
    pipeline.postgres.stop_immediately().unwrap();
    not_ready(&pipeline, Part::Archiver).await;
    let bus = pipeline.bus().await.unwrap();
    let then = bus.stream("LAKE_0").await.unwrap().last_sequence;
    let position = "lakegauge_aggregator_counted_sequence{stream=\"LAKE_0\"}";
    let counted = until("events that are counted without a database", async || {
        let position = pipeline.part(Part::Aggregator)?.metric(position);
        Ok(position.is_some_and(|position| position >= to_f64(then + 20)))
    });
    counted.await.unwrap();
    stay_away().await;
    pipeline.postgres.start_again().unwrap();
    nothing_is_lost(&pipeline, simulator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed_under_load_and_everybody_goes_on_by_themselves() {
    let (mut pipeline, mut simulator) = start(&[], &[Part::Archiver, Part::Aggregator]).await;
    archived(&pipeline, 20).await;
    pipeline.nats.kill();
    let noticed = until("notice of the producer", async || {
        Ok(simulator.process.readiness().is_some_and(|(status, _)| status == 503))
    });
    noticed.await.unwrap();
    stay_away().await;
    pipeline.nats.restart().await.unwrap();
    assert!(simulator.process.is_running().unwrap(), "it was killed under load");
    nothing_is_lost(&pipeline, simulator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_makes_the_producer_wait_and_say_so_until_the_archiver_is_back() {
    let settings =
        [("NATS_EVENT_STREAM_MAX_BYTES", SMALL_STREAM_BYTES), ("ARCHIVER_STREAM_KEEP_S", "0")];
    let (mut pipeline, simulator) = start(&settings, &[Part::Aggregator]).await;
    let full = until("full stream", async || {
        let metric = simulator
            .process
            .metric("lakegauge_publisher_stream_full{messages=\"events\",stream=\"LAKE_0\"}");
        let (status, why) = simulator.process.readiness().unwrap_or_default();
        Ok(metric == Some(1.0) && status == 503 && why.contains("stream is full"))
    });
    full.await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    nothing_is_lost(&pipeline, simulator).await;
}
