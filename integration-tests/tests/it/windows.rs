//! Windows of a ladder: which are kept, what they cost to read, and who waits for whom.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use boards::Query;
use domain::{Event, Fact, Ladder, Mark, Operation, Outcome, Rules, Seen, time::SECONDS_PER_DAY};
use event_store::{Archive, BatchBuilder};
use integration_tests::executable;
use integration_tests::postgres::{Database, PostgresServer};
use integration_tests::waiting::until;
use serde_json::Value;

use crate::store_events::{START, access, append, message, open, placed};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Archives one message that the broker took some days and seconds after the start.
async fn append_at(
    archive: &mut Archive,
    seen: &mut Seen,
    ladder: &str,
    broker_s: i64,
    events: &[Event],
) {
    let before = archive.checkpoint().map(|checkpoint| checkpoint.mark);
    let sequence = before.map_or(1, |before| before.sequence + 1);
    let broker_ns = START.plus_seconds(broker_s).0 * 1_000;
    let mark = Mark { epoch: 1, sequence, broker_ns, created_ns: 77 };
    let ladder: Ladder = ladder.parse().unwrap();
    let mut builder = BatchBuilder::new(archive.stream(), &ladder, before);
    for (index, event) in (0..).zip(events) {
        builder.event(placed(mark, index, event.clone()), seen.judge(event));
    }
    archive.append(&builder.seal(mark, seen)).await.unwrap();
}

/// Windows of each length, and the events in them: length, windows before a day, windows, events.
fn windows(database: &Database, day: i64) -> Vec<String> {
    let before = START.plus_seconds(day * SECONDS_PER_DAY).0 / 1_000_000;
    let sql = format!(
        "select length_s, count(*) filter (where window_start < to_timestamp({before})), count(*), \
         sum(events) from lakegauge_api.lake_window group by 1 order by 1"
    );
    database.sql(&sql).unwrap()
}

/// What `replay --verify` says of the archive alone.
fn verify(database: &Database) -> (Option<i32>, String) {
    let url = database.reader_url();
    let arguments = ["replay", "--verify", "--no-snapshot", "--database-url", &url];
    let ended = executable::run(arguments, b"").unwrap();
    (ended.status, format!("{}{}", ended.stdout, ended.stderr))
}

async fn let_go_of_all(archive: &mut Archive, ladder: &str) -> u64 {
    let ladder: Ladder = ladder.parse().unwrap();
    let mut windows = 0;
    loop {
        let gone = archive.let_go(&ladder).await.unwrap();
        windows += gone.windows;
        if !gone.more {
            return windows;
        }
    }
}

#[tokio::test]
async fn a_late_event_adds_to_the_windows_that_are_kept_and_makes_none_of_the_others_again() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let ladder = "10s:1d,60s:3d,3600s";
    let day = |day: i64, second: i64| day * SECONDS_PER_DAY + second;
    for number in 0..6_u64 {
        let at = i64::try_from(number).unwrap();
        let events: Vec<Event> = (0..50)
            .map(|n| access(number * 50 + n, day(at, 7 * i64::try_from(n).unwrap())))
            .collect();
        append_at(&mut archive, &mut seen, ladder, day(at, 400), &events).await;
    }
    // Each day has more windows of ten seconds than of a minute, and nothing is gone by itself.
    assert_eq!(database.number("select count(*) from lakegauge.window_kept").unwrap(), 3);
    let all = windows(&database, 0);
    assert!(all.iter().all(|line| line.ends_with("|300")), "{all:?}");
    let (status, said) = verify(&database);
    assert_eq!(status, Some(0), "{said}");

    assert!(let_go_of_all(&mut archive, ladder).await > 0);
    assert_eq!(let_go_of_all(&mut archive, ladder).await, 0, "nothing is left to let go");
    let events = |length_s: u32, day: i64| {
        let line = windows(&database, day).into_iter();
        let mut line = line.filter(|line| line.starts_with(&format!("{length_s}|")));
        let line = line.next().unwrap();
        let fields: Vec<u64> = line.split('|').map(|field| field.parse().unwrap()).collect();
        (fields[1], fields[3])
    };
    // The broker is in the sixth day: the day before is whole.
    assert_eq!(events(10, 4), (0, 100));
    assert_eq!(events(60, 2), (0, 200));
    assert_eq!(events(3_600, 0), (0, 300));
    let (status, said) = verify(&database);
    assert_eq!(status, Some(0), "{said}");

    append_at(&mut archive, &mut seen, ladder, day(5, 500), &[access(900, day(1, 7))]).await;
    append_at(&mut archive, &mut seen, ladder, day(5, 600), &[access(901, day(3, 7))]).await;
    assert_eq!(events(10, 4), (0, 100), "windows of dropped times came back");
    assert_eq!(events(60, 2), (0, 201));
    assert_eq!(events(3_600, 0), (0, 302));
    let (status, said) = verify(&database);
    assert_eq!(status, Some(0), "{said}");

    // One that came back all the same would be found.
    database
        .sql(
            "insert into lakegauge.lake_window select window_start, series, 10, bucket_max, \
             events, bytes, duration_us, sketch from lakegauge.lake_window \
             where length_s = 3600 order by window_start limit 1",
        )
        .unwrap();
    let (status, said) = verify(&database);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("kept, but there is no row of it"), "{said}");
}

