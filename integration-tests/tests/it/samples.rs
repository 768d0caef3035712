//! The history of the metrics has no holes: every interval of the broker's time that was passed has
//! its sample, whoever dies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use anyhow::Context as _;
use bus::{Bus, PublisherLimits, Read, ReaderSettings};
use domain::{Rules, Timestamp};
use event_store::read_checkpoint;
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::{Value, json};
use wire::{Format, seal};

use crate::laws;
use crate::store_events::access;

const LAKE: &str = "LAKE_0";
const TAKEN: &str = "lakegauge_aggregator_samples_total{stream=\"LAKE_0\"}";

/// Sequences of the samples of a stream: those that are due by the messages of a stream on the
/// broker, which may be a copy of it, and those that are kept.
///
/// The law: before each message whose broker time lies in another interval than that of the message
/// before it, the metrics were kept. Of a stream of one epoch; where a message is missing nothing is
/// said of the one behind it.
pub(crate) async fn due_and_kept(
    pipeline: &Pipeline,
    stream: &str,
    copy: &str,
) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let bus = pipeline.bus().await.unwrap();
    let rules = Rules::from_metadata(&bus.stream(stream).await.unwrap().metadata).unwrap();
    let interval_s = i64::from(rules.sample_interval_s);
    let last = bus.stream(copy).await.unwrap().last_sequence;
    let mut reader = bus.reader(ReaderSettings::new(copy, "law", 0));
    let mut due = BTreeSet::new();
    let mut before = (0, 0);
    while before.0 < last {
        let Read::Message(message) = reader.next().await.unwrap() else { continue };
        let slot = Timestamp::from_nanos(message.broker_ns).slot(interval_s);
        if message.sequence == before.0 + 1 && before.0 > 0 && slot != before.1 {
            due.insert(before.0);
        }
        before = (message.sequence, slot);
    }
    let kept = format!(
        "select sample.sequence from lakegauge.sample
            join lakegauge.stream on stream.id = sample.stream where stream.name = '{stream}'"
    );
    let kept = pipeline.database.sql(&kept).unwrap();
    (due, kept.iter().map(|sequence| sequence.parse().unwrap()).collect())
}

/// The same law where nothing was deleted: nothing else is kept.
async fn every_interval_that_was_passed_has_its_sample(pipeline: &Pipeline) {
    let (due, kept) = due_and_kept(pipeline, LAKE, LAKE).await;
    assert!(due.len() > 2, "{due:?}");
    assert_eq!(kept, due, "samples that are kept, and those that were due");
}

