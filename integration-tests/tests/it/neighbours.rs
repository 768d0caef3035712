//! A database in which others live as well: nothing of theirs changes, and no name is shared.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use domain::{Rules, Seen};
use integration_tests::executable::{Ended, finish, lakegauge};
use integration_tests::postgres::{ADMIN, Database, OWNER, PostgresServer};
use integration_tests::waiting::until;

use crate::store_events::{access, append, inventory, message, open, query};

const NEIGHBOURS: &str = include_str!("../../src/servers/postgres/neighbours.sql");
/// The schemas that are ours.
const OURS: &str = "(select oid from pg_namespace where nspname in ('lakegauge', 'lakegauge_api'))";
/// Who may have a right on something in them.
const PEOPLE: &str = "('lakegauge_owner', 'lakegauge_archiver', 'lakegauge_reader', \
                      'authenticated', 'service_role')";

fn migrate(database: &Database) -> Command {
    let mut command = Command::new(lakegauge().unwrap());
    command.arg("migrate").env_clear().env("DATABASE_URL", database.url_as(OWNER));
    command
}

fn migrated(database: &Database) -> Ended {
    finish(migrate(database), b"").unwrap()
}

/// Rows of every kind, in partitions that are made for them.
async fn archive(database: &Database) {
    let mut seen = Seen::new(&Rules::default());
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    append(&mut lake, &mut seen, &[access(0, 0), inventory(1, 1)]).await.unwrap();
    let mut warehouse = open(&database.archiver(), "WAREHOUSE_0", 1).await.unwrap();
    append(&mut warehouse, &mut seen, &[query(2, 2)]).await.unwrap();
}

/// Everything in the database, and the roles of the others.
fn everything(database: &Database) -> (String, String) {
    (database.dump(true).unwrap(), database.other_roles().unwrap())
}

#[tokio::test]
async fn what_others_have_stays_as_it_is_to_the_byte_and_they_get_no_right_on_what_is_ours() {
    let server = PostgresServer::start_local().unwrap();
    let database = server.empty_database().unwrap();
    database.sql(NEIGHBOURS).unwrap();
    let before = (database.dump(false).unwrap(), database.other_roles().unwrap());
    assert!(before.0.contains("api.secret") && before.1.contains("web_anon"), "nothing to see");

    let ended = migrated(&database);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert_eq!(database.dump(false).unwrap(), before.0, "after migrating");
    database.logins().unwrap();
    archive(&database).await;
    assert_eq!(migrated(&database).status, Some(0));
    assert_eq!(database.dump(false).unwrap(), before.0, "after archiving");
    assert_eq!(database.other_roles().unwrap(), before.1);

    let strangers = database.sql(&format!(
        "with rights as ( \
             select relname::text as name, acl from pg_class, aclexplode(relacl) as acl \
             where relnamespace in {OURS} \
             union all \
             select attname, acl from pg_attribute, aclexplode(attacl) as acl \
             where attrelid in (select oid from pg_class where relnamespace in {OURS}) \
             union all \
             select proname, acl from pg_proc, \
                 aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl \
             where pronamespace in {OURS} \
             union all \
             select nspname, acl from pg_namespace, aclexplode(nspacl) as acl where oid in {OURS}) \
         select distinct name, (acl).grantee::regrole from rights \
         where (acl).grantee = 0 or (acl).grantee::regrole::text not in {PEOPLE}"
    ));
    assert_eq!(strangers.unwrap(), Vec::<String>::new(), "have rights on what is ours");
    let partitions = "select count(*) from pg_class where relispartition and relkind = 'r'";
    assert_eq!(database.number(partitions).unwrap(), 3, "one of each kind was looked at");
}

#[tokio::test]
async fn everything_of_ours_says_so_in_its_comment() {
    let server = PostgresServer::start_local().unwrap();
    let database = server.database().await.unwrap();
    archive(&database).await;
    let silent = database.sql(&format!(
        "with said as ( \
             select nspname::text as name, obj_description(oid, 'pg_namespace') as comment \
             from pg_namespace where oid in {OURS} \
             union all \
             select rolname, shobj_description(oid, 'pg_authid') from pg_roles \
             where rolname in ('lakegauge_archiver', 'lakegauge_reader') \
             union all \
             select relname, obj_description(oid, 'pg_class') from pg_class \
             where relnamespace in {OURS} and relkind in ('r', 'p', 'v') \
             union all \
             select typname, obj_description(pg_type.oid, 'pg_type') from pg_type \
             left join pg_class on pg_class.oid = typrelid \
             where typnamespace in {OURS} and typelem = 0 and coalesce(relkind, 'c') = 'c' \
             union all \
             select proname, obj_description(oid, 'pg_proc') from pg_proc \
             where pronamespace in {OURS}) \
         select name from said where comment is null or comment not like 'Lakegauge: %'"
    ));
    assert_eq!(silent.unwrap(), Vec::<String>::new());
}

