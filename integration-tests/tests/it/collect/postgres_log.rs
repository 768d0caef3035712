//! The log of a real PostgreSQL.

use std::path::Path;

use integration_tests::pipeline::Pipeline;
use integration_tests::postgres::Database;
use integration_tests::process::Process;
use integration_tests::waiting::until;

use super::pipeline;
use crate::real_input::{log_of, logging_server, totals};

fn follow(pipeline: &mut Pipeline, log: &Path, more: &[&str]) -> Process {
    let state_file = pipeline.folder().join("positions").display().to_string();
    let log = log.display().to_string();
    let words = ["collect", "postgres-log", "--path", &log, "--state-file", &state_file];
    pipeline.spawn_tool(&[&words[..], &["--poll-ms", "50"], more].concat()).unwrap()
}

/// Some statements of each kind, more of them each time.
fn work(database: &Database, round: u32) {
    let rows = 100 * round;
    for statement in [
        format!("create table t{round} (a int, b text)"),
        format!("insert into t{round} select i, 'x' from generate_series(1, {rows}) i"),
        format!("select count(*) from t{round} where a > 50"),
        format!("update t{round} set b = 'y' where a <= 10"),
        format!("prepare p as select a from t{round} where a < $1; execute p(5); execute p(7)"),
        "copy (select 1) to stdout".to_owned(),
    ] {
        database.sql(&statement).unwrap();
    }
    for number in 0..20 {
        database.sql(&format!("select a from t{round} where a = {number}")).unwrap();
    }
    database.sql("select * from missing").unwrap_err();
}

/// How many queries are archived, their rows and their microseconds.
fn archived(pipeline: &Pipeline) -> (u64, u64, u64) {
    let sql = "select concat_ws(' ', count(*), coalesce(sum(rows_processed), 0), \
               coalesce(sum(executed_us), 0)) from lakegauge_api.warehouse_query";
    let found = pipeline.database.sql(sql).unwrap().concat();
    let numbers: Vec<u64> = found.split(' ').map(|number| number.parse().unwrap()).collect();
    let [number, rows, micros] = numbers[..] else { panic!("{found}") };
    (number, rows, micros)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_log_is_archived_to_the_row_and_the_microsecond_though_both_ends_die() {
    let postgres = logging_server();
    let database = postgres.empty_database().unwrap();
    let log = log_of(&database);
    let folder = log.parent().unwrap();
    let mut pipeline = pipeline().await;
    let plans = ["--plans", "--warehouse", "dw"];
    let mut collector = follow(&mut pipeline, folder, &plans);
    collector.ready().await.unwrap();
    work(&database, 1);
    until("some archived", async || Ok(archived(&pipeline).0 > 10)).await.unwrap();
    collector.kill().unwrap();
    work(&database, 2);
    let mut again = follow(&mut pipeline, folder, &plans);
    again.ready().await.unwrap();
    pipeline.nats.kill();
    work(&database, 3);
    let waits = async || Ok(again.readiness().is_some_and(|(status, _)| status == 503));
    until("it says that NATS is away", waits).await.unwrap();
    let unconfirmed =
        "lakegauge_publisher_unconfirmed_messages{messages=\"events\",stream=\"WAREHOUSE_0\"}";
    let reads = async || Ok(again.metric(unconfirmed).is_some_and(|messages| messages > 0.0));
    until("it has read what it can't publish", reads).await.unwrap();
    again.kill().unwrap();
    pipeline.nats.restart().await.unwrap();
    let _last = follow(&mut pipeline, folder, &plans);
    work(&database, 4);

    let expected = totals(&std::fs::read_to_string(&log).unwrap());
    let whole = until("everything archived", async || Ok(archived(&pipeline).0 >= expected.0));
    whole
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?} of {expected:?}", archived(&pipeline)));
    pipeline.rest().await.unwrap();
    assert_eq!(archived(&pipeline), expected);
    let [.., rows] = pipeline.shown().await.unwrap();
    assert_eq!(rows.to_string(), expected.1.to_string());
    let sql = "select string_agg(distinct warehouse || ' ' || database, ',') \
               from lakegauge_api.warehouse_query where statement = 'update'";
    let names = pipeline.database.sql(sql).unwrap().concat();
    assert!(names.starts_with("dw ") && !names.contains(','), "{names}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_not_there_yet_or_has_no_plans_is_said() {
    let mut pipeline = pipeline().await;
    let folder = pipeline.folder().join("log");
    std::fs::create_dir(&folder).unwrap();
    let collector = follow(&mut pipeline, &folder, &["--plans"]);
    let says = async |text: &str| {
        until(text, async || {
            let shown = collector.readiness();
            Ok(shown.is_some_and(|(status, body)| status == 503 && body.contains(text)))
        })
        .await
    };
    says("log_destination").await.unwrap();
    let line = |number: u32| {
        format!(
            r#"{{"timestamp":"2026-11-28 06:43:00.123 UTC","user":"u","dbname":"d","session_id":"a.b","line_num":{number},"error_severity":"LOG","message":"duration: 1.000 ms  statement: select 1"}}"#
        ) + "\n"
    };
    std::fs::write(folder.join("a.json"), (1..=20).map(line).collect::<String>()).unwrap();
    says("auto_explain").await.unwrap();
}
