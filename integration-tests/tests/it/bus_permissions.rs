//! The logins of `nats/accounts.conf`, as Compose runs them: each service does its work with its
//! own, and no login does another's.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use integration_tests::http::value;
use integration_tests::nats::{NatsServer, Profile, repository};
use integration_tests::postgres::PostgresServer;
use integration_tests::process::Process;
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;

/// Every user of the file.
const USERS: [&str; 7] = [
    "admin",
    "lake_simulator",
    "warehouse_simulator",
    "publisher",
    "aggregator",
    "archiver",
    "reader",
];

fn password(user: &str) -> String {
    format!("p-{user}")
}

/// A server with the file's accounts; its passwords stand in it instead of beside it.
async fn server() -> NatsServer {
    server_with(|accounts| accounts).await
}

/// The same with accounts that were changed.
async fn server_with(change: impl FnOnce(String) -> String) -> NatsServer {
    let accounts = std::fs::read_to_string(repository().join("nats/accounts.conf")).unwrap();
    let passwords: String = USERS
        .iter()
        .map(|user| {
            format!("NATS_PASSWORD_{}: \"{}\"\n", user.to_ascii_uppercase(), password(user))
        })
        .collect();
    let include = "include \"passwords.conf\"";
    assert!(accounts.contains(include), "{accounts}");
    let accounts = change(accounts.replace(include, &passwords));
    NatsServer::start_with(Profile::Development, |config| format!("{config}\n{accounts}"))
        .await
        .unwrap()
}

