//! Publishing: every acknowledgement awaited, the same bytes under the same id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{Bus, BusError, Publisher, PublisherLimits, Recovery, Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::nats::{NatsServer, Profile};
use integration_tests::raw_nats::RawNats;
use wire::Sealed;

/// Far above what any condition here takes, and below what a person waits for.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn message(number: u32, bytes: usize) -> Sealed {
    let payload = format!("{number:<10}").repeat(bytes / 10);
    Sealed::new("lake.access.0.test".to_owned(), "application/json", payload, 3)
}

fn limits() -> PublisherLimits {
    PublisherLimits { retry_backoff_max: Duration::from_millis(200), ..PublisherLimits::default() }
}

async fn bus_with_streams(server: &NatsServer, max_bytes: u64) -> Bus {
    let bus = server.bus("test").await.expect("a connection");
    let overrides = TopologyOverrides {
        event_stream_max_bytes: Some(max_bytes),
        ..TopologyOverrides::default()
    };
    let topology = Topology::embedded("", &overrides, &Rules::default());
    bus.apply_topology(&topology).await.expect("the streams");
    bus
}

/// A publisher, and what it was told: payload by sequence, and how often a sequence was told.
#[expect(clippy::type_complexity, reason = "named where it is used")]
fn publisher(
    bus: &Bus,
    limits: PublisherLimits,
) -> (Publisher, Arc<Mutex<BTreeMap<u64, (Vec<u8>, u32)>>>) {
    let told: Arc<Mutex<BTreeMap<u64, (Vec<u8>, u32)>>> = Arc::default();
    let list = Arc::clone(&told);
    let publisher = bus.publisher(limits, move |ack| {
        let mut list = list.lock().expect("nobody panicked");
        let entry = list.entry(ack.sequence).or_insert_with(|| (Vec::new(), 0));
        entry.0 = ack.sealed.payload.to_vec();
        entry.1 += 1;
    });
    (publisher, told)
}

/// Every message of the stream with its payload.
async fn stored(bus: &Bus) -> BTreeMap<u64, Vec<u8>> {
    let status = bus.stream("LAKE_0").await.expect("the stream");
    let mut stored = BTreeMap::new();
    for sequence in status.first_sequence..=status.last_sequence {
        if let Some(message) = bus.message_at("LAKE_0", sequence).await.expect("an answer") {
            stored.insert(sequence, message.payload.to_vec());
        }
    }
    stored
}

#[tokio::test]
async fn every_acknowledged_message_is_stored_and_told_once() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server, 1 << 30).await;
    let (publisher, told) = publisher(&bus, limits());
    for number in 0..1_000 {
        publisher.publish(message(number, 10)).await.unwrap();
    }
    let confirmed = soon(publisher.flush()).await.unwrap();
    assert_eq!((confirmed.stored, confirmed.duplicates, confirmed.events), (1_000, 0, 3_000));
    let told = told.lock().unwrap().clone();
    assert!(told.values().all(|(_, times)| *times == 1));
    let told: BTreeMap<u64, Vec<u8>> =
        told.into_iter().map(|(sequence, (payload, _))| (sequence, payload)).collect();
    assert_eq!(told, stored(&bus).await);
    // Undisturbed, they stand in the order of publishing.
    assert_eq!(told[&1], message(0, 10).payload.to_vec());
    assert_eq!(told[&1_000], message(999, 10).payload.to_vec());
}

#[tokio::test]
async fn a_window_of_one_message_or_of_few_bytes_holds_nothing_up_for_good() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server, 1 << 30).await;
    for narrow in [
        PublisherLimits { unconfirmed_max: 1, ..limits() },
        PublisherLimits { unconfirmed_bytes_max: 1, ..limits() },
    ] {
        let (publisher, _) = publisher(&bus, narrow);
        for number in 0..200 {
            soon(publisher.publish(message(number, 5_000))).await.unwrap();
            assert!(publisher.progress().unconfirmed().messages <= 1);
        }
        assert_eq!(soon(publisher.flush()).await.unwrap().stored, 200);
    }
}

