//! What the archiver's sets know after a restart and after a change of epoch.

use domain::{IdKind, Judgement, Mark, Rules, Seen};
use integration_tests::postgres::PostgresServer;

use crate::store_events::{append, derived, judged, open};

/// Room for two derived ids: the third raises the floor.
fn narrow() -> Rules {
    Rules { derived_ids_max: 2, ..Rules::default() }
}

#[tokio::test]
async fn a_new_epoch_keeps_the_floor_of_the_derived_ids() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&narrow());
    let events: Vec<_> = (1..=4).map(|number| derived(number, 10 * i64::from(number))).collect();
    append(&mut archive, &mut seen, &events).await.unwrap();
    let floor = seen.derived().floor();
    assert_eq!(floor, Some(events[1].identity()), "the set has overflowed");

    let start = Mark { epoch: 2, sequence: 0, broker_ns: 0, created_ns: 99 };
    archive.begin_epoch(start, 1).await.unwrap();
    let mut read_back = archive.seen(&narrow()).await.unwrap();
    assert_eq!(read_back, seen, "what was judged stays judged");
    // Nobody has seen this one, and nobody can know that: the archive's key decides.
    let unseen = derived(9, 15);
    assert!(matches!(unseen.id.kind(), IdKind::Derived));
    assert_eq!(read_back.judge(&unseen), Judgement::TooOld);

    drop(archive);
    let mut archive = open(&database.archiver(), "LAKE_0", 2).await.unwrap();
    assert_eq!(archive.seen(&narrow()).await.unwrap().derived().floor(), floor);
}

#[tokio::test]
async fn a_counted_letter_with_a_derived_id_is_known_after_a_restart() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let poison = "alter table lakegauge.lake_access add constraint poison \
        check (key <> 'part-2.parquet')";
    database.sql(poison).unwrap();
    let appended = append(&mut archive, &mut seen, &[derived(1, 0), derived(2, 5)]).await.unwrap();
    assert_eq!((appended.inserted, appended.dead, appended.refused), (1, 1, 1));

    drop(archive);
    let mut archive = open(&database.archiver(), "LAKE_0", 2).await.unwrap();
    let mut seen = archive.seen(&Rules::default()).await.unwrap();
    let again = derived(2, 5);
    let judgement = seen.judge(&again);
    assert_eq!(judgement, Judgement::Duplicate, "it was counted, though the database refused it");
    let batch = judged(&archive, &seen, &[again], judgement);
    let appended = archive.append(&batch).await.unwrap();
    assert_eq!((appended.duplicates, appended.dead, appended.refused), (1, 0, 0));
    let letters = "select count(*) from lakegauge.dead_letter";
    assert_eq!(database.number(letters).unwrap(), 1, "no second letter");
}
