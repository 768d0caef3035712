//! What people see while a part of the pipeline is away: at the top of the page's numbers, in
//! `lakegauge top`, in `/readyz` and in metrics; and that it is over afterwards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use integration_tests::{
    http,
    pipeline::{Part, Pipeline},
    process::Process,
    proxy::Weather,
    raw_nats::RawNats,
    waiting::until,
};
use serde_json::Value;

/// A pipeline that archives and counts what two simulators send.
async fn running(settings: &[(&str, &str)]) -> (Pipeline, [Process; 2]) {
    let mut pipeline = Pipeline::start(settings).await.unwrap();
    let simulators = run(&mut pipeline).await;
    (pipeline, simulators)
}

async fn run(pipeline: &mut Pipeline) -> [Process; 2] {
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let mut simulate = |side| pipeline.spawn_tool(&["simulate", side, "--rate", "100"]).unwrap();
    let simulators = [simulate("lake"), simulate("warehouse")];
    well(pipeline).await;
    simulators
}

/// What `/api/now` says; nothing while nobody answers.
fn now(pipeline: &Pipeline) -> Option<Value> {
    let (_, text) = http::get(pipeline.metrics_port(), "/api/now").ok()?;
    serde_json::from_str(&text).ok()
}

fn incident(pipeline: &Pipeline, kind: &str) -> Option<Value> {
    let now = now(pipeline)?;
    now["incidents"].as_array()?.iter().find(|incident| incident["kind"] == kind).cloned()
}

fn states(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let now = now(pipeline).unwrap_or_default();
    let parts = now["parts"].as_array().cloned().unwrap_or_default();
    let text = |part: &Value, key: &str| part[key].as_str().unwrap().to_owned();
    parts.iter().map(|part| (text(part, "name"), text(part, "state"))).collect()
}

