//! The simulators against a real server: what they expect is what stands in the stream.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bus::{Bus, Read, ReaderSettings};
use domain::{Applied, Rules, SampleValues, Stream, StreamState};
use integration_tests::nats::NatsServer;
use prometheus::Registry;
use service_kit::{Clock, Context, Flags, Lifecycle, Readiness, Service, Settings};
use wire::{Item, Subjects};

/// Far above what any condition here takes, and below what a person waits for.
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

fn context(lifecycle: &Lifecycle) -> (Context, Readiness) {
    let readiness = Readiness::default();
    let context = Context {
        service: Service { name: "simulator", version: "0", admin_addr: "127.0.0.1:0" },
        clock: Clock::system(),
        lifecycle: lifecycle.clone(),
        registry: Registry::new(),
        not_ready: readiness.latch("started"),
        readiness: readiness.clone(),
    };
    (context, readiness)
}

/// Flags of the lake's simulator, with the server and a file for what it expects.
fn flags(server: &NatsServer, expected: &Path, given: &[(&str, &str)]) -> Flags {
    let mut flags = Flags::default();
    flags.set("NATS_URL", server.url());
    flags.set("NATS_REQUEST_TIMEOUT_MS", "1000");
    for (side, file) in [("LAKE", "lake.json"), ("WAREHOUSE", "warehouse.json")] {
        for (name, value) in given {
            flags.set(&format!("SIMULATE_{side}_{name}"), *value);
        }
        flags.set(
            &format!("SIMULATE_{side}_EXPECTED_FILE"),
            expected.join(file).display().to_string(),
        );
    }
    flags
}

fn lake(flags: &Flags) -> simulator::lake::Config {
    let none = BTreeMap::<&str, &str>::new();
    simulator::lake::Config::load(&mut Settings::new(flags, &none)).expect("valid settings")
}

fn warehouse(flags: &Flags) -> simulator::warehouse::Config {
    let none = BTreeMap::<&str, &str>::new();
    simulator::warehouse::Config::load(&mut Settings::new(flags, &none)).expect("valid settings")
}

fn expected(directory: &Path, file: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(directory.join(file)).expect("what it expects");
    serde_json::from_str(&text).expect("JSON")
}

/// What a consumer makes of a stream from its first message to its last: the fold, and how many
/// events came again.
async fn fold(bus: &Bus, stream: Stream) -> (StreamState, u64) {
    let status = bus.stream(&stream.to_string()).await.expect("the stream");
    let mut state = StreamState::new(stream, Rules::default());
    let mut duplicates = 0;
    let mut reader = bus.reader(ReaderSettings::new(&stream.to_string(), "test", 0));
    let mut reached = 0;
    while reached < status.last_sequence {
        let delivery = match soon(reader.next()).await.expect("the reader goes on") {
            Read::Message(delivery) => delivery,
            Read::Subscribed(_) => continue,
            other @ (Read::Deleted { .. } | Read::Changed(_)) => panic!("{other:?}"),
        };
        reached = delivery.sequence;
        let message = delivery.message(&Subjects::default());
        for item in wire::read(stream, &message, state.rules()).items {
            let Item::Event(event) = item else { panic!("{item:?}") };
            match state.apply(&event) {
                Applied::Counted(_) => {}
                Applied::Duplicate => duplicates += 1,
                Applied::TooOld => panic!("{event:?}"),
            }
        }
    }
    (state, duplicates)
}

