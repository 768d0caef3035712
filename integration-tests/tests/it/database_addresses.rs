//! Every way in which an address of the archive can be wrong: one clear message and a failure, or,
//! where it heals by itself, a wait that can be seen.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::path::Path;
use std::process::Command;

use integration_tests::executable::{Ended, finish, lakegauge};
use integration_tests::nats::NatsServer;
use integration_tests::postgres::{Database, OWNER, PostgresServer};
use integration_tests::process::Process;
use integration_tests::waiting::until;
use tempfile::TempDir;

const SECRET: &str = "hunter2";
/// Supabase's transaction pooler, as its dashboard shows it first.
const POOLER: &str = "postgres://u:hunter2@aws-0-eu.pooler.supabase.com:6543/postgres";
/// Of an address block that is kept for documentation; and nobody listens at port 1.
const FAR: &str = "postgres://u:hunter2@203.0.113.5:1/postgres?sslmode=require";
/// This machine, where nobody listens at port 1.
const NOBODY: &str = "postgres://u:hunter2@127.0.0.1:1/postgres?sslmode=disable";
/// The tools that open the archive.
pub(crate) const TOOLS: [&[&str]; 5] = [
    &["migrate"],
    &["audit", "--archive-only"],
    &["replay", "--verify", "--no-snapshot"],
    &["dead-letters", "list"],
    &["doctor"],
];

/// A tool with this address and nothing else. A host that never answers is given up soon.
fn tool(words: &[&str], url: &str) -> Ended {
    let mut command = Command::new(lakegauge().unwrap());
    command.args(words).env_clear().env("DATABASE_URL", url);
    command.env("DATABASE_CONNECT_TIMEOUT_MS", "2000").env("NATS_URL", "nats://127.0.0.1:1");
    finish(command, b"").unwrap()
}

/// That a tool fails with one message, which says this and no secret.
pub(crate) fn refuses(words: &[&str], url: &str, status: i32, said: &[&str]) {
    let ended = tool(words, url);
    let output = format!("{}{}", ended.stdout, ended.stderr);
    // The doctor looks at everything else all the same.
    let status = if words == ["doctor"] { 1 } else { status };
    assert_eq!(ended.status, Some(status), "{words:?}: {output}");
    for part in said {
        assert_eq!(output.matches(part).count(), 1, "{words:?}, {part:?}: {output}");
    }
    assert!(!output.contains(SECRET) && !output.contains("at line"), "{words:?}: {output}");
}

/// That a service ends with one message, which says this and no secret.
pub(crate) fn ends(word: &str, settings: &[(&str, &str)], status: i32, said: &[&str]) {
    let mut service = start(word, settings);
    assert_eq!(service.wait().unwrap().code(), Some(status), "{word}: {}", service.log());
    let output = service.log();
    let why: Vec<&str> =
        output.lines().filter(|line| line.contains("ERROR") || line.contains("error:")).collect();
    // Each stream may find out by itself before the first of them ends the service.
    let (last, others) = why.split_last().unwrap();
    assert!(others.iter().all(|line| line.contains("while draining")), "{word}: {output}");
    for part in said {
        assert_eq!(last.matches(part).count(), 1, "{word}, {part:?}: {output}");
    }
    assert!(!output.contains(SECRET), "{word}: {output}");
}

fn start(word: &str, settings: &[(&str, &str)]) -> Process {
    let port = [("METRICS_ADDR", "127.0.0.1:0")];
    Process::start(&[word], &[&port, settings].concat()).unwrap()
}

/// That the aggregator, which needs the archive for a rebuild only, says this and does its job.
pub(crate) fn goes_on(nats: &str, url: &str, said: &[&str]) {
    let mut aggregator = start("aggregate", &[("NATS_URL", nats), ("DATABASE_URL", url)]);
    let line = aggregator.wait_for_line("no rebuild from the archive").unwrap();
    for part in said {
        assert_eq!(line.matches(part).count(), 1, "{part:?}: {line}");
    }
    aggregator.wait_until_ready().unwrap();
    assert!(!aggregator.log().contains(SECRET), "{}", aggregator.log());
}

async fn servers() -> (NatsServer, PostgresServer, Database) {
    let postgres = PostgresServer::start_private().unwrap();
    let database = postgres.database().await.unwrap();
    (NatsServer::start().await.unwrap(), postgres, database)
}

