//! One transaction a batch: rows, windows, dead letters, samples, ledger and checkpoint.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::collections::BTreeMap;

use domain::{
    Event, Fact, Judgement, Mark, Reason, Refusal, Rules, Sample, SampleValues, Seen, Stream,
    Windows, accept::QUANTITY_MAX,
};
use event_store::{ArchiveView, BatchBuilder, NewDeadLetter, SqlRecovery, StoreError};
use integration_tests::postgres::{Database, PostgresServer};

use crate::store_events::{
    CREATED_NS, access, append, at, derived, inventory, judged, ladder, mark, message, open,
    placed, query,
};

async fn lake() -> (PostgresServer, Database) {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    (server, database)
}

/// What the windows of the archive say, in the words of the domain.
fn windows(database: &Database, table: &str) -> Vec<String> {
    let (bytes, duration) = if table == "lake_window" {
        ("bytes", "duration_us")
    } else {
        ("bytes_scanned", "response_us")
    };
    database
        .sql(&format!(
            "select name, extract(epoch from window_start)::bigint, length_s, action, outcome, \
             events, {bytes}, {duration}, (lakegauge.sketch_add_up(array[ \
                 lakegauge.window_sketch(bucket_max, events, sketch)])).* \
             from lakegauge.{table} join lakegauge.window_series on id = series \
             order by 1, 2, 3, 4, 5"
        ))
        .unwrap()
}

fn expected_windows(events: &[Event]) -> Vec<String> {
    let mut windows = Windows::default();
    events.iter().for_each(|event| windows.add(&ladder().lengths_s(), event));
    let mut lines: BTreeMap<_, String> = BTreeMap::new();
    for (key, sums) in windows {
        let list = |values: Vec<String>| format!("{{{}}}", values.join(","));
        let line = format!(
            "{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
            key.name,
            key.start_s,
            key.length_s,
            key.action,
            key.outcome.code(),
            sums.events,
            sums.bytes,
            sums.duration_us,
            list(sums.sketch.iter().map(|(bucket, _)| bucket.to_string()).collect()),
            list(sums.sketch.iter().map(|(_, count)| count.to_string()).collect()),
        );
        lines.insert(key, line);
    }
    lines.into_values().collect()
}

#[tokio::test]
async fn rows_windows_ledger_and_checkpoint_move_together() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let events: Vec<Event> = (0..1_000)
        .map(|number| access(number, i64::try_from(number / 20).unwrap()))
        .chain([inventory(1_000, 3)])
        .collect();
    let mut inserted = 0;
    for part in events.chunks(300) {
        let appended = append(&mut archive, &mut seen, part).await.unwrap();
        inserted += appended.inserted;
        assert_eq!((appended.duplicates, appended.dead, appended.too_old), (0, 0, 0));
    }
    assert_eq!(inserted, 1_001);
    assert_eq!(database.number("select count(*) from lakegauge.lake_access").unwrap(), 1_000);
    assert_eq!(database.number("select count(*) from lakegauge.lake_inventory").unwrap(), 1);
    assert_eq!(windows(&database, "lake_window"), expected_windows(&events));
    assert_eq!(
        database
            .sql("select first, last, events, inserted from lakegauge_api.ledger order by 1")
            .unwrap(),
        ["1|1|300|300", "2|2|300|300", "3|3|300|300", "4|4|101|101"]
    );
    assert_eq!(
        database.sql("select stream, epoch, sequence from lakegauge_api.checkpoint").unwrap(),
        ["LAKE_0|1|4"]
    );
}

