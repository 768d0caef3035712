//! Who may do what with the archive, tried as each role, and printed as a table.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::{collections::BTreeMap, io::Write as _};

use domain::{Judgement, Rules, Seen};
use integration_tests::postgres::{ARCHIVER, Database, OWNER, PostgresServer, READER};

use crate::rollups::roll_up;
use crate::store_events::{access, append, inventory, judged, open, query};

/// The roles, and under which word they stand in the table.
const PEOPLE: [(&str, &str); 7] = [
    ("anon", "anon"),
    ("authenticated", "authenticated"),
    ("service_role", "service_role"),
    (STRANGER, "stranger"),
    (READER, "reader"),
    (ARCHIVER, "archiver"),
    (OWNER, "owner"),
];
/// A login to which nobody gave anything: what everybody has.
const STRANGER: &str = "lakegauge_test_stranger";
/// Tables that the views read with the rights of who asks.
const BEHIND_VIEWS: [&str; 21] = [
    "declared_loss",
    "dead_letter",
    "dropped",
    "lake_access",
    "lake_day",
    "lake_growth",
    "lake_inventory",
    "lake_object",
    "lake_window",
    "ledger",
    "pattern_day",
    "rolled_up",
    "sample",
    "source",
    "stream",
    "warehouse_day",
    "warehouse_query",
    "warehouse_window",
    "window_kept",
    "window_series",
    "withdrawal",
];
/// By kind and name of the object, and role: what it can do.
type Rights = BTreeMap<(String, String, String), String>;

/// A database with a row in every table.
async fn filled(server: &PostgresServer) -> Database {
    let database = server.database().await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    append(&mut lake, &mut seen, &[access(0, 0), inventory(1, 1)]).await.unwrap();
    let late = judged(&lake, &seen, &[access(2, 2)], Judgement::TooOld);
    lake.append(&late).await.unwrap();
    let mut warehouse = open(&database.archiver(), "WAREHOUSE_0", 1).await.unwrap();
    append(&mut warehouse, &mut seen, &[query(3, 3)]).await.unwrap();
    roll_up(&database, &lake, true).await;
    roll_up(&database, &warehouse, true).await;
    database
        .sql(&format!(
            "insert into lakegauge.sample (broker_ns, sequence, epoch, stream, used_bytes, \
                 accesses, buckets) values (1, 1, 1, 1, 1, 1, '{{}}'); \
             insert into lakegauge.dead_letter (sequence, broker_ns, epoch, index, stream, reason, \
                 counted, detail, bytes) values (1, 1, 1, 0, 1, 0, false, 'no event', '\\x00'); \
             insert into lakegauge.declared_loss (stream, epoch, first, last) values (1, 1, 8, 9); \
             insert into lakegauge.epoch (stream, epoch, sequence, broker_ns, created_ns) \
                 values (1, 1, 1, 1, 1); \
             insert into lakegauge.base (stream, epoch, sequence, broker_ns, created_ns, \
                 kept_from, digest, state) values (1, 1, 1, 1, 1, now(), '', '\\x00'); \
             insert into lakegauge.source (stream, number, name) values (1, 1, 'sim'); \
             insert into lakegauge.pipeline (id, partitions, rules) \
                 values (gen_random_uuid(), 1, '{{}}'); \
             insert into lakegauge.tenant_access (value, bucket, warehouse) \
                 values ('authenticated', '%', '%'); \
             insert into lakegauge.adoption (pipeline) values (gen_random_uuid()); \
             insert into lakegauge.withdrawal (source, reason) values ('sim', 'a test'); \
             insert into lakegauge.dropped (stream, kind, dropped_from, dropped_to, rows) \
                 values (1, 'lake_access', now(), now() + interval '1 day', 1); \
             do $$ begin \
                 if not exists (select from pg_roles where rolname = '{STRANGER}') then \
                     create role {STRANGER} login; \
                 end if; \
             end $$"
        ))
        .unwrap();
    database
}

fn rights(database: &Database) -> Rights {
    let people: Vec<&str> = PEOPLE.iter().map(|(role, _)| *role).collect();
    let sql = include_str!("../../src/servers/postgres/rights.sql")
        .replace(":people", &format!("'{{{}}}'", people.join(",")));
    let rows = database.sql(&sql).unwrap();
    rows.iter()
        .map(|row| {
            let mut fields = row.split('|').map(str::to_owned);
            let mut field = || fields.next().unwrap();
            ((field(), field(), field()), field())
        })
        .collect()
}

