//! What users who logged in may read, where rows say that it is not everything.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use domain::{Event, Rules, Seen};
use integration_tests::postgres::{Database, PostgresServer};

use crate::rollups::roll_up;
use crate::store_events::{access, append, inventory, open, query};

/// Requests to two buckets, queries of one warehouse, and a row in all that is asked here.
async fn archive(server: &PostgresServer) -> Database {
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let accesses = (1..40).map(|number| access(number, i64::try_from(number).unwrap()));
    let events: Vec<Event> = accesses.chain([inventory(1_000, 5)]).collect();
    append(&mut lake, &mut seen, &events).await.unwrap();
    let mut warehouse = open(&database.archiver(), "WAREHOUSE_0", 1).await.unwrap();
    append(&mut warehouse, &mut seen, &[query(2_000, 3)]).await.unwrap();
    roll_up(&database, &lake, true).await;
    roll_up(&database, &warehouse, true).await;
    database
        .sql(
            "insert into lakegauge.sample (broker_ns, sequence, epoch, stream, used_bytes, \
                 accesses, buckets) values (1, 1, 1, 1, 1, 1, '{\"raw\": 1}'); \
             insert into lakegauge.dead_letter (sequence, broker_ns, epoch, index, stream, reason, \
                 counted, detail, bytes) values (1, 1, 1, 0, 1, 0, false, 'no event', '\\x00'); \
             insert into lakegauge.withdrawal (source, reason) values ('a', 'b'); \
             insert into lakegauge.lake_access (occurred_at, sequence, bytes, duration_us, epoch, \
                 index, stream, operation, outcome, id, derived, bucket, key, principal, \
                 correction, of_at, of_id) \
             select distinct on (bucket) occurred_at, sequence, bytes, duration_us, epoch, index, \
                 stream, operation, outcome, gen_random_uuid(), true, bucket, key, principal, 0, \
                 occurred_at, id from lakegauge.lake_access; \
             insert into lakegauge.warehouse_query (occurred_at, sequence, queued_us, executed_us, \
                 rows_processed, rows_returned, bytes_scanned, epoch, index, stream, statement, \
                 outcome, id, derived, cache_hit, warehouse, database, principal, fingerprint, \
                 correction, of_at, of_id) \
             select occurred_at, sequence, queued_us, executed_us, rows_processed, rows_returned, \
                 bytes_scanned, epoch, index, stream, statement, outcome, gen_random_uuid(), true, \
                 cache_hit, warehouse, database, principal, fingerprint, 0, occurred_at, id \
             from lakegauge.warehouse_query limit 1",
        )
        .unwrap();
    database
}

/// Names that a token reads, of each view that has a bucket or a warehouse: view, names.
fn names(database: &Database, claims: &str) -> Vec<String> {
    let views = database
        .sql(
            "select table_name || '|' || column_name from information_schema.columns \
             where table_schema = 'lakegauge_api' and column_name in ('bucket', 'warehouse') \
             order by 1",
        )
        .unwrap();
    assert!(views.len() >= 11, "{views:?}");
    let each: Vec<String> = views
        .iter()
        .map(|view| {
            let (view, column) = view.split_once('|').unwrap();
            format!(
                "select '{view}', coalesce(string_agg(distinct {column}, ',' order by {column}), '') \
                 from lakegauge_api.{view}"
            )
        })
        .collect();
    asked(database, claims, &format!("{} order by 1, 2", each.join(" union all ")))
}

/// A request of somebody who logged in with a token.
fn asked(database: &Database, claims: &str, sql: &str) -> Vec<String> {
    let settings = format!(
        "set request.jwt.claims = '{claims}'; set role authenticated; set statement_timeout = '8s';"
    );
    database.sql(&format!("{settings} {sql}")).unwrap()
}

/// What every view shows of lake and warehouse.
fn shows(lake: &str, warehouse: &str) -> Vec<String> {
    let of_lake = [
        "correction",
        "lake_access",
        "lake_day",
        "lake_growth",
        "lake_inventory",
        "lake_object",
        "lake_window",
        "stored_object",
    ];
    let of_warehouse =
        ["correction", "pattern_day", "warehouse_day", "warehouse_query", "warehouse_window"];
    let mut all: Vec<String> = of_lake
        .map(|view| {
            // Only one bucket has an inventory.
            let names = if view == "lake_inventory" {
                lake.split(',').find(|name| *name == "raw").unwrap_or_default()
            } else {
                lake
            };
            format!("{view}|{names}")
        })
        .into_iter()
        .chain(of_warehouse.map(|view| format!("{view}|{warehouse}")))
        .collect();
    all.sort();
    all
}

const ACME: &str = r#"{"role": "authenticated", "app_metadata": {"tenant": "acme"}}"#;
const OTHER: &str = r#"{"role": "authenticated", "app_metadata": {"tenant": "other"}}"#;
const ADMIN: &str = r#"{"role": "authenticated", "sub": "7c1e"}"#;

#[tokio::test]
async fn who_logged_in_reads_what_a_row_gives_and_everything_while_there_is_none() {
    let server = PostgresServer::start().unwrap();
    let database = archive(&server).await;
    let everything = shows("curated,raw", "etl");
    for claims in ["", ACME, ADMIN] {
        assert_eq!(names(&database, claims), everything, "{claims}");
    }

    database
        .sql(
            "set role lakegauge_owner; \
             insert into lakegauge.tenant_access (claim, value, bucket, warehouse) values \
                 ('app_metadata.tenant', 'acme', 'ra%', null), \
                 ('app_metadata.tenant', 'other', null, 'et_'), ('sub', '7c1e', '%', '%')",
        )
        .unwrap();
    assert_eq!(names(&database, ACME), shows("raw", ""));
    assert_eq!(names(&database, OTHER), shows("", "etl"));
    assert_eq!(names(&database, ADMIN), everything);
    for claims in ["", r#"{"role": "authenticated"}"#, r#"{"app_metadata": {"tenant": "ra%"}}"#] {
        assert_eq!(names(&database, claims), shows("", ""), "{claims}");
    }

    // What can't be told apart is for those who read everything.
    let rest = "select (select count(*) from lakegauge_api.sample), \
        (select count(*) from lakegauge_api.dead_letter), \
        (select count(*) from lakegauge_api.checkpoint)";
    assert_eq!(asked(&database, ADMIN, rest), ["1|1|2"]);
    assert_eq!(asked(&database, ACME, rest), ["0|0|2"]);
    let called = "select bucket from lakegauge_api.top_buckets('2024-01-01')";
    assert_eq!(asked(&database, ACME, called), ["raw"]);
    let sums = "select count(distinct series) from lakegauge.lake_window";
    assert!(asked(&database, ACME, sums) < asked(&database, ADMIN, sums), "also by the tables");

    let secret = "set role service_role; select count(*) from lakegauge_api.lake_access";
    assert_eq!(database.sql(secret).unwrap(), ["39"]);
    let rows = "set role authenticated; select * from lakegauge.tenant_access";
    let denied = database.sql(rows).unwrap_err();
    assert!(denied.to_string().contains("permission denied"), "{denied}");
}

#[tokio::test]
async fn a_row_for_a_database_role_is_for_who_logs_in_as_it() {
    let server = PostgresServer::start().unwrap();
    let database = archive(&server).await;
    database
        .sql(
            "insert into lakegauge.tenant_access (value, bucket) values ('authenticated', 'curated')",
        )
        .unwrap();
    assert_eq!(names(&database, ""), shows("curated", ""));
}