/// That migrating is refused with each of these named, and that nothing at all has changed.
fn refuses(database: &Database, named: &[&str]) {
    let before = everything(database);
    let ended = migrated(database);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    for part in named.iter().chain(&["nothing was changed", "a database of its own"]) {
        assert_eq!(ended.stderr.matches(part).count(), 1, "{part:?}: {}", ended.stderr);
    }
    assert_eq!(everything(database), before);
}

#[test]
fn a_schema_or_a_role_of_somebody_else_with_a_name_of_ours_is_refused_and_left_alone() {
    let server = PostgresServer::start_local().unwrap();
    let database = server.empty_database().unwrap();
    database
        .sql(
            "create schema lakegauge; create table lakegauge.ledger (theirs text); \
             create schema lakegauge_api; comment on schema lakegauge_api is 'theirs'; \
             create role lakegauge_archiver login superuser",
        )
        .unwrap();
    refuses(
        &database,
        &["schema lakegauge,", "schema lakegauge_api,", "role lakegauge_archiver. "],
    );
    // The others take it for somebody else's as well.
    for words in [&["audit", "--archive-only"][..], &["dead-letters", "list"], &["doctor"]] {
        let mut command = Command::new(lakegauge().unwrap());
        command.args(words).env_clear().env("DATABASE_URL", database.url_as(OWNER));
        command.env("NATS_URL", "nats://127.0.0.1:1");
        let ended = finish(command, b"").unwrap();
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.status, Some(1), "{said}");
        assert!(said.contains("used by other objects: schema lakegauge."), "{said}");
    }

    database
        .sql(
            "alter schema lakegauge rename to theirs; drop schema lakegauge_api; \
             alter role lakegauge_archiver rename to their_archiver",
        )
        .unwrap();
    let ended = migrated(&database);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert_eq!(database.sql("select * from theirs.ledger").unwrap(), Vec::<String>::new());
}

#[test]
fn whatever_stands_where_something_of_ours_would_be_made_is_refused_by_its_name() {
    let server = PostgresServer::start_local().unwrap();
    let database = server.empty_database().unwrap();
    database
        .sql(
            "create schema lakegauge; comment on schema lakegauge is 'Lakegauge: by hand'; \
             create schema lakegauge_api; comment on schema lakegauge_api is 'Lakegauge: by hand'; \
             create table lakegauge.in_nobodys_way (a integer); \
             create index lake_access_noted on lakegauge.in_nobodys_way (a); \
             create sequence lakegauge.ledger; \
             create materialized view lakegauge_api.checkpoint as select 1; \
             create type lakegauge_api.sample as enum ('a'); \
             create domain lakegauge.base as text; \
             create function lakegauge.at_ns(text) returns text language sql return 'theirs'; \
             create procedure lakegauge_api.sketch_sum() language sql begin atomic end; \
             alter schema lakegauge owner to lakegauge_owner; \
             alter schema lakegauge_api owner to lakegauge_owner",
        )
        .unwrap();
    let named = [
        "index lakegauge.lake_access_noted",
        "sequence lakegauge.ledger",
        "materialized view lakegauge_api.checkpoint",
        "type lakegauge_api.sample",
        "type lakegauge.base",
        "function lakegauge.at_ns",
        "function lakegauge_api.sketch_sum",
    ];
    refuses(&database, &named);
    assert!(!migrated(&database).stderr.contains("in_nobodys_way"));
}

