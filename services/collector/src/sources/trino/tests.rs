use domain::Timestamp;
use serde_json::json;

use super::*;

/// A completed query as Trino writes it: durations in decimal seconds, times as texts.
fn trino() -> Value {
    json!({
        "metadata": {
            "queryId": "20261128_064300_00007_abcde", "transactionId": "t1",
            "query": "SELECT * FROM orders WHERE customer = 'Ada'",
            "queryState": "FINISHED", "uri": "http://trino:8080/v1/query/x", "tables": [],
        },
        "statistics": {
            "cpuTime": 25.975, "wallTime": 112.444, "queuedTime": 0.25, "executionTime": 100.266,
            "analysisTime": 11.9, "resourceWaitingTime": 12.178, "physicalInputBytes": 9_000,
            "physicalInputRows": 700, "totalBytes": 9_500, "totalRows": 710, "outputRows": 100,
            "writtenRows": 30, "cumulativeMemory": 2.143774060571e12, "complete": true,
        },
        "context": {
            "user": "bi", "principal": "bi@EXAMPLE", "catalog": "hive", "schema": "sales",
            "environment": "production", "queryType": "SELECT", "resourceGroupId": ["global"],
        },
        "ioMetadata": { "inputs": [], "output": null },
        "warnings": [],
        "createTime": "2026-11-28T06:41:07.556Z",
        "executionStartTime": "2026-11-28T06:41:19.734Z",
        "endTime": "2026-11-28T06:43:00.000Z",
    })
}

/// The same query as a listener of Presto writes it: wrapped, with durations in milliseconds, times
/// as decimal seconds, the kind outside the context, and a hash of the query.
fn presto() -> Value {
    json!({
        "clusterName": "adhoc", "queryCreatedEvent": null, "splitCompletedEvent": null,
        "wallTimeMillis": 112_444,
        "queryCompletedEvent": {
            "metadata": {
                "queryId": "20261128_064300_00007_abcde", "query": "select 1", "queryHash": "b1b0",
                "queryState": "FINISHED", "plan": "a plan", "jsonPlan": null,
            },
            "statistics": {
                "wallTime": 112_444.0, "queuedTime": 200.0, "waitingForPrerequisitesTime": 50.0,
                "executionTime": 100_266.0, "analysisTime": null, "totalBytes": 9_500,
                "totalRows": 710, "outputRows": 100, "writtenOutputRows": 30,
            },
            "context": { "user": "bi", "catalog": "glue", "environment": "test" },
            "failureInfo": null, "queryType": "INSERT",
            "createTime": 1_795_848_067.556, "endTime": 1_795_848_180.0,
        },
    })
}

fn parsed(record: &Value) -> Parsed {
    parse(record.to_string().as_bytes()).unwrap()
}

fn only(record: &Value) -> (Event, WarehouseQuery) {
    let mut parsed = parsed(record);
    assert_eq!((parsed.records, &parsed.refused[..]), (1, &[][..]));
    let event = parsed.events.remove(0);
    let Fact::WarehouseQuery(query) = event.fact.clone() else { panic!("{event:?}") };
    (event, query)
}

fn changed(record: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut record = record.clone();
    change(&mut record);
    record
}

fn durations(record: &Value) -> (u64, u64) {
    let query = only(record).1;
    (query.queued_us, query.executed_us)
}

#[test]
fn a_completed_query_is_read_with_its_queue_and_execution_apart() {
    let (event, query) = only(&trino());
    assert_eq!(event.occurred_at, Timestamp(1_795_848_180_000_000));
    assert_eq!(event.id.kind(), domain::IdKind::Derived);
    let expected = WarehouseQuery {
        warehouse: "production".to_owned(),
        database: "hive.sales".to_owned(),
        statement: Statement::Select,
        queued_us: 250_000,
        executed_us: 112_194_000,
        rows_processed: 730,
        rows_returned: 100,
        bytes_scanned: 9_000,
        cache_hit: false,
        outcome: Outcome::Ok,
        principal: "bi".to_owned(),
        fingerprint: fingerprint("select * from orders where customer = ?"),
    };
    assert_eq!(query, expected);
}