#[tokio::test]
async fn publishing_the_same_bytes_again_is_a_duplicate_and_stored_once() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server, 1 << 30).await;
    let (publisher, told) = publisher(&bus, limits());
    for _ in 0..3 {
        publisher.publish(message(7, 10)).await.unwrap();
    }
    let confirmed = soon(publisher.flush()).await.unwrap();
    assert_eq!((confirmed.stored, confirmed.duplicates), (3, 2));
    assert_eq!(told.lock().unwrap().get(&1).map(|(_, times)| *times), Some(3));
    assert_eq!(stored(&bus).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_holds_the_producer_up_says_so_and_heals_when_it_is_trimmed() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server, 200_000).await;
    let narrow = PublisherLimits { unconfirmed_max: 16, ..limits() };
    let (publisher, _) = publisher(&bus, narrow);
    let progress = publisher.progress();
    let producer = tokio::spawn(async move {
        for number in 0..100 {
            publisher.publish(message(number, 10_000)).await.unwrap();
        }
        publisher.flush().await
    });
    until(|| {
        progress.is_full() && progress.unconfirmed().messages == 16 && progress.full_waits() > 20
    })
    .await;
    let held_up_at = progress.messages();
    assert!((10..30).contains(&held_up_at), "{held_up_at}");
    assert_eq!(progress.events(), 3 * held_up_at);
    assert!(!producer.is_finished());
    // A reader that works: it trims what it has.
    let reader = async {
        while !producer.is_finished() {
            let last = bus.stream("LAKE_0").await.unwrap().last_sequence;
            bus.trim("LAKE_0", last).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(reader).await;
    let confirmed = producer.await.unwrap().unwrap();
    assert_eq!((confirmed.stored, confirmed.duplicates), (100, 0));
    assert!(!progress.is_full());
    assert_eq!(bus.stream("LAKE_0").await.unwrap().last_sequence, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_time_and_nothing_else() {
    let mut server = NatsServer::start().await.unwrap();
    let bus = bus_with_streams(&server, 1 << 30).await;
    let (publisher, told) = publisher(&bus, limits());
    let progress = publisher.progress();
    let producer = tokio::spawn(async move {
        for number in 0..20_000 {
            publisher.publish(message(number, 100)).await.unwrap();
        }
        publisher.flush().await
    });
    for after in [2_000, 9_000, 15_000] {
        until(|| progress.messages() >= after).await;
        server.kill();
        server.restart().await.unwrap();
    }
    let confirmed = soon(producer).await.unwrap().unwrap();
    assert_eq!(confirmed.stored, 20_000);
    assert!(progress.retries() > 0, "the kills hit nothing");
    let told = told.lock().unwrap().clone();
    let stored = stored(&bus).await;
    let numbers: std::collections::BTreeSet<&Vec<u8>> = stored.values().collect();
    assert_eq!((stored.len(), numbers.len()), (20_000, 20_000), "each message stored once");
    for (sequence, (payload, _)) in told {
        assert_eq!(stored.get(&sequence), Some(&payload));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_makes_a_whole_window_wait_once_and_not_in_turn() {
    let server = NatsServer::start().await.unwrap();
    let bus = bus_with_streams(&server, 1 << 30).await;
    let (publisher, _) = publisher(&bus, limits());
    publisher.publish(message(0, 10)).await.unwrap();
    publisher.flush().await.unwrap();
    server.pause().unwrap();
    for number in 1..=200 {
        publisher.publish(message(number, 10)).await.unwrap();
    }
    let progress = publisher.progress();
    // Each acknowledgement times out after 2 s: one after the other that would be 400 s.
    until(|| progress.unconfirmed().messages == 200 && !bus.is_connected()).await;
    server.resume().unwrap();
    let confirmed = soon(publisher.flush()).await.unwrap();
    assert_eq!(confirmed.stored, 201);
    assert_eq!(stored(&bus).await.len(), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_times_out_again_and_again_while_the_connection_stands_is_stored_in_the_end()
{
    let server = NatsServer::start().await.unwrap();
    let mut settings = server.settings("test");
    settings.request_timeout = Duration::from_millis(50);
    let bus = Bus::connect(&settings).await.unwrap();
    // Somebody listens, so that the server does not say that nobody does, and nobody acknowledges.
    let mut listener = RawNats::connect(server.port()).await.unwrap();
    listener.subscribe("lake.access.>").await.unwrap();
    let short = PublisherLimits { retry_backoff_max: Duration::from_millis(10), ..limits() };
    let (publisher, told) = publisher(&bus, short);
    publisher.publish(message(1, 10)).await.unwrap();
    let progress = publisher.progress();
    until(|| progress.retries() >= 12 || progress.unconfirmed().messages == 0).await;
    assert_eq!(progress.unconfirmed().messages, 1, "a message was given up");
    assert!(bus.is_connected(), "time-outs, and no broken connection");
    let others = bus_with_streams(&server, 1 << 20).await;
    drop(listener);
    assert_eq!(soon(publisher.flush()).await.unwrap().stored, 1);
    assert_eq!(told.lock().unwrap().len(), 1);
    assert_eq!(stored(&others).await.len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_not_there_yet_is_waited_for() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let (publisher, _) = publisher(&bus, limits());
    publisher.publish(message(1, 10)).await.unwrap();
    let progress = publisher.progress();
    until(|| progress.retries() > 2).await;
    let bus = bus_with_streams(&server, 1 << 20).await;
    assert_eq!(soon(publisher.flush()).await.unwrap().stored, 1);
    assert_eq!(stored(&bus).await.len(), 1);
}

#[tokio::test]
async fn a_message_that_the_server_never_takes_ends_the_publisher_with_its_subject() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server, 1 << 30).await;
    let (publisher, _) = publisher(&bus, limits());
    publisher.publish(message(1, 2_000_000)).await.unwrap();
    let error = soon(publisher.flush()).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Skip);
    assert!(error.to_string().contains("lake.access.0.test"), "{error}");
    assert_eq!(publisher.publish(message(2, 10)).await, Err(error));
}

#[tokio::test]
async fn a_missing_permission_is_an_error_with_the_servers_words() {
    let guarded = |config: String| {
        format!(
            "{config}\nauthorization {{ users: [\n\
             {{ user: admin, password: a }}\n\
             {{ user: sim, password: s, permissions: {{ publish: [\"warehouse.>\"], \
             subscribe: [\"_INBOX.>\"] }} }} ] }}\n"
        )
    };
    let server = NatsServer::start_with(Profile::Development, guarded).await.unwrap();
    let mut settings = server.settings("test");
    settings.user = Some("sim".to_owned());
    settings.password = Some("s".into());
    let bus = Bus::connect(&settings).await.unwrap();
    let (publisher, _) = publisher(&bus, limits());
    publisher.publish(message(1, 10)).await.unwrap();
    let error = soon(publisher.flush()).await.unwrap_err();
    assert!(matches!(error, BusError::Forbidden { .. }), "{error:?}");
    assert!(error.to_string().contains("lake.access.0.test"), "{error}");
}
