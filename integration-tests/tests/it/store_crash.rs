//! Whatever ends in the middle: a batch is in the archive as a whole and once, or not at all.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::time::Duration;

use domain::{Event, Rules, Seen};
use event_store::SqlRecovery;
use integration_tests::postgres::PostgresServer;

use crate::store_events::{access, append, message, open};

/// More than any machine needs for one batch; a test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn batch_of(from: u64) -> Vec<Event> {
    (from..from + 2_000)
        .map(|number| access(number, i64::try_from(number / 500).unwrap()))
        .collect()
}

#[tokio::test]
async fn a_batch_whose_append_was_cancelled_anywhere_is_archived_once_when_given_again() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut cancelled = 0;
    let mut inserted = 0;
    for round in 0..40_u64 {
        let batch = message(&archive, &mut seen, &batch_of(round * 2_000));
        // From before the first statement to about its end, a little later each round.
        let cut = Duration::from_micros(round * 700);
        if tokio::time::timeout(cut, archive.append(&batch)).await.is_err() {
            cancelled += 1;
            let appended = tokio::time::timeout(PATIENCE, archive.append(&batch)).await.unwrap();
            inserted += appended.unwrap().inserted;
        } else {
            inserted += 2_000;
        }
    }
    assert!(cancelled >= 5, "only {cancelled} appends were cut");
    assert_eq!(inserted, 80_000);
    let rows = database.number("select count(*) from lakegauge.lake_access").unwrap();
    let windows = database
        .number("select sum(events) from lakegauge.lake_window where length_s = 10")
        .unwrap();
    let ledger = database.number("select sum(inserted) from lakegauge.ledger").unwrap();
    assert_eq!((rows, windows, ledger), (80_000, 80_000, 80_000));
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back_has_each_batch_once() {
    let mut server = PostgresServer::start_private().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &batch_of(0)).await.unwrap();
    for round in 1..4_u64 {
        let batch = message(&archive, &mut seen, &batch_of(round * 2_000));
        let cut = Duration::from_millis(round * 6);
        let unfinished = tokio::time::timeout(cut, archive.append(&batch)).await.is_err();
        server.stop_immediately().unwrap();
        if unfinished {
            let error = archive.append(&batch).await.unwrap_err();
            assert_eq!(error.recovery(), SqlRecovery::Retry, "{error}");
        }
        server.start_again().unwrap();
        if unfinished {
            assert_eq!(archive.append(&batch).await.unwrap().inserted, 2_000);
        } else {
            // The connection died unnoticed: one error, and what is archived stays.
            let next = message(&archive, &mut seen, &[]);
            let error = archive.append(&next).await.unwrap_err();
            assert_eq!(error.recovery(), SqlRecovery::Retry, "{error}");
        }
    }
    append(&mut archive, &mut seen, &batch_of(8_000)).await.unwrap();
    let rows = database.number("select count(*) from lakegauge.lake_access").unwrap();
    let windows = database
        .number("select sum(events) from lakegauge.lake_window where length_s = 60")
        .unwrap();
    assert_eq!((rows, windows), (10_000, 10_000));
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_in_the_checkpoint() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 0)]).await.unwrap();
    // A deferred trigger runs inside of the commit: long enough to be cut there.
    database
        .sql(
            "create function pg_temp_wait() returns trigger language plpgsql as \
              $$ begin perform pg_sleep(1); return null; end $$; \
              create constraint trigger slow_commit after insert on lakegauge.ledger \
              deferrable initially deferred for each row execute function pg_temp_wait()",
        )
        .unwrap();
    let batch = message(&archive, &mut seen, &[access(1, 0), access(2, 0)]);
    let cut = tokio::time::timeout(Duration::from_millis(700), archive.append(&batch)).await;
    assert!(cut.is_err(), "the commit was not slow");
    let appended = tokio::time::timeout(PATIENCE, archive.append(&batch)).await.unwrap().unwrap();
    assert_eq!(appended.inserted, 2);
    assert_eq!(
        database.sql("select last, events from lakegauge_api.ledger order by 1").unwrap(),
        ["1|1", "2|2"]
    );
    assert_eq!(database.number("select sum(events) from lakegauge_api.lake_window").unwrap(), 6);
}
