//! Rollups: what the rows add up to by day, and what is known of each key.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::collections::BTreeMap;

use domain::{
    Event, Fact, Judgement, LakeAccess, Operation, Outcome, Rules, Seen, SideMetrics, Stream,
    StreamState, time::SECONDS_PER_DAY,
};
use event_store::{Archive, Rollups};
use integration_tests::postgres::{Database, PostgresServer};

use crate::store_events::{access, append, derived, judged, open, query};

/// Brings the rollups of a stream up.
pub(crate) async fn roll_up(database: &Database, archive: &Archive, keys: bool) {
    let rollups = Rollups::open(&database.archiver(), archive.stream()).await.unwrap();
    rollups.unwrap().catch_up(keys).await.unwrap();
}

/// Requests for few keys over ten days, in no order, that overtake each other.
fn requests(count: u64) -> Vec<Event> {
    let operations = [Operation::Write, Operation::Read, Operation::Delete, Operation::Copy];
    (0..count)
        .map(|number| {
            let drawn = number.wrapping_mul(2_654_435_761) >> 7;
            let days = i64::try_from(drawn % 10).unwrap();
            let event =
                access(number, days * SECONDS_PER_DAY + i64::try_from(drawn % 7_919).unwrap());
            let Fact::LakeAccess(access) = event.fact else { unreachable!("a request") };
            let operation = operations[usize::try_from(drawn % 13 % 4).unwrap()];
            let fact = Fact::LakeAccess(LakeAccess {
                key: format!("key-{}", drawn % 17),
                operation,
                object_bytes: (drawn % 3 > 0).then_some(drawn % 1_000),
                outcome: if drawn % 11 == 0 { Outcome::Denied } else { Outcome::Ok },
                principal: format!("job-{}", drawn % 4),
                ..access
            });
            Event { fact, ..event }
        })
        .collect()
}

/// Groups of the days that are not what the rows add up to.
fn different(database: &Database) -> Vec<String> {
    let lake = (
        "select day, bucket, principal, operation, outcome, events, bytes, duration_us \
         from lakegauge.lake_day",
        "select (occurred_at at time zone 'utc')::date, bucket, principal, operation, outcome, \
         count(*), sum(bytes), sum(duration_us) from lakegauge.lake_access group by 1, 2, 3, 4, 5",
    );
    let warehouse = (
        "select day, warehouse, principal, outcome, events, bytes_scanned, queued_us, executed_us, \
         rows_processed from lakegauge.warehouse_day",
        "select (occurred_at at time zone 'utc')::date, warehouse, principal, outcome, count(*), \
         sum(bytes_scanned), sum(queued_us), sum(executed_us), sum(rows_processed) \
         from lakegauge.warehouse_query group by 1, 2, 3, 4",
    );
    let pattern = (
        "select day, fingerprint, warehouse, statement, events, failures, response_us_max, \
         bytes_scanned, queued_us, executed_us from lakegauge.pattern_day",
        "select (occurred_at at time zone 'utc')::date, fingerprint, warehouse, statement, \
         count(*), count(*) filter (where outcome <> 0), max(queued_us + executed_us), \
         sum(bytes_scanned), sum(queued_us), sum(executed_us) \
         from lakegauge.warehouse_query group by 1, 2, 3, 4",
    );
    [lake, warehouse, pattern]
        .iter()
        .flat_map(|(rolled, rows)| {
            let sql =
                format!("(({rolled}) except ({rows})) union all (({rows}) except ({rolled}))");
            database.sql(&sql).unwrap()
        })
        .collect()
}

/// Bytes by bucket: of what is stored by key, and what the growth of all days adds up to.
fn stored(database: &Database) -> [Vec<String>; 2] {
    let objects = "select bucket, sum(bytes), count(*) from lakegauge_api.stored_object \
        group by 1 order by 1";
    let growth = "select bucket, sum(bytes), sum(objects) from lakegauge_api.lake_growth \
        group by 1 order by 1";
    [objects, growth].map(|sql| database.sql(sql).unwrap())
}

