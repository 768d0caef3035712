//! Events too old to judge: archived once, counted once, whatever dies in between.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::{Bus, PublisherLimits};
use domain::{Event, EventId, Fact, LakeAccess, Operation, Stream, Timestamp, Verdict};
use integration_tests::executable;
use integration_tests::pipeline::{Four, Part, Pipeline};
use integration_tests::waiting::until;
use service_kit::Clock;
use wire::{Format, MESSAGE_BYTES_MAX, Sealed, Subjects, seal, seal_verdicts};

use crate::laws;

/// 2025-11-03T12:00:00Z.
const START_US: i64 = 1_762_171_200_000_000;
const LAKE: Stream = Stream::lake(0);
const WAITING: &str = "lakegauge_archiver_verdicts_waiting{stream=\"LAKE_0\"}";
const GIVEN: &str = "lakegauge_archiver_verdicts_given_total{stream=\"LAKE_0\"}";
const COUNTED: &str = "lakegauge_aggregator_verdicts_total{result=\"counted\",stream=\"LAKE_0\"}";
/// So that most of what is late is too old to judge.
const SMALL_SETS: &str = "sample_interval_s=1;derived_ids_max=50;windows=10s,60s";

/// A write of one byte to an object of its own, with a derived id.
fn write(number: u64) -> Event {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let fact = Fact::LakeAccess(LakeAccess {
        key: format!("key-{number}"),
        operation: Operation::Write,
        bytes: 1_000_000,
        ..test_support::lake_access()
    });
    let second = i64::try_from(number).unwrap() * 1_000_000;
    Event { id: EventId::from_bytes(id), occurred_at: Timestamp(START_US + second), fact }
}

fn packed(numbers: impl Iterator<Item = u64>) -> Vec<Sealed> {
    let events: Vec<Event> = numbers.map(write).collect();
    let part = |part: &[Event]| seal("lake.access.0.test", Format::Json, part);
    events.chunks(100).map(part).collect()
}

async fn publish(bus: &Bus, messages: Vec<Sealed>) {
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    for message in messages {
        publisher.publish(message).await.unwrap();
    }
    publisher.flush().await.unwrap();
}

/// What so many distinct writes must show: plain arithmetic.
fn shown(writes: u32) -> Four {
    [f64::from(writes) * 1_000_000.0 / 1e9, f64::from(writes), 0.0, 0.0]
}

async fn start(settings: &[(&str, &str)], parts: &[Part]) -> Pipeline {
    let mut all = vec![("NATS_STREAM_RULES", SMALL_SETS)];
    all.extend_from_slice(settings);
    let mut pipeline = Pipeline::start(&all).await.unwrap();
    for part in parts {
        pipeline.run(*part).unwrap();
    }
    let ready = until("first scrape", async || Ok(pipeline.four()?.is_some()));
    ready.await.unwrap();
    pipeline
}

/// Lets the broker's time enter another second, and publishes a dead letter then: a sample is due, so
/// that there is one for the laws to look at.
async fn another_second(pipeline: &Pipeline) {
    let bus = pipeline.bus().await.unwrap();
    let last = bus.stream("LAKE_0").await.unwrap().last_sequence;
    let since_us = bus.message_at("LAKE_0", last).await.unwrap().unwrap().broker_ns / 1_000;
    let clock = Clock::system();
    let later = until("another second", async || Ok(clock.now_us() > since_us + 1_000_000));
    later.await.unwrap();
    let subject = "lake.access.0.test".to_owned();
    publish(&bus, vec![Sealed::new(subject, "application/json", "no event", 1)]).await;
}

/// Everything was counted once, every verdict is noted, and the archive folds to what is shown.
async fn hold(pipeline: &Pipeline, writes: u32) {
    laws::verdicts_rest(pipeline).await;
    another_second(pipeline).await;
    let shown_now = laws::hold(pipeline).await;
    assert_eq!(shown_now.four, shown(writes));
    let rows = "select count(*) from lakegauge.lake_access";
    assert_eq!(pipeline.database.number(rows).unwrap(), i64::from(writes));
}

