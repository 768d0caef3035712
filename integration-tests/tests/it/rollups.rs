//! Rollups: what the rows add up to by day, and what is known of each key.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::collections::BTreeMap;

use domain::{
    Event, Fact, Judgement, LakeAccess, Operation, Outcome, Rules, Seen, Side, SideMetrics, Stream,
    StreamState, time::SECONDS_PER_DAY,
};
use event_store::{Archive, Rollups, totals::TotalsReader};
use integration_tests::pipeline::{Part, Pipeline, Traffic};
use integration_tests::postgres::{Database, PostgresServer};
use integration_tests::waiting::until;

use crate::store_events::{access, append, derived, judged, open, query};

/// Brings the rollups of a stream up.
pub(crate) async fn roll_up(database: &Database, archive: &Archive, keys: bool) {
    let rollups = Rollups::open(&database.archiver(), archive.stream()).await.unwrap();
    rollups.unwrap().catch_up(keys).await.unwrap();
}

/// The same for who has no archive at hand.
pub(crate) async fn roll_up_by_name(database: &Database, stream: &str) {
    let id = database.number(&format!("select id from lakegauge.stream where name = '{stream}'"));
    let id = event_store::StreamId::new(i16::try_from(id.unwrap()).unwrap(), stream);
    let rollups = Rollups::open(&database.archiver(), id).await.unwrap();
    rollups.unwrap().catch_up(true).await.unwrap();
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
    let judgement = seen.judge(&event);
    builder.event(crate::store_events::placed(after, 0, event), judgement);
    lake.append(&builder.seal(after, &seen)).await.unwrap();
    roll_up(&database, &lake, true).await;
    assert_eq!(different(&database), Vec::<String>::new());
    assert_eq!(database.number("select count(*) from lakegauge_api.stored_object").unwrap(), 3);
    let done = "select part, epoch, sequence from lakegauge_api.rolled_up order by 1";
    assert_eq!(database.sql(done).unwrap(), ["days|2|1", "keys|2|1"]);
}

/// A request for a key on a day.
fn request(number: u64, day: i64, key: &str, operation: Operation) -> Event {
    let event = access(number, day * SECONDS_PER_DAY);
    let Fact::LakeAccess(access) = event.fact else { unreachable!("a request") };
    let (outcome, object_bytes) = (Outcome::Ok, Some(100));
    let (bucket, key) = ("raw".to_owned(), key.to_owned());
    let fact =
        Fact::LakeAccess(LakeAccess { bucket, key, operation, outcome, object_bytes, ..access });
    Event { fact, ..event }
}

#[tokio::test]
async fn deleted_keys_are_forgotten_after_retention_and_no_late_write_brings_one_back() {
    use Operation::{Delete, Read, Write};
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let requests = [
        ("deleted", 0, Write),
        ("deleted", 1, Delete),
        ("stored", 0, Write),
        ("only read", 2, Read),
        ("deleted lately", 1, Write),
        ("deleted lately", 8, Delete),
        ("deleted, read lately", 1, Delete),
        ("deleted, read lately", 8, Read),
    ];
    let events: Vec<Event> = (0..)
        .zip(requests)
        .map(|(number, (key, day, operation))| request(number, day, key, operation))
        .collect();
    append(&mut lake, &mut seen, &events).await.unwrap();
    roll_up(&database, &lake, true).await;
    let before = stored(&database);
    let known = || database.sql("select key from lakegauge_api.lake_object order by key").unwrap();
    assert_eq!(known().len(), 5);

    let kept_from = crate::store_events::START.plus_seconds(3 * SECONDS_PER_DAY);
    let stream = lake.stream();
    let forget = async || {
        let rollups = Rollups::open(&database.archiver(), stream).await.unwrap();
        rollups.unwrap().forget_deleted_keys(kept_from).await.unwrap()
    };
    assert_eq!(forget().await, 2);
    assert_eq!(known(), ["deleted lately", "deleted, read lately", "stored"]);
    assert_eq!(stored(&database), before, "what is stored stays, however old");
    assert_eq!(forget().await, 0);
    let floor = "select part, forgotten_to is not null from lakegauge_api.rolled_up order by 1";
    assert_eq!(database.sql(floor).unwrap(), ["days|f", "keys|t"]);

    // What acceptance refuses, but an older copy of a stream may still bring.
    let late = [request(20, 0, "deleted", Write), request(21, 2, "unknown", Write)];
    append(&mut lake, &mut seen, &late).await.unwrap();
    roll_up(&database, &lake, true).await;
    assert_eq!(stored(&database), before, "it changes nothing");
    // Both are keys like any other, and a key that is known follows its latest change.
    let new = [
        request(22, 3, "deleted", Write),
        request(23, 2, "deleted lately", Write),
        request(24, 2, "stored", Delete),
    ];
    append(&mut lake, &mut seen, &new).await.unwrap();
    roll_up(&database, &lake, true).await;
    let keys = "select key from lakegauge_api.stored_object";
    assert_eq!(database.sql(keys).unwrap(), ["deleted"]);
    let [objects, growth] = stored(&database);
    assert_eq!((objects, growth), (vec!["raw|100|1".to_owned()], vec!["raw|100|1".to_owned()]));
    assert_eq!(forget().await, 1, "and is forgotten in its turn");
}

