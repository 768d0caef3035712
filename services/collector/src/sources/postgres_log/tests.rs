use serde_json::{Value, json};

use super::*;

/// A line as PostgreSQL 15 writes it.
fn line_of(message: &str) -> Value {
    json!({
        "timestamp": "2026-11-28 06:43:00.123 UTC", "user": "bi", "dbname": "dw", "pid": 77,
        "remote_host": "10.0.0.7", "remote_port": 5_000, "session_id": "6929a1b4.4d",
        "line_num": 3, "ps": "SELECT", "session_start": "2026-11-28 06:42:00 UTC",
        "vxid": "3/12", "txid": 0, "error_severity": "LOG", "message": message,
        "application_name": "psql", "backend_type": "client backend",
        "query_id": -4_567_890_123_456_789_012_i64,
    })
}

const STATEMENT: &str = "duration: 12.345 ms  statement: select * from orders where a = 'Ada'";

fn plan_message() -> String {
    let plan = json!({
        "Query Text": "select count(*) from t join u using (a) where b > 1",
        "Plan": {
            "Node Type": "Aggregate", "Actual Rows": 1, "Actual Loops": 1,
            "Shared Hit Blocks": 10, "Shared Read Blocks": 2,
            "Plans": [{
                "Node Type": "Nested Loop", "Parent Relationship": "Outer", "Actual Rows": 4,
                "Actual Loops": 1,
                "Plans": [
                    { "Node Type": "Seq Scan", "Parent Relationship": "Outer", "Actual Rows": 40,
                      "Rows Removed by Filter": 60, "Actual Loops": 1 },
                    { "Node Type": "Index Scan", "Parent Relationship": "Inner",
                      "Actual Rows": 0.1, "Actual Loops": 40 },
                ],
            }],
        },
    });
    format!("duration: 1.500 ms  plan:\n{plan:#}")
}

fn log(has_plans: bool) -> PostgresLog {
    PostgresLog { warehouse: "pg".to_owned(), has_plans }
}

fn read_all(has_plans: bool, lines: &[Value]) -> LogRead {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    log(has_plans).read(text.as_bytes())
}

fn queries(read: &LogRead) -> Vec<WarehouseQuery> {
    assert_eq!(read.parsed.refused, []);
    let fact = |event: &Event| {
        let Fact::WarehouseQuery(query) = event.fact.clone() else { panic!("{event:?}") };
        query
    };
    read.parsed.events.iter().map(fact).collect()
}

#[test]
fn a_statement_is_a_query_with_its_time_and_duration() {
    let read = read_all(false, &[line_of(STATEMENT)]);
    assert_eq!(read.parsed.events[0].occurred_at, Timestamp(1_795_848_180_123_000));
    let expected = WarehouseQuery {
        warehouse: "pg".to_owned(),
        database: "dw".to_owned(),
        statement: Statement::Select,
        queued_us: 0,
        executed_us: 12_345,
        rows_processed: 0,
        rows_returned: 0,
        bytes_scanned: 0,
        cache_hit: false,
        outcome: Outcome::Ok,
        principal: "bi".to_owned(),
        fingerprint: "-4567890123456789012".to_owned(),
    };
    assert_eq!(queries(&read), [expected]);
}

#[test]
fn of_the_extended_protocol_only_the_execution_counts() {
    let messages = [
        "duration: 0.100 ms  parse p1: select $1",
        "duration: 0.200 ms  bind p1: select $1",
        "duration: 0.400 ms  execute p1: select $1",
        "duration: 0.800 ms  execute <unnamed>/portal: insert into t values ($1)",
    ];
    let read = read_all(false, &messages.map(line_of));
    let durations: Vec<u64> = queries(&read).iter().map(|query| query.executed_us).collect();
    assert_eq!((durations, read.parsed.ignored), (vec![400, 800], 2));
}

