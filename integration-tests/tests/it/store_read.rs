//! What was archived is read back as it was, in counting order.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use domain::{Event, Fact, Judgement, Rules, Seen, Stream, Timestamp, accept};
use event_store::{ArchiveView, Counted, StoreSettings};
use integration_tests::postgres::PostgresServer;

use crate::store_events::{SOURCE, access, append, derived, inventory, judged, open, query};

async fn read(settings: &StoreSettings, stream: Stream) -> Vec<Counted> {
    let mut view = ArchiveView::open(settings, stream).await.unwrap();
    let mut all = Vec::new();
    while let Some(page) = view.next_page().await.unwrap() {
        all.extend(page);
    }
    all
}

fn events(counted: &[Counted]) -> Vec<Event> {
    counted.iter().map(|counted| counted.event.clone()).collect()
}

/// The same event with every field at its bound.
fn extreme(mut event: Event, at: i64) -> Event {
    event.occurred_at = Timestamp(at);
    let (long, most) = ("\u{10ffff}".repeat(63), accept::QUANTITY_MAX);
    match &mut event.fact {
        Fact::LakeAccess(fact) => {
            fact.key = String::new();
            fact.principal = long.clone();
            fact.bucket = long;
            fact.sequencer = Some(String::new());
            fact.bytes = most;
            fact.object_bytes = Some(0);
            fact.duration_us = most;
        }
        Fact::LakeInventory(fact) => {
            fact.objects = most;
            fact.bytes = most;
            fact.bucket = "\t\\N\r\n".to_owned();
        }
        Fact::WarehouseQuery(fact) => {
            fact.queued_us = most;
            fact.executed_us = most;
            fact.rows_processed = most;
            fact.rows_returned = most;
            fact.bytes_scanned = most;
            fact.fingerprint = String::new();
        }
        Fact::LakeAccessWithdrawn(_)
        | Fact::LakeAccessRestored(_)
        | Fact::WarehouseQueryWithdrawn(_) => panic!("{event:?}"),
    }
    event
}

#[tokio::test]
async fn events_are_read_back_as_they_were_whichever_way_they_went_in() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let last = accept::TIME_END.0 - 1;
    let lake = [
        access(0, 5),
        inventory(1, -4_000_000),
        derived(3, 2),
        extreme(access(4, 0), 0),
        extreme(inventory(5, 0), last),
    ];
    let warehouse = [query(0, 5), extreme(query(1, 0), 1), extreme(query(2, 0), last)];
    for (stream, given) in [(Stream::lake(0), &lake[..]), (Stream::warehouse(0), &warehouse[..])] {
        let mut archive = open(&database.archiver(), &stream.to_string(), 1).await.unwrap();
        let mut seen = Seen::new(&Rules::default());
        append(&mut archive, &mut seen, given).await.unwrap();
        let counted = read(&database.reader(), stream).await;
        assert_eq!(events(&counted), given);
        assert!(counted.iter().all(|counted| counted.source == SOURCE), "{counted:?}");
    }

    // The careful path, on a database of its own: one row is refused, the rest goes by INSERT.
    let database = server.database().await.unwrap();
    let mut refused = access(9, 1);
    let Fact::LakeAccess(fact) = &mut refused.fact else { unreachable!() };
    fact.key = "a\0b".to_owned();
    let given: Vec<Event> = lake.iter().cloned().chain([refused]).collect();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let appended = append(&mut archive, &mut seen, &given).await.unwrap();
    assert_eq!((appended.inserted, appended.refused), (5, 1));
    // What only the database refused was counted, so it is read as well.
    let counted = read(&database.reader(), Stream::lake(0)).await;
    assert_eq!(events(&counted), given);
    assert!(counted.iter().all(|counted| counted.source == SOURCE), "{counted:?}");
    assert_eq!(archive.seen(&Rules::default()).await.unwrap(), seen);
}

#[tokio::test]
async fn pages_come_in_counting_order_and_see_nothing_later() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let given: Vec<Event> =
        (0..70_000).map(|n| access(n, -i64::try_from(n % 400_000).unwrap() * 97)).collect();
    for part in given.chunks(700) {
        append(&mut archive, &mut seen, part).await.unwrap();
    }
    let mut view = ArchiveView::open(&database.reader(), Stream::lake(0)).await.unwrap();
    append(&mut archive, &mut seen, &[access(99_999, 1)]).await.unwrap();
    let mut all = Vec::new();
    let mut pages = 0;
    while let Some(page) = view.next_page().await.unwrap() {
        assert!(page.len() <= 30_000, "{}", page.len());
        pages += 1;
        all.extend(page);
    }
    assert!(pages >= 3, "{pages}");
    assert!(all.is_sorted_by_key(|counted| counted.position));
    assert_eq!(events(&all), given);
    assert_eq!(view.checkpoint().unwrap().mark.sequence, 100);
}

#[tokio::test]
async fn an_event_too_old_to_judge_is_counted_where_its_verdict_was_read_back() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let batch = judged(&archive, &seen, &[access(5, 1), access(6, 1)], Judgement::TooOld);
    archive.append(&batch).await.unwrap();
    append(&mut archive, &mut seen, &[access(0, 1)]).await.unwrap();
    assert_eq!(events(&read(&database.reader(), Stream::lake(0)).await), [access(0, 1)]);

    database
        .sql(
            "update lakegauge.lake_access set noted_epoch = 1, noted_sequence = 2, \
              noted_index = 7 where verdict = 1",
        )
        .unwrap();
    let counted = read(&database.reader(), Stream::lake(0)).await;
    assert_eq!(events(&counted), [access(0, 1), access(5, 1)]);
    assert!(counted.iter().all(|counted| counted.source == SOURCE), "{counted:?}");
    let tally = event_store::tally(&database.reader()).await.unwrap();
    assert_eq!((tally.events, tally.duplicates), (3, 0));
}
