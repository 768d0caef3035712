//! The questions of docs/questions.md, asked as they stand there, as REST asks them, on a million
//! events over 30 days.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use integration_tests::postgres::{Database, PostgresServer};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/questions.md");
const MONTH: &str = include_str!("questions/month.sql");

/// The most blocks that each question may touch: about half more than it did when it was written.
/// All rows of the lake take 12,500, all of the warehouse 11,000.
const BLOCKS_MAX: [(u32, f64); 10] = [
    (1, 200.0),
    (2, 450.0),
    (3, 1_000.0),
    (4, 600.0),
    (5, 260.0),
    (6, 2_900.0),
    (7, 1_300.0),
    (8, 700.0),
    (9, 320.0),
    // Every key is looked at.
    (10, 8_200.0),
];

/// What Supabase lets a logged-in user wait.
const LOGGED_IN: &str = "set role authenticated; set statement_timeout = '8s';";

/// A question: its SQL and its request by REST.
#[derive(Debug)]
struct Question {
    number: u32,
    sql: &'static str,
    rest: &'static str,
}

/// The first block of each language in the section of each number.
fn questions() -> Vec<Question> {
    let block = |section: &'static str, language: &str| {
        let (_, rest) = section.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("\n```").unwrap().0
    };
    DOCUMENT
        .split("\n## ")
        .filter_map(|section| {
            let number = section.split_once('.')?.0.parse().ok()?;
            let sql = block(section, "sql").trim_end_matches(';');
            let rest = block(section, "sh");
            let rest = rest.strip_prefix("rest '").unwrap().strip_suffix('\'').unwrap();
            Some(Question { number, sql, rest })
        })
        .collect()
}

/// The statement that PostgREST makes of such a request.
fn by_rest(request: &str) -> String {
    let (path, query) = request.split_once('?').unwrap_or((request, ""));
    let parts: Vec<(&str, &str)> =
        query.split('&').filter_map(|part| part.split_once('=')).collect();
    let columns = parts.iter().find(|(name, _)| *name == "select").map_or("*", |part| part.1);
    if let Some(function) = path.strip_prefix("rpc/") {
        let arguments: Vec<String> = parts
            .iter()
            .filter(|(name, _)| *name != "select")
            .map(|(name, value)| format!("{name} => '{value}'"))
            .collect();
        return format!("select {columns} from lakegauge_api.{function}({})", arguments.join(", "));
    }
    let filters: Vec<String> = parts
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} = '{}'", value.strip_prefix("eq.")?)))
        .collect();
    let last = |wanted: &str, word: &str| {
        let found = parts.iter().find(|(name, _)| *name == wanted);
        found.map_or_else(String::new, |(_, value)| format!(" {word} {value}"))
    };
    format!(
        "select {columns} from lakegauge_api.{path} where {}{}{}",
        filters.join(" and "),
        last("order", "order by"),
        last("limit", "limit")
    )
}

