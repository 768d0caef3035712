//! What only containers show: servers that are frozen or cut off their network, each supported
//! release of PostgreSQL, and poolers. Where no Docker engine answers it is said that they did not
//! run; with `LAKEGAUGE_TEST_FULL` an engine without the images is a failure.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::io::Write as _;

use domain::{Rules, Seen, Side};
use event_store::{StoreError, StoreSettings};
use integration_tests::docker::{self, Container, Image, Recipe};
use integration_tests::executable;
use integration_tests::nats::NatsServer;
use integration_tests::pipeline::{Part, Pipeline, Simulator, Traffic};
use integration_tests::postgres::{ARCHIVER, Database, OWNER, PostgresServer, READER};
use integration_tests::servers::{NATS, POSTGRES as POSTGRES_17};
use integration_tests::waiting::until;
use tempfile::TempDir;

use crate::laws;
use crate::store_events::{access, append, open};

const POSTGRES_15: (&str, &str) = ("POSTGRES15_IMAGE", "postgres:15");
const PGBOUNCER: (&str, &str) = ("PGBOUNCER_IMAGE", "edoburu/pgbouncer:v1.24.1-p1");
/// The pooler's port in its container.
const POOLER_PORT: u16 = 5432;
const TRAFFIC: Traffic = Traffic { events: 20_000, rate: 3_000, format: "json" };

