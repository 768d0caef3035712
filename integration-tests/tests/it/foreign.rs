//! Clients that nobody here wrote: they publish and look with nothing but the NATS protocol.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use domain::Side;
use integration_tests::pipeline::{Part, Pipeline, Traffic};
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::Value;

const HAND_WRITTEN: &str = r#"{"type":"lake.access","occurred_at":"2025-11-03T06:43:00.123456Z",
    "bucket":"raw","key":"a/b.parquet","operation":"write","bytes":1048576,
    "object_bytes":1048576,"duration_us":5200,"outcome":"ok","principal":"by hand"}"#;

async fn pipeline() -> (Pipeline, RawNats) {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
    let client = RawNats::connect(pipeline.nats.port()).await.unwrap();
    (pipeline, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_written_by_hand_is_counted_and_archived_with_the_id_of_its_place() {
    let (pipeline, mut client) = pipeline().await;
    let ack = client.publish("lake.access.0.by-hand", HAND_WRITTEN).await.unwrap();
    assert_eq!(ack["stream"], "LAKE_0");
    pipeline.rest().await.unwrap();
    assert_eq!(pipeline.shown().await.unwrap(), [0.001_048_576, 1.0, 0.0, 0.0]);
    let rows = pipeline.database.sql(
        "select bucket, key, operation, bytes, principal, substr(id::text, 15, 1)
         from lakegauge_api.lake_access",
    );
    assert_eq!(rows.unwrap(), ["raw|a/b.parquet|write|1048576|by hand|5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_one_letter_with_its_bytes_and_reason_and_what_follows_is_counted() {
    let (pipeline, mut client) = pipeline().await;
    client.publish("lake.access.0.by-hand", "not an event").await.unwrap();
    client.publish("lake.access.0.by-hand", HAND_WRITTEN).await.unwrap();
    pipeline.rest().await.unwrap();
    assert_eq!(pipeline.shown().await.unwrap(), [0.001_048_576, 1.0, 0.0, 0.0]);
    let letters = pipeline
        .database
        .sql("select reason, convert_from(bytes, 'UTF8'), sequence, counted from lakegauge_api.dead_letter");
    assert_eq!(letters.unwrap(), ["undecodable|not an event|1|f"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_subscriber_reads_the_simulators_events_as_lines_of_json() {
    let (mut pipeline, mut client) = pipeline().await;
    client.subscribe("lake.access.>").await.unwrap();
    let traffic = Traffic { events: 1_000, rate: 1_000, format: "auto" };
    let simulator = pipeline.simulate(Side::Lake, traffic).unwrap();
    let mut events = 0;
    while events < traffic.events {
        let payload = String::from_utf8(client.received().await.unwrap()).unwrap();
        for line in payload.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["type"], "lake.access", "{line}");
            assert!(event["occurred_at"].as_str().unwrap().ends_with('Z'), "{line}");
            events += 1;
        }
    }
    simulator.finish().await.unwrap();
}
