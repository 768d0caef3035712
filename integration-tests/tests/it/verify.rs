//! `lakegauge replay --verify`: says identical when it is so, and names what differs when not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use domain::Side;
use integration_tests::executable::Ended;
use integration_tests::pipeline::{Part, Pipeline, Traffic};
use integration_tests::waiting::until;
use serde_json::Value;

const TRAFFIC: [Traffic; 2] = [
    Traffic { events: 12_000, rate: 4_000, format: "bincode" },
    Traffic { events: 4_000, rate: 1_333, format: "json" },
];

/// Verifies as an operator would, with the rights of a reader.
fn verify(pipeline: &Pipeline, arguments: &[&str]) -> Ended {
    let words = ["replay", "--verify"].iter().chain(arguments).copied();
    pipeline.tool(words, &pipeline.database.reader_url()).unwrap()
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr))
}

fn assert_identical(ended: &Ended) {
    assert!(ended.stdout.ends_with("\nidentical\n"), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.status, Some(0));
}

/// Both services and some traffic with late events and duplicates, both killed in the middle.
async fn with_restarts() -> Pipeline {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let simulators = [Side::Lake, Side::Warehouse].into_iter().zip(TRAFFIC);
    let simulators: Vec<_> =
        simulators.map(|(side, traffic)| pipeline.simulate(side, traffic).unwrap()).collect();
    for part in [Part::Aggregator, Part::Archiver] {
        let counted = until("traffic", async || {
            Ok(pipeline.four()?.is_some_and(|[_, accesses, ..]| accesses > 2_000.0))
        });
        counted.await.unwrap();
        pipeline.kill(part).unwrap();
        pipeline.run(part).unwrap();
    }
    for simulator in simulators {
        simulator.finish().await.unwrap();
    }
    pipeline.rest().await.unwrap();
    pipeline
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_identical_and_names_the_first_row_window_or_sample_that_was_changed() {
    let pipeline = with_restarts().await;
    let database = &pipeline.database;
    let ended = verify(&pipeline, &[]);
    assert_identical(&ended);
    let report = json(&verify(&pipeline, &["--json"]));
    assert_eq!(report["identical"], true);
    for stream in report["streams"].as_array().unwrap() {
        assert!(stream["snapshot"].is_array(), "compared with a snapshot: {stream}");
        assert!(stream["samples"].as_u64().unwrap() > 0, "{stream}");
    }
    let rows = "select (select count(*) from lakegauge.lake_access)
        + (select count(*) from lakegauge.warehouse_query)";
    let sides = report["sides"].as_array().unwrap();
    let compared: i64 = sides.iter().map(|side| side["rows"].as_i64().unwrap()).sum();
    assert_eq!(compared, database.number(rows).unwrap());
    assert_eq!(report["not_compared"].as_array().unwrap().len(), 0, "{report}");

    // One change by hand after another; each is taken back.
    for (change, back, words) in [
        (
            "update lakegauge.lake_access set bytes = bytes + 1 where (occurred_at, id) =
                (select occurred_at, id from lakegauge.lake_access order by 1, 2 limit 1)",
            "update lakegauge.lake_access set bytes = bytes - 1 where (occurred_at, id) =
                (select occurred_at, id from lakegauge.lake_access order by 1, 2 limit 1)",
            &["DIFFERS: state of LAKE_0 at epoch 1", "DIFFERS: lake window of 10 s from 2025-"][..],
        ),
        (
            "update lakegauge.warehouse_window set rows_processed = rows_processed + 1
                where length_s = 60",
            "update lakegauge.warehouse_window set rows_processed = rows_processed - 1
                where length_s = 60",
            &["DIFFERS: warehouse window of 60 s from 2025-"],
        ),
        (
            "update lakegauge.lake_window set bucket_max = bucket_max - 1
                where length_s = 10 and sketch is null",
            "update lakegauge.lake_window set bucket_max = bucket_max + 1
                where length_s = 10 and sketch is null",
            &["its sketch is not that of the rows"],
        ),
        (
            "update lakegauge.sample set records = records + 1 where records is not null",
            "update lakegauge.sample set records = records - 1 where records is not null",
            &["DIFFERS: sample of WAREHOUSE_0 at epoch 1, sequence "],
        ),
    ] {
        database.sql(change).unwrap();
        let ended = verify(&pipeline, &[]);
        assert_eq!(ended.status, Some(1), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.ends_with("\nnot identical\n"), "{}", ended.stdout);
        for words in words {
            assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
        }
        database.sql(back).unwrap();
    }
    assert_identical(&verify(&pipeline, &[]));

    // What the archive declares is said, and is no difference.
    let declare = "insert into lakegauge.declared_loss (stream, epoch, first, last)
        select id, 1, 1000000, 1000009 from lakegauge.stream where name = 'LAKE_0'";
    database.sql(declare).unwrap();
    let ended = verify(&pipeline, &[]);
    assert_identical(&ended);
    let words = "declared: LAKE_0: messages 1000000 to 1000009 of epoch 1 were deleted";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);

    // A row that is gone can't be taken back.
    let delete = "delete from lakegauge.warehouse_query where (occurred_at, id) =
        (select occurred_at, id from lakegauge.warehouse_query order by 1, 2 limit 1)";
    database.sql(delete).unwrap();
    let ended = verify(&pipeline, &[]);
    assert_eq!(ended.status, Some(1));
    for words in ["DIFFERS: state of WAREHOUSE_0", "DIFFERS: warehouse window of 10 s from 2025-"] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_beside_live_traffic_and_without_a_bus() {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let mut simulators: Vec<_> = [Side::Lake, Side::Warehouse]
        .into_iter()
        .zip(TRAFFIC)
        .map(|(side, traffic)| pipeline.simulate(side, traffic).unwrap())
        .collect();
    let snapshots = ["LAKE_0", "WAREHOUSE_0"]
        .map(|stream| format!("lakegauge_aggregator_snapshot_sequence{{stream=\"{stream}\"}}"));
    let stored = until("snapshots", async || {
        let aggregator = pipeline.part(Part::Aggregator)?;
        Ok(snapshots.iter().all(|series| aggregator.metric(series).is_some_and(|at| at > 0.0)))
    });
    stored.await.unwrap();
    for simulator in &mut simulators {
        assert!(simulator.process.is_running().unwrap(), "there is traffic");
    }
    assert_identical(&verify(&pipeline, &[]));
    for simulator in simulators {
        simulator.finish().await.unwrap();
    }
    pipeline.rest().await.unwrap();
    let with_bus = json(&verify(&pipeline, &["--json"]));
    let ended = verify(&pipeline, &["--no-snapshot", "--json"]);
    assert_eq!(ended.status, Some(0));
    let without = json(&ended);
    let said = without["not_compared"].to_string();
    assert!(said.contains("LAKE_0: no snapshot: --no-snapshot was given"), "{said}");
    assert_eq!(without["digest"], with_bus["digest"], "the same archive, the same fold");
}
