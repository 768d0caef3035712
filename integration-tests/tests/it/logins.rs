//! Logins that are rotated while everything runs: taken without a restart, and told while they are
//! refused.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::path::Path;

use bus::BusSettings;
use domain::Side;
use event_store::read_checkpoint;
use integration_tests::http::get;
use integration_tests::logins::{SecretFile, rotate as rotate_archive, user, users, with};
use integration_tests::nats::{NatsServer, Profile};
use integration_tests::operator::Operator;
use integration_tests::pipeline::{Part, Pipeline, Simulator, Traffic};
use integration_tests::process::Process;
use integration_tests::waiting::until;
use nkeys::KeyPair;
use service_kit::Secret;

use crate::laws;

const TRAFFIC: Traffic = Traffic { events: 40_000, rate: 4_000, format: "json" };
/// Above the lease and the pauses of the harness, so that nothing but an outage is stale.
const STALE_AFTER_MS: &str = "2000";
/// No part of a log line by chance.
const SECRETS: [&str; 2] = ["first-hunter2", "second-hunter2"];

async fn server(part: &str) -> NatsServer {
    NatsServer::start_local_with(Profile::Development, with(part)).await.unwrap()
}

/// Both services and a simulator, at work.
async fn at_work(nats: NatsServer, settings: &[(&str, &str)]) -> (Pipeline, Simulator) {
    let stale = [("AGGREGATOR_STALE_AFTER_MS", STALE_AFTER_MS), ("NATS_REQUEST_TIMEOUT_MS", "500")];
    let settings: Vec<_> = stale.iter().chain(settings).copied().collect();
    let mut pipeline = Pipeline::start_on(nats, &settings).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let simulator = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    archived(&pipeline).await;
    (pipeline, simulator)
}

/// Waits until events are archived.
async fn archived(pipeline: &Pipeline) {
    let archived = until("archived messages", async || {
        let mark = read_checkpoint(&pipeline.database.archiver(), "LAKE_0").await?;
        Ok(mark.is_some_and(|mark| mark.sequence >= 20))
    });
    archived.await.unwrap();
}

/// Waits until a service says all of this and is not ready.
async fn says(process: &Process, words: &[&str]) {
    let said = until("word of the login", async || {
        let (status, body) = process.readiness().unwrap_or_default();
        Ok(status == 503 && words.iter().all(|word| body.contains(word)))
    });
    let why = process.readiness();
    said.await.unwrap_or_else(|error| panic!("{error}: {words:?} in {why:?}"));
}

async fn has(process: &Process, metric: &str, value: f64) {
    until(metric, async || Ok(process.metric(metric) == Some(value))).await.unwrap();
}

/// Waits until the page of the four metrics has a status, and gives what it says.
async fn page_has(pipeline: &Pipeline, wanted: u16) -> String {
    let mut said = String::new();
    let answered = until("an answer of the metrics' page", async || {
        let (status, body) = get(pipeline.metrics_port(), "/metrics").unwrap_or_default();
        said = body;
        Ok(status == wanted)
    });
    answered.await.unwrap();
    said
}

async fn nothing_is_lost(pipeline: &Pipeline, simulator: Simulator) {
    let expected = simulator.finish().await.unwrap();
    assert_eq!(expected["published"], TRAFFIC.events);
    let shown = laws::hold(pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &[expected]);
}

/// No file that a service wrote holds a secret.
fn no_secret_is_in_the_logs(pipeline: &Pipeline, secrets: &[impl AsRef<str>]) {
    let mut read = 0;
    for entry in std::fs::read_dir(pipeline.folder()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        read += text.len();
        for secret in secrets {
            let secret = secret.as_ref();
            assert!(!text.contains(secret), "{secret} is in a log");
        }
    }
    assert!(read > 0, "there are logs");
}

/// How often a service said so.
fn count(process: &Process, text: &str) -> usize {
    process.log().matches(text).count()
}