#[test]
fn the_other_form_of_durations_and_times_is_the_same_query() {
    let (event, query) = only(&presto());
    let trino = only(&trino());
    assert_eq!((event.id, event.occurred_at), (trino.0.id, trino.0.occurred_at));
    assert_eq!((query.queued_us, query.executed_us), (250_000, 112_194_000));
    assert_eq!((query.rows_processed, query.bytes_scanned), (740, 9_500));
    assert_eq!((query.warehouse.as_str(), query.database.as_str()), ("adhoc", "glue"));
    assert_eq!((query.statement, query.fingerprint.as_str()), (Statement::Insert, "b1b0"));
}

#[test]
fn start_and_end_decide_the_unit_also_of_short_queries_and_of_times_in_whole_seconds() {
    let timed = |created: Value, ended: Value, wall: Value| {
        durations(&changed(&trino(), |record| {
            record["createTime"] = created;
            record["endTime"] = ended;
            record["statistics"] = json!({ "wallTime": wall, "queuedTime": 0 });
        }))
        .1
    };
    let end = 1_795_848_180.0;
    let before = |seconds: f64| json!(end - seconds);
    for (wall, ago, expected) in [
        (json!(67.8), before(67.8), 67_800_000),
        (json!(67_795.0), before(67.8), 67_795_000),
        (json!(0.005), before(0.005), 5_000),
        (json!(5), before(0.005), 5_000),
        (json!(0.0), before(0.0), 0),
        // In whole seconds, a query of 0.9 s seems to have taken 0 s or 1 s.
        (json!(0.9), json!(1_795_848_180), 900_000),
        (json!(900), json!(1_795_848_179), 900_000),
        (json!(112.444), json!(1_795_848_068), 112_444_000),
        // The duration is too long in any unit, so only start and end remain.
        (json!(9e9), before(2.5), 2_500_000),
        // An end before the start can't decide on the unit.
        (json!(3.5), before(-60.0), 3_500_000),
    ] {
        assert_eq!(timed(ago.clone(), json!(end), wall.clone()), expected, "{wall} {ago}");
    }
    assert_eq!(timed(json!(null), json!(end), json!(3.5)), 3_500_000);
    // Without any duration, the response time is the time between start and end.
    assert_eq!(timed(before(1.5), json!(end), json!(null)), 1_500_000);
}

#[test]
fn the_queue_is_never_longer_than_the_query() {
    let record = changed(&trino(), |record| record["statistics"]["queuedTime"] = json!(200.0));
    assert_eq!(durations(&record), (112_444_000, 0));
    let queued_only = changed(&trino(), |record| {
        record["statistics"] = json!({ "queuedTime": 12.444 });
    });
    assert_eq!(durations(&queued_only), (12_444_000, 100_000_000));
}

#[test]
fn every_statistic_may_be_missing() {
    let record = json!({
        "metadata": { "queryId": "q1" }, "statistics": {}, "endTime": 1_795_848_180_000_u64,
    });
    let (event, query) = only(&record);
    assert_eq!(event.occurred_at, Timestamp(1_795_848_180_000_000));
    assert_eq!((query.rows_processed, query.response_us()), (0, 0));
    assert_eq!((query.outcome, query.statement), (Outcome::Ok, Statement::Other));
    let nulls = changed(&trino(), |record| {
        for value in record["statistics"].as_object_mut().unwrap().values_mut() {
            *value = Value::Null;
        }
        record["context"] = json!({ "user": null });
    });
    assert_eq!(only(&nulls).1.rows_processed, 0);
    let unknown = changed(&trino(), |record| record["statistics"]["outputRows"] = json!(-1));
    assert_eq!(only(&unknown).1.rows_returned, 0);
}

#[test]
fn what_is_no_completed_query_is_ignored_and_counted() {
    let created = changed(&trino(), |record| {
        record.as_object_mut().unwrap().remove("statistics");
        record.as_object_mut().unwrap().remove("endTime");
    });
    let split = json!({ "queryId": "q1", "stageId": "q1.0", "statistics": { "wallTime": 1.0 } });
    let running = changed(&trino(), |record| record["metadata"]["queryState"] = json!("RUNNING"));
    let other = json!({ "queryCreatedEvent": {}, "queryCompletedEvent": null });
    for record in [created, split, running, other, json!({})] {
        let parsed = parsed(&record);
        assert_eq!((parsed.ignored, parsed.records), (1, 1), "{record}");
    }
}