#[tokio::test]
async fn old_events_make_the_windows_that_would_be_there_had_they_come_in_time() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let days = 40;
    let events: Vec<Event> = (0..40)
        .map(|number| access(number, i64::try_from(number).unwrap() * SECONDS_PER_DAY))
        .collect();
    let ladder = "10s:1d,60s:3d,3600s";
    append_at(&mut archive, &mut seen, ladder, days * SECONDS_PER_DAY, &events).await;
    assert_eq!(windows(&database, 0), ["10|0|1|1", "60|0|3|3", "3600|0|40|40"]);
    assert_eq!(let_go_of_all(&mut archive, ladder).await, 0);
    let (status, said) = verify(&database);
    assert_eq!(status, Some(0), "{said}");
}

#[tokio::test]
async fn a_length_that_is_new_is_expected_of_later_rows_only() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append_at(&mut archive, &mut seen, "10s", 100, &[access(0, 5), access(1, 20)]).await;
    let events = [access(2, 21), access(3, 299), access(4, 300), access(5, 700)];
    append_at(&mut archive, &mut seen, "60s,300s", 800, &events).await;
    assert_eq!(windows(&database, 0), ["10|0|2|2", "60|0|3|3", "300|0|2|2"]);
    let (status, said) = verify(&database);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("2 windows have lengths that are not kept any more"), "{said}");
}

#[tokio::test]
async fn a_stream_is_archived_while_another_of_its_side_has_not_committed() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut one = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut other = open(&database.archiver(), "LAKE_1", 2).await.unwrap();
    let (mut seen, mut seen_by_other) =
        (Seen::new(&Rules::default()), Seen::new(&Rules::default()));
    append(&mut one, &mut seen, &[access(0, 5)]).await.unwrap();
    append(&mut other, &mut seen_by_other, &[access(100, 5)]).await.unwrap();
    // The first stream's transaction stands still at its end, behind its windows.
    database
        .sql(
            "create table public.gate (); grant select on public.gate to public; \
             create function public.at_gate() returns trigger language plpgsql as $$ begin \
                 while not exists (select from public.gate) loop perform pg_sleep(0.01); end loop; \
                 return new; end $$; \
             create trigger at_gate before update on lakegauge.checkpoint for each row \
                 when (old.writer = '01010101-0101-0101-0101-010101010101') \
                 execute function public.at_gate()",
        )
        .unwrap();
    let batch = message(&one, &mut seen, &[access(1, 5)]);
    let waiting = tokio::spawn(async move { one.append(&batch).await });
    until("a transaction at the gate", async || {
        let at_gate = "select count(*) from pg_stat_activity \
            where wait_event = 'PgSleep' and datname = current_database()";
        Ok(database.number(at_gate)? == 1)
    })
    .await
    .unwrap();

    let more = [access(101, 5)];
    let appended = append(&mut other, &mut seen_by_other, &more);
    let appended = tokio::time::timeout(PATIENCE, appended).await;
    let appended = appended.expect("the second stream waits for the first").unwrap();
    assert_eq!(appended.inserted, 1);
    assert!(!waiting.is_finished());
    database.sql("insert into public.gate default values").unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().inserted, 1);
    let sums = "select stream, sum(events) from lakegauge_api.lake_window where length_s = 60 \
        group by 1 order by 1";
    assert_eq!(database.sql(sums).unwrap(), ["LAKE_0|2", "LAKE_1|2"]);
    let (status, said) = verify(&database);
    assert_eq!(status, Some(0), "{said}");
}