#[test]
fn a_transaction_pooler_is_refused_by_name_before_anything_is_opened() {
    let said = ["is a transaction pooler", "session pooler (port 5432)"];
    for words in TOOLS {
        refuses(words, POOLER, 64, &said);
    }
    for service in ["archive", "aggregate"] {
        ends(service, &[("DATABASE_URL", POOLER)], 64, &said);
    }
}

#[test]
fn an_address_that_could_be_read_in_two_ways_is_refused_and_no_piece_of_it_is_shown() {
    // A % before two digits would be what it says it is.
    for mark in ["/", "#", "?", "/x@", "%z"] {
        for (before, behind) in [("31337", "hunter2"), ("hunter2", "31337"), ("hunter2", "")] {
            let password = format!("{before}{mark}{behind}");
            let postgres = format!("postgres://u:{password}@localhost/d");
            let nats = format!("nats://u:{password}@localhost:4222");
            for (word, key, url) in
                [("migrate", "DATABASE_URL", postgres), ("tail", "NATS_URL", nats)]
            {
                let mut command = Command::new(lakegauge().unwrap());
                command.arg(word).env_clear().env(key, &url);
                let ended = finish(command, b"").unwrap();
                let output = format!("{}{}", ended.stdout, ended.stderr);
                assert_eq!(ended.status, Some(64), "{url}: {output}");
                assert!(output.contains("percent-encode the password"), "{url}: {output}");
                assert!(!output.contains(SECRET) && !output.contains("31337"), "{url}: {output}");
            }
        }
    }
}

#[tokio::test]
async fn tls_to_a_host_that_is_not_local_is_raised_and_said() {
    let raised = "TLS raised to verify-full: 203.0.113.5 is not local (sslrootcert names its CA)";
    for words in TOOLS {
        refuses(words, FAR, 1, &[raised, "can't connect to u@203.0.113.5:1/postgres: "]);
    }
    let nats = NatsServer::start().await.unwrap();
    let mut archiver = start("archive", &[("NATS_URL", &nats.url()), ("DATABASE_URL", FAR)]);
    archiver.wait_for_line(raised).unwrap();
    archiver.wait_for_line("can't connect to u@203.0.113.5:1/postgres: ").unwrap();
    assert!(!archiver.log().contains(SECRET), "{}", archiver.log());
}