/// More than 2^63 bytes and microseconds in one window, added in two transactions.
#[tokio::test]
async fn sums_of_the_largest_quantities_are_exact_in_the_archive() {
    let (_server, database) = lake().await;
    let (mut accesses, mut queries) = (Vec::new(), Vec::new());
    for number in 0..2_200 {
        let mut event = access(number * 6, 1);
        let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
        (access.bytes, access.duration_us) = (QUANTITY_MAX, QUANTITY_MAX);
        accesses.push(event);
        let mut event = query(number * 4, 1);
        let Fact::WarehouseQuery(query) = &mut event.fact else { unreachable!() };
        (query.bytes_scanned, query.rows_processed) = (QUANTITY_MAX, QUANTITY_MAX);
        (query.queued_us, query.executed_us) = (QUANTITY_MAX, QUANTITY_MAX);
        queries.push(event);
    }
    for (stream, events) in [("LAKE_0", &accesses), ("WAREHOUSE_0", &queries)] {
        let mut archive = open(&database.archiver(), stream, 1).await.unwrap();
        let mut seen = Seen::new(&Rules::default());
        for half in events.chunks(1_100) {
            assert_eq!(append(&mut archive, &mut seen, half).await.unwrap().inserted, 1_100);
        }
    }
    let said = windows(&database, "lake_window");
    assert_eq!(said, expected_windows(&accesses));
    let said = windows(&database, "warehouse_window");
    assert_eq!(said, expected_windows(&queries));
    let rows = "select sum(rows_processed) from lakegauge.warehouse_window where length_s = 10";
    assert_eq!(database.sql(rows).unwrap(), [(2_200 * u128::from(QUANTITY_MAX)).to_string()]);
}

#[tokio::test]
async fn the_sum_of_sketches_in_sql_gives_the_percentiles_of_the_domain() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "WAREHOUSE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let events: Vec<Event> =
        (0..500).map(|number| query(number, i64::try_from(number % 90).unwrap())).collect();
    for part in events.chunks(100) {
        append(&mut archive, &mut seen, part).await.unwrap();
    }
    assert_eq!(windows(&database, "warehouse_window"), expected_windows(&events));
    let mut sketch = domain::Sketch::default();
    for event in &events {
        let domain::Fact::WarehouseQuery(query) = &event.fact else { unreachable!() };
        sketch.record(query.response_us(), 1);
    }
    for thousandths in [1, 500, 950, 990, 1_000] {
        let said = database.number(&format!(
            "select lakegauge_api.sketch_percentile(lakegauge_api.sketch_sum(sketch), \
             {thousandths} / 1000.0) from lakegauge_api.warehouse_window where length_s = 10"
        ));
        let said = u64::try_from(said.unwrap()).unwrap();
        assert_eq!(Some(said), sketch.quantile(thousandths), "{thousandths}");
    }
}

#[tokio::test]
async fn redelivering_a_history_changes_nothing() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut events: Vec<Event> = (0..200).map(|number| access(number, 1)).collect();
    events.extend((0..50).map(|number| derived(number, 2)));
    append(&mut archive, &mut seen, &events).await.unwrap();
    let before = windows(&database, "lake_window");
    drop(archive);

    // After a restart the sets come back from the checkpoint and the rows.
    let mut archive = open(&database.archiver(), "LAKE_0", 2).await.unwrap();
    let mut read_back = archive.seen(&Rules::default()).await.unwrap();
    assert_eq!(read_back, seen);
    let appended = append(&mut archive, &mut read_back, &events).await.unwrap();
    assert_eq!((appended.inserted, appended.duplicates), (0, 250));
    assert_eq!(windows(&database, "lake_window"), before);
    assert_eq!(database.number("select count(*) from lakegauge.lake_access").unwrap(), 250);
}

#[tokio::test]
async fn events_too_old_to_judge_are_judged_by_the_key_and_numbered_without_gaps() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let known: Vec<Event> = (0..10).map(|number| access(number, 1)).collect();
    append(&mut archive, &mut seen, &known).await.unwrap();
    let mixed: Vec<Event> = (5..15).map(|number| access(number, 1)).collect();
    let batch = judged(&archive, &seen, &mixed, Judgement::TooOld);
    let appended = archive.append(&batch).await.unwrap();
    assert_eq!((appended.inserted, appended.duplicates, appended.too_old), (5, 5, 5));
    assert_eq!(appended.known_though_new, 0);
    let batch = judged(&archive, &seen, &[inventory(20, 1), access(21, 1)], Judgement::TooOld);
    assert_eq!(archive.append(&batch).await.unwrap().next_verdict, 8);
    assert_eq!(
        database
            .sql(
                "select verdict, sequence, index from lakegauge.lake_access where verdict > 0 \
                  union all \
                  select verdict, sequence, index from lakegauge.lake_inventory where verdict > 0 \
                  order by 1"
            )
            .unwrap(),
        ["1|2|5", "2|2|6", "3|2|7", "4|2|8", "5|2|9", "6|3|0", "7|3|1"]
    );
    let all: Vec<Event> = (0..15).chain([21]).map(|number| access(number, 1)).collect();
    assert_eq!(windows(&database, "lake_window"), expected_windows(&all));
}

