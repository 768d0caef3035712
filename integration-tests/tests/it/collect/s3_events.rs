//! Notifications of S3 events.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use integration_tests::http;
use integration_tests::pipeline::Pipeline;
use integration_tests::waiting::until;
use serde_json::{Value, json};

use super::{Collector, pipeline};

const S3_EVENTS: &str = "/s3-events";

/// A record as AWS writes it.
fn record(name: &str, key: &str, size: u64, sequencer: u64) -> Value {
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name,
        "eventTime": "2026-11-28T06:43:00.000Z",
        "userIdentity": { "principalId": "spark" },
        "responseElements": { "x-amz-request-id": format!("R{sequencer}") },
        "s3": {
            "bucket": { "name": "raw" },
            "object": { "key": key, "size": size, "sequencer": format!("{sequencer:016X}") },
        },
    })
}

fn batch(records: &[Value]) -> Vec<u8> {
    json!({ "Records": records }).to_string().into_bytes()
}

fn archived(pipeline: &Pipeline, what: &str) -> String {
    let sql = format!(
        "select concat_ws(' ', count(*), sum(object_bytes), min(source), min(principal)) \
         from lakegauge_api.lake_access where {what}"
    );
    pipeline.database.sql(&sql).unwrap().concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_store_reports_is_counted_once_however_often_it_comes() {
    let mut pipeline = pipeline().await;
    let collector = Collector::start(&mut pipeline).await;

    let puts: Vec<Value> = (0..50)
        .map(|number| record("ObjectCreated:Put", &format!("a/{number}"), 1_000, number))
        .collect();
    let stored = collector.post(S3_EVENTS, &batch(&puts), &[]);
    assert_eq!(stored.status, 200, "{stored:?}");
    let said: Value = serde_json::from_str(&stored.body).unwrap();
    assert_eq!(said, json!({ "published": 50, "ignored": 0, "refused": [] }));

    // Again, in another order, packed, with what changed meanwhile: an overwrite, a delete, tags.
    let mut again: Vec<Value> = puts.iter().rev().cloned().collect();
    again.push(record("s3:ObjectCreated:Put", "a/0", 5_000, 100));
    again.push(record("s3:ObjectRemoved:Delete", "a/1", 0, 101));
    again.push(record("s3:ObjectCreated:PutTagging", "a/2", 1_000, 102));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&batch(&again)).unwrap();
    let packed = encoder.finish().unwrap();
    let stored = collector.post(S3_EVENTS, &packed, &[("content-encoding", "gzip")]);
    assert_eq!(stored.status, 200, "{stored:?}");
    let test = br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"raw"}"#;
    assert_eq!(collector.post(S3_EVENTS, test, &[]).status, 200);

    pipeline.rest().await.unwrap();
    let [used_gb, accesses, ..] = pipeline.shown().await.unwrap();
    assert_eq!((used_gb.to_string().as_str(), accesses.to_string().as_str()), ("0.000053", "53"));
    assert_eq!(archived(&pipeline, "true"), "53 55000 store-one spark");
    let metric = |series: &str| collector.service.metric(series);
    assert_eq!(
        metric("lakegauge_collector_records_total{report=\"s3-events\",result=\"published\"}"),
        Some(103.0)
    );
    assert_eq!(
        metric("lakegauge_collector_records_total{report=\"s3-events\",result=\"ignored\"}"),
        Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_record_is_a_dead_letter_with_its_bytes_and_hinders_no_other() {
    let mut pipeline = pipeline().await;
    let collector = Collector::start(&mut pipeline).await;
    let good = record("ObjectCreated:Put", "a", 7, 1);
    // The second would be an event of the pipeline if anybody took it for one.
    let smuggled = json!({ "type": "lake.access", "occurred_at": "2026-11-28T06:43:00Z",
        "bucket": "b", "key": "k", "operation": "write", "bytes": 1, "duration_us": 1,
        "outcome": "ok", "principal": "p" });
    let records = [json!({ "what": 1 }), smuggled, good.clone()];
    let stored = collector.post(S3_EVENTS, &batch(&records), &[]);
    let said: Value = serde_json::from_str(&stored.body).unwrap();
    assert_eq!(
        (stored.status, &said["published"], &said["refused"][0]["index"]),
        (200, &json!(1), &json!(0))
    );
    pipeline.rest().await.unwrap();
    assert_eq!(archived(&pipeline, "true"), "1 7 store-one spark");
    let letters = "select concat_ws(' ', count(*), max(convert_from(bytes, 'UTF8')), min(source), \
                   min(reason), min(detail)) from lakegauge_api.dead_letter";
    let letters = pipeline.database.sql(letters).unwrap().concat();
    let expected = "2 {\"what\":1} store-one undecodable missing field `eventTime`";
    assert!(letters.starts_with(expected), "{letters}");

    // What nobody may send, or can't be taken at all, leaves nothing.
    let refused = |headers: &[(&str, &str)], body: &[u8]| {
        http::post(collector.port, S3_EVENTS, headers, body).unwrap().status
    };
    assert_eq!(refused(&[], &batch(std::slice::from_ref(&good))), 401);
    assert_eq!(refused(&[("authorization", "Bearer wrong")], &batch(&[good])), 401);
    assert_eq!(collector.post(S3_EVENTS, b"{}", &[]).status, 400);
    assert_eq!(collector.post(S3_EVENTS, b"{", &[("content-encoding", "br")]).status, 415);
    assert_eq!(collector.post(S3_EVENTS, &vec![b' '; 9 << 20], &[]).status, 413);
    assert_eq!(http::get(collector.port, S3_EVENTS).unwrap().0, 405);
    let elsewhere = http::post(collector.port, "/elsewhere", &[], b"{}").unwrap();
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.body.contains("/s3-events  S3 event"), "{elsewhere:?}");
    let requests = "lakegauge_collector_requests_total{status=\"4xx\"}";
    assert_eq!(collector.service.metric(requests), Some(7.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_away_the_sender_keeps_it_and_nothing_is_lost_or_doubled() {
    let mut pipeline = pipeline().await;
    let collector = Collector::start(&mut pipeline).await;
    let first = batch(&[record("ObjectCreated:Put", "a", 7, 1)]);
    assert_eq!(collector.post(S3_EVENTS, &first, &[]).status, 200);
    pipeline.nats.kill();
    let second = batch(&[record("ObjectCreated:Put", "b", 5, 2)]);
    let answer = collector.post(S3_EVENTS, &second, &[]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.to_lowercase().contains("retry-after: 5"), "{answer:?}");
    let failing = until("not ready", async || Ok(collector.service.get("/readyz")?.0 == 503));
    failing.await.unwrap();
    pipeline.nats.restart().await.unwrap();
    // The sender does what it was told.
    let stored =
        until("stored", async || Ok(collector.post(S3_EVENTS, &second, &[]).status == 200));
    stored.await.unwrap();
    pipeline.rest().await.unwrap();
    assert_eq!(archived(&pipeline, "true"), "2 12 store-one spark");
    let ready = until("ready again", async || Ok(collector.service.get("/readyz")?.0 == 200));
    ready.await.unwrap();
}
