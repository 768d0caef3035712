//! Replay runs: the same numbers again, beside live and without touching it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bus::{Bus, ReplayRun};
use domain::{Position, Side, Stream};
use integration_tests::executable::Ended;
use integration_tests::pipeline::{Part, Pipeline, Simulator, Traffic, four};
use integration_tests::waiting::until;
use serde_json::Value;
use wire::replay::read_replay;

/// Lake and warehouse. 5 million events at 10,000 events/s would be minutes of traffic only to have
/// something to replay; with `LAKEGAUGE_TEST_FULL` it is some hundred thousand.
fn traffic(rate: u64) -> [Traffic; 2] {
    let times = if std::env::var_os("LAKEGAUGE_TEST_FULL").is_some() { 10 } else { 1 };
    let of = |events: u64, rate| Traffic { events: events * times, rate, format: "bincode" };
    [of(12_000, rate), of(4_000, rate / 3)]
}

const STREAMS: [Stream; 2] = [Stream::lake(0), Stream::warehouse(0)];

async fn started() -> Pipeline {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
    pipeline
}

fn simulate(pipeline: &mut Pipeline, run: &str, rate: u64) -> Vec<Simulator> {
    [Side::Lake, Side::Warehouse]
        .into_iter()
        .zip(traffic(rate))
        .map(|(side, traffic)| pipeline.simulate_run(run, side, traffic).unwrap())
        .collect()
}

/// A pipeline at rest, whose archive holds something with late events and duplicates.
async fn with_an_archive() -> Pipeline {
    let mut pipeline = started().await;
    for simulator in simulate(&mut pipeline, "first", 6_000) {
        simulator.finish().await.unwrap();
    }
    pipeline.rest().await.unwrap();
    pipeline
}

fn replay(pipeline: &Pipeline, arguments: &[&str]) -> Ended {
    let words = ["replay"].iter().chain(arguments).copied();
    pipeline.tool(words, &pipeline.database.reader_url()).unwrap()
}

fn assert_done(ended: &Ended) {
    assert_eq!(ended.status, Some(0), "{}{}", ended.stdout, ended.stderr);
}

/// Events that a run holds of a stream, in its order.
async fn positions(bus: &Bus, run: &ReplayRun, stream: Stream) -> Vec<Position> {
    let name = run.stream(stream);
    let last = bus.stream(&name).await.unwrap().last_sequence;
    let mut positions = Vec::new();
    for sequence in 1..=last {
        let message = bus.message_at(&name, sequence).await.unwrap().unwrap();
        let events = read_replay(&message.headers, &message.payload).unwrap();
        positions.extend(events.into_iter().map(|(position, _)| position));
    }
    positions
}

fn archived(pipeline: &Pipeline, stream: Stream) -> usize {
    let table = match stream.side {
        Side::Lake => "lake_access",
        Side::Warehouse => "warehouse_query",
    };
    let count = format!("select count(*) from lakegauge.{table}");
    usize::try_from(pipeline.database.number(&count).unwrap()).unwrap()
}