/// Publishes one event after another until a condition holds; gives the number of the next.
async fn publish_until(
    pipeline: &Pipeline,
    mut next: u64,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> u64 {
    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    let held = until("what traffic is for", async || {
        publisher.publish(seal("lake.access.0.test", Format::Json, &[access(next, 1)])).await?;
        publisher.flush().await?;
        next += 1;
        condition().await
    });
    held.await.unwrap();
    next
}

/// The broker's time of the newest message.
async fn newest_ns(bus: &Bus) -> anyhow::Result<i64> {
    let last = bus.stream(LAKE).await?.last_sequence;
    let message = bus.message_at(LAKE, last).await?.context("the newest message")?;
    Ok(message.broker_ns)
}

/// Leaves the stream of samples no room for another, or as much as it wants.
async fn limit_samples(operator: &mut RawNats, full: bool) {
    let info = operator.demand("STREAM.INFO.TELEMETRY", &json!({})).await.unwrap();
    let mut config = info["config"].clone();
    let messages = info["state"]["messages"].as_i64().unwrap();
    config["max_msgs"] = if full { messages.max(1).into() } else { Value::from(-1) };
    operator.demand("STREAM.UPDATE.TELEMETRY", &config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_snapshot_is_stored_before_its_samples_are_so_that_none_is_missing_after_a_kill() {
    let mut pipeline = Pipeline::start(&[("SNAPSHOT_INTERVAL_MS", "50")]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let taken = |pipeline: &Pipeline| -> f64 {
        pipeline.part(Part::Aggregator).unwrap().metric(TAKEN).unwrap_or(0.0)
    };
    let next = publish_until(&pipeline, 0, async || Ok(taken(&pipeline) >= 2.0)).await;
    pipeline.rest().await.unwrap();
    // Nobody trims the samples, and there is no room for more.
    pipeline.stop(Part::Archiver).await.unwrap();
    let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
    limit_samples(&mut operator, true).await;
    let bus = pipeline.bus().await.unwrap();
    let stored = bus.stream("TELEMETRY").await.unwrap().last_sequence;
    let known = taken(&pipeline);
    // The sample that can't be stored is due before the message behind this one, at the latest.
    let next = publish_until(&pipeline, next, async || Ok(taken(&pipeline) > known)).await;
    let at_sample = bus.stream(LAKE).await.unwrap().last_sequence;
    // Three seconds of the broker: long enough for many snapshots.
    let since_ns = newest_ns(&bus).await.unwrap();
    let passed = async || Ok(newest_ns(&bus).await? > since_ns + 3_000_000_000);
    let next = publish_until(&pipeline, next, passed).await;
    assert_eq!(bus.stream("TELEMETRY").await.unwrap().last_sequence, stored, "none was stored");
    let (pointer, _) = bus.snapshots().pointer(LAKE).await.unwrap().unwrap();
    assert!(
        pointer.mark.sequence < at_sample,
        "a snapshot at {} is stored, and a sample from before {at_sample} is not",
        pointer.mark.sequence
    );
    pipeline.kill(Part::Aggregator).unwrap();
    limit_samples(&mut operator, false).await;
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    publish_until(&pipeline, next, async || Ok(taken(&pipeline) >= 1.0)).await;
    pipeline.rest().await.unwrap();
    every_interval_that_was_passed_has_its_sample(&pipeline).await;
    laws::keep(&pipeline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rebuilt_from_the_archive_takes_the_samples_that_nobody_took() {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let taken = async |pipeline: &Pipeline| {
        let taken = pipeline.part(Part::Aggregator).unwrap().metric(TAKEN);
        Ok(taken >= Some(2.0))
    };
    let next = publish_until(&pipeline, 0, async || taken(&pipeline).await).await;
    pipeline.rest().await.unwrap();
    pipeline.kill(Part::Aggregator).unwrap();
    // Three intervals pass while nobody counts, and are archived.
    let bus = pipeline.bus().await.unwrap();
    let since_ns = newest_ns(&bus).await.unwrap();
    let passed = async || Ok(newest_ns(&bus).await? > since_ns + 3_000_000_000);
    let next = publish_until(&pipeline, next, passed).await;
    let last = bus.stream(LAKE).await.unwrap().last_sequence;
    let archived = until("what was published in the archive", async || {
        let mark = read_checkpoint(&pipeline.database.archiver(), LAKE).await?;
        Ok(mark.is_some_and(|mark| mark.sequence >= last))
    });
    archived.await.unwrap();
    // The stream has lost its first messages, and nobody has a snapshot.
    let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
    operator.demand("STREAM.PURGE.LAKE_0", &json!({ "seq": 2 })).await.unwrap();
    let pointer = json!({ "filter": format!("$KV.LAKEGAUGE.snapshot.{LAKE}") });
    operator.demand("STREAM.PURGE.KV_LAKEGAUGE", &pointer).await.unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    publish_until(&pipeline, next, async || taken(&pipeline).await).await;
    pipeline.rest().await.unwrap();
    let log = pipeline.part(Part::Aggregator).unwrap().log();
    assert!(log.contains("rebuilt from the archive"), "{log}");
    let (due, kept) = due_and_kept(&pipeline, LAKE, LAKE).await;
    assert!(due.len() > 4 && due.is_subset(&kept), "{:?} of {due:?}", due.difference(&kept));
    laws::keep(&pipeline).await;
}