/// Windows of 30 days of a small company's lake and warehouse, as the ladder keeps them.
const MONTH: &str = "
    insert into lakegauge.stream (name) values ('LAKE_0'), ('WAREHOUSE_0');
    insert into lakegauge.window_kept select id, length_s, kept_from from lakegauge.stream,
        (values (60, timestamptz '2026-11-27 00:00Z'), (3600, null)) as v (length_s, kept_from);
    insert into lakegauge.window_series (stream, name, action, outcome)
        select stream.id, stream.name || '-' || number, action, 0 from lakegauge.stream,
            generate_series(1, 29) as number, generate_series(0, 4) as action
            where number <= case when stream.name = 'LAKE_0' then 22 else 7 end;
    create temp table hours as
        select at, 3600 as length_s from generate_series(timestamptz '2026-10-31 00:00Z',
            '2026-11-29 23:00Z', interval '1 hour') as at;
    insert into hours select at, 60 from generate_series(timestamptz '2026-11-27 00:00Z',
        '2026-11-29 23:59Z', interval '1 minute') as at;
    insert into lakegauge.lake_window
        select at, series.id, length_s, 900, 7, 70000, 70000,
            array[(700 << 19) + 3, (800 << 19) + 3, (900 << 19) + 1]
        from hours join lakegauge.window_series as series on stream = 1
        where length_s = 3600 or (series.id + extract(epoch from at)::bigint / 60) % 11 = 0
        order by at, length_s;
    insert into lakegauge.warehouse_window
        select at, series.id, length_s, 1500 + series.id % 100, 2, 70000, 70000, 10, 1,
            array[(1200 << 19) + 1, ((1500 + series.id % 100) << 19) + 1]
        from hours join lakegauge.window_series as series on stream = 2
        where length_s = 3600 or (series.id + extract(epoch from at)::bigint / 60) % 7 = 0
        order by at, length_s;
    analyze lakegauge.lake_window; analyze lakegauge.warehouse_window;
    analyze lakegauge.window_series; analyze lakegauge.window_kept";

async fn month(server: &PostgresServer) -> Database {
    let database = server.database().await.unwrap();
    database.sql(MONTH).unwrap();
    database
}

/// What reading windows gave and threw away, and the blocks that were touched for it.
#[derive(Debug, Default)]
struct Touched {
    windows: f64,
    blocks: f64,
}

fn touched(database: &Database, sql: &str) -> Touched {
    let lines = database.sql(&format!("explain (analyze, buffers, format json) {sql}")).unwrap();
    let plan: Value = serde_json::from_str(&lines.concat()).unwrap();
    let root = &plan[0]["Plan"];
    let blocks = |kind: &str| root[kind].as_f64().unwrap();
    let mut touched = Touched {
        blocks: blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"),
        ..Touched::default()
    };
    let mut nodes = vec![root];
    while let Some(node) = nodes.pop() {
        let is_window = node["Relation Name"].as_str().is_some_and(|it| it.ends_with("_window"));
        if is_window {
            touched.windows +=
                node["Actual Rows"].as_f64().unwrap() * node["Actual Loops"].as_f64().unwrap();
        }
        nodes.extend(node["Plans"].as_array().into_iter().flatten());
    }
    touched
}

#[tokio::test]
async fn a_sum_of_sketches_is_collected_in_place_and_grouped_once_at_its_end() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    // array_append works in place where an aggregate calls it; a function in SQL or PL/pgSQL between
    // the two, or another state, would copy what was collected at each window.
    let steps = "select step.proname, language.lanname, combine.proname, \
             aggtranstype::regtype, agginitval is null \
         from pg_aggregate join pg_proc as step on step.oid = aggtransfn \
         join pg_proc as combine on combine.oid = aggcombinefn \
         join pg_language as language on language.oid = step.prolang \
         where aggfnoid = 'lakegauge_api.sketch_sum'::regproc";
    assert_eq!(
        database.sql(steps).unwrap(),
        ["array_append|internal|array_cat|lakegauge.window_sketch[]|t"]
    );
    let safe = "select bool_and(proparallel = 's' and provolatile <> 'v') from pg_proc \
        where proname in ('sketch_sum', 'sketch_add_up', 'sketch_percentile', 'window_sketch')";
    assert_eq!(database.sql(safe).unwrap(), ["t"]);
}

#[tokio::test]
async fn a_sum_of_sketches_is_what_unnest_and_group_by_give_also_in_parallel() {
    let server = PostgresServer::start().unwrap();
    let database = month(&server).await;
    let grouped = database
        .sql(
            "select string_agg(bucket || ':' || count, ',' order by bucket) from ( \
                 select pair >> 19 as bucket, sum(pair & 524287) as count \
                 from lakegauge_api.warehouse_window, unnest((sketch).pairs) as pair \
                 where length_s = 60 group by 1) as hit",
        )
        .unwrap();
    for parallel in ["max_parallel_workers_per_gather = 0", "max_parallel_workers_per_gather = 2"] {
        let summed = database
            .sql(&format!(
                "set {parallel}; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; \
                 set min_parallel_table_scan_size = 0; \
                 select (select string_agg(bucket || ':' || count, ',' order by bucket) \
                     from unnest((s).buckets, (s).counts) as part (bucket, count)) \
                 from (select lakegauge_api.sketch_sum(sketch) as s \
                     from lakegauge_api.warehouse_window where length_s = 60 offset 0) as summed"
            ))
            .unwrap();
        assert_eq!(summed, grouped, "{parallel}");
    }
    let nothing = "select lakegauge_api.sketch_percentile(lakegauge_api.sketch_sum(sketch), 0.5) \
        is null from lakegauge_api.warehouse_window where false";
    assert_eq!(database.sql(nothing).unwrap(), ["t"]);
}