/// So many writes are shown and archived: what the tests begin with.
async fn settled(pipeline: &Pipeline, writes: u32) {
    let counted = until("what is counted", async || Ok(pipeline.four()? == Some(shown(writes))));
    counted.await.unwrap();
    pipeline.rest().await.unwrap();
}

fn is(pipeline: &Pipeline, part: Part, series: &str) -> Option<f64> {
    pipeline.part(part).unwrap().metric(series)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_derived_events_and_their_duplicates_count_once() {
    let pipeline = start(&[], &[Part::Archiver, Part::Aggregator]).await;
    let bus = pipeline.bus().await.unwrap();
    // The newest first, then all of them twice in another order, across what the sets hold.
    publish(&bus, packed((500..1_000).rev())).await;
    publish(&bus, packed((0..1_000).rev())).await;
    publish(&bus, packed((0..1_000).step_by(3))).await;
    publish(&bus, packed(0..500)).await;
    hold(&pipeline, 1_000).await;
    let given = is(&pipeline, Part::Archiver, GIVEN).unwrap();
    assert!(given >= 500.0, "{given} were too old to judge");
    assert_eq!(is(&pipeline, Part::Aggregator, COUNTED), Some(given));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_verdicts_wait_and_everything_else_goes_on() {
    let mut pipeline = start(&[], &[Part::Archiver, Part::Aggregator]).await;
    let bus = pipeline.bus().await.unwrap();
    publish(&bus, packed(900..1_000)).await;
    settled(&pipeline, 100).await;
    pipeline.postgres.stop_immediately().unwrap();
    publish(&bus, packed(0..400)).await;
    publish(&bus, packed(1_000..1_100)).await;
    let counted = until("what needs no verdict", async || Ok(pipeline.four()? == Some(shown(200))));
    counted.await.unwrap();
    pipeline.postgres.start_again().unwrap();
    hold(&pipeline, 600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_archiver_on_the_verdict_way_counts_nothing_twice_and_loses_nothing() {
    let mut pipeline = start(&[], &[Part::Archiver, Part::Aggregator]).await;
    let bus = pipeline.bus().await.unwrap();
    publish(&bus, packed(9_000..9_100)).await;
    settled(&pipeline, 100).await;
    let mut writes = 100;
    let noted = "select coalesce(max(noted_verdict), 0) from lakegauge.checkpoint";
    let given = "select coalesce(max(next_verdict), 1) - 1 from lakegauge.checkpoint";
    for round in 0..6 {
        let before = pipeline.database.number(given).unwrap();
        publish(&bus, packed(round * 1_000..round * 1_000 + 900)).await;
        writes += 900;
        // Each round kills at the next place: given and perhaps not published, published and
        // perhaps not read back, read back and perhaps not noted.
        let late = until("the place to kill at", async || match round % 3 {
            0 => Ok(pipeline.database.number(given)? > before),
            1 => {
                let message = bus.stream("LAKE_0").await?.last_sequence;
                let newest = bus.message_at("LAKE_0", message).await?;
                Ok(newest.is_some_and(|newest| newest.subject == "lake.late.0"))
            }
            _ => Ok(pipeline.database.number(noted)? > before),
        });
        late.await.unwrap();
        pipeline.kill(Part::Archiver).unwrap();
        if round % 2 == 0 {
            pipeline.kill(Part::Aggregator).unwrap();
            pipeline.run(Part::Aggregator).unwrap();
        }
        pipeline.run(Part::Archiver).unwrap();
    }
    hold(&pipeline, writes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_wait_for_a_full_stream_and_everything_heals() {
    let settings = [
        ("NATS_EVENT_STREAM_MAX_BYTES", "600000"),
        ("ARCHIVER_STREAM_KEEP_S", "0"),
        // Without an aggregator nothing is trimmed until its snapshot passes.
        ("SNAPSHOT_INTERVAL_MS", "100"),
    ];
    let mut pipeline = start(&settings, &[Part::Archiver, Part::Aggregator]).await;
    let bus = pipeline.bus().await.unwrap();
    publish(&bus, packed(9_000..9_100)).await;
    settled(&pipeline, 100).await;
    pipeline.stop(Part::Aggregator).await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    for message in packed(0..3_000) {
        publisher.publish(message).await.unwrap();
    }
    let waiting = until("verdicts that wait for room", async || {
        Ok(publisher.progress().is_full()
            && pipeline.part(Part::Archiver)?.metric(WAITING).is_some_and(|waiting| waiting > 0.0))
    });
    waiting.await.unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    publisher.flush().await.unwrap();
    hold(&pipeline, 3_100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_of_somebody_else_are_ignored_and_said() {
    let mut pipeline = start(&[], &[Part::Archiver, Part::Aggregator]).await;
    let bus = pipeline.bus().await.unwrap();
    publish(&bus, packed(900..1_000)).await;
    settled(&pipeline, 100).await;
    pipeline.stop(Part::Archiver).await.unwrap();
    pipeline.stop(Part::Aggregator).await.unwrap();
    // Numbers that nobody gave, and one that was: out of turn, all of them.
    let verdicts: Vec<Verdict> =
        (2..5).map(|number| Verdict { number, event: write(number) }).collect();
    let sealed = seal_verdicts(&Subjects::default(), LAKE, &verdicts, 0, MESSAGE_BYTES_MAX);
    publish(&bus, sealed.into_iter().collect()).await;
    publish(&bus, packed(0..4)).await;
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    laws::verdicts_rest(&pipeline).await;
    pipeline.rest().await.unwrap();
    assert_eq!(pipeline.shown().await.unwrap(), shown(104));
    let ahead = "lakegauge_aggregator_verdicts_total{result=\"ahead\",stream=\"LAKE_0\"}";
    assert_eq!(is(&pipeline, Part::Aggregator, ahead), Some(3.0));
    let alarm = "lakegauge_archiver_alarms_total{alarm=\"verdict_out_of_turn\",stream=\"LAKE_0\"}";
    assert_eq!(is(&pipeline, Part::Archiver, alarm), Some(3.0));
}

/// How many events, and how many derived ids the sets hold.
fn size() -> (u64, &'static str) {
    if std::env::var_os("LAKEGAUGE_TEST_FULL").is_some() {
        return (2_000_000, "sample_interval_s=1;derived_ids_max=100000");
    }
    (40_000, "sample_interval_s=1;derived_ids_max=2000")
}

/// The line of a source without ids: one of a thousand objects is written. Every tenth request is
/// told a month late.
fn line(number: u64) -> String {
    let late_us = if number.is_multiple_of(10) { 30 * 86_400_000_000 } else { 0 };
    let at = u64::try_from(START_US).unwrap() + number * 1_000 - late_us;
    format!(
        "{{\"type\":\"lake.access\",\"occurred_at\":{at},\"bucket\":\"raw\",\"key\":\"key-{}\",\
         \"operation\":\"write\",\"bytes\":1000000,\"duration_us\":1,\"outcome\":\"ok\",\
         \"principal\":\"\"}}\n",
        number % 1_000
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_late_events_that_is_published_again_in_part_counts_once() {
    let (events, rules) = size();
    let settings = [("NATS_STREAM_RULES", rules), ("ARCHIVER_BATCH_EVENTS_MAX", "10000")];
    let pipeline = start(&settings, &[Part::Archiver, Part::Aggregator]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = pipeline.nats.url();
    // Whole; then its first third again, late ones and others, in which the sets know none.
    for (name, part) in [("whole", events), ("again", events / 3)] {
        let path = folder.path().join(name);
        let text: String = (0..part).map(line).collect();
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let publish = ["publish", "--nats-url", &url, "--source", "requests", &path];
        let ended = executable::run(publish, &[]).unwrap();
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    }
    laws::verdicts_rest(&pipeline).await;
    another_second(&pipeline).await;
    let shown_now = laws::hold(&pipeline).await;
    let accesses = f64::from(u32::try_from(events).unwrap());
    // A thousand objects of one megabyte each.
    assert_eq!(shown_now.four, [1.0, accesses, 0.0, 0.0]);
    let given = is(&pipeline, Part::Archiver, GIVEN).unwrap();
    assert!(given >= accesses / 20.0, "{given} were too old to judge");
    assert_eq!(is(&pipeline, Part::Aggregator, COUNTED), Some(given));
}