#[tokio::test]
async fn databases_of_one_server_share_the_roles_also_when_they_are_migrated_at_once() {
    let server = PostgresServer::start_local().unwrap();
    let databases = [(); 4].map(|()| server.empty_database().unwrap());
    let running = databases.each_ref().map(|database| {
        migrate(database).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for child in running {
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    for database in &databases {
        event_store::check_version(&database.owner()).await.unwrap();
    }
    databases[3].logins().unwrap();
    archive(&databases[3]).await;
}

/// Does this when a table of the second migration is made: in the middle of all of them.
fn on_ledger(database: &Database, statement: &str) {
    database
        .sql(&format!(
            "create function public.meanwhile() returns event_trigger language plpgsql as $$ begin \
                 if exists (select from pg_event_trigger_ddl_commands() \
                     where object_identity = 'lakegauge.ledger') then perform {statement}; end if; \
             end $$; \
             create event trigger meanwhile on ddl_command_end when tag in ('CREATE TABLE') \
                 execute function public.meanwhile()"
        ))
        .unwrap();
}

#[tokio::test]
async fn a_migration_that_dies_in_the_middle_leaves_nothing_and_the_next_run_does_all_of_it() {
    let server = PostgresServer::start_local().unwrap();
    let database = server.empty_database().unwrap();
    let asleep = "from pg_stat_activity where wait_event = 'PgSleep'";
    for (death, statement) in [
        ("the connection", "pg_terminate_backend(pg_backend_pid())"),
        ("a statement", "1 / 0"),
        ("the process", "pg_sleep(3600)"),
    ] {
        let before = everything(&database);
        on_ledger(&database, statement);
        let mut child = migrate(&database).stderr(Stdio::null()).spawn().unwrap();
        if death == "the process" {
            let sleeping = format!("select count(*) {asleep}");
            until("the middle", async || Ok(database.number(&sleeping)? == 1)).await.unwrap();
            child.kill().unwrap();
            // What the server does by itself once it notices.
            database.sql(&format!("select pg_terminate_backend(pid) {asleep}")).unwrap();
            until("its end", async || Ok(database.number(&sleeping)? == 0)).await.unwrap();
        }
        assert!(!child.wait().unwrap().success(), "{death}");
        database.sql("drop event trigger meanwhile; drop function public.meanwhile").unwrap();
        assert_eq!(everything(&database), before, "{death}");
        let roles = "select rolname from pg_roles where rolname ~ '^lakegauge_(archiver|reader)$'";
        assert_eq!(database.sql(roles).unwrap(), Vec::<String>::new(), "{death}");
    }
    let ended = migrated(&database);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    event_store::check_version(&database.owner()).await.unwrap();
}

#[tokio::test]
async fn a_second_migration_waits_for_the_first_however_long_it_takes() {
    let server = PostgresServer::start_local().unwrap();
    let database = server.empty_database().unwrap();
    on_ledger(&database, "pg_advisory_lock_shared(1)");
    // The first stops in the middle until this lock is given back, the second waits for the first,
    // and neither for as long as the limit of locks says.
    let mut holder = Command::new("psql")
        .args(["-X", "-q", "-d", &database.url_as(ADMIN)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = holder.stdin.take().unwrap();
    input.write_all(b"select pg_advisory_lock(1);\n").unwrap();
    let locks = |granted: &str| {
        let sql = format!(
            "select count(*) from pg_locks where locktype = 'advisory' and {granted} \
             and database = (select oid from pg_database where datname = current_database())"
        );
        database.number(&sql)
    };
    until("the lock", async || Ok(locks("granted")? == 1)).await.unwrap();
    let start = |lock_ms: &str| {
        let mut command = migrate(&database);
        command.env("DATABASE_LOCK_TIMEOUT_MS", lock_ms).stderr(Stdio::piped()).spawn().unwrap()
    };
    let first = start("600000");
    until("the first", async || Ok(locks("not granted")? == 1)).await.unwrap();
    let second = start("1");
    until("the second", async || Ok(locks("not granted")? == 2)).await.unwrap();
    drop(input);
    holder.wait().unwrap();
    for (child, said) in [(first, "8 migrations applied"), (second, "is up to date")] {
        let ended = child.wait_with_output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success() && text.contains(said), "{said}: {text}");
    }
}

#[tokio::test]
async fn a_table_that_has_the_name_of_a_partition_is_neither_taken_nor_changed() {
    let server = PostgresServer::start_local().unwrap();
    let other = server.database().await.unwrap();
    archive(&other).await;
    let name = other
        .value(
            "select relname from pg_class where relispartition and relkind = 'r' \
             and relname like 'lake_access%'",
        )
        .unwrap();
    let database = server.database().await.unwrap();
    database
        .sql(&format!(
            "create table lakegauge.{name} (like lakegauge.lake_access including defaults); \
             alter table lakegauge.{name} owner to lakegauge_archiver; \
             grant select on lakegauge.{name} to anon"
        ))
        .unwrap();
    let of_it = || {
        let dump = database.dump(true).unwrap();
        dump.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = of_it();
    let mut lake = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    let batch = message(&lake, &mut seen, &[access(0, 0)]);
    let said = lake.append(&batch).await.unwrap_err().to_string();
    assert!(said.contains(&format!("lakegauge.{name}")) && said.contains("rename it"), "{said}");
    assert_eq!(of_it(), before);

    database.sql(&format!("alter table lakegauge.{name} rename to theirs")).unwrap();
    assert_eq!(lake.append(&batch).await.unwrap().inserted, 1);
}
