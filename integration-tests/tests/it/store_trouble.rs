//! What the server may answer, and what the archive does about it.

use std::fmt::Write as _;

use domain::{Event, Judgement, Rules, Seen};
use event_store::{SqlRecovery, StoreError};
use integration_tests::postgres::PostgresServer;

use crate::store_events::{access, append, derived, inventory, judged, message, open, query};

#[tokio::test]
async fn what_is_copied_in_is_byte_for_byte_what_the_server_copies_out() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let folder = database.value("show data_directory").unwrap();
    let mut statements = 0;
    for (stream, mut events) in [
        ("LAKE_0", (0..500).map(|number| access(number, 1)).collect::<Vec<Event>>()),
        ("WAREHOUSE_0", (1_000..1_500).map(|number| query(number, -9_000_000)).collect()),
    ] {
        if stream == "LAKE_0" {
            events.extend((0..50).map(|number| derived(number, 2)));
            events.extend((600..650).map(|number| inventory(number, 3)));
        }
        let mut archive = open(&database.archiver(), stream, 1).await.unwrap();
        let mut seen = Seen::new(&Rules::default());
        let batch = message(&archive, &mut seen, &events);
        archive.append(&batch).await.unwrap();
        for (statement, sent) in batch.copies() {
            statements += 1;
            let (head, _) = statement.split_once(" from stdin").unwrap();
            let (table, columns) =
                head.trim_start_matches("copy ").trim_end_matches(')').split_once(" (").unwrap();
            let file = format!("{folder}/{statements}.bin");
            database
                .sql(&format!(
                    "copy (select {columns} from {table} order by sequence, index) \
                     to '{file}' (format binary)"
                ))
                .unwrap();
            let said = database
                .value(&format!("select encode(pg_read_binary_file('{file}'), 'hex')"))
                .unwrap();
            let sent = sent.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            assert!(said == sent, "{table} differs");
        }
    }
    assert_eq!(statements, 3);
}

#[tokio::test]
async fn a_partition_that_was_dropped_is_made_again() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let drop_all = "do $$ declare part regclass; begin \
        for part in select inhrelid::regclass from pg_inherits \
            where inhparent = 'lakegauge.lake_access'::regclass \
        loop execute format('drop table %s', part); end loop; end $$";
    append(&mut archive, &mut seen, &[access(0, 1)]).await.unwrap();
    database.sql(drop_all).unwrap();
    // Both ways into the archive.
    append(&mut archive, &mut seen, &[access(1, 1)]).await.unwrap();
    database.sql(drop_all).unwrap();
    let batch = judged(&archive, &seen, &[access(2, 1)], Judgement::TooOld);
    assert_eq!(archive.append(&batch).await.unwrap().inserted, 1);
    assert_eq!(database.number("select count(*) from lakegauge.lake_access").unwrap(), 1);
}

#[tokio::test]
async fn a_database_that_is_read_only_pauses_and_goes_on_when_it_is_not() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let read_only = |on: &str| {
        let name = database.value("select current_database()").unwrap();
        let end = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where application_name like 'test%' and datname = current_database()";
        database
            .sql(&format!(
                "set transaction read write; \
                 alter database {name} set default_transaction_read_only = {on}; {end}"
            ))
            .unwrap();
    };
    append(&mut archive, &mut seen, &[access(0, 1)]).await.unwrap();
    read_only("on");
    let batch = message(&archive, &mut seen, &[access(1, 1)]);
    let ended = archive.append(&batch).await.unwrap_err();
    assert_eq!(ended.recovery(), SqlRecovery::Retry, "{ended}");
    for _ in 0..2 {
        let paused = archive.append(&batch).await.unwrap_err();
        assert_eq!(paused.recovery(), SqlRecovery::Pause, "{paused}");
    }
    read_only("off");
    assert_eq!(archive.append(&batch).await.unwrap().inserted, 1);
}

#[tokio::test]
async fn a_login_that_is_no_archiver_is_told_what_to_grant() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let error = open(&database.reader(), "LAKE_0", 1).await.unwrap_err();
    assert_eq!(error.recovery(), SqlRecovery::Stop);
    assert!(
        error.to_string().contains("grant lakegauge_reader (or, to write, lakegauge_archiver)"),
        "{error}"
    );
    assert!(matches!(error, StoreError::Database { .. }));
}

#[tokio::test]
async fn two_streams_of_one_side_add_to_the_same_windows() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut tasks = Vec::new();
    for partition in 0..3_u64 {
        let settings = database.archiver();
        tasks.push(tokio::spawn(async move {
            let stream = format!("LAKE_{partition}");
            let writer = u8::try_from(partition).unwrap();
            let mut archive = open(&settings, &stream, writer).await.unwrap();
            let mut seen = Seen::new(&Rules::default());
            for round in 0..10 {
                let from = partition * 100_000 + round * 300;
                let events: Vec<Event> = (from..from + 300).map(|n| access(n, 5)).collect();
                append(&mut archive, &mut seen, &events).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        database
            .sql(
                "select length_s, sum(events), sum((select sum(pair & 524287) from \
                  unnest((sketch).pairs) as pair)) from lakegauge_api.lake_window \
                  group by 1 order by 1",
            )
            .unwrap(),
        ["10|9000|9000", "60|9000|9000"]
    );
}