#[tokio::test]
async fn panels_over_a_month_touch_the_windows_of_one_length_and_few_blocks() {
    let server = PostgresServer::start().unwrap();
    let database = month(&server).await;
    let hours = "select count(*) from lakegauge_api.lake_window where length_s = 3600";
    let minutes = "select count(*) from lakegauge_api.lake_window where length_s = 60 \
        and window_start >= '2026-11-29 00:00Z'";
    let most = [hours, minutes].map(|sql| database.number(sql).unwrap());
    let most = f64::from(i32::try_from(most[0].max(most[1])).unwrap());
    let size = "select (pg_relation_size('lakegauge.lake_window') \
        + pg_relation_size('lakegauge.lake_window_pkey')) / 8192";
    let all_blocks = f64::from(i32::try_from(database.number(size).unwrap()).unwrap());
    let mut panels = 0;
    for board in boards::all() {
        for panel in board.rows.iter().flat_map(|row| &row.panels) {
            for query in &panel.queries {
                let Query::Sql { sql, .. } = query else { continue };
                if !sql.contains("lakegauge_api.lake_window")
                    && !sql.contains("lakegauge_api.warehouse_window")
                {
                    continue;
                }
                panels += 1;
                let from = "timestamptz '2026-10-31 00:00Z'";
                let to = "timestamptz '2026-11-30 00:00Z'";
                let mut sql = sql.replace("$__timeFrom()", from).replace("$__timeTo()", to);
                for name in ["bucket", "warehouse", "tenant"] {
                    sql = sql.replace(&format!("${{{name}:regex}}"), ".+");
                }
                let touched = touched(&database, &sql);
                assert!(touched.windows > 0.0, "{sql}");
                assert!(touched.windows <= most, "{touched:?}, not {most}: {sql}");
                assert!(touched.blocks <= 1.5 * all_blocks, "{touched:?} of {all_blocks}: {sql}");
            }
        }
    }
    assert!(panels >= 3, "only {panels} panels read windows");
}

#[tokio::test]
async fn the_length_that_fits_a_range_is_the_shortest_that_reaches_back_and_is_not_too_many() {
    let server = PostgresServer::start().unwrap();
    let database = month(&server).await;
    for (from, to, length_s) in [
        ("2026-11-29 00:00Z", "2026-11-30 00:00Z", 60),
        ("2026-11-27 00:00Z", "2026-11-27 01:00Z", 60),
        ("2026-11-26 23:59Z", "2026-11-27 01:00Z", 3_600),
        ("2026-11-27 00:00Z", "2026-11-30 00:00Z", 3_600),
        ("2020-01-01 00:00Z", "2026-11-30 00:00Z", 3_600),
    ] {
        let said =
            database.number(&format!("select lakegauge_api.window_length_s('{from}', '{to}')"));
        assert_eq!(said.unwrap(), length_s, "{from} to {to}");
    }
}

#[tokio::test]
async fn requests_whose_duration_is_not_known_count_and_are_in_no_percentile() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    // Of `timed` the last of ten has a duration, of `untimed` none.
    let events: Vec<Event> = (0..20)
        .map(|number| {
            let mut event = access(number, 0);
            let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
            (access.operation, access.outcome) = (Operation::Write, Outcome::Ok);
            access.bucket = if number < 10 { "timed" } else { "untimed" }.to_owned();
            access.duration_us = if number == 9 { 100 } else { 0 };
            event
        })
        .collect();
    append_at(&mut archive, &mut seen, "3600s", 1, &events).await;
    let by_hour = "select bucket, events, p50_us, p99_us from lakegauge_api.lake_by_hour( \
        '2024-01-01', '2024-01-02') order by bucket";
    assert_eq!(database.sql(by_hour).unwrap(), ["timed|10|100|100", "untimed|10||"]);
    let windows = "select bucket, sum(events), max(duration_us_max), \
        lakegauge_api.sketch_percentile(lakegauge_api.sketch_sum(sketch), 0.01) \
        from lakegauge_api.lake_window group by 1 order by 1";
    assert_eq!(database.sql(windows).unwrap(), ["timed|10|100|100", "untimed|10||"]);
    // As it is stored it is what the rows add up to.
    let stored = "select sum(events), sum(duration_us) from lakegauge.lake_window";
    assert_eq!(database.sql(stored).unwrap(), ["20|100"]);
}