#[test]
fn with_plans_a_plan_is_the_query_and_a_load_has_none() {
    let lines = [
        line_of(&plan_message()),
        line_of(STATEMENT),
        line_of("duration: 7.000 ms  statement: COPY t FROM STDIN"),
    ];
    let read = read_all(true, &lines);
    let [planned, load] = &queries(&read)[..] else { panic!("{read:?}") };
    assert_eq!((planned.executed_us, planned.statement), (1_500, Statement::Select));
    // The scan read 100 rows, and the index scan a tenth of a row in each of 40 loops.
    assert_eq!((planned.rows_processed, planned.rows_returned), (104, 1));
    assert_eq!(planned.bytes_scanned, 12 * 8_192);
    assert_eq!((load.executed_us, load.statement), (7_000, Statement::Copy));
    assert_eq!((read.plans, read.planned, read.parsed.ignored), (1, 1, 1));
    let without = read_all(false, &lines);
    assert_eq!((queries(&without).len(), without.plans), (2, 1));
}

#[test]
fn each_line_of_each_server_has_an_id_of_its_own_and_keeps_it() {
    let mut other = line_of(STATEMENT);
    other["line_num"] = json!(4);
    let read = read_all(false, &[line_of(STATEMENT), other, line_of(STATEMENT)]);
    let ids: Vec<_> = read.parsed.events.iter().map(|event| event.id).collect();
    assert!(ids[0] != ids[1] && ids[0] == ids[2], "{ids:?}");
    let elsewhere = PostgresLog { warehouse: "other".to_owned(), has_plans: false };
    let elsewhere = elsewhere.read(line_of(STATEMENT).to_string().as_bytes());
    assert_ne!(elsewhere.parsed.events[0].id, ids[0]);
}

#[test]
fn what_is_no_query_is_ignored() {
    let mut failed = line_of("relation \"missing\" does not exist");
    failed["error_severity"] = json!("ERROR");
    let mut own = line_of(STATEMENT);
    own["application_name"] = json!("lakegauge-archiver");
    let lines =
        [failed, own, line_of("checkpoint starting: time"), line_of("connection received: x")];
    let read = read_all(false, &lines);
    assert_eq!((read.parsed.ignored, queries(&read)), (4, vec![]));
}

#[test]
fn what_can_not_be_understood_is_refused_without_its_texts() {
    let changed = |name: &str, value: Value| {
        let mut line = line_of(STATEMENT);
        line[name] = value;
        line
    };
    for (line, field) in [
        (changed("timestamp", json!("2026-11-28 07:43:00.123 CET")), "timestamp"),
        (changed("session_id", json!("")), "session_id"),
        (changed("error_severity", json!("PROTOKOLL")), "error_severity"),
        (line_of("Dauer: 0.123 ms  Anweisung: select 'Ada'"), "message"),
        (line_of("时间：0.123 毫秒 select 'Ada'"), "message"),
        (line_of("duration: 0.123 ms"), "message"),
        (line_of("duration: x ms  statement: select 'Ada'"), "message"),
        (line_of("duration: 1.000 ms  plan:\nSeq Scan on ada"), "message"),
    ] {
        let has_plans = line["message"].as_str().unwrap().contains("plan:");
        let read = read_all(has_plans, &[line]);
        let [refused] = &read.parsed.refused[..] else { panic!("{field}: {read:?}") };
        assert_eq!(refused.refusal.field, Some(field), "{refused:?}");
        let kept = String::from_utf8_lossy(&refused.bytes);
        assert!(kept.contains("6929a1b4.4d") || field == "session_id", "{kept}");
        let all = format!("{refused:?}{kept}");
        assert!(!all.contains("Ada") && !all.contains("ada"), "{all}");
    }
    let read = log(false).read(b"{\"message\":\"of Ada\n\nno JSON\n");
    assert_eq!(read.parsed.refused.len(), 2);
    assert!(read.parsed.refused.iter().all(|line| line.bytes.is_empty()));
}

#[test]
fn without_ids_of_queries_the_shape_of_the_text_names_them() {
    let mut line = line_of(STATEMENT);
    line.as_object_mut().unwrap().remove("query_id");
    let mut other = line.clone();
    other["message"] = json!("duration: 1.000 ms  statement: SELECT * FROM orders WHERE a = 'Bo'");
    let read = read_all(false, &[line, other]);
    let [first, second] = &queries(&read)[..] else { panic!("{read:?}") };
    assert_eq!(first.fingerprint, second.fingerprint);
    assert_eq!(first.fingerprint.len(), 16);
}
