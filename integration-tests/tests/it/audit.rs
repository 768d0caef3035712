//! `lakegauge audit`: says well of what is well, and names what is not.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::PublisherLimits;
use domain::Side;
use integration_tests::executable;
use integration_tests::pipeline::{Part, Pipeline, Traffic};
use integration_tests::waiting::until;
use serde_json::Value;
use wire::Sealed;

/// Runs it, and gives its exit status and its certificate.
pub(crate) fn audit(pipeline: &Pipeline, more: &[&str]) -> (Option<i32>, Value) {
    audit_at(pipeline, &pipeline.nats.url(), more)
}

fn audit_at(pipeline: &Pipeline, nats: &str, more: &[&str]) -> (Option<i32>, Value) {
    let url = pipeline.database.reader_url();
    let arguments = ["audit", "--json", "--database-url", &url, "--nats-url", nats];
    let ended = executable::run(arguments.iter().chain(more), b"").unwrap();
    let certificate = serde_json::from_str(&ended.stdout);
    (ended.status, certificate.unwrap_or_else(|_| panic!("{ended:?}")))
}

/// The archive is well, by streams and ledger.
pub(crate) fn is_well(pipeline: &Pipeline) -> Value {
    let (status, certificate) = audit(pipeline, &[]);
    assert_eq!((status, &certificate["well"]), (Some(0), &true.into()), "{certificate:#}");
    assert_eq!(certificate["unchecked"], Value::Array(Vec::new()));
    certificate
}

/// Trouble, first and last message of each finding.
fn found(pipeline: &Pipeline) -> Vec<(String, Option<u64>, Option<u64>)> {
    let (status, certificate) = audit(pipeline, &[]);
    let findings = certificate["findings"].as_array().unwrap();
    assert_eq!((status, findings.is_empty()), (Some(1), false), "{certificate:#}");
    findings
        .iter()
        .map(|finding| {
            let trouble = finding["trouble"].as_str().unwrap().to_owned();
            (trouble, finding["first"].as_u64(), finding["last"].as_u64())
        })
        .collect()
}

/// A garbage message, in a stream of the lake.
async fn publish_garbage(pipeline: &Pipeline) {
    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    let garbage = Sealed::new("lake.access.0.x".to_owned(), "application/json", "garbage", 1);
    publisher.publish(garbage).await.unwrap();
    publisher.flush().await.unwrap();
}

