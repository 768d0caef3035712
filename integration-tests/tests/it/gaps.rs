//! Messages that somebody deletes from the middle of a stream before they were counted.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::PublisherLimits;
use domain::Stream;
use event_store::read_checkpoint;
use integration_tests::pipeline::{Part, Pipeline, four};
use integration_tests::ports::free_port;
use integration_tests::process::Process;
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::json;
use wire::{Format, Subjects, seal};

use crate::laws;
use crate::store_events::access;

const LAKE: &str = "LAKE_0";
const REBUILDS: &str = "lakegauge_aggregator_rebuilds_total{stream=\"LAKE_0\"}";

/// Publishes an access a message.
async fn publish(pipeline: &Pipeline, numbers: std::ops::Range<u64>) {
    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    for number in numbers {
        let event = access(number, 1);
        let subject = Subjects::new("").of(&event.fact, 0, "test");
        publisher.publish(seal(&subject, Format::Json, &[event])).await.unwrap();
    }
    publisher.flush().await.unwrap();
}

/// What an operator does with `nats stream rmm`.
async fn delete(pipeline: &Pipeline, sequence: u64) {
    let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
    let message = json!({ "seq": sequence });
    operator.demand(&format!("STREAM.MSG.DELETE.{LAKE}"), &message).await.unwrap();
}

/// Waits until the archiver has passed a message.
async fn archived(pipeline: &Pipeline, sequence: u64) {
    let passed = until("that checkpoint", async || {
        let mark = read_checkpoint(&pipeline.database.archiver(), LAKE).await?;
        Ok(mark.is_some_and(|mark| mark.sequence == sequence))
    });
    let log = || pipeline.part(Part::Archiver).unwrap().log();
    passed.await.unwrap_or_else(|error| panic!("{error}\n{}", log()));
}

/// Ten messages that both have passed, and the aggregator away.
async fn ten_counted() -> Pipeline {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    publish(&pipeline, 0..10).await;
    pipeline.rest().await.unwrap();
    pipeline.stop(Part::Aggregator).await.unwrap();
    pipeline
}

async fn accesses(pipeline: &Pipeline) -> f64 {
    pipeline.shown().await.unwrap()[1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_deleted_after_it_was_archived_is_counted_from_the_archive() {
    let mut pipeline = ten_counted().await;
    publish(&pipeline, 10..13).await;
    archived(&pipeline, 13).await;
    delete(&pipeline, 12).await;
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.rest().await.unwrap();
    let aggregator = pipeline.part(Part::Aggregator).unwrap();
    let log = aggregator.log();
    assert_eq!(accesses(&pipeline).await, 13.0, "{log}");
    assert_eq!(aggregator.metric(REBUILDS), Some(1.0), "{log}");
    assert!(log.contains("deleted messages were not counted"), "{log}");
    laws::snapshot_equals_the_fold(&pipeline, Stream::lake(0)).await;
    let verified = pipeline.tool(["replay", "--verify"], &pipeline.database.reader_url()).unwrap();
    assert_eq!(verified.status, Some(0), "{}{}", verified.stdout, verified.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_deleted_before_anybody_had_it_is_missing_in_both_and_declared() {
    let mut pipeline = ten_counted().await;
    pipeline.stop(Part::Archiver).await.unwrap();
    publish(&pipeline, 10..13).await;
    delete(&pipeline, 12).await;
    pipeline.run(Part::Archiver).unwrap();
    archived(&pipeline, 13).await;
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.rest().await.unwrap();
    let aggregator = pipeline.part(Part::Aggregator).unwrap();
    assert_eq!(accesses(&pipeline).await, 12.0, "{}", aggregator.log());
    assert_eq!(aggregator.metric(REBUILDS), Some(0.0), "{}", aggregator.log());
    let declared = "select first, last from lakegauge_api.declared_loss";
    assert_eq!(pipeline.database.sql(declared).unwrap(), ["12|12"]);
    laws::snapshot_equals_the_fold(&pipeline, Stream::lake(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_archive_a_deleted_message_is_said_to_be_missing() {
    let mut pipeline = ten_counted().await;
    publish(&pipeline, 10..13).await;
    delete(&pipeline, 12).await;
    let metrics = free_port().unwrap();
    let (nats, address) = (pipeline.nats.url(), format!("127.0.0.1:{metrics}"));
    let settings = [("NATS_URL", nats.as_str()), ("METRICS_ADDR", &address)];
    let aggregator = Process::start(&["aggregate"], &settings).unwrap();
    let shown = until("the metrics", async || {
        Ok(four(metrics)?.is_some_and(|[_, accesses, ..]| accesses.total_cmp(&12.0).is_eq()))
    });
    shown.await.unwrap_or_else(|error| panic!("{error}\n{}", aggregator.log()));
    let log = aggregator.log();
    assert!(log.contains("they are missing in the numbers"), "{log}");
    pipeline.stop(Part::Archiver).await.unwrap();
}
