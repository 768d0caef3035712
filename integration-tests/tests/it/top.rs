//! `lakegauge top` beside a pipeline that runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use domain::Side;
use integration_tests::{
    pipeline::{FOUR, Part, Pipeline, Traffic, until},
    raw_nats::RawNats,
};

const TRAFFIC: Traffic = Traffic { events: 1_000, rate: 1_000, format: "bincode" };

/// Names and values of a table.
fn table(text: &str) -> BTreeMap<&str, &str> {
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(k, v)| (k, v.trim())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_is_scraped_and_the_letters_of_the_archive() {
    let mut pipeline = Pipeline::start(&[("ARCHIVER_BOOKS_INTERVAL_MS", "200")]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let lake = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    let warehouse = pipeline.simulate(Side::Warehouse, TRAFFIC).unwrap();
    lake.finish().await.unwrap();
    warehouse.finish().await.unwrap();
    let mut raw = RawNats::connect(pipeline.nats.port()).await.unwrap();
    raw.publish("lake.access.0.by-hand", "no event").await.unwrap();
    pipeline.rest().await.unwrap();

    let metrics = format!("127.0.0.1:{}", pipeline.metrics_port());
    let archiver = format!("127.0.0.1:{}", pipeline.part(Part::Archiver).unwrap().admin_port());
    let addresses = ["--metrics-addr", &metrics, "--archiver-addr", &archiver];
    let url = pipeline.database.reader_url();
    let top = |words: &[&str], url: &str| {
        let words = ["top"].iter().chain(words).chain(&addresses).copied();
        pipeline.tool(words, url).unwrap()
    };
    until("dead letter in the archiver's metrics", async || {
        let once = top(&["--once"], &url);
        assert_eq!(once.status, Some(0), "{}", once.stderr);
        Ok(table(&once.stdout)["dead_letters_open"] == "1")
    })
    .await
    .unwrap();
    let once = top(&["--once"], &url);
    let table = table(&once.stdout);
    for (name, value) in FOUR.into_iter().zip(pipeline.four().unwrap().unwrap()) {
        assert_eq!(table[name].parse::<f64>().unwrap(), value, "{name}");
    }
    assert_eq!(table["archiver_lag_messages"], "0");
    assert_eq!(table["aggregator_lag_messages[LAKE_0]"], "0");
    assert!(table.keys().any(|name| name.starts_with("bucket_used_bytes[")), "{table:?}");

    let file = pipeline.folder().join("top.svg");
    let drawn = top(&["--picture", file.to_str().unwrap()], &url);
    assert_eq!(drawn.status, Some(0), "{}", drawn.stderr);
    let picture = std::fs::read_to_string(&file).unwrap();
    assert!(picture.contains("undecodable") && picture.contains(FOUR[3]), "{picture}");
    // Without the archive everything else is shown all the same.
    let drawn = top(&["--picture", file.to_str().unwrap()], "");
    assert_eq!(drawn.status, Some(0), "{}", drawn.stderr);
    let picture = std::fs::read_to_string(&file).unwrap();
    assert!(picture.contains("DATABASE_URL is not set"), "{picture}");

    // What scripts read first: is there anything to show?
    pipeline.kill(Part::Aggregator).unwrap();
    let ended = pipeline.tool(["top", "--once", "--metrics-addr", &metrics], &url).unwrap();
    assert_eq!(ended.status, Some(1));
    let values: BTreeMap<&str, &str> =
        ended.stdout.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(values["ready"].trim(), "0");
    assert_eq!(values[FOUR[0]].trim(), "-");
}