#[tokio::test]
async fn a_wrong_password_is_said_once_with_what_to_check() {
    let (nats, _postgres, database) = servers().await;
    let right = database.demand_password("lakegauge_test_password", SECRET).unwrap();
    database.sql("grant lakegauge_archiver to lakegauge_test_password").unwrap();
    let wrong = right.replace(SECRET, "wrong");
    let said = [
        "can't connect to lakegauge_test_password@127.0.0.1:",
        "password authentication failed",
        "check the user and the password in the address",
    ];
    for words in TOOLS {
        refuses(words, &wrong, 1, &said);
    }
    let nats = nats.url();
    ends("archive", &[("NATS_URL", &nats), ("DATABASE_URL", &wrong)], 1, &said);
    goes_on(&nats, &wrong, &said);
    // The same login with its password.
    let ended = tool(&["audit", "--archive-only"], &right);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn an_unreachable_host_fails_tools_and_lets_services_wait_where_it_can_be_seen() {
    let said = [
        "can't connect to u@127.0.0.1:1/postgres: ",
        "is the server running and the address right?",
    ];
    for words in TOOLS.into_iter().filter(|words| *words != ["doctor"]) {
        refuses(words, NOBODY, 1, &said);
    }
    refuses(&["doctor"], NOBODY, 1, &said[..1]);
    let nats = NatsServer::start().await.unwrap();
    let mut archiver = start("archive", &[("NATS_URL", &nats.url()), ("DATABASE_URL", NOBODY)]);
    let line = archiver.wait_for_line("\"waiting\"").unwrap();
    archiver.wait_for_line("admin port open").unwrap();
    let (status, ready) = archiver.get("/readyz?verbose").unwrap();
    assert_eq!(status, 503, "{ready}");
    for part in said {
        assert_eq!(line.matches(part).count(), 1, "{part:?}: {line}");
        assert!(ready.contains(part), "{part:?}: {ready}");
    }
    assert!(!archiver.log().contains(SECRET), "{}", archiver.log());
    goes_on(&nats.url(), NOBODY, &said);
}

#[tokio::test]
async fn a_missing_permission_names_the_role_to_grant() {
    let (nats, _postgres, database) = servers().await;
    database.sql("create role lakegauge_test_nobody login").unwrap();
    let nobody = database.url_as("lakegauge_test_nobody");
    let grant = [
        "permission denied for schema lakegauge",
        "grant lakegauge_reader (or, to write, lakegauge_archiver) to this user",
    ];
    refuses(&["migrate"], &nobody, 1, &["permission denied", "migrate as the owner"]);
    for words in &TOOLS[1..] {
        refuses(words, &nobody, 1, &grant);
    }
    let nats = nats.url();
    ends("archive", &[("NATS_URL", &nats), ("DATABASE_URL", &nobody)], 1, &grant);
    goes_on(&nats, &nobody, &grant);
    // A reader may not write.
    let reader = database.reader_url();
    let said = ["permission denied to set role", "grant lakegauge_reader (or, to write, "];
    ends("archive", &[("NATS_URL", &nats), ("DATABASE_URL", &reader)], 1, &said);
}

#[tokio::test]
async fn an_older_schema_asks_for_migrating_and_a_newer_one_for_the_newer_release() {
    let (nats, postgres, database) = servers().await;
    let empty = postgres.empty_database().unwrap();
    database
        .sql(
            "delete from lakegauge.migration where version = \
             (select max(version) from lakegauge.migration)",
        )
        .unwrap();
    let said = [" migrations: run `lakegauge migrate` as its owner"];
    let nats = nats.url();
    for url in [database.reader_url(), empty.url_as(OWNER)] {
        for words in &TOOLS[1..] {
            refuses(words, &url, 1, &said);
        }
        goes_on(&nats, &url, &said);
    }
    ends("archive", &[("NATS_URL", &nats), ("DATABASE_URL", &database.archiver_url())], 1, &said);
    let newer = postgres.database().await.unwrap();
    newer
        .sql(
            "insert into lakegauge.migration (version, name, checksum) \
             values (99991231235959, 'later', '\\x00')",
        )
        .unwrap();
    let said = ["migrated by a newer release (version 99991231235959): run that release"];
    refuses(&["migrate"], &newer.url_as(OWNER), 1, &said);
    for words in &TOOLS[1..] {
        refuses(words, &newer.reader_url(), 1, &said);
    }
    ends("archive", &[("NATS_URL", &nats), ("DATABASE_URL", &newer.archiver_url())], 1, &said);
}

/// Runs openssl in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder);
    let ended = finish(command, b"").unwrap();
    assert_eq!(ended.status, Some(0), "openssl {arguments}: {}", ended.stderr);
}

/// Two authorities, as Supabase has an old and a new one, and a certificate by the second.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let new = "-newkey rsa:2048 -nodes -days 2";
    for name in ["old", "new"] {
        let out = format!("-keyout {name}.key -out {name}.pem -subj /CN={name}");
        openssl(at, &format!("req -x509 {new} {out}"));
    }
    std::fs::write(at.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl(at, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=db");
    openssl(
        at,
        "x509 -req -in server.csr -CA new.pem -CAkey new.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    );
    let read = |name: &str| std::fs::read_to_string(at.join(name)).unwrap();
    std::fs::write(at.join("both.pem"), read("old.pem") + &read("new.pem")).unwrap();
    folder
}

#[tokio::test]
async fn both_authorities_of_one_file_are_trusted_and_no_others() {
    let postgres = PostgresServer::start_private().unwrap();
    let database = postgres.database().await.unwrap();
    let folder = certificates();
    let data = database.value("show data_directory").unwrap();
    for (here, there) in [("server.pem", "server.crt"), ("server.key", "server.key")] {
        let text = std::fs::read_to_string(folder.path().join(here)).unwrap();
        // The server takes no key that others could read.
        let write = format!(
            "copy (select unnest(string_to_array('{}', E'\\n'))) to program 'umask 077; cat > {data}/{there}'",
            text.trim_end()
        );
        database.sql(&write).unwrap();
    }
    database.sql("alter system set ssl = on").unwrap();
    database.sql("select pg_reload_conf()").unwrap();
    let at = |authorities: &str| {
        let file = folder.path().join(authorities);
        let verified = format!("sslmode=verify-full&sslrootcert={}", file.display());
        database.reader_url().replace("sslmode=disable", &verified)
    };
    let words = ["audit", "--archive-only"];
    until("TLS", async || Ok(tool(&words, &at("both.pem")).status == Some(0))).await.unwrap();
    let said = ["the address must name the server's certificate authorities, as sslrootcert=FILE"];
    for tool in TOOLS {
        refuses(tool, &at("old.pem"), 1, &said);
    }
}