fn expected(kind: &str, name: &str, role: &str) -> &'static str {
    let reads_views = ["authenticated", "service_role", READER, ARCHIVER].contains(&role);
    let table = name.trim_start_matches("lakegauge.");
    match kind {
        "view" if role == OWNER => "ro",
        "view" if reads_views => "r",
        "table" if table == "migration" => match role {
            OWNER => "riudto",
            READER | ARCHIVER => "r",
            _ => "",
        },
        "table" | "partition" if [OWNER, ARCHIVER].contains(&role) => "riudto",
        "table" if role == READER => "r",
        "table" if BEHIND_VIEWS.contains(&table) && reads_views => "r",
        "schema" if role == OWNER => "c",
        "schema" if role == ARCHIVER && name == "lakegauge" => "c",
        "function" if reads_views || role == OWNER => "x",
        _ => "",
    }
}

/// Past the harness's capture: a table that nobody sees proves nothing to a reader.
fn print(rights: &Rights, version: &str) {
    let mut lines = format!(
        "\nWho can do what in the archive, tried on PostgreSQL {version}: r reads every row; i \
         inserts, u updates, d deletes, t truncates; o changes it as its owner; c creates in it; \
         x calls it; - nothing.\narchiver: the login of the archiver; reader: the logins of \
         aggregator, replay and audit; owner: who migrates; stranger: a login without a grant.\n\
         {:<52}",
        ""
    );
    let mut objects: Vec<(&str, &str)> = Vec::new();
    for (kind, name, _) in rights.keys() {
        if objects.last() != Some(&(kind, name)) {
            objects.push((kind, name));
        }
    }
    for (_, word) in PEOPLE {
        lines += &format!(" {word:>13}");
    }
    lines.push('\n');
    for (kind, name) in objects {
        lines += &format!("{:<52}", format!("{kind} {name}"));
        for (role, _) in PEOPLE {
            let key = (kind.to_owned(), name.to_owned(), role.to_owned());
            let can = rights.get(&key).map(String::as_str).filter(|can| !can.is_empty());
            lines += &format!(" {:>13}", can.unwrap_or("-"));
        }
        lines.push('\n');
    }
    std::io::stderr().write_all(lines.as_bytes()).unwrap();
}

#[tokio::test]
async fn only_the_archiver_writes_and_anon_reads_nothing_by_parent_or_partition() {
    let server = PostgresServer::start().unwrap();
    let database = filled(&server).await;
    let empty = database
        .sql(
            "select relname from pg_class where relnamespace = 'lakegauge'::regnamespace \
             and relkind in ('r', 'p') and (xpath('/row/n/text()', query_to_xml(format( \
                 'select count(*) as n from lakegauge.%I', relname), false, true, '')) \
             )[1]::text::bigint = 0",
        )
        .unwrap();
    assert_eq!(empty, Vec::<String>::new(), "of an empty table nothing is shown: fill it");

    let rights = rights(&database);
    print(&rights, &database.value("show server_version").unwrap());
    let partitions = rights.keys().filter(|(kind, _, _)| kind == "partition").count();
    assert_eq!(partitions, 3 * PEOPLE.len(), "one of each kind of event");
    for ((kind, name, role), can) in &rights {
        assert_eq!(can, expected(kind, name, role), "{role} with {kind} {name}");
        if role == "anon" {
            assert_eq!(can, "", "anon with {kind} {name}");
        }
        let events = ["lake_access", "lake_inventory", "warehouse_query"];
        if ["table", "partition"].contains(&kind.as_str())
            && events.iter().any(|event| name.contains(event))
            && can.contains(['i', 'u', 'd', 't'])
        {
            // Who migrates hands tables over, and belongs to the archiver's group for that.
            assert!([ARCHIVER, OWNER].contains(&role.as_str()), "{role} writes {name}");
        }
    }
}

#[tokio::test]
async fn a_login_that_was_given_nothing_but_a_group_has_that_group_s_rights() {
    let server = PostgresServer::start().unwrap();
    let database = filled(&server).await;
    for (login, group) in [(ARCHIVER, "lakegauge_archiver"), (READER, "lakegauge_reader")] {
        let groups = database
            .sql(&format!(
                "select roleid::regrole from pg_auth_members where member = '{login}'::regrole"
            ))
            .unwrap();
        assert_eq!(groups, [group]);
        let as_group =
            database.sql_as(Some(group), "select count(*) from lakegauge_api.lake_access");
        let as_login = database.sql_by(login, "select count(*) from lakegauge_api.lake_access");
        assert_eq!(as_group.unwrap(), as_login.unwrap());
    }
    let denied = database.sql_by(READER, "delete from lakegauge.lake_access").unwrap_err();
    assert!(denied.to_string().contains("permission denied"), "{denied}");
}
