//! Audit records beside notifications of the same store.

use serde_json::{Value, json};

use super::{Collector, pipeline};

/// A record as MinIO writes it, with secrets where a request has them.
fn audited(name: &str, key: &str, status: u16, number: u32) -> Value {
    json!({
        "version": "1", "deploymentid": "d1", "time": "2026-11-28T06:43:00.5Z",
        "api": {
            "name": name, "bucket": "raw", "object": key, "statusCode": status, "rx": 1_000,
            "tx": 2_000, "timeToResponseInNS": "5000000",
        },
        "requestID": format!("R{number}"), "accessKey": "reader",
        "requestPath": "/raw/a?X-Amz-Signature=SECRET",
        "requestQuery": { "X-Amz-Signature": "SECRET" },
        "requestHeader": { "Authorization": "AWS4-HMAC-SHA256 Signature=SECRET" },
    })
}

fn notified(name: &str, key: &str) -> Value {
    json!({
        "eventName": name, "eventTime": "2026-11-28T06:43:00Z",
        "s3": { "bucket": { "name": "raw" }, "object": { "key": key, "size": 1_000 } },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_request_comes_from_one_of_notifications_and_audit_records() {
    let mut pipeline = pipeline().await;
    let words = ["--s3-reports", "events-and-audit"];
    let collector = Collector::start_with(&mut pipeline, &words).await;
    // The store tries the way first.
    assert_eq!(collector.post("/s3-audit", b"{}", &[]).status, 200);
    let mut broken = audited("GetObject", "a", 200, 6);
    broken["time"] = json!("soon");
    let records = [
        audited("PutObject", "a", 200, 1),
        audited("GetObject", "a", 200, 2),
        audited("GetObject", "b", 404, 3),
        audited("PutObject", "c", 403, 4),
        audited("ListObjectsV2", "", 200, 5),
        broken,
    ];
    // One value after the other, as a store that batches sends them.
    let body: String = records.iter().map(Value::to_string).collect();
    let stored = collector.post("/s3-audit", body.as_bytes(), &[]);
    assert_eq!(stored.status, 200, "{stored:?}");
    assert!(!stored.body.contains("SECRET"), "{stored:?}");
    // A store that did not hear the answer sends it again.
    assert_eq!(collector.post("/s3-audit", body.as_bytes(), &[]).status, 200);
    let events = [notified("s3:ObjectCreated:Put", "a"), notified("s3:ObjectAccessed:Get", "a")];
    let events = json!({ "Records": events }).to_string();
    assert_eq!(collector.post("/s3-events", events.as_bytes(), &[]).status, 200);

    pipeline.rest().await.unwrap();
    let sql = "select string_agg(concat_ws(' ', operation, key, outcome, bytes, duration_us), ', ' \
               order by operation, key) from lakegauge_api.lake_access";
    assert_eq!(
        pipeline.database.sql(sql).unwrap().concat(),
        "list  ok 2000 5000, read a ok 2000 5000, read b not_found 2000 5000, \
         write a ok 1000 0, write c denied 1000 5000"
    );
    let [used_gb, accesses, ..] = pipeline.shown().await.unwrap();
    assert_eq!((used_gb.to_string().as_str(), accesses.to_string().as_str()), ("0.000001", "5"));
    let letter = "select min(convert_from(bytes, 'UTF8')) from lakegauge_api.dead_letter";
    let letter = pipeline.database.sql(letter).unwrap().concat();
    assert!(letter.contains("\"R6\"") && !letter.contains("SECRET"), "{letter}");
    assert!(!collector.service.log().contains("SECRET"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_the_settings_do_not_ask_for_takes_nothing() {
    let mut pipeline = pipeline().await;
    let collector = Collector::start(&mut pipeline).await;
    let refused = collector.post("/s3-audit", b"{}", &[]);
    assert_eq!(refused.status, 404);
    assert!(refused.body.contains("/s3-events"), "{refused:?}");
}