#[tokio::test]
async fn a_table_of_many_pages_is_looked_at_to_its_end() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let deletes: Vec<Event> = (0..900)
        .map(|number| request(number, 0, &format!("{number:0300}"), Operation::Delete))
        .collect();
    append(&mut lake, &mut seen, &deletes).await.unwrap();
    roll_up(&database, &lake, true).await;
    let pages = "select pg_relation_size('lakegauge.lake_object') / 8192";
    let pages = database.number(pages).unwrap();
    assert!(pages > 20, "{pages} pages");
    let mut next = Some(0_i64);
    let (mut steps, mut forgotten) = (0, 0);
    while let Some(page) = next {
        let step = format!(
            "select * from lakegauge.forget_deleted_keys(1::smallint, '2100-01-01', {page}, 7)"
        );
        let answer = database.sql_as(Some("lakegauge_archiver"), &step).unwrap().concat();
        let (keys, page) = answer.split_once('|').unwrap();
        forgotten += keys.parse::<i64>().unwrap();
        next = page.parse().ok();
        steps += 1;
    }
    assert_eq!((forgotten, steps), (900, (pages + 6) / 7));
}

/// For how many whole minutes rows of each stream have waited for its rollups.
async fn lags(database: &Database, keys: bool) -> Vec<(String, u64)> {
    let mut reader = TotalsReader::open(&database.archiver()).await.unwrap();
    let lags = reader.rollup_lag(keys).await.unwrap();
    lags.into_iter().map(|(stream, lag)| (stream, lag.as_secs() / 60)).collect()
}

#[tokio::test]
async fn rollups_are_behind_since_the_first_commit_that_they_do_not_include() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut warehouse = open(&database.archiver(), "WAREHOUSE_0", 1).await.unwrap();
    open(&database.archiver(), "TELEMETRY", 1).await.unwrap();
    append(&mut lake, &mut seen, &[access(2, 0)]).await.unwrap();
    append(&mut lake, &mut seen, &[access(4, 1)]).await.unwrap();
    append(&mut warehouse, &mut seen, &[query(6, 1)]).await.unwrap();
    // As if the first of them had been committed an hour ago, and the others half an hour ago.
    let age = "update lakegauge.ledger set committed_at = now() - case when previous is null \
        and stream = 1 then interval '1 hour' else interval '30 minutes' end";
    database.sql(age).unwrap();
    let of = |lake, warehouse| [("LAKE_0".to_owned(), lake), ("WAREHOUSE_0".to_owned(), warehouse)];
    assert_eq!(lags(&database, true).await, of(60, 30));

    let step = |part| {
        let sql = format!(
            "set role lakegauge_archiver; select lakegauge.roll_up(1::smallint, '{part}', 1)"
        );
        assert_eq!(database.sql(&sql).unwrap(), ["t"]);
    };
    step("days");
    assert_eq!(lags(&database, false).await, of(30, 30), "one range was added");
    assert_eq!(lags(&database, true).await, of(60, 30), "keys have their own position");
    step("days");
    roll_up(&database, &warehouse, true).await;
    assert_eq!(lags(&database, false).await, of(0, 0));
    assert_eq!(lags(&database, true).await, of(60, 0));
    roll_up(&database, &lake, true).await;
    assert_eq!(lags(&database, true).await, of(0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_that_wait_say_for_what_and_since_when_until_they_follow_again() {
    let settings = [
        ("ARCHIVER_ROLLUP_INTERVAL_MS", "100"),
        ("ARCHIVER_ROLLUPS_OVERDUE_AFTER_MS", "1000"),
        ("ARCHIVER_LEDGER_INTERVAL_MS", "50"),
    ];
    let mut pipeline = Pipeline::start(&settings).await.unwrap();
    let refuse = "create function public.refuse() returns trigger language plpgsql as $$ begin \
            raise exception 'somebody holds the days' using errcode = '55P03'; end $$; \
        create trigger refuse before insert on lakegauge.lake_day \
            for each row execute function public.refuse()";
    pipeline.database.sql(refuse).unwrap();
    pipeline.run(Part::Archiver).unwrap();
    let traffic = Traffic { events: 200, rate: 2_000, format: "bincode" };
    pipeline.simulate(Side::Lake, traffic).unwrap().finish().await.unwrap();

    let lag = "lakegauge_archive_rollup_lag_seconds{stream=\"LAKE_0\"}";
    until("rollups that are overdue", async || {
        let archiver = pipeline.part(Part::Archiver)?;
        let (status, why) = archiver.get("/readyz")?;
        Ok(status == 503
            && why.contains("[-]rollups LAKE_0: ")
            && why.contains("somebody holds the days")
            && archiver.metric(lag).is_some_and(|seconds| seconds >= 1.0))
    })
    .await
    .unwrap();
    let log = pipeline.part(Part::Archiver).unwrap().log();
    assert_eq!(log.matches("\"rollups wait\"").count(), 1, "once, not at each attempt: {log}");
    assert!(log.contains("\"rollups are overdue\""), "{log}");

    pipeline.database.sql("drop trigger refuse on lakegauge.lake_day").unwrap();
    pipeline.part(Part::Archiver).unwrap().ready().await.unwrap();
    until("rollups that follow", async || {
        Ok(pipeline.part(Part::Archiver)?.metric(lag) == Some(0.0))
    })
    .await
    .unwrap();
    assert_eq!(different(&pipeline.database), Vec::<String>::new());
}
