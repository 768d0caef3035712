//! The shape of the database, and who may see what.

use domain::{Operation, Outcome, Reason, Rules, Seen, Statement};
use integration_tests::postgres::PostgresServer;

use crate::store_events::{access, append, open};

#[tokio::test]
async fn migrating_twice_does_nothing_the_second_time_and_services_check_the_version() {
    let server = PostgresServer::start().unwrap();
    let database = server.empty_database().unwrap();
    let error = event_store::check_version(&database.owner()).await.unwrap_err();
    assert!(error.to_string().contains("lakegauge migrate"), "{error}");

    let mut heard = Vec::new();
    let first =
        event_store::migrate(&database.owner(), |applied| heard.push(applied)).await.unwrap();
    assert_eq!(heard.len(), first);
    assert_eq!(heard.last().unwrap().left, 0);
    assert_eq!(event_store::migrate(&database.owner(), |_| ()).await.unwrap(), 0);
    event_store::check_version(&database.owner()).await.unwrap();

    database
        .sql(
            "update lakegauge.migration set checksum = '\\x00' where version = \
              (select max(version) from lakegauge.migration)",
        )
        .unwrap();
    let error = event_store::check_version(&database.owner()).await.unwrap_err();
    assert!(error.to_string().contains("changed after it was applied"), "{error}");
}

#[tokio::test]
async fn two_that_migrate_at_once_both_succeed() {
    let server = PostgresServer::start().unwrap();
    let database = server.empty_database().unwrap();
    let owner = database.owner();
    let (one, other) =
        tokio::join!(event_store::migrate(&owner, |_| ()), event_store::migrate(&owner, |_| ()));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one == 0 || other == 0, "{one} and {other} migrations");
    event_store::check_version(&owner).await.unwrap();
}

#[tokio::test]
async fn anonymous_sees_nothing_and_people_see_the_views_only() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 0)]).await.unwrap();

    let views = database
        .sql(
            "select format('%I.%I', table_schema, table_name) from information_schema.views \
              where table_schema = 'lakegauge_api'",
        )
        .unwrap();
    assert!(views.len() >= 9, "{views:?}");
    for view in &views {
        let read = format!("select count(*) from {view}");
        let denied = database.sql_as(Some("anon"), &read).unwrap_err();
        assert!(denied.to_string().contains("permission denied"), "{view}: {denied}");
        database.sql_as(Some("authenticated"), &read).unwrap();
        database.sql_as(Some("lakegauge_reader"), &read).unwrap();
    }
    let seen =
        database.sql_as(Some("authenticated"), "select operation from lakegauge_api.lake_access");
    assert_eq!(seen.unwrap(), ["write"]);

    let partition = database
        .value(
            "select format('lakegauge.%I', relname) from pg_class where relispartition \
                and relkind = 'r' and relname like 'lake_access%'",
        )
        .unwrap();
    for forbidden in [
        format!("select * from {partition}"),
        "select * from lakegauge.migration".to_owned(),
        "select seen from lakegauge.checkpoint".to_owned(),
        "delete from lakegauge.lake_access".to_owned(),
        "update lakegauge.lake_window set events = 0".to_owned(),
    ] {
        for role in ["anon", "authenticated"] {
            let denied = database.sql_as(Some(role), &forbidden).unwrap_err();
            assert!(denied.to_string().contains("permission denied"), "{role}: {denied}");
        }
    }
}

#[tokio::test]
async fn every_table_has_row_level_security_and_every_object_of_the_api_a_comment() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
    let mut seen = Seen::new(&Rules::default());
    append(&mut archive, &mut seen, &[access(0, 0)]).await.unwrap();
    let open = database
        .sql(
            "select relname from pg_class where relnamespace = 'lakegauge'::regnamespace \
              and relkind in ('r', 'p') and not relrowsecurity",
        )
        .unwrap();
    assert_eq!(open, Vec::<String>::new(), "without row level security");
    let foreign = database
        .sql(
            "select relname from pg_class where relnamespace = 'lakegauge'::regnamespace \
              and relkind in ('r', 'p') and pg_get_userbyid(relowner) <> 'lakegauge_archiver' \
              and relname <> 'migration'",
        )
        .unwrap();
    assert_eq!(foreign, Vec::<String>::new(), "not the archiver's");
    let silent = database
        .sql(
            "select relname from pg_class where relnamespace = 'lakegauge_api'::regnamespace \
              and obj_description(oid, 'pg_class') is null \
              union all select proname from pg_proc where pronamespace = 'lakegauge_api'::regnamespace \
              and obj_description(oid, 'pg_proc') is null",
        )
        .unwrap();
    assert_eq!(silent, Vec::<String>::new(), "without a comment");
    let definers = database
        .sql("select relname from pg_class where relnamespace = 'lakegauge_api'::regnamespace \
              and relkind = 'v' and not coalesce('security_invoker=true' = any (reloptions), false)")
        .unwrap();
    assert_eq!(definers, Vec::<String>::new(), "with the rights of their owner");
}

#[tokio::test]
async fn names_in_sql_are_those_of_the_domain() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let names = |function: &str| {
        database
            .sql(&format!(
                "select lakegauge.{function}(code::smallint) from generate_series(0, 99) as code \
                 where lakegauge.{function}(code::smallint) is not null order by code"
            ))
            .unwrap()
    };
    let of = |all: Vec<&'static str>| all;
    assert_eq!(names("operation_name"), of(Operation::ALL.iter().map(|one| one.name()).collect()));
    assert_eq!(names("outcome_name"), of(Outcome::ALL.iter().map(|one| one.name()).collect()));
    assert_eq!(names("statement_name"), of(Statement::ALL.iter().map(|one| one.name()).collect()));
    assert_eq!(names("reason_name"), of(Reason::ALL.iter().map(|one| one.name()).collect()));
}