fn assert_lake(expected: &serde_json::Value, state: &StreamState, duplicates: u64) {
    let SampleValues::Lake { used_bytes, accesses, .. } = state.sample() else {
        panic!("a lake's stream")
    };
    assert_eq!(expected["published"], accesses);
    assert_eq!(expected["duplicates_sent"], duplicates);
    assert_eq!(expected["metrics"]["data_lake_numero_acessos"], accesses);
    let expected_bytes =
        expected["metrics"]["data_lake_espaco_utilizado_bytes"].as_u64().expect("a count");
    assert_eq!(i128::from(expected_bytes), used_bytes);
    assert!(accesses > 0 && used_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_they_expect_is_what_a_consumer_counts() {
    let server = NatsServer::start_or_given().await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let given = [
        ("EVENTS", "30000"),
        ("RATE", "20000"),
        ("LATE_SHARE", "0.05"),
        ("DUPLICATE_SHARE", "0.05"),
        ("DAILY_PEAK_OVER_TROUGH", "1"),
    ];
    let flags = flags(&server, directory.path(), &given);
    let (for_lake, _) = context(&Lifecycle::default());
    let (for_warehouse, _) = context(&Lifecycle::default());
    let (lake_ended, warehouse_ended) = soon(async {
        tokio::join!(
            simulator::lake::run(for_lake, lake(&flags)),
            simulator::warehouse::run(for_warehouse, warehouse(&flags)),
        )
    })
    .await;
    lake_ended.expect("the lake ends well");
    warehouse_ended.expect("the warehouse ends well");

    let bus = server.bus("test").await.expect("a connection");
    let (state, duplicates) = fold(&bus, Stream::lake(0)).await;
    let lake_expected = expected(directory.path(), "lake.json");
    assert_eq!(lake_expected["published"], 30_000);
    assert_lake(&lake_expected, &state, duplicates);

    let (state, duplicates) = fold(&bus, Stream::warehouse(0)).await;
    let SampleValues::Warehouse { queries_in_window, response_us_in_window, records } =
        state.sample()
    else {
        panic!("a warehouse's stream")
    };
    let warehouse_expected = expected(directory.path(), "warehouse.json");
    assert_eq!(warehouse_expected["published"], 30_000);
    assert_eq!(warehouse_expected["duplicates_sent"], duplicates);
    let metrics = &warehouse_expected["metrics"];
    let number = |value: u128| u64::try_from(value).expect("a number that JSON can hold");
    assert_eq!(metrics["data_warehouse_registros_processados"], number(records));
    assert_eq!(metrics["data_warehouse_tempo_resposta_count"], queries_in_window);
    assert_eq!(metrics["data_warehouse_tempo_resposta_sum_us"], number(response_us_in_window));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_ended_early_says_what_it_expects_of_all_that_it_published() {
    let server = NatsServer::start_or_given().await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let given = [("RATE", "5000"), ("LATE_SHARE", "0.2"), ("DUPLICATE_SHARE", "0.2")];
    let flags = flags(&server, directory.path(), &given);
    let lifecycle = Lifecycle::default();
    let (context, readiness) = context(&lifecycle);
    let running = tokio::spawn(simulator::lake::run(context, lake(&flags)));
    soon(async {
        while !readiness.is_ready() {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    let bus = server.bus("test").await.expect("a connection");
    let has_messages =
        async || bus.stream("LAKE_0").await.is_ok_and(|status| status.last_sequence >= 50);
    soon(async {
        while !has_messages().await {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    lifecycle.drain();
    soon(running).await.expect("no panic").expect("it ends well");
    let (state, duplicates) = fold(&bus, Stream::lake(0)).await;
    assert!(duplicates > 0, "what was held back came at the end");
    assert_lake(&expected(directory.path(), "lake.json"), &state, duplicates);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_the_middle_is_waited_for() {
    let mut server = NatsServer::start().await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let given = [("EVENTS", "20000"), ("RATE", "5000"), ("DAILY_PEAK_OVER_TROUGH", "1")];
    let flags = flags(&server, directory.path(), &given);
    let (context, _) = context(&Lifecycle::default());
    let running = tokio::spawn(simulator::lake::run(context, lake(&flags)));
    let bus = server.bus("test").await.expect("a connection");
    soon(async {
        while !bus.stream("LAKE_0").await.is_ok_and(|status| status.last_sequence >= 50) {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    server.kill();
    server.restart().await.expect("up again");
    soon(running).await.expect("no panic").expect("it ends well");
    let bus = server.bus("after").await.expect("a connection");
    let (state, duplicates) = fold(&bus, Stream::lake(0)).await;
    let expected = expected(directory.path(), "lake.json");
    assert_eq!(expected["published"], 20_000);
    assert_lake(&expected, &state, duplicates);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_run_puts_the_same_bytes_into_the_stream_again() {
    let mut messages = Vec::new();
    for _ in 0..2 {
        let server = NatsServer::start_or_given().await.expect("a server");
        let directory = tempfile::tempdir().expect("a directory");
        let given = [
            ("EVENTS", "2000"),
            ("RATE", "2000"),
            ("RUN_ID", "again"),
            ("START_TIME", "2026-01-01T12:00:00Z"),
        ];
        let flags = flags(&server, directory.path(), &given);
        let (context, _) = context(&Lifecycle::default());
        soon(simulator::lake::run(context, lake(&flags))).await.expect("it ends well");
        let bus = server.bus("test").await.expect("a connection");
        let last = bus.stream("LAKE_0").await.expect("the stream").last_sequence;
        let mut run = Vec::new();
        for sequence in 1..=last {
            let message = bus.message_at("LAKE_0", sequence).await.expect("an answer");
            let message = message.expect("a message");
            run.push((message.subject, message.headers, message.payload));
        }
        messages.push(run);
    }
    assert!(messages[0].len() >= 20);
    assert_eq!(messages[0], messages[1]);
}