fn rows(database: &Database, sql: &str) -> Vec<String> {
    database.sql(&format!("{LOGGED_IN} {sql}")).unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

/// Blocks that a statement touches where it was asked before, so that the catalogue is known, and how
/// long it takes, in milliseconds: as a whole, since a clock read for each row takes longer than the
/// row.
fn touched(database: &Database, sql: &str) -> (f64, f64) {
    let explain = format!(
        "{LOGGED_IN} create temp table before as {sql}; explain \
         (analyze, buffers, timing off, format json) {sql}"
    );
    let plan: Value = serde_json::from_str(&database.sql(&explain).unwrap().concat()).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let root = &plan[0]["Plan"];
    let blocks = number(&root["Shared Hit Blocks"]) + number(&root["Shared Read Blocks"]);
    (blocks, number(&plan[0]["Execution Time"]))
}

/// Brings the rollups up, as the archiver does, and makes the filters, as autovacuum does.
fn settle(database: &Database) {
    database
        .sql(
            "set role lakegauge_archiver; \
             do $$ begin \
                 while lakegauge.roll_up(1::smallint, 'days', 100000) loop end loop; \
                 while lakegauge.roll_up(2::smallint, 'days', 100000) loop end loop; \
                 while lakegauge.roll_up(1::smallint, 'keys', 100000) loop end loop; \
                 perform brin_summarize_new_values(inhrelid) from pg_inherits \
                     where inhparent = 'lakegauge.lake_access_key'::regclass; \
             end $$",
        )
        .unwrap();
    database.sql("vacuum analyze").unwrap();
}

#[tokio::test]
async fn ten_questions_over_a_month_are_one_call_each_and_touch_few_blocks() {
    let server = PostgresServer::start_private().unwrap();
    let database = server.database().await.unwrap();
    database.sql(MONTH).unwrap();
    settle(&database);
    let questions = questions();
    let numbers: Vec<u32> = questions.iter().map(|question| question.number).collect();
    assert_eq!(numbers, BLOCKS_MAX.map(|(number, _)| number));
    let mut said = String::new();
    for (question, (_, most)) in questions.iter().zip(BLOCKS_MAX) {
        let answer = rows(&database, question.sql);
        assert!(!answer.is_empty(), "{question:?}");
        assert_eq!(rows(&database, &by_rest(question.rest)), answer, "{question:?}");
        let (blocks, took_ms) = touched(&database, question.sql);
        said += &format!("{question:?}: {blocks} blocks, {took_ms} ms\n");
        assert!(blocks <= most, "{blocks} blocks, not {most}\n{said}");
    }
    println!("{said}");
    the_answers_are_what_the_rows_say(&database);
}

/// The same from the rows alone, without anything that makes it quick.
fn the_answers_are_what_the_rows_say(database: &Database) {
    let yesterday = "(occurred_at at time zone 'utc')::date = (now() at time zone 'utc')::date - 1";
    let recent = "(occurred_at at time zone 'utc')::date >= (now() at time zone 'utc')::date - 6";
    let ever = "('2000-01-01', '2100-01-01')";
    let same = [
        (
            "select bucket, events, failures, bytes_read from lakegauge_api.top_buckets()".to_owned(),
            format!(
                "select bucket, count(*), count(*) filter (where outcome <> 0), \
                 sum(bytes) filter (where operation = 0) from lakegauge.lake_access \
                 where {yesterday} group by 1 order by 2 desc, 1 limit 10"
            ),
        ),
        (
            format!("select sum(bytes_grown), sum(objects_grown) from lakegauge_api.growth_by_bucket{ever}"),
            "select sum(size), count(*) from (select distinct on (bucket, key) \
                 case when operation <> 5 then object_bytes end as size from lakegauge.lake_access \
                 where operation in (3, 4, 5) and outcome = 0 \
                 order by bucket, key, occurred_at desc, id desc) as last where size is not null"
                .to_owned(),
        ),
        (
            "select principal, outcome, failures from lakegauge_api.failures_by_principal(top => 1000) \
             where side = 'lake' limit 5"
                .to_owned(),
            format!(
                "select principal, lakegauge.outcome_name(outcome), count(*) \
                 from lakegauge.lake_access where {recent} and outcome <> 0 group by 1, outcome \
                 order by 3 desc, 1, outcome limit 5"
            ),
        ),
        (
            "select fingerprint, events, response_us, response_us_max \
             from lakegauge_api.slowest_patterns()"
                .to_owned(),
            format!(
                "select fingerprint, count(*), sum(queued_us + executed_us), \
                 max(queued_us + executed_us) from lakegauge.warehouse_query where {recent} \
                 group by 1 order by 3 desc limit 20"
            ),
        ),
        (
            "select occurred_at, principal from lakegauge_api.key_history('raw', \
             'orders/day=0106/part-004242.parquet', 'delete')"
                .to_owned(),
            "select occurred_at, principal from lakegauge.lake_access where bucket = 'raw' \
             and key = 'orders/day=0106/part-004242.parquet' and operation = 5 \
             order by occurred_at desc"
                .to_owned(),
        ),
        (
            format!("select sum(requests), sum(bytes_written), sum(bytes_scanned) from lakegauge_api.bytes_by_day{ever}"),
            "select (select count(*) from lakegauge.lake_access), \
             (select sum(bytes) from lakegauge.lake_access where operation in (3, 4)), \
             (select sum(bytes_scanned) from lakegauge.warehouse_query)"
                .to_owned(),
        ),
        (
            "select principal, warehouse, queries, bytes_scanned, executed_us \
             from lakegauge_api.cost_by_principal(top => 3)"
                .to_owned(),
            "select principal, warehouse, count(*), sum(bytes_scanned), sum(executed_us) \
             from lakegauge.warehouse_query \
             where date_trunc('month', occurred_at at time zone 'utc') \
                 = date_trunc('month', now() at time zone 'utc') \
             group by 1, 2 order by 4 desc limit 3"
                .to_owned(),
        ),
    ];
    for (asked, counted) in same {
        assert_eq!(rows(database, &asked), database.sql(&counted).unwrap(), "{asked}");
    }
    unread_and_percentiles(database);
}

fn unread_and_percentiles(database: &Database) {
    // Reads are noted to within an hour: those near the limit may be missing or there too many.
    let unread = "select count(*) from lakegauge_api.unread_objects(20, top => 1000000)";
    let unread = database.number(unread).unwrap();
    let of = |days: &str| {
        database
            .number(&format!(
                "select count(*) from (select bucket, key, \
                     max(occurred_at) filter (where operation in (0, 3, 4)) as used, \
                     (array_agg(operation order by occurred_at desc, id desc) \
                         filter (where operation in (3, 4, 5)))[1] as last \
                 from lakegauge.lake_access where outcome = 0 group by 1, 2) as key \
                 where last in (3, 4) and used < now() - {days} * interval '1 day'"
            ))
            .unwrap()
    };
    let (fewest, most) = (of("(20 + 1 / 24.0)"), of("(20 - 1 / 24.0)"));
    assert!(unread > 0 && (fewest..=most).contains(&unread), "{unread} of {fewest} to {most}");

    let percentile = "select hour, warehouse, p95_us from lakegauge_api.warehouse_by_hour() \
        where events > 50 order by events desc, hour limit 1";
    let answer = rows(database, percentile).concat();
    let [hour, warehouse, said] = answer.split('|').collect::<Vec<_>>()[..] else {
        panic!("{answer}")
    };
    let exact = database
        .value(&format!(
            "select percentile_disc(0.95) within group (order by queued_us + executed_us) \
             from lakegauge.warehouse_query where warehouse = '{warehouse}' \
             and occurred_at >= '{hour}' and occurred_at < timestamptz '{hour}' + interval '1 hour'"
        ))
        .unwrap();
    let (said, exact): (f64, f64) = (said.parse().unwrap(), exact.parse().unwrap());
    assert!((said - exact).abs() <= exact / 100.0, "{said} is not {exact}");
}

#[tokio::test]
async fn every_view_and_column_of_the_interface_says_what_it_means() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let silent = "select class.relname || '.' || attribute.attname from pg_class as class \
        join pg_attribute as attribute on attribute.attrelid = class.oid and attnum > 0 \
        where relnamespace = 'lakegauge_api'::regnamespace \
            and coalesce(col_description(class.oid, attnum), '') = '' \
        union all select relname from pg_class where relnamespace = 'lakegauge_api'::regnamespace \
            and obj_description(oid, 'pg_class') not like 'Lakegauge: %' \
        union all select proname from pg_proc where pronamespace = 'lakegauge_api'::regnamespace \
            and coalesce(obj_description(oid, 'pg_proc'), '') not like 'Lakegauge: %'";
    assert_eq!(database.sql(silent).unwrap(), Vec::<String>::new());
    let columns = "select count(*) from information_schema.columns \
        where table_schema = 'lakegauge_api'";
    assert!(database.number(columns).unwrap() > 100);
}

#[test]
fn what_rest_asks_is_the_statement_that_it_stands_for() {
    assert_eq!(
        by_rest("rpc/f?a=1&only_b=x/y=z&select=c,d"),
        "select c,d from lakegauge_api.f(a => '1', only_b => 'x/y=z')"
    );
    assert_eq!(
        by_rest("v?bucket=eq.raw&order=key&limit=10"),
        "select * from lakegauge_api.v where bucket = 'raw' order by key limit 10"
    );
}