/// What a process needs to log in as a user; `inbox` is the user whose answers it asks for.
fn login(nats: &NatsServer, user: &str, inbox: &str) -> Vec<(&'static str, String)> {
    vec![
        ("NATS_URL", nats.url()),
        ("NATS_USER", user.to_owned()),
        ("NATS_PASSWORD", password(user)),
        ("NATS_INBOX_PREFIX", format!("_INBOX_{inbox}")),
        ("NATS_REQUEST_TIMEOUT_MS", "2000".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
        ("METRICS_ADDR", "127.0.0.1:0".to_owned()),
        ("SNAPSHOT_INTERVAL_MS", "300".to_owned()),
        ("ARCHIVER_TRIM_INTERVAL_MS", "200".to_owned()),
        ("ARCHIVER_STREAM_KEEP_S", "0".to_owned()),
    ]
}

fn start(words: &[&str], settings: &[(&'static str, String)]) -> Process {
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    Process::start(words, &settings).unwrap()
}

/// The streams, as the one-shot service of Compose makes them.
fn make_streams(nats: &NatsServer) {
    let mut streams = start(&["streams"], &login(nats, "admin", "admin"));
    assert!(streams.wait().unwrap().success(), "{}", streams.log());
}

#[tokio::test]
async fn every_service_does_its_work_with_its_own_login() {
    let nats = server().await;
    let postgres = PostgresServer::start().unwrap();
    let database = postgres.database().await.unwrap();
    make_streams(&nats);
    let with = |user: &str, more: Vec<(&'static str, String)>| {
        let mut settings = login(&nats, user, user);
        settings.extend(more);
        settings
    };
    let archive = || vec![("DATABASE_URL", database.archiver_url())];
    let read = || vec![("DATABASE_URL", database.reader_url())];
    let mut archiver = start(&["archive"], &with("archiver", archive()));
    let mut aggregator = start(&["aggregate"], &with("aggregator", read()));
    let lake = ["simulate", "lake", "--rate", "200"];
    let mut lake = start(&lake, &with("lake_simulator", vec![]));
    let warehouse = ["simulate", "warehouse", "--rate", "200"];
    let mut warehouse = start(&warehouse, &with("warehouse_simulator", vec![]));
    for service in [&mut lake, &mut warehouse] {
        service.wait_until_ready().unwrap();
    }

    // Archived, then trimmed up to a snapshot; the samples as well.
    archiver.wait_until_ready().unwrap();
    for stream in ["LAKE_0", "WAREHOUSE_0"] {
        let series = format!("lakegauge_archiver_trimmed_below_sequence{{stream=\"{stream}\"}}");
        until(&series, async || Ok(archiver.metric(&series) > Some(0.0))).await.unwrap();
    }

    // Begins at its snapshot, so that it has to read one.
    aggregator.wait_until_ready().unwrap();
    aggregator.terminate().unwrap();
    assert!(aggregator.wait().unwrap().success(), "{}", aggregator.log());
    let refused = "Permissions Violation";
    assert!(!aggregator.log().contains(refused), "{}", aggregator.log());
    let mut aggregator = start(&["aggregate"], &with("aggregator", read()));
    aggregator.wait_until_ready().unwrap();
    assert!(aggregator.log().contains("snapshot loaded"), "{}", aggregator.log());

    for service in [&mut lake, &mut warehouse, &mut aggregator, &mut archiver] {
        service.terminate().unwrap();
        let status = service.wait().unwrap();
        let said = service.log();
        assert!(status.success() && !said.contains(refused), "{status}: {said}");
    }
}

#[tokio::test]
async fn no_login_may_do_what_is_the_work_of_another() {
    let nats = server().await;
    make_streams(&nats);
    // Subjects beside the users that may publish there, besides admin.
    let writers: [(&str, &[&str]); 19] = [
        ("lake.access.0.x", &["lake_simulator", "publisher"]),
        ("lake.inventory.0.x", &["lake_simulator", "publisher"]),
        ("warehouse.query.0.x", &["warehouse_simulator", "publisher"]),
        ("lake.late.0", &["archiver"]),
        ("warehouse.late.0", &["archiver"]),
        ("telemetry.sample.0", &["aggregator"]),
        ("telemetry.status.aggregator", &["aggregator"]),
        ("telemetry.status.archiver", &["archiver"]),
        ("telemetry.status.lake-simulator", &["lake_simulator"]),
        ("telemetry.status.warehouse-simulator", &["warehouse_simulator"]),
        ("$KV.LAKEGAUGE.snapshot.LAKE_0", &["aggregator"]),
        ("$KV.LAKEGAUGE.owner.0", &["aggregator"]),
        ("$KV.LAKEGAUGE.epoch.LAKE_0", &["aggregator", "archiver"]),
        ("$KV.LAKEGAUGE.pipeline", &["archiver"]),
        ("$O.LAKEGAUGE_SNAPSHOTS.M.x", &["aggregator"]),
        ("$JS.API.STREAM.PURGE.LAKE_0", &["archiver"]),
        ("$JS.API.STREAM.DELETE.LAKE_0", &[]),
        ("$JS.API.STREAM.UPDATE.LAKE_0", &[]),
        ("$JS.API.CONSUMER.CREATE.LAKE_0.archiver", &["archiver"]),
    ];
    // And those who may listen there.
    let readers: [(&str, &[&str]); 6] = [
        ("lake.>", &["reader"]),
        ("warehouse.>", &["reader"]),
        ("telemetry.status.*", &["aggregator", "reader"]),
        ("_INBOX.>", &[]),
        ("_INBOX_archiver.>", &["archiver"]),
        (">", &[]),
    ];
    for user in USERS {
        let mut nats = RawNats::log_in(nats.port(), user, &password(user)).await.unwrap();
        // Publishing to another's stream by accident would be a message without a body, so admin
        // is only asked whether it may listen.
        for (subject, allowed) in writers.iter().filter(|_| user != "admin") {
            let may = nats.may_publish(subject).await.unwrap();
            assert_eq!(may, allowed.contains(&user), "{user} publishes to {subject}");
        }
        for (subject, allowed) in readers {
            let may = nats.may_subscribe(subject).await.unwrap();
            assert_eq!(may, user == "admin" || allowed.contains(&user), "{user} at {subject}");
        }
    }
    assert!(RawNats::log_in(nats.port(), "archiver", "p-reader").await.is_err());
    assert!(RawNats::log_in(nats.port(), "nobody", "").await.is_err());
}

#[tokio::test]
async fn the_doctor_names_the_permission_that_is_missing() {
    let nats = server().await;
    make_streams(&nats);
    let doctor = |settings: &[(&'static str, String)]| {
        let mut doctor = start(&["doctor"], settings);
        let status = doctor.wait().unwrap();
        (status.success(), doctor.log())
    };
    // Each may look at the streams.
    let (well, said) = doctor(&login(&nats, "archiver", "archiver"));
    assert!(well && said.contains("stream LAKE_0"), "{said}");
    // Answers of others.
    let (well, said) = doctor(&login(&nats, "archiver", "aggregator"));
    assert!(!well && said.contains("Violation for Subscription to \"_INBOX_aggregator."), "{said}");
    assert!(said.contains("set NATS_INBOX_PREFIX"), "{said}");
}

#[tokio::test]
async fn a_service_that_the_server_lets_read_nothing_is_not_ready_and_says_what_waits() {
    let nats = server_with(|accounts| {
        let mut denied = accounts;
        let of_archiver = "\"$JS.API.CONSUMER.CREATE.*.archiver\", ";
        let behind = "\"$JS.API.CONSUMER.DELETE.*.archiver\"";
        for (permission, left) in [
            ("\"$JS.API.CONSUMER.CREATE.LAKE_0.*\",".to_owned(), ""),
            (format!("{of_archiver}{behind}"), behind),
        ] {
            assert!(denied.contains(&permission), "{permission}");
            denied = denied.replace(&permission, left);
        }
        denied
    })
    .await;
    let postgres = PostgresServer::start().unwrap();
    let database = postgres.database().await.unwrap();
    make_streams(&nats);
    let mut lake = start(
        &["simulate", "lake", "--events", "500", "--rate", "5000"],
        &login(&nats, "lake_simulator", "lake_simulator"),
    );
    assert!(lake.wait().unwrap().success(), "{}", lake.log());
    let services = [
        ("archive", "archiver", "archived", database.archiver_url()),
        ("aggregate", "aggregator", "counted", database.reader_url()),
    ];
    for (word, user, done, url) in services {
        let mut settings = login(&nats, user, user);
        settings.extend([
            ("DATABASE_URL", url),
            ("LAG_CHECK_MS", "50".to_owned()),
            ("STALLED_AFTER_MS", "500".to_owned()),
        ]);
        let mut service = start(&[word], &settings);
        service.wait_for_line("admin port open").unwrap();
        let waits = format!("wait behind message 0, and none was {done}");
        until("the reason", async || {
            let (status, told) = service.get("/readyz?verbose")?;
            Ok(status == 503 && told.contains("LAKE_0") && told.contains(&waits))
        })
        .await
        .unwrap();
        let lag = format!("lakegauge_{user}_lag_messages{{stream=\"LAKE_0\"}}");
        let page = service.get("/metrics").unwrap().1;
        assert!(value(&page, &lag) > Some(0.0), "{page}");
    }
}