#[tokio::test]
async fn a_row_that_the_sets_call_new_and_the_key_known_is_an_alarm_and_counted_once() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 1), access(1, 1)]).await.unwrap();
    let events = [access(1, 1), access(2, 1)];
    let batch = judged(&archive, &seen, &events, Judgement::New);
    let appended = archive.append(&batch).await.unwrap();
    assert_eq!((appended.inserted, appended.duplicates, appended.known_though_new), (1, 1, 1));
    let all = [access(0, 1), access(1, 1), access(2, 1)];
    assert_eq!(windows(&database, "lake_window"), expected_windows(&all));
}

#[tokio::test]
async fn a_row_that_the_server_refuses_becomes_a_counted_letter_and_the_rest_is_archived() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut events: Vec<Event> = (0..100).map(|number| access(number, 1)).collect();
    // Acceptance would have refused it; the server must as well.
    let domain::Fact::LakeAccess(fact) = &mut events[37].fact else { unreachable!() };
    fact.key = "a\0b".to_owned();
    let appended = append(&mut archive, &mut seen, &events).await.unwrap();
    assert_eq!((appended.inserted, appended.dead, appended.refused), (99, 1, 1));
    assert_eq!(
        database
            .sql("select reason, counted, sqlstate, sequence, index from lakegauge_api.dead_letter")
            .unwrap(),
        ["refused_by_database|t|22021|1|37"]
    );
    let good: Vec<Event> =
        events.iter().enumerate().filter(|(n, _)| *n != 37).map(|(_, e)| e.clone()).collect();
    assert_eq!(windows(&database, "lake_window"), expected_windows(&good));
}

#[tokio::test]
async fn letters_samples_and_losses_are_kept_once_and_a_differing_sample_is_an_alarm() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "TELEMETRY", 1).await.unwrap();
    let seen = Seen::new(&Rules::default());
    let sample = |used_bytes| Sample {
        stream: Stream::lake(0),
        epoch: 1,
        sequence: 9,
        broker_ns: 5,
        values: SampleValues::Lake {
            used_bytes,
            accesses: 3,
            buckets: BTreeMap::from([("raw".to_owned(), used_bytes)]),
        },
    };
    let letter = NewDeadLetter {
        position: at(mark(1), 0),
        broker_ns: 4,
        refusal: Refusal::of_field(Reason::WrongField, "bytes", "is \"a\0\""),
        bytes: b"\x00\xff{".to_vec(),
        header_bytes: 2,
        identity: None,
        source: None,
    };
    let build = |samples: Vec<Sample>, losses: Vec<(u64, u64)>| {
        let before = archive.checkpoint().map(|checkpoint| checkpoint.mark);
        let mut builder = BatchBuilder::new(archive.stream(), &ladder(), before);
        samples.into_iter().for_each(|sample| builder.sample(sample));
        losses.into_iter().for_each(|(first, last)| builder.lost(first, last));
        builder.letter(letter.clone());
        builder.seal(mark(before.map_or(0, |before| before.sequence) + 5), &seen)
    };
    // Sums have 128 bits on their way into the archive and out of it.
    let much = 1_i128 << 70;
    let first = build(vec![sample(much), sample(much)], vec![(2, 4)]);
    let appended = archive.append(&first).await.unwrap();
    assert_eq!((appended.inserted, appended.duplicates, appended.dead), (1, 1, 1));
    assert_eq!(appended.samples_differing, 0);

    let before = archive.checkpoint().map(|checkpoint| checkpoint.mark);
    let mut builder = BatchBuilder::new(archive.stream(), &ladder(), before);
    builder.sample(sample(much + 1));
    builder.letter(letter.clone());
    let appended = archive.append(&builder.seal(mark(9), &seen)).await.unwrap();
    assert_eq!((appended.inserted, appended.duplicates, appended.dead), (0, 2, 0));
    assert_eq!(appended.samples_differing, 1);
    assert_eq!(
        database.sql("select stream, used_bytes, buckets from lakegauge_api.sample").unwrap(),
        [format!("LAKE_0|{much}|{{\"raw\": {much}}}")],
        "the first stays"
    );
    let mut view = ArchiveView::open(&database.reader(), Stream::lake(0)).await.unwrap();
    assert_eq!(view.samples_after((0, 0)).await.unwrap(), [sample(much)]);
    assert_eq!(
        database.sql("select field, bytes from lakegauge_api.dead_letter").unwrap(),
        ["bytes|\\x00ff7b"]
    );
    assert_eq!(
        database.sql("select first, last from lakegauge_api.declared_loss").unwrap(),
        ["2|4"]
    );
}

