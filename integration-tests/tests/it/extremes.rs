//! The largest numbers that are accepted, through the whole pipeline.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use anyhow::Context as _;
use bus::PublisherLimits;
use domain::{Event, Fact, Operation, Outcome, Stream, accept::QUANTITY_MAX};
use integration_tests::http;
use integration_tests::http::get;
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::waiting::until;
use wire::{Format, seal};

use crate::laws;
use crate::store_events::access;

/// Writes of the largest objects, then deletes of most of them.
fn come_and_gone() -> Vec<Event> {
    let keys = (0..1_100).map(|key| (key, Operation::Write));
    let keys = keys.chain((0..1_000).map(|key| (key, Operation::Delete)));
    (0..)
        .zip(keys)
        .map(|(number, (key, operation))| {
            let mut event = access(number, i64::try_from(number).unwrap());
            let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
            access.bucket = "raw".to_owned();
            access.key = key.to_string();
            access.operation = operation;
            access.outcome = Outcome::Ok;
            (access.bytes, access.duration_us) = (QUANTITY_MAX, QUANTITY_MAX);
            access.object_bytes = (operation == Operation::Write).then_some(QUANTITY_MAX);
            event
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_space_is_right_after_the_largest_objects_have_come_and_gone() {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    let events = come_and_gone();
    for (place, part) in events.chunks(300).enumerate() {
        let format = if place.is_multiple_of(2) { Format::Json } else { Format::Bincode };
        publisher.publish(seal("lake.access.0.test", format, part)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    // Once more, one at a time, until time has passed for a sample.
    let mut again = events.iter();
    let sampled = until("a sample", async || {
        let event = again.next().cloned().context("no event is left")?;
        publisher.publish(seal("lake.access.0.test", Format::Json, &[event])).await?;
        publisher.flush().await?;
        let taken = "lakegauge_aggregator_samples_total{stream=\"LAKE_0\"}";
        Ok(pipeline.part(Part::Aggregator)?.metric(taken).is_some_and(|samples| samples > 0.0))
    });
    sampled.await.unwrap();
    pipeline.rest().await.unwrap();

    let (_, page) = get(pipeline.metrics_port(), "/metrics").unwrap();
    let value = |series: &str| http::value(&page, series).unwrap();
    let left_gb = 100.0 * 9_007_199.254_741;
    let said_gb = value("data_lake_espaco_utilizado_gb");
    assert!((said_gb - left_gb).abs() < 1.0, "{said_gb}");
    let said_bytes = value("data_lake_storage_used_bytes{bucket=\"raw\"}");
    assert!((said_bytes / 1e9 - left_gb).abs() < 1.0, "{said_bytes}");
    let moved = "select sum(bytes) from lakegauge.lake_window where length_s = 60";
    let all = 2_100 * u128::from(QUANTITY_MAX);
    assert_eq!(pipeline.database.sql(moved).unwrap(), [all.to_string()]);
    laws::keep(&pipeline).await;
    laws::snapshot_equals_the_fold(&pipeline, Stream::lake(0)).await;
    let verified = pipeline.tool(["replay", "--verify"], &pipeline.database.reader_url()).unwrap();
    assert_eq!(verified.status, Some(0), "{}{}", verified.stdout, verified.stderr);
}