/// The images, or nothing after it was said that a test does not run.
fn images<const N: usize>(test: &str, wanted: [(&str, &str); N]) -> Option<[Image; N]> {
    let found: anyhow::Result<Vec<Image>> =
        wanted.iter().map(|(variable, default)| docker::image(variable, default)).collect();
    let error = match found {
        Ok(found) => return found.try_into().ok(),
        Err(error) => error,
    };
    let must = std::env::var_os("LAKEGAUGE_TEST_FULL").is_some() && docker::engine().is_ok();
    assert!(!must, "{test} must run where a Docker engine answers: {error:#}");
    let line = format!("NOT RUN: containers::{test}: {error:#}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

async fn pipeline(nats: &Image, postgres: &Image) -> Pipeline {
    let nats = NatsServer::start_container(nats).await.unwrap();
    let postgres = PostgresServer::start_container(postgres).unwrap();
    Pipeline::start_on_both(nats, postgres, &[]).await.unwrap()
}

/// Waits until the archiver does its job, or says that it does not.
async fn archiver_is(pipeline: &Pipeline, ready: bool) {
    let said = until("the archiver's word", async || {
        let answer = pipeline.part(Part::Archiver)?.readiness();
        Ok(answer.is_some_and(|(status, _)| (status == 200) == ready))
    });
    said.await.unwrap();
}

/// Waits until more of the lake is archived than now.
async fn more_is_archived(pipeline: &Pipeline) {
    let rows = "select count(*) from lakegauge.lake_access";
    let before = pipeline.database.number(rows).unwrap();
    until("more rows", async || Ok(pipeline.database.number(rows)? > before)).await.unwrap();
}

/// Waits until the producer is held up by a broker that does not answer.
async fn producer_waits(simulator: &Simulator) {
    let waits = until("notice of the producer", async || {
        Ok(simulator.process.readiness().is_some_and(|(status, _)| status == 503))
    });
    waits.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_frozen_or_cut_off_is_waited_for_and_caught_up_with() {
    let test = "a_database_that_is_frozen_or_cut_off_is_waited_for_and_caught_up_with";
    let Some([nats, postgres]) = images(test, [NATS, POSTGRES_17]) else { return };
    let mut pipeline = pipeline(&nats, &postgres).await;
    // A frozen server answers nothing: the limits must be short for a test.
    pipeline.set("DATABASE_STATEMENT_TIMEOUT_MS", "1000");
    pipeline.set("DATABASE_CONNECT_TIMEOUT_MS", "1000");
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let simulator = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    more_is_archived(&pipeline).await;

    let container = pipeline.postgres.container().unwrap();
    container.pause().unwrap();
    archiver_is(&pipeline, false).await;
    container.resume().unwrap();
    archiver_is(&pipeline, true).await;

    container.disconnect().unwrap();
    archiver_is(&pipeline, false).await;
    container.connect().unwrap();
    archiver_is(&pipeline, true).await;

    let expected = simulator.finish().await.unwrap();
    let shown = laws::hold(&pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &[expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_frozen_or_cut_off_loses_nothing_and_repeats_nothing() {
    let test = "a_broker_that_is_frozen_or_cut_off_loses_nothing_and_repeats_nothing";
    let Some([nats, postgres]) = images(test, [NATS, POSTGRES_17]) else { return };
    let mut pipeline = pipeline(&nats, &postgres).await;
    // Two pings without an answer end a connection.
    pipeline.set("NATS_PING_INTERVAL_MS", "500");
    pipeline.set("NATS_REQUEST_TIMEOUT_MS", "1000");
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let simulator = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    more_is_archived(&pipeline).await;

    let container = pipeline.nats.container().unwrap();
    container.pause().unwrap();
    producer_waits(&simulator).await;
    container.resume().unwrap();
    more_is_archived(&pipeline).await;

    container.disconnect().unwrap();
    producer_waits(&simulator).await;
    container.connect().unwrap();
    more_is_archived(&pipeline).await;

    let expected = simulator.finish().await.unwrap();
    let shown = laws::hold(&pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &[expected]);
}

/// Migrates, archives both sides, audits and verifies on a release.
async fn works_on(nats: &Image, postgres: &Image, release: &str) {
    let mut pipeline = pipeline(nats, postgres).await;
    let version = pipeline.database.value("show server_version").unwrap();
    assert!(version.starts_with(release), "{version}");
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let traffic = Traffic { events: 6_000, ..TRAFFIC };
    let lake = pipeline.simulate(Side::Lake, traffic).unwrap();
    let warehouse = pipeline.simulate(Side::Warehouse, traffic).unwrap();
    let expected = [lake.finish().await.unwrap(), warehouse.finish().await.unwrap()];
    // Rest, audit and verify are asked there.
    let shown = laws::hold(&pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_15_carries_the_whole_pipeline() {
    let test = "postgresql_15_carries_the_whole_pipeline";
    let Some([nats, postgres]) = images(test, [NATS, POSTGRES_15]) else { return };
    works_on(&nats, &postgres, "15.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_17_carries_the_whole_pipeline() {
    let test = "postgresql_17_carries_the_whole_pipeline";
    let Some([nats, postgres]) = images(test, [NATS, POSTGRES_17]) else { return };
    works_on(&nats, &postgres, "17.").await;
}

/// A pooler in front of a server, and the folder with its configuration.
struct Pooler {
    container: Container,
    _configuration: TempDir,
}

impl Pooler {
    fn start(image: &Image, postgres: &PostgresServer, mode: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("lakegauge-pooler-").tempdir().unwrap();
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), readable).unwrap();
        let users: String =
            [OWNER, ARCHIVER, READER].iter().map(|user| format!("\"{user}\" \"\"\n")).collect();
        std::fs::write(folder.path().join("userlist.txt"), users).unwrap();
        let address = postgres.container().unwrap().address().unwrap();
        let configuration = format!(
            "[databases]\n* = host={address} port=5432\n[pgbouncer]\nlisten_addr = 0.0.0.0\n\
             listen_port = {POOLER_PORT}\nunix_socket_dir =\nauth_type = trust\n\
             auth_file = /etc/pgbouncer/userlist.txt\npool_mode = {mode}\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), configuration).unwrap();
        let container = Container::start(Recipe {
            image,
            arguments: Vec::new(),
            environment: vec![("DB_HOST".to_owned(), address)],
            ports: vec![POOLER_PORT],
            folder: Some((folder.path().display().to_string(), "/etc/pgbouncer".to_owned())),
            user: None,
        });
        Self { container: container.unwrap(), _configuration: folder }
    }

    /// The address of a role through it, once it takes connections.
    async fn url(&self, postgres: &PostgresServer, database: &Database, role: &str) -> String {
        let port = self.container.port(POOLER_PORT).unwrap();
        let url = postgres.url_through(&database.url_as(role), port).unwrap();
        let settings = StoreSettings::new(&*url, "test");
        let answers = until("connections through the pooler", async || {
            // Whether it is fit is another question.
            Ok(!matches!(
                settings.refuse_transaction_pooling().await,
                Err(StoreError::Connecting { .. } | StoreError::Database { .. })
            ))
        });
        answers.await.map_err(|error| (error, self.container.log_end())).unwrap();
        url
    }
}

/// What a tool answers at this address.
fn tool(words: &[&str], url: &str) -> (Option<i32>, String) {
    let more = ["--database-url", url];
    let ended = executable::run(words.iter().chain(&more), b"").unwrap();
    (ended.status, format!("{}{}", ended.stdout, ended.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_transactions_is_refused_at_any_port() {
    let test = "a_pooler_of_transactions_is_refused_at_any_port";
    let wanted = [NATS, POSTGRES_17, PGBOUNCER];
    let Some([nats, postgres, pgbouncer]) = images(test, wanted) else { return };
    let mut pipeline = pipeline(&nats, &postgres).await;
    let pooler = Pooler::start(&pgbouncer, &pipeline.postgres, "transaction");
    let owner = pooler.url(&pipeline.postgres, &pipeline.database, OWNER).await;
    let reader = pooler.url(&pipeline.postgres, &pipeline.database, READER).await;
    let archiver = pooler.url(&pipeline.postgres, &pipeline.database, ARCHIVER).await;
    let said = "pools by transaction, through which answers can be wrong";
    for (words, url) in [
        (&["migrate"][..], &owner),
        (&["audit", "--archive-only"], &reader),
        (&["replay", "--verify", "--no-snapshot"], &reader),
        (&["dead-letters", "list"], &reader),
        (&["doctor"], &archiver),
    ] {
        let (status, output) = tool(words, url);
        assert_eq!(status, Some(1), "{words:?}: {output}");
        assert!(output.contains(said), "{words:?}: {output}");
    }
    for (word, url) in [("archive", &archiver), ("aggregate", &reader)] {
        let mut service = pipeline.spawn_at(&[word], url).unwrap();
        until("its end", async || Ok(!service.is_running()?)).await.unwrap();
        assert!(service.log().contains(said), "{word}: {}", service.log());
    }
    // The port that Supabase gives to such poolers needs no look.
    let port = format!(":{}/", pooler.container.port(POOLER_PORT).unwrap());
    let (status, output) = tool(&["migrate"], &owner.replace(&port, ":6543/"));
    assert_eq!(status, Some(64), "{output}");
    assert!(output.contains("is a transaction pooler"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_sessions_carries_migrations_and_the_archiver() {
    let test = "a_pooler_of_sessions_carries_migrations_and_the_archiver";
    let Some([postgres, pgbouncer]) = images(test, [POSTGRES_17, PGBOUNCER]) else { return };
    let postgres = PostgresServer::start_container(&postgres).unwrap();
    let database = postgres.empty_database().unwrap();
    let pooler = Pooler::start(&pgbouncer, &postgres, "session");
    let (status, output) = tool(&["migrate"], &pooler.url(&postgres, &database, OWNER).await);
    assert_eq!(status, Some(0), "{output}");
    database.logins().unwrap();

    let archiver = StoreSettings::new(pooler.url(&postgres, &database, ARCHIVER).await, "test");
    let mut seen = Seen::new(&Rules::default());
    for round in 0..20_u64 {
        // Another session each time, in which prepared statements begin anew.
        let mut archive = open(&archiver, "LAKE_0", 1).await.unwrap();
        let events: Vec<_> = (round * 50..round * 50 + 50).map(|n| access(n, 1)).collect();
        append(&mut archive, &mut seen, &events).await.unwrap();
    }
    assert_eq!(database.number("select count(*) from lakegauge.lake_access").unwrap(), 1_000);
    let reader = pooler.url(&postgres, &database, READER).await;
    let (status, output) = tool(&["audit", "--archive-only"], &reader);
    assert_eq!(status, Some(0), "{output}");
}