#[tokio::test]
async fn a_second_writer_waits_and_one_that_lost_the_checkpoint_is_fenced() {
    let (_server, database) = lake().await;
    let mut first = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut first, &mut seen, &[access(0, 1)]).await.unwrap();

    let (waiting_for, mut watched) = tokio::sync::watch::channel(None);
    let settings = database.archiver();
    let second = tokio::spawn(async move {
        event_store::Archive::open(&settings, "LAKE_0", [2; 16], waiting_for.into(), None).await
    });
    watched.wait_for(|holder: &Option<String>| holder.is_some()).await.unwrap();
    let holder = watched.borrow().clone().unwrap();
    assert!(holder.contains("lakegauge_test_archiver"), "{holder}");
    assert!(!second.is_finished());

    // The first loses its lock without knowing, and the second goes ahead.
    let stale = message(&first, &mut seen, &[access(1, 1)]);
    database
        .sql(
            "select pg_terminate_backend(pid) from pg_locks join pg_database on oid = database \
             where locktype = 'advisory' and granted and datname = current_database()",
        )
        .unwrap();
    let mut second = second.await.unwrap().unwrap();
    append(&mut second, &mut Seen::new(&Rules::default()), &[access(7, 1)]).await.unwrap();
    drop(second);
    let error = loop {
        match first.append(&stale).await {
            Err(error) if error.recovery() == SqlRecovery::Retry => {}
            Err(error) => break error,
            Ok(appended) => panic!("a stale batch was taken: {appended:?}"),
        }
    };
    assert!(matches!(error, StoreError::Fenced { sequence: 2, .. }), "{error}");
    assert_eq!(database.number("select count(*) from lakegauge.lake_access").unwrap(), 2);
}

#[tokio::test]
async fn a_writer_that_still_believes_in_its_lock_is_stopped_by_the_checkpoint() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 1)]).await.unwrap();
    database.sql("update lakegauge.checkpoint set writer = gen_random_uuid()").unwrap();
    let batch = message(&archive, &mut seen, &[access(1, 1)]);
    let error = archive.append(&batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { sequence: 1, .. }), "{error}");
    assert_eq!(error.recovery(), SqlRecovery::Stop);
    assert_eq!(database.number("select count(*) from lakegauge.lake_access").unwrap(), 1);
    assert_eq!(windows(&database, "lake_window"), expected_windows(&[access(0, 1)]));
}