#[test]
fn failures_are_told_apart_by_name_and_type() {
    let failed = |code: Value| {
        let record = changed(&trino(), |record| {
            record["metadata"]["queryState"] = json!("FAILED");
            record["failureInfo"] = json!({ "errorCode": code, "failureMessage": "of Ada" });
        });
        only(&record).1.outcome
    };
    for (name, kind, outcome) in [
        ("SYNTAX_ERROR", "USER_ERROR", Outcome::ClientError),
        ("TABLE_NOT_FOUND", "USER_ERROR", Outcome::NotFound),
        ("PERMISSION_DENIED", "USER_ERROR", Outcome::Denied),
        ("USER_CANCELED", "USER_ERROR", Outcome::Cancelled),
        ("ADMINISTRATIVELY_KILLED", "USER_ERROR", Outcome::Cancelled),
        ("QUERY_QUEUE_FULL", "INSUFFICIENT_RESOURCES", Outcome::Throttled),
        ("EXCEEDED_TIME_LIMIT", "INSUFFICIENT_RESOURCES", Outcome::Timeout),
        ("EXCEEDED_GLOBAL_MEMORY_LIMIT", "INSUFFICIENT_RESOURCES", Outcome::ServerError),
        ("GENERIC_INTERNAL_ERROR", "INTERNAL_ERROR", Outcome::ServerError),
        ("HIVE_METASTORE_ERROR", "EXTERNAL", Outcome::ServerError),
        ("NEWER_THAN_THIS", "", Outcome::ServerError),
    ] {
        assert_eq!(failed(json!({ "name": name, "type": kind, "code": 1 })), outcome, "{name}");
    }
    assert_eq!(failed(json!(null)), Outcome::ServerError);
}

#[test]
fn statements_are_told_apart() {
    for (kind, update, statement) in [
        ("INSERT", "CREATE TABLE", Statement::CreateTableAs),
        ("INSERT", "INSERT", Statement::Insert),
        ("MERGE", "", Statement::Merge),
        ("DATA_DEFINITION", "CREATE TABLE", Statement::Ddl),
        ("ANALYZE", "", Statement::Maintenance),
        ("EXPLAIN", "", Statement::Other),
    ] {
        let record = changed(&trino(), |record| {
            record["context"]["queryType"] = json!(kind);
            record["metadata"]["updateType"] = json!(update);
        });
        assert_eq!(only(&record).1.statement, statement, "{kind} {update}");
    }
}

#[test]
fn an_event_that_cannot_be_read_is_refused_without_the_text_of_its_query() {
    for (field, value, why) in [
        ("endTime", json!("yesterday"), "wrong_field: endTime: \"yesterday\" is neither"),
        ("endTime", json!(true), "wrong_field: endTime: true is neither"),
        ("createTime", json!([]), "wrong_field: createTime"),
        ("metadata", json!({}), "missing field `queryId`"),
        ("metadata", json!({ "queryId": "" }), "wrong_field: metadata.queryId: it is empty"),
        ("statistics", json!({ "wallTime": "PT1S" }), "wrong_field: statistics.wallTime"),
        ("statistics", json!({ "outputRows": 1e30 }), "is no count"),
    ] {
        let wrong = changed(&trino(), |record| record[field] = value);
        let body = json!([trino(), wrong, presto()]).to_string();
        let parsed = parse(body.as_bytes()).unwrap();
        let [refused] = &parsed.refused[..] else { panic!("{parsed:?}") };
        assert_eq!((parsed.events.len(), refused.index), (2, 1));
        assert!(refused.refusal.to_string().contains(why), "{}", refused.refusal);
        let kept = String::from_utf8(refused.bytes.to_vec()).unwrap();
        assert!(!kept.contains("Ada") && kept.contains("hive"), "{kept}");
    }
}

#[test]
fn a_query_that_is_sent_again_has_the_same_identity_and_another_query_another() {
    let identity = |record: &Value| only(record).0.identity();
    let again = changed(&trino(), |record| record["metadata"]["uri"] = json!("elsewhere"));
    assert_eq!(identity(&again), identity(&trino()));
    let other = changed(&trino(), |record| record["metadata"]["queryId"] = json!("q2"));
    assert_ne!(identity(&other), identity(&trino()));
}

#[test]
fn lines_are_taken_as_well_and_a_body_of_something_else_is_refused() {
    let lines = format!("{}\n{}\n", trino(), presto());
    assert_eq!(parse(lines.as_bytes()).unwrap().events.len(), 2);
    for wrong in ["", "null", "7", "{", "{} 1", "\u{0}"] {
        parse(wrong.as_bytes()).unwrap_err();
    }
}
