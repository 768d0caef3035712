//! The size of the database is watched: in all, for each event, and against a limit.

use domain::Side;
use integration_tests::pipeline::{Part, Pipeline, Traffic};
use integration_tests::waiting::until;

const BYTES: &str = "lakegauge_archive_database_bytes";
const EVENT_BYTES: &str = "lakegauge_archive_event_bytes";
const LIMIT: &str = "lakegauge_archive_database_limit_bytes";
const TIME_TO_LIMIT: &str = "lakegauge_archive_database_time_to_limit_seconds";
const WARNING: &str = "the database is nearly as large as it may be";
const EVENTS: u64 = 4_000;

/// Settings that look often.
const OFTEN: [(&str, &str); 2] =
    [("ARCHIVER_LEDGER_INTERVAL_MS", "50"), ("ARCHIVER_DATABASE_SIZE_INTERVAL_MS", "50")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archiver_shows_the_size_and_warns_near_the_limit() {
    let limited = OFTEN.into_iter().chain([("ARCHIVER_DATABASE_LIMIT_BYTES", "1000000000")]);
    let mut pipeline = Pipeline::start(&limited.collect::<Vec<_>>()).await.unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.run(Part::Archiver).unwrap();
    let traffic = Traffic { events: EVENTS, rate: 4_000, format: "bincode" };
    pipeline.simulate(Side::Lake, traffic).unwrap().finish().await.unwrap();
    pipeline.rest().await.unwrap();

    let size = "select pg_database_size(current_database())";
    let rows = "select sum(inserted) from lakegauge.ledger";
    until("the sizes", async || {
        let archiver = pipeline.part(Part::Archiver)?;
        let number = |sql| anyhow::Ok(f64::from(i32::try_from(pipeline.database.number(sql)?)?));
        let (size, rows) = (number(size)?, number(rows)?);
        Ok(archiver.metric(BYTES) == Some(size)
            && archiver.metric(EVENT_BYTES).is_some_and(|each| (each - size / rows).abs() < 1.0))
    })
    .await
    .unwrap();
    let archiver = pipeline.part(Part::Archiver).unwrap();
    assert_eq!(archiver.metric(LIMIT), Some(1_000_000_000.0));
    // Nobody knows yet how it grows.
    assert!(archiver.metric(TIME_TO_LIMIT).unwrap().is_nan());
    assert!(!archiver.log().contains(WARNING), "{}", archiver.log());

    pipeline.stop(Part::Archiver).await.unwrap();
    pipeline.set("ARCHIVER_DATABASE_LIMIT_BYTES", "1000000");
    pipeline.run(Part::Archiver).unwrap();
    until("a limit that is reached", async || {
        let archiver = pipeline.part(Part::Archiver)?;
        Ok(archiver.metric(TIME_TO_LIMIT) == Some(0.0))
    })
    .await
    .unwrap();
    let log = pipeline.part(Part::Archiver).unwrap().log();
    assert_eq!(log.matches(WARNING).count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_nothing_is_said_about_one() {
    let mut pipeline = Pipeline::start(&OFTEN).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    until("the size", async || {
        Ok(pipeline.part(Part::Archiver)?.metric(BYTES).is_some_and(|bytes| bytes > 1e6))
    })
    .await
    .unwrap();
    let archiver = pipeline.part(Part::Archiver).unwrap();
    assert!(archiver.metric(EVENT_BYTES).unwrap().is_nan(), "no event is there");
    assert_eq!(archiver.metric(LIMIT), None);
    assert_eq!(archiver.metric(TIME_TO_LIMIT), None);
}