#[tokio::test]
async fn a_new_epoch_closes_the_old_one_and_begins_before_its_first_message() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 1)]).await.unwrap();
    let start = Mark { epoch: 2, sequence: 0, broker_ns: 0, created_ns: 99 };
    assert_eq!(archive.begin_epoch(start, 4).await.unwrap(), 3);
    assert!(archive.begin_epoch(start, 4).await.is_err());
    let before = archive.checkpoint().map(|checkpoint| checkpoint.mark);
    let mut after = mark(3);
    after.epoch = 2;
    let mut builder = BatchBuilder::new(archive.stream(), &ladder(), before);
    builder.event(placed(after, 0, access(0, 1)), seen.judge(&access(0, 1)));
    let appended = archive.append(&builder.seal(after, &seen)).await.unwrap();
    assert_eq!((appended.inserted, appended.duplicates), (0, 1));
    assert_eq!(
        database.sql("select epoch, first, last from lakegauge_api.ledger order by 1").unwrap(),
        ["1|1|1", "2|1|3"]
    );
    assert_eq!(database.sql("select epoch, sequence from lakegauge.epoch").unwrap(), ["1|1"]);
    assert_eq!(
        database.sql("select epoch, first, last from lakegauge_api.declared_loss").unwrap(),
        ["1|2|4"],
        "what the old epoch had behind its checkpoint"
    );
}

#[tokio::test]
async fn an_epoch_that_does_not_begin_at_1_follows_on_nothing_in_the_ledger() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 1)]).await.unwrap();
    let start = Mark { epoch: 2, sequence: 1, broker_ns: 0, created_ns: CREATED_NS };
    assert_eq!(archive.begin_epoch(start, 1).await.unwrap(), 0);
    let mut after = mark(2);
    after.epoch = 2;
    let mut builder = BatchBuilder::new(archive.stream(), &ladder(), Some(start));
    builder.event(placed(after, 0, access(1, 1)), seen.judge(&access(1, 1)));
    archive.append(&builder.seal(after, &seen)).await.unwrap();
    assert_eq!(
        database.sql("select epoch, first, last from lakegauge_api.ledger order by 1").unwrap(),
        ["1|1|1", "2|2|2"]
    );
    assert_eq!(
        database.sql("select * from lakegauge_api.declared_loss").unwrap(),
        Vec::<String>::new(),
        "nothing stood behind the checkpoint"
    );
}

#[tokio::test]
async fn the_ledger_has_neither_gaps_nor_forks_nor_sums_that_do_not_agree() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 1)]).await.unwrap();
    append(&mut archive, &mut seen, &[access(1, 1)]).await.unwrap();
    let insert = |values: &str| {
        database.sql(&format!(
            "insert into lakegauge.ledger (stream, epoch, first, last, previous, events, inserted, \
             duplicates, dead) select id, {values} from lakegauge.stream"
        ))
    };
    for (values, constraint) in [
        ("1, 5, 6, 4, 1, 1, 0, 0", "fkey"),
        ("1, 4, 6, 2, 1, 1, 0, 0", "check"),
        ("1, 2, 6, 1, 1, 1, 0, 0", "previous"),
        ("1, 1, 6, null, 1, 1, 0, 0", "previous"),
        ("1, 3, 6, 2, 2, 1, 0, 0", "check"),
    ] {
        let refused = insert(values).unwrap_err().to_string();
        assert!(refused.contains(constraint), "{values}: {refused}");
    }
    insert("1, 3, 6, 2, 1, 1, 0, 0").unwrap();
}

#[tokio::test]
async fn a_refused_row_that_was_counted_is_known_also_when_only_the_key_can_judge_it() {
    let (_server, database) = lake().await;
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[derived(1, 0)]).await.unwrap();
    let refuse = "alter table lakegauge.lake_access add constraint poison \
        check (key <> 'part-2.parquet')";
    database.sql(refuse).unwrap();
    let appended = append(&mut archive, &mut seen, &[derived(2, 5)]).await.unwrap();
    assert_eq!((appended.inserted, appended.dead, appended.refused), (0, 1, 1));
    database.sql("alter table lakegauge.lake_access drop constraint poison").unwrap();
    // Its identity has left the sets: nothing but the dead letter knows it.
    let batch = judged(&archive, &seen, &[derived(2, 5)], Judgement::TooOld);
    let appended = archive.append(&batch).await.unwrap();
    assert_eq!((appended.inserted, appended.duplicates, appended.too_old), (0, 1, 0));
}