/// Each archived event stands in the run once, in counting order.
async fn assert_complete(pipeline: &Pipeline, run: &ReplayRun) {
    let bus = pipeline.bus().await.unwrap();
    for stream in STREAMS {
        let positions = positions(&bus, run, stream).await;
        assert!(positions.is_sorted_by(|one, next| one < next), "{stream}: order");
        assert_eq!(positions.len(), archived(pipeline, stream), "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_beside_live_traffic_ends_with_the_same_numbers_and_live_does_not_notice() {
    let mut pipeline = with_an_archive().await;
    let run = ReplayRun::new("beside").unwrap();
    // Live goes on, while what is archived is replayed and counted.
    let before = pipeline.shown().await.unwrap();
    let mut simulators = simulate(&mut pipeline, "second", 2_000);
    let counter = pipeline.count_replay(&run).unwrap();
    let live = until("live traffic", async || {
        Ok(pipeline.four()?.is_some_and(|[_, accesses, ..]| accesses > before[1]))
    });
    live.await.unwrap();
    for simulator in &mut simulators {
        assert!(simulator.process.is_running().unwrap(), "live goes on");
    }
    assert_done(&replay(&pipeline, &["beside", "--speed", "max"]));
    for simulator in simulators {
        simulator.finish().await.unwrap();
    }
    pipeline.rest().await.unwrap();
    let live = pipeline.shown().await.unwrap();
    // The rest of what live has counted; the run goes on.
    let ended = replay(&pipeline, &["beside"]);
    assert_done(&ended);
    assert!(ended.stdout.contains("after epoch 1, sequence"), "it went on: {}", ended.stdout);
    assert_complete(&pipeline, &run).await;
    let same = until("the same numbers", async || Ok(four(counter.metrics)? == Some(live)));
    same.await.unwrap();
    // Live counted what was published, not what was replayed, and its proof still holds.
    pipeline.rest().await.unwrap();
    assert_eq!(pipeline.shown().await.unwrap(), live);
    let verified = pipeline.tool(["replay", "--verify"], &pipeline.database.reader_url());
    assert_done(&verified.unwrap());

    // Another counter begins with the snapshot or the run, to the same end.
    drop(counter);
    let again = pipeline.count_replay(&run).unwrap();
    let same = until("the same numbers again", async || Ok(four(again.metrics)? == Some(live)));
    same.await.unwrap();
    drop(again);
    assert_done(&replay(&pipeline, &["--remove", "beside"]));
    let bus = pipeline.bus().await.unwrap();
    for name in STREAMS.map(|stream| run.stream(stream)).into_iter().chain([run.samples()]) {
        assert!(bus.stream(&name).await.is_err(), "{name} is gone");
        assert_eq!(bus.snapshots().pointer(&name).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_killed_goes_on_and_gives_each_event_once() {
    let mut pipeline = with_an_archive().await;
    let run = ReplayRun::new("killed").unwrap();
    let bus = pipeline.bus().await.unwrap();
    // Paced, so that there is a middle to be killed in.
    let words = ["replay", "killed", "--speed", "4x"];
    for wanted in [2, 4] {
        let running = pipeline.spawn_tool(&words).unwrap();
        let middle = until("some of the run", async || {
            let status = bus.stream(&run.stream(Stream::lake(0))).await;
            Ok(status.is_ok_and(|status| status.last_sequence >= wanted))
        });
        middle.await.unwrap();
        // `kill -9`.
        drop(running);
    }
    let last = bus.stream(&run.stream(Stream::lake(0))).await.unwrap().last_sequence;
    assert!(positions(&bus, &run, Stream::lake(0)).await.len() < archived(&pipeline, STREAMS[0]));
    assert_done(&replay(&pipeline, &["killed", "--speed", "max"]));
    assert!(bus.stream(&run.stream(Stream::lake(0))).await.unwrap().last_sequence > last);
    assert_complete(&pipeline, &run).await;
    // Once more changes nothing, and other events don't mix with it.
    let ended = replay(&pipeline, &["killed", "--json"]);
    assert_done(&ended);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["LAKE_0"]["events"], 0);
    let other = replay(&pipeline, &["killed", "--kind", "query"]);
    assert_eq!(other.status, Some(1));
    assert!(other.stderr.contains("run killed replays everything"), "{}", other.stderr);
    assert_complete(&pipeline, &run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_larger_than_its_stream_flows_through_it_as_it_is_counted() {
    let mut pipeline = with_an_archive().await;
    let run = ReplayRun::new("small").unwrap();
    let counter = pipeline.count_replay(&run).unwrap();
    // Room for two messages and a half of some thirty.
    let words = ["small", "--stream-max-bytes", "700000", "--nats-request-timeout-ms", "2000"];
    assert_done(&replay(&pipeline, &words));
    let live = pipeline.shown().await.unwrap();
    until("the same numbers", async || Ok(four(counter.metrics)? == Some(live))).await.unwrap();
    let bus = pipeline.bus().await.unwrap();
    let status = bus.stream(&run.stream(Stream::lake(0))).await.unwrap();
    assert!(status.first_sequence > 1, "it was trimmed: {status:?}");
    // It still knows how far it is.
    let told: Value =
        serde_json::from_str(&replay(&pipeline, &["small", "--json"]).stdout).unwrap();
    assert_eq!(told["LAKE_0"]["events"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_counts_what_the_filters_take_and_publishes_nothing() {
    let pipeline = with_an_archive().await;
    let bus = pipeline.bus().await.unwrap();
    let count = |arguments: &[&str], stream: &str| {
        let words: Vec<&str> = ["--dry-run", "--json"].iter().chain(arguments).copied().collect();
        let ended = replay(&pipeline, &words);
        assert_done(&ended);
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        told[stream]["events"].as_i64()
    };
    let rows = |condition: &str| {
        let sql = format!("select count(*) from lakegauge.lake_access where {condition}");
        Some(pipeline.database.number(&sql).unwrap())
    };
    assert_eq!(count(&[], "LAKE_0"), rows("true"));
    assert_eq!(count(&["--kind", "query"], "LAKE_0"), None);
    assert_eq!(count(&["--stream", "LAKE_0"], "WAREHOUSE_0"), None);
    let bucket = pipeline.database.value("select min(bucket) from lakegauge.lake_access").unwrap();
    assert_eq!(count(&["--bucket", &bucket], "LAKE_0"), rows(&format!("bucket = '{bucket}'")));
    assert_eq!(count(&["--bucket", &bucket], "WAREHOUSE_0"), Some(0));
    let middle = "2025-11-03T12:00:01Z";
    let since = count(&["--since", middle], "LAKE_0");
    assert_eq!(since, rows(&format!("occurred_at >= '{middle}'")));
    let until = count(&["--until", middle], "LAKE_0");
    assert_eq!(until, rows(&format!("occurred_at < '{middle}'")));
    assert!(since > Some(0) && until > Some(0), "{since:?} {until:?}");
    let run = ReplayRun::new("nothing").unwrap();
    assert!(bus.stream(&run.stream(Stream::lake(0))).await.is_err());
    let wrong = replay(&pipeline, &["No.Name"]);
    assert_eq!(wrong.status, Some(64), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_is_asked_to_begins_from_the_archive_with_the_same_numbers() {
    let mut pipeline = with_an_archive().await;
    let before = pipeline.shown().await.unwrap();
    pipeline.stop(Part::Aggregator).await.unwrap();
    pipeline.set("AGGREGATOR_FROM_ARCHIVE", "true");
    // What was rebuilt is kept at once, not at the first interval.
    pipeline.set("SNAPSHOT_INTERVAL_MS", "3600000");
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.rest().await.unwrap();
    assert_eq!(pipeline.shown().await.unwrap(), before);
    for stream in STREAMS {
        let of = |name: &str| {
            let series = format!("lakegauge_aggregator_{name}{{stream=\"{stream}\"}}");
            pipeline.part(Part::Aggregator).unwrap().metric(&series)
        };
        assert_eq!(of("rebuilds_total"), Some(1.0));
        let stored = until("a snapshot", async || Ok(of("snapshot_sequence") > Some(0.0)));
        stored.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sent_an_event_is_kept_and_what_one_sent_is_replayed_alone() {
    let mut pipeline = with_an_archive().await;
    pipeline.set("SIMULATE_LAKE_SOURCE", "store-two");
    let [lake, _] = traffic(6_000);
    let simulator = pipeline.simulate_run("second", Side::Lake, lake).unwrap();
    simulator.finish().await.unwrap();
    pipeline.rest().await.unwrap();
    // The writer begins again: a name keeps its number.
    pipeline.stop(Part::Archiver).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    let simulator = pipeline.simulate_run("third", Side::Lake, lake).unwrap();
    simulator.finish().await.unwrap();
    pipeline.rest().await.unwrap();

    let rows = |source: &str| {
        let of = |view: &str| {
            let sql =
                format!("select count(*) from lakegauge_api.{view} where source = '{source}'");
            pipeline.database.number(&sql).unwrap()
        };
        of("lake_access") + of("lake_inventory")
    };
    assert_eq!(pipeline.database.value("select count(*) from lakegauge.source").unwrap(), "3");
    let nobody = "select count(*) from lakegauge_api.lake_access where source is null";
    assert_eq!(pipeline.database.number(nobody).unwrap(), 0);
    let (first, second) = (rows("lake-simulator"), rows("store-two"));
    assert!(second > first && first > 0, "{first} and {second}");
    for (source, events) in [("lake-simulator", first), ("store-two", second), ("nobody", 0)] {
        let ended = replay(&pipeline, &["--dry-run", "--json", "--source", source]);
        assert_done(&ended);
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(told["LAKE_0"]["events"].as_i64(), Some(events), "{source}");
        assert_eq!(told["WAREHOUSE_0"]["events"].as_i64(), Some(0), "{source}");
    }
    let run = ReplayRun::new("two").unwrap();
    assert_done(&replay(&pipeline, &["two", "--source", "store-two"]));
    let bus = pipeline.bus().await.unwrap();
    let replayed = positions(&bus, &run, Stream::lake(0)).await;
    assert_eq!(i64::try_from(replayed.len()).unwrap(), second);
    assert_eq!(replay(&pipeline, &["two", "--source", "other"]).status, Some(1));
}
