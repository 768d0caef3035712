//! Completed queries of Trino.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::thread;

use integration_tests::http;
use integration_tests::waiting::until;
use serde_json::json;

use super::{Collector, TOKEN, pipeline};

const SENDERS: usize = 50;
const QUERIES_OF_A_SENDER: usize = 8;

/// A completed query, as Trino posts it.
fn completed(number: usize) -> Vec<u8> {
    json!({
        "metadata": {
            "queryId": format!("20261128_064300_{number:05}_abcde"), "queryState": "FINISHED",
            "query": format!("select * from t where a = {number}"),
        },
        "statistics": { "wallTime": 0.25, "queuedTime": 0.05, "physicalInputRows": 10 },
        "context": { "user": "bi", "environment": "production", "queryType": "SELECT" },
        "createTime": 1_795_848_179.75, "endTime": 1_795_848_180.0,
    })
    .to_string()
    .into_bytes()
}

/// What the senders have heard so far.
#[derive(Default)]
struct Heard {
    stored: AtomicUsize,
    refused: AtomicUsize,
}

/// Sends as Trino does: again until it is told that the query is stored. Every query is sent once
/// more afterwards, as where an answer was lost.
fn send(port: u16, sender: usize, heard: &Heard) {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for number in 0..QUERIES_OF_A_SENDER {
        let body = completed(sender * QUERIES_OF_A_SENDER + number);
        let mut times_stored = 0;
        while times_stored < 2 {
            // Each refusal has waited for the broker, so that this loop does not spin.
            match http::post(port, "/trino", &headers, &body).unwrap().status {
                200 => times_stored += 1,
                503 => drop(heard.refused.fetch_add(1, Ordering::Relaxed)),
                other => panic!("{other}"),
            }
        }
        heard.stored.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_that_was_answered_with_2xx_is_archived_once_though_nats_was_away() {
    let mut pipeline = pipeline().await;
    let collector = Collector::start(&mut pipeline).await;
    let heard = Arc::new(Heard::default());
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (port, heard) = (collector.port, Arc::clone(&heard));
            thread::spawn(move || send(port, sender, &heard))
        })
        .collect();
    let all = SENDERS * QUERIES_OF_A_SENDER;
    let some =
        until("a quarter stored", async || Ok(heard.stored.load(Ordering::Relaxed) >= all / 4));
    some.await.unwrap();
    pipeline.nats.kill();
    let refused =
        until(
            "every sender refused",
            async || Ok(heard.refused.load(Ordering::Relaxed) >= SENDERS),
        );
    refused.await.unwrap();
    assert!(heard.stored.load(Ordering::Relaxed) < all);
    pipeline.nats.restart().await.unwrap();
    tokio::task::spawn_blocking(|| senders.into_iter().for_each(|it| it.join().unwrap()))
        .await
        .unwrap();
    pipeline.rest().await.unwrap();

    let sql = "select concat_ws(' ', count(*), count(distinct id), sum(rows_processed), \
               count(distinct fingerprint), min(warehouse), min(queued_us), min(executed_us)) \
               from lakegauge_api.warehouse_query";
    let archived = pipeline.database.sql(sql).unwrap().concat();
    assert_eq!(archived, "400 400 4000 1 production 50000 200000");
    let [.., rows] = pipeline.shown().await.unwrap();
    assert_eq!(rows.to_string(), "4000");
    // What is no completed query is ignored, and what can't be read keeps no text of the query.
    let created = br#"{"metadata":{"queryId":"q"},"createTime":1795848180}"#;
    let bad = br#"{"metadata":{"queryId":"q","query":"of Ada"},"statistics":{},"endTime":"soon"}"#;
    assert_eq!(
        collector.post("/trino", created, &[]).body,
        "{\"published\":0,\"ignored\":1,\"refused\":[]}"
    );
    assert_eq!(collector.post("/trino", bad, &[]).status, 200);
    pipeline.rest().await.unwrap();
    let letters = "select concat_ws(' ', count(*), min(stream), min(reason), \
                   min(convert_from(bytes, 'UTF8'))) from lakegauge_api.dead_letter";
    let letters = pipeline.database.sql(letters).unwrap().concat();
    assert!(letters.starts_with("1 WAREHOUSE_0 wrong_field {"), "{letters}");
    assert!(!letters.contains("Ada"), "{letters}");
}
