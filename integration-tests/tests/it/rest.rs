//! What REST asks of the archive, as the interface asks it: logged in as `authenticator`, under the
//! role of the key, with the claims of the request.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use domain::{Event, Rules, Seen};
use integration_tests::postgres::{Database, PostgresServer};

use crate::store_events::{access, append, inventory, open, query};

/// Logs in for everybody, and has no rights of its own.
const AUTHENTICATOR: &str = "lakegauge_test_authenticator";

async fn archive(server: &PostgresServer) -> Database {
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    // Several of one moment, so that a page can end within it.
    let accesses = (0..90).map(|number| access(number, i64::try_from(number / 7).unwrap()));
    let events: Vec<Event> = accesses.chain([inventory(1_000, 5)]).collect();
    append(&mut lake, &mut seen, &events).await.unwrap();
    let mut warehouse = open(&database.archiver(), "WAREHOUSE_0", 1).await.unwrap();
    let queries: Vec<Event> = (0..30).map(|number| query(2_000 + number, 3)).collect();
    append(&mut warehouse, &mut seen, &queries).await.unwrap();
    database
        .sql(&format!(
            "do $$ begin \
                 if not exists (select from pg_roles where rolname = '{AUTHENTICATOR}') then \
                     create role {AUTHENTICATOR} login noinherit; \
                 end if; \
             end $$; \
             grant anon, authenticated, service_role to {AUTHENTICATOR}"
        ))
        .unwrap();
    database
}

/// A request: rows as JSON, as many as the interface lets through.
fn request(
    database: &Database,
    role: &str,
    relation: &str,
    filter: &str,
) -> anyhow::Result<Vec<serde_json::Value>> {
    let rows = database.sql_by(
        AUTHENTICATOR,
        &format!(
            "begin; set local role {role}; set local statement_timeout = '3s'; \
             select set_config('search_path', 'lakegauge_api', true), \
                 set_config('request.jwt.claims', '{{\"role\":\"{role}\"}}', true); \
             with pgrst_source as (select * from lakegauge_api.{relation} {filter}) \
             select coalesce(json_agg(_postgrest_t), '[]') from pgrst_source as _postgrest_t; commit"
        ),
    )?;
    // After the row of the settings; PostgreSQL writes each object on a line of its own.
    Ok(serde_json::from_str(&rows.get(1..).unwrap_or_default().concat())?)
}

#[tokio::test]
async fn history_by_window_bucket_and_warehouse_is_read_by_those_who_may() {
    let server = PostgresServer::start().unwrap();
    let database = archive(&server).await;
    let minute = "where length_s = 60 and window_start >= '2024-01-01' \
        and window_start < '2024-01-02'";
    for role in ["authenticated", "service_role"] {
        let sum = |relation: &str, filter: &str| -> u64 {
            let rows = request(&database, role, relation, &format!("{minute} {filter}")).unwrap();
            rows.iter().map(|row| row["events"].as_u64().unwrap()).sum()
        };
        assert_eq!(sum("lake_window", ""), 90, "{role}");
        assert_eq!(sum("lake_window", "and bucket = 'raw'"), 30, "{role}");
        assert_eq!(sum("warehouse_window", "and warehouse = 'etl'"), 30, "{role}");
        let held = request(&database, role, "lake_inventory", "where bucket = 'raw'").unwrap();
        assert_eq!(held[0]["bytes"], 12_345, "{role}");
    }
    for relation in ["lake_window", "warehouse_window", "lake_access", "checkpoint"] {
        let denied = request(&database, "anon", relation, "").unwrap_err();
        assert!(
            denied.to_string().contains("permission denied for schema lakegauge_api"),
            "{denied}"
        );
    }
    // The way in has no rights by itself.
    let denied =
        database.sql_by(AUTHENTICATOR, "select * from lakegauge_api.lake_window").unwrap_err();
    assert!(denied.to_string().contains("permission denied"), "{denied}");
}

#[tokio::test]
async fn raw_events_are_paged_by_key_without_a_gap_or_a_repetition() {
    let server = PostgresServer::start().unwrap();
    let database = archive(&server).await;
    let mut last: Option<(String, String)> = None;
    let mut ids = Vec::new();
    loop {
        // occurred_at=gte.T&or=(occurred_at.gt.T,id.gt.I)&order=occurred_at,id&limit=20
        let after = last.as_ref().map_or_else(String::new, |(at, id)| {
            format!("where occurred_at >= '{at}' and (occurred_at > '{at}' or id > '{id}')")
        });
        let filter = format!("{after} order by occurred_at, id limit 20");
        let page = request(&database, "service_role", "lake_access", &filter).unwrap();
        let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
        let Some(end) = page.last() else { break };
        last = Some((text(end, "occurred_at"), text(end, "id")));
        ids.extend(page.iter().map(|row| (text(row, "occurred_at"), text(row, "id"))));
    }
    assert_eq!(ids.len(), 90);
    assert!(ids.is_sorted(), "in the order of the key");
    ids.dedup();
    assert_eq!(ids.len(), 90, "each once");
}