#[tokio::test]
async fn days_are_what_the_rows_add_up_to_and_keys_what_the_aggregator_has() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut live = StreamState::new(Stream::lake(0), Rules::default());
    for (part, events) in requests(600).chunks(60).enumerate() {
        append(&mut lake, &mut seen, events).await.unwrap();
        events.iter().for_each(|event| {
            live.apply(event);
        });
        if part % 4 == 1 {
            roll_up(&database, &lake, true).await;
        }
    }
    // One that came too late for the sets.
    let late = derived(200, 5);
    lake.append(&judged(&lake, &seen, std::slice::from_ref(&late), Judgement::TooOld))
        .await
        .unwrap();
    live.apply(&late);
    let mut warehouse = open(&database.archiver(), "WAREHOUSE_0", 1).await.unwrap();
    let queries: Vec<Event> = (1_000..1_100).map(|number| query(number, 3)).collect();
    append(&mut warehouse, &mut seen, &queries).await.unwrap();
    assert!(!different(&database).is_empty(), "they follow later");

    for _ in 0..2 {
        roll_up(&database, &lake, true).await;
        roll_up(&database, &warehouse, true).await;
        assert_eq!(different(&database), Vec::<String>::new());
    }
    let [objects, growth] = stored(&database);
    assert_eq!(objects, growth);
    let known: BTreeMap<String, i128> = objects
        .iter()
        .map(|row| {
            let fields: Vec<&str> = row.split('|').collect();
            (fields[0].to_owned(), fields[1].parse().unwrap())
        })
        .collect();
    let SideMetrics::Lake(live) = live.metrics() else { unreachable!("of the lake") };
    let counted: BTreeMap<String, i128> =
        live.buckets().map(|(name, sums)| (name.to_owned(), sums.space.tracked)).collect();
    assert_eq!(known, counted);

    let unread = "select count(*) from lakegauge.lake_object as known join ( \
            select bucket, key, max(occurred_at) as at from lakegauge.lake_access \
            where operation = 0 and outcome = 0 group by 1, 2) as read using (bucket, key) \
        where known.read_at > read.at or known.read_at <= read.at - interval '1 hour' \
            or known.read_at is null";
    assert_eq!(database.number(unread).unwrap(), 0);

    roll_up(&database, &lake, false).await;
    assert_eq!(stored(&database), [Vec::<String>::new(), Vec::new()], "let go of");
    roll_up(&database, &lake, true).await;
    assert_eq!(stored(&database), [objects, growth], "added up again from the rows");
    assert_eq!(different(&database), Vec::<String>::new());
}

#[tokio::test]
async fn a_step_that_ends_early_adds_nothing_and_an_epoch_goes_on_from_the_first_message() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    append(&mut lake, &mut seen, &[access(2, 0), access(4, 1)]).await.unwrap();
    let step = "set role lakegauge_archiver; begin; \
        select lakegauge.roll_up(1::smallint, 'days', 10); rollback";
    assert_eq!(database.sql(step).unwrap(), ["t"]);
    roll_up(&database, &lake, true).await;

    let mark = lake.checkpoint().unwrap().mark;
    lake.begin_epoch(domain::Mark { epoch: 2, sequence: 0, broker_ns: 0, ..mark }, mark.sequence)
        .await
        .unwrap();
    // The same sequences again, of other messages.
    let after = domain::Mark { epoch: 2, sequence: 1, ..mark };
    let before = lake.checkpoint().unwrap().mark;
    let mut builder =
        event_store::BatchBuilder::new(lake.stream(), &crate::store_events::ladder(), Some(before));
    let event = access(6, 2);
    let judgement = seen.judge(event.identity());
    builder.event(crate::store_events::placed(after, 0, event), judgement);
    lake.append(&builder.seal(after, &seen)).await.unwrap();
    roll_up(&database, &lake, true).await;
    assert_eq!(different(&database), Vec::<String>::new());
    assert_eq!(database.number("select count(*) from lakegauge_api.stored_object").unwrap(), 3);
    let done = "select part, epoch, sequence from lakegauge_api.rolled_up order by 1";
    assert_eq!(database.sql(done).unwrap(), ["days|2|1", "keys|2|1"]);
}