/// Waits until every part is well, and nothing is wrong.
async fn well(pipeline: &Pipeline) {
    let services = ["NATS", "PostgreSQL", "aggregator", "archiver", "lake-simulator"];
    let waited = until("a pipeline that is well", async || {
        let (now, states) = (now(pipeline).unwrap_or_default(), states(pipeline));
        let is_quiet = now["incidents"].as_array().is_some_and(Vec::is_empty);
        let is_well = |name: &str| states.get(name).is_some_and(|state| state == "well");
        Ok(is_quiet && now["ready"] == true && services.iter().all(|name| is_well(name)))
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {:#}", now(pipeline).unwrap_or_default()));
}

/// Waits until the incident is told, here and by `top`, and gives it.
async fn told(pipeline: &Pipeline, kind: &str) -> Value {
    let mut found = None;
    let waited = until(kind, async || {
        found = incident(pipeline, kind);
        Ok(found.is_some())
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {:#}", now(pipeline).unwrap_or_default()));
    let metrics = format!("127.0.0.1:{}", pipeline.metrics_port());
    let top = ["top", "--once", "--metrics-addr", &metrics];
    let name = format!("incident[{kind}]");
    let said = pipeline.tool(top, "").unwrap().stdout;
    let line = said.lines().find(|line| line.starts_with(&name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{said}"));
    assert!(line.contains("since") && line.contains("lost"), "{line}");
    found.unwrap()
}

fn metric(pipeline: &Pipeline, part: Part, name: &str) -> Option<f64> {
    pipeline.part(part).unwrap().metric(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_is_away_is_told_with_how_many_wait_until_it_is_back() {
    let (mut pipeline, _simulators) = running(&[]).await;
    assert_eq!(metric(&pipeline, Part::Archiver, "lakegauge_ready"), Some(1.0));
    assert_eq!(metric(&pipeline, Part::Archiver, "lakegauge_postgres_connected"), Some(1.0));
    pipeline.postgres.stop_immediately().unwrap();
    let incident = told(&pipeline, "postgres_down").await;
    assert_eq!(incident["part"], "PostgreSQL");
    assert!(incident["since_ms"].is_i64() && incident["todo"].as_str().unwrap().contains("Start"));
    // For longer than a hiccup, which is not remembered.
    until("messages that wait", async || {
        let Some(waits) = self::incident(&pipeline, "postgres_down") else { return Ok(false) };
        let at_ms = now(&pipeline).unwrap_or_default()["at_ms"].as_i64().unwrap_or_default();
        let lasted_ms = at_ms - waits["since_ms"].as_i64().unwrap_or(at_ms);
        Ok(waits["waiting_messages"].as_u64() > Some(0) && lasted_ms > 3_000)
    })
    .await
    .unwrap();
    assert_eq!(states(&pipeline)["PostgreSQL"], "failing");
    assert_eq!(states(&pipeline)["NATS"], "well");
    let (status, why) = pipeline.part(Part::Archiver).unwrap().get("/readyz").unwrap();
    assert!(status == 503 && why.contains("[-]postgres no connection since"), "{why}");
    assert_eq!(metric(&pipeline, Part::Archiver, "lakegauge_ready"), Some(0.0));
    assert_eq!(metric(&pipeline, Part::Archiver, "lakegauge_postgres_connected"), Some(0.0));
    let part = "lakegauge_part_ready{part=\"postgres\"}";
    assert_eq!(metric(&pipeline, Part::Archiver, part), Some(0.0));

    pipeline.postgres.start_again().unwrap();
    well(&pipeline).await;
    let now = now(&pipeline).unwrap();
    let over = &now["last_incident"];
    assert_eq!((&over["kind"], &over["part"]), (&"postgres_down".into(), &"PostgreSQL".into()));
    assert!(over["until_ms"].as_i64() > over["since_ms"].as_i64(), "{over}");
    until("a look at the ledger after it", async || {
        let ledger = self::now(&pipeline).unwrap_or_default()["ledger"].clone();
        let is_later = ledger["checked_ms"].as_i64() > over["until_ms"].as_i64();
        Ok(is_later && ledger["well"] == true)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_everything_and_answers_nothing_is_told_as_away() {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    let networks = pipeline.behind_networks().await.unwrap();
    let _simulators = run(&mut pipeline).await;
    networks.postgres.set(Weather::AnswersLost);
    let incident = told(&pipeline, "postgres_down").await;
    // Told by the question whether it answers, and not by an attempt to connect or what stands still.
    assert!(incident["detail"].as_str().unwrap().contains("2000 ms"), "{incident}");
    networks.postgres.cut_and_heal();
    well(&pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_that_is_away_or_hangs_is_the_only_thing_that_is_told() {
    let (mut pipeline, _simulators) = running(&[]).await;
    pipeline.nats.kill();
    let incident = told(&pipeline, "nats_down").await;
    assert!(
        incident["detail"].as_str().unwrap().contains("connecting again by itself"),
        "{incident}"
    );
    assert_eq!(now(&pipeline).unwrap()["incidents"].as_array().unwrap().len(), 1);
    assert_eq!(states(&pipeline)["archiver"], "unknown");
    assert_eq!(metric(&pipeline, Part::Aggregator, "lakegauge_nats_connected"), Some(0.0));
    assert_eq!(metric(&pipeline, Part::Aggregator, "lakegauge_ready"), Some(0.0));
    pipeline.nats.restart().await.unwrap();
    well(&pipeline).await;

    pipeline.nats.pause().unwrap();
    told(&pipeline, "nats_down").await;
    assert_eq!(now(&pipeline).unwrap()["incidents"].as_array().unwrap().len(), 1);
    pipeline.nats.resume().unwrap();
    well(&pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_die_or_end_are_told_and_another_of_the_same_work_stands_in() {
    let (mut pipeline, mut simulators) = running(&[]).await;
    pipeline.kill(Part::Archiver).unwrap();
    let incident = told(&pipeline, "archiver_silent").await;
    assert!(incident["waiting_messages"].is_u64(), "{incident}");
    pipeline.run(Part::Archiver).unwrap();
    well(&pipeline).await;

    simulators[0].kill().unwrap();
    let incident = told(&pipeline, "source_silent").await;
    assert_eq!(incident["part"], "lake-simulator");
    // One that ends on purpose is missed by nobody.
    simulators[1].terminate().unwrap();
    assert!(simulators[1].ended().await.unwrap().success());
    until("a simulator that is forgotten", async || {
        Ok(!states(&pipeline).contains_key("warehouse-simulator"))
    })
    .await
    .unwrap();
    let _again = pipeline.spawn_tool(&["simulate", "lake", "--rate", "100"]).unwrap();
    well(&pipeline).await;

    // A second archiver waits, which is well, and takes over from one that is stopped.
    let second = pipeline.second(Part::Archiver).unwrap();
    until("one that stands by", async || {
        let now = now(&pipeline).unwrap_or_default();
        let parts = now["parts"].as_array().cloned().unwrap_or_default();
        Ok(parts.iter().any(|part| part["name"] == "archiver" && part["state"] == "standby"))
    })
    .await
    .unwrap();
    assert_eq!(second.metric("lakegauge_standby"), Some(1.0));
    assert_eq!(second.metric("lakegauge_ready"), Some(0.0));
    assert_eq!(second.readiness().unwrap().0, 503);
    assert_eq!(now(&pipeline).unwrap()["incidents"], Value::Array(Vec::new()));
    pipeline.pause(Part::Archiver).unwrap();
    told(&pipeline, "standby_only").await;
    pipeline.resume(Part::Archiver).unwrap();
    well_with_a_second(&pipeline).await;
    pipeline.stop(Part::Archiver).await.unwrap();
    well(&pipeline).await;
    assert_eq!(second.metric("lakegauge_standby"), Some(0.0));
    // Killed: until that is told, the page is well by what it heard last.
    drop(second);
    told(&pipeline, "archiver_silent").await;
    pipeline.run(Part::Archiver).unwrap();
    well(&pipeline).await;
    pipeline.stop(Part::Archiver).await.unwrap();
    told(&pipeline, "archiver_stopped").await;
}

/// Waits until nothing is wrong although one archiver stands by.
async fn well_with_a_second(pipeline: &Pipeline) {
    until("a pipeline that is well", async || {
        let now = now(pipeline).unwrap_or_default();
        Ok(now["incidents"].as_array().is_some_and(Vec::is_empty))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_events_are_a_note_and_no_incident() {
    let (pipeline, _simulators) = running(&[]).await;
    let mut raw = RawNats::connect(pipeline.nats.port()).await.unwrap();
    for _ in 0..15 {
        raw.publish("lake.access.0.by-hand", "no event").await.unwrap();
    }
    let mut found = None;
    until("15 dead letters", async || {
        found = incident(&pipeline, "dead_letters");
        Ok(found.as_ref().is_some_and(|found| found["detail"] == "15"))
    })
    .await
    .unwrap();
    assert_eq!(found.unwrap()["severity"], "note");
    assert_eq!(states(&pipeline)["archiver"], "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_waits_for_the_database_is_a_number_and_no_warning() {
    // Longer than the database is held up.
    let (pipeline, _simulators) = running(&[("DATABASE_LOCK_TIMEOUT_MS", "60000")]).await;
    let hold = "begin; lock table lakegauge.ledger in access exclusive mode; select pg_sleep(2.5); \
                commit";
    pipeline.database.sql(hold).unwrap();
    until("a transaction of more than a second", async || {
        let (_, page) = pipeline.part(Part::Archiver)?.get("/metrics")?;
        let count = |end: &str| {
            let series = format!("lakegauge_archiver_commit_duration_seconds_{end}");
            http::value(&page, &series).unwrap_or_default()
        };
        let all = count("count{stream=\"LAKE_0\"}");
        Ok(all > 0.0 && count("bucket{stream=\"LAKE_0\",le=\"1\"}") < all)
    })
    .await
    .unwrap();
    let log = pipeline.part(Part::Archiver).unwrap().log();
    assert_eq!(log.lines().find(|line| line.contains("WARN") || line.contains("slow")), None);
}