/// Rotates a login on both sides while events flow.
async fn rotate(
    nats: NatsServer,
    settings: &[(&str, &str)],
    rotate: impl FnOnce(&Pipeline),
) -> Pipeline {
    let (pipeline, simulator) = at_work(nats, settings).await;
    rotate(&pipeline);
    for part in [Part::Archiver, Part::Aggregator] {
        let process = pipeline.part(part).unwrap();
        let lost = async || Ok(count(process, "lost the connection to NATS") > 0);
        until("another connection", lost).await.unwrap();
        process.ready().await.unwrap();
    }
    nothing_is_lost(&pipeline, simulator).await;
    pipeline
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_rotated_with_the_server_s_is_taken_without_a_restart() {
    let [first, second] = SECRETS;
    let file = SecretFile::with(&format!("{first}\n")).unwrap();
    let nats = server(&user(first)).await;
    let settings = [("NATS_USER", "lake"), ("NATS_PASSWORD_FILE", &*file.shown())];
    let pipeline = rotate(nats, &settings, |pipeline| {
        file.replace(&format!("{second}\n")).unwrap();
        pipeline.nats.reload_with(with(&user(second))).unwrap();
    })
    .await;
    no_secret_is_in_the_logs(&pipeline, &SECRETS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_the_address_rotated_with_the_server_s_is_taken_without_a_restart() {
    let [first, second] = SECRETS;
    let token = |token: &str| format!("authorization {{ token: \"{token}\" }}\n");
    let mut nats = server(&token(first)).await;
    let address = |token: &str| format!("nats://{token}@127.0.0.1:{}", nats.port());
    let (one, two) = (address(first), address(second));
    let (file, own) = (SecretFile::with(&one).unwrap(), SecretFile::with(first).unwrap());
    let token_file = Secret::File { key: "NATS_TOKEN", path: own.path() };
    nats.log_in(BusSettings { token: Some(token_file), ..BusSettings::default() });
    // An empty setting is none.
    let settings = [("NATS_URL", ""), ("NATS_URL_FILE", &*file.shown())];
    let pipeline = rotate(nats, &settings, |pipeline| {
        file.replace(&two).unwrap();
        own.replace(second).unwrap();
        pipeline.nats.reload_with(with(&token(second))).unwrap();
    })
    .await;
    no_secret_is_in_the_logs(&pipeline, &SECRETS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seed_of_an_nkey_rotated_with_the_server_s_key_is_taken_without_a_restart() {
    let keys = [KeyPair::new_user(), KeyPair::new_user()];
    let of = |key: &KeyPair| users(&format!("{{ nkey: {} }}", key.public_key()));
    let seeds = keys.each_ref().map(|key| key.seed().unwrap());
    let file = SecretFile::with(&seeds[0]).unwrap();
    let nats = server(&of(&keys[0])).await;
    let settings = [("NATS_NKEY_SEED_FILE", &*file.shown())];
    let pipeline = rotate(nats, &settings, |pipeline| {
        file.replace(&seeds[1]).unwrap();
        pipeline.nats.reload_with(with(&of(&keys[1]))).unwrap();
    })
    .await;
    no_secret_is_in_the_logs(&pipeline, &seeds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_revoked_are_replaced_without_a_restart() {
    let operator = Operator::default();
    let users = [operator.user().unwrap(), operator.user().unwrap()];
    let file = SecretFile::with(&users[0].credentials).unwrap();
    let own = SecretFile::with(&operator.user().unwrap().credentials).unwrap();
    let mut nats = server(&operator.configuration(&[]).unwrap()).await;
    nats.log_in(BusSettings { credentials_file: Some(own.path()), ..BusSettings::default() });
    let settings = [("NATS_CREDS", &*file.shown())];
    let pipeline = rotate(nats, &settings, |pipeline| {
        file.replace(&users[1].credentials).unwrap();
        let revoked = operator.configuration(&[&users[0]]).unwrap();
        pipeline.nats.reload_with(with(&revoked)).unwrap();
    })
    .await;
    no_secret_is_in_the_logs(&pipeline, &users.map(|user| user.seed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_rotated_on_the_server_only_is_told_until_the_file_has_it_too() {
    let [first, second] = SECRETS;
    let file = SecretFile::with(first).unwrap();
    let nats = server(&user(first)).await;
    let path = file.shown();
    let settings = [("NATS_USER", "lake"), ("NATS_PASSWORD_FILE", path.as_str())];
    let (pipeline, simulator) = at_work(nats, &settings).await;
    let aggregator = pipeline.part(Part::Aggregator).unwrap();
    let all = [pipeline.part(Part::Archiver).unwrap(), aggregator, &simulator.process];

    pipeline.nats.reload_with(with(&user(second))).unwrap();
    for process in all {
        says(process, &["login refused since", "authorization violation", &path]).await;
        has(process, "lakegauge_nats_login_refused", 1.0).await;
        has(process, "lakegauge_nats_connected", 0.0).await;
    }
    let said = page_has(&pipeline, 503).await;
    assert!(said.contains("stale: NATS was last reached"), "{said}");
    says(aggregator, &["[-]numbers stale"]).await;
    assert_eq!(get(pipeline.metrics_port(), "/readyz").unwrap().0, 503);
    // The page is written once a second.
    let page = until("a page that says so", async || {
        let (_, now) = get(pipeline.metrics_port(), "/api/now")?;
        let now: serde_json::Value = serde_json::from_str(&now)?;
        Ok(now["stale_since_ms"].is_i64() && now["four"].is_null())
    });
    page.await.unwrap();

    // Half of a replacement: nobody gives up, and the file is named.
    std::fs::write(file.path(), "").unwrap();
    says(aggregator, &["NATS_PASSWORD_FILE is empty", &path]).await;
    std::fs::remove_file(file.path()).unwrap();
    says(aggregator, &["NATS_PASSWORD_FILE can't be read", &path]).await;
    for process in all {
        let lines = count(process, "NATS refuses the login");
        assert!((1..=3).contains(&lines), "{lines} lines of a refusal, an empty and no file");
    }

    file.replace(second).unwrap();
    // The simulator has published what is left soon, and ends.
    for process in &all[..2] {
        has(process, "lakegauge_nats_login_refused", 0.0).await;
        has(process, "lakegauge_nats_connected", 1.0).await;
        let taken = async || Ok(count(process, "NATS accepts the login again") == 1);
        until("one word of the end", taken).await.unwrap();
    }
    page_has(&pipeline, 200).await;
    nothing_is_lost(&pipeline, simulator).await;
    no_secret_is_in_the_logs(&pipeline, &SECRETS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_lake_whose_broker_answers_is_never_stale() {
    let settings = [("AGGREGATOR_STALE_AFTER_MS", "5000")];
    let mut pipeline = Pipeline::start(&settings).await.unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    page_has(&pipeline, 200).await;
    let bus = pipeline.bus().await.unwrap();
    let leases = bus.leases();
    let beat = async || {
        let lease = leases.get("aggregator.0").await.unwrap();
        lease.claim.map_or(0, |claim| claim.beat)
    };
    // Three renewals in a lease of 1.5 s: in so many of them the age is passed twice.
    let last = beat().await + 20;
    let renewed = until("renewals", async || {
        // On a machine that pauses it for a second it may lose its lease and catch up: it says so.
        let (_, said) = get(pipeline.metrics_port(), "/metrics")?;
        assert!(!said.starts_with("stale: "), "{said}");
        Ok(beat().await >= last)
    });
    renewed.await.unwrap();
}

/// A pipeline whose archiver logs in with a password in a file.
async fn with_password_of_the_archiver(login: &str, file: &Path) -> (Pipeline, Simulator) {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    let address = pipeline.database.demand_password(login, SECRETS[0]).unwrap();
    pipeline.database.sql(&format!("grant lakegauge_archiver to {login}")).unwrap();
    std::fs::write(file, address).unwrap();
    pipeline.database_url_in(Part::Archiver, file);
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let simulator = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    archived(&pipeline).await;
    (pipeline, simulator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_postgresql_rotated_with_the_file_is_taken_without_a_restart() {
    let (login, file) = ("lakegauge_test_rotated", SecretFile::with("").unwrap());
    let (pipeline, simulator) = with_password_of_the_archiver(login, &file.path()).await;
    let address = std::fs::read_to_string(file.path()).unwrap();
    file.replace(&address.replace(SECRETS[0], SECRETS[1])).unwrap();
    rotate_archive(&pipeline.database, login, SECRETS[1]).unwrap();
    nothing_is_lost(&pipeline, simulator).await;
    no_secret_is_in_the_logs(&pipeline, &SECRETS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_postgresql_rotated_on_the_server_only_is_told_until_the_file_has_it_too() {
    let (login, file) = ("lakegauge_test_refused", SecretFile::with("").unwrap());
    let (pipeline, simulator) = with_password_of_the_archiver(login, &file.path()).await;
    let archiver = pipeline.part(Part::Archiver).unwrap();
    let (path, refused) = (file.shown(), "lakegauge_postgres_login_refused");
    rotate_archive(&pipeline.database, login, SECRETS[1]).unwrap();
    says(archiver, &["[-]postgres login refused since", "password authentication failed", &path])
        .await;
    has(archiver, refused, 1.0).await;

    // Half of a replacement: nobody gives up, and the file is named.
    let address = std::fs::read_to_string(file.path()).unwrap();
    std::fs::remove_file(file.path()).unwrap();
    says(archiver, &["DATABASE_URL_FILE can't be read", &path]).await;
    let lines = count(archiver, "PostgreSQL refuses the login");
    assert_eq!(lines, 2, "a refusal, and a file that is missing");

    file.replace(&address.replace(SECRETS[0], SECRETS[1])).unwrap();
    has(archiver, refused, 0.0).await;
    nothing_is_lost(&pipeline, simulator).await;
    no_secret_is_in_the_logs(&pipeline, &SECRETS);
}