/// A pipeline at rest after some seconds of traffic in which the archiver was killed.
async fn after_traffic() -> Pipeline {
    let expected = ("ARCHIVER_LEDGER_INTERVAL_MS", "100");
    let mut pipeline = Pipeline::start(&[expected]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
    let traffic = |events, rate| Traffic { events, rate, format: "bincode" };
    let simulators = [
        pipeline.simulate(Side::Lake, traffic(12_000, 4_000)).unwrap(),
        pipeline.simulate(Side::Warehouse, traffic(4_000, 1_500)).unwrap(),
    ];
    for rows in [2_000, 6_000] {
        let sql = "select count(*) from lakegauge.lake_access";
        until("rows", async || Ok(pipeline.database.number(sql)? >= rows)).await.unwrap();
        pipeline.kill(Part::Archiver).unwrap();
        pipeline.run(Part::Archiver).unwrap();
    }
    for simulator in simulators {
        simulator.finish().await.unwrap();
    }
    publish_garbage(&pipeline).await;
    pipeline.rest().await.unwrap();
    pipeline
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_is_well_after_kills_and_names_each_thing_that_is_wrong() {
    let pipeline = after_traffic().await;
    let certificate = is_well(&pipeline);
    let lake = &certificate["streams"][0];
    assert_eq!((&lake["stream"], &lake["rows"]), (&"LAKE_0".into(), &12_000.into()), "{lake:#}");
    assert_eq!((&lake["dead"], &lake["letters"]), (&1.into(), &1.into()));
    assert_eq!(lake["events_read_again"], lake["events"], "the stream still has everything");
    assert_eq!(audit(&pipeline, &[]).1["digest"], certificate["digest"]);
    // The archiver shows the same.
    let archiver = pipeline.part(Part::Archiver).unwrap();
    let ledger = "lakegauge_archive_ledger_events_total{result=\"inserted\",stream=\"LAKE_0\"}";
    until("the ledger's sums", async || Ok(archiver.metric(ledger) == Some(12_000.0)))
        .await
        .unwrap();
    let open = "lakegauge_archive_dead_letters_open{reason=\"undecodable\",stream=\"LAKE_0\"}";
    until("the open letter", async || Ok(archiver.metric(open) == Some(1.0))).await.unwrap();
    for zero in ["ledger_gaps", "declared_lost_messages_total"] {
        let series = format!("lakegauge_archive_{zero}{{stream=\"LAKE_0\"}}");
        assert_eq!(archiver.metric(&series), Some(0.0), "{series}");
    }

    let database = &pipeline.database;
    let sql = |sql: &str| database.sql(sql).unwrap();
    // A range in the middle of the lake's ledger, by which what is wrong is named.
    let middle = "select first, last from lakegauge.ledger as l join lakegauge.stream as s \
        on s.id = l.stream where s.name = 'LAKE_0' and inserted > 0 order by last offset 1 limit 1";
    let middle = sql(middle).remove(0);
    let (first, last) = middle.split_once('|').unwrap();
    let range = (Some(first.parse().unwrap()), Some(last.parse().unwrap()));
    let in_range = format!(
        "stream = (select id from lakegauge.stream where name = 'LAKE_0') \
        and sequence between {first} and {last}"
    );
    let named = |trouble: &str| (trouble.to_owned(), range.0, range.1);

    // One row deleted.
    sql(&format!(
        "create table saved as select * from lakegauge.lake_access where {in_range} limit 1;
        delete from lakegauge.lake_access as e using saved
            where e.occurred_at = saved.occurred_at and e.id = saved.id"
    ));
    assert_eq!(found(&pipeline), [named("missing")]);
    sql("insert into lakegauge.lake_access select * from saved");
    is_well(&pipeline);

    // One row there twice, without the key that forbids it.
    sql("alter table lakegauge.lake_access drop constraint lake_access_pkey;
        insert into lakegauge.lake_access select * from saved");
    let twice = found(&pipeline);
    assert_eq!(twice, [named("doubled"), ("doubled".to_owned(), None, None)]);
    sql("delete from lakegauge.lake_access as e using saved
            where e.occurred_at = saved.occurred_at and e.id = saved.id;
        insert into lakegauge.lake_access select * from saved");
    is_well(&pipeline);

    // One dead letter deleted.
    sql("create table letter as select * from lakegauge.dead_letter;
        delete from lakegauge.dead_letter");
    assert!(matches!(&found(&pipeline)[..], [(trouble, ..)] if trouble == "missing"));
    sql("insert into lakegauge.dead_letter overriding system value select * from letter");
    is_well(&pipeline);

    // One range of the ledger gone, without the keys that forbid it.
    sql(&format!(
        "alter table lakegauge.ledger drop constraint ledger_stream_epoch_previous_fkey;
        delete from lakegauge.ledger where stream =
            (select id from lakegauge.stream where name = 'LAKE_0') and first = {first}"
    ));
    let skipped = found(&pipeline);
    assert_eq!(skipped[0], named("skipped"), "{skipped:?}");
    assert_eq!(skipped.last().unwrap().0, "stray", "the rows of that range: {skipped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_beside_live_traffic_and_without_the_broker_says_what_it_did_not_check() {
    let mut pipeline = Pipeline::start(&[("ARCHIVER_STREAM_KEEP_S", "0")]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
    let traffic = Traffic { events: 12_000, rate: 3_000, format: "bincode" };
    let simulator = pipeline.simulate(Side::Lake, traffic).unwrap();
    let sql = "select count(*) from lakegauge.lake_access";
    for rows in [1, 4_000, 8_000] {
        until("rows", async || Ok(pipeline.database.number(sql)? >= rows)).await.unwrap();
        is_well(&pipeline);
    }
    simulator.finish().await.unwrap();
    pipeline.rest().await.unwrap();
    let bus = pipeline.bus().await.unwrap();
    until("the stream to be trimmed", async || Ok(bus.stream("LAKE_0").await?.first_sequence > 1))
        .await
        .unwrap();
    // What was trimmed is told from the ledger.
    let certificate = is_well(&pipeline);
    let lake = &certificate["streams"][0];
    assert_eq!(lake["rows"], 12_000, "{lake:#}");
    assert!(lake["events_read_again"].as_u64() < lake["events"].as_u64(), "{lake:#}");

    let (status, certificate) = audit(&pipeline, &["--archive-only"]);
    assert_eq!((status, certificate["unchecked"].as_array().unwrap().len()), (Some(0), 1));
    let nobody = audit_at(&pipeline, "nats://127.0.0.1:1", &["--nats-connect-timeout-ms", "200"]);
    let (status, certificate) = nobody;
    assert_eq!(status, Some(0));
    let unchecked = certificate["unchecked"][0].as_str().unwrap();
    assert!(unchecked.starts_with("the streams: "), "{unchecked}");
}
