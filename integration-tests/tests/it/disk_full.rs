//! A broker that stores nothing and says nothing: told by everybody who publishes, and healed.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::collections::BTreeSet;
use std::time::Duration;

use bus::{Bus, PublisherLimits, Topology, TopologyOverrides};
use domain::{Rules, Side};
use integration_tests::nats::{NatsServer, Profile};
use integration_tests::pipeline::{Part, Pipeline, Traffic};
use integration_tests::waiting::until;
use wire::Sealed;

use crate::laws;

const MESSAGES: u32 = 20;
const MESSAGE_BYTES: usize = 100_000;
/// Room for a few messages.
const FILE_BYTES_MAX: u64 = 450_000;
const TRAFFIC: Traffic = Traffic { events: 12_000, rate: 3_000, format: "json" };
const OLDEST: &str = "lakegauge_publisher_oldest_unconfirmed_seconds";

async fn server() -> NatsServer {
    NatsServer::start_local_with(Profile::Development, |config| config).await.unwrap()
}

/// A connection that tells early what is not acknowledged; questions need one that waits.
async fn impatient(server: &NatsServer) -> Bus {
    let mut settings = server.settings("test");
    settings.request_timeout = Duration::from_millis(200);
    settings.unconfirmed_after = Duration::from_millis(400);
    Bus::connect(&settings).await.unwrap()
}

/// Made on a connection that waits as long as a busy machine needs.
async fn with_streams(server: &NatsServer) {
    let bus = server.bus("streams").await.unwrap();
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    bus.apply_topology(&topology).await.unwrap();
}

fn message(number: u32) -> Sealed {
    let payload = format!("{number:<10}").repeat(MESSAGE_BYTES / 10);
    Sealed::new("lake.access.0.test".to_owned(), "application/json", payload, 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_disk_does_not_acknowledge_is_told_and_is_stored_once_when_it_has_room() {
    let mut server = server().await;
    let (impatient, bus) = (impatient(&server).await, server.bus("looks").await.unwrap());
    with_streams(&server).await;
    assert_eq!(bus.write_error("LAKE_0").await.unwrap(), None);
    let publisher = impatient.publisher(PublisherLimits::default(), |_| {});
    let progress = publisher.progress();
    server.fill_disk(FILE_BYTES_MAX).unwrap();
    for number in 0..MESSAGES {
        publisher.publish(message(number)).await.unwrap();
    }
    let told = until("word of what waits", async || Ok(progress.trouble().is_some()));
    told.await.unwrap();
    let trouble = progress.trouble().unwrap();
    for words in ["lake.access.0.test", "not acknowledged", "full disk", "start nats-server again"]
    {
        assert!(trouble.contains(words), "{words}: {trouble}");
    }
    let unconfirmed = progress.unconfirmed();
    assert_eq!(unconfirmed.messages, u64::from(MESSAGES) - progress.messages());
    assert!(unconfirmed.oldest >= Duration::from_millis(400), "{unconfirmed:?}");
    let error = bus.write_error("LAKE_0").await.unwrap().unwrap();
    assert!(error.contains("LAKE_0"), "{error}");
    assert_eq!(bus.write_error("WAREHOUSE_0").await.unwrap(), None, "nothing was written there");

    server.kill();
    server.restart().await.unwrap();
    let confirmed = publisher.flush().await.unwrap();
    assert_eq!(confirmed.stored, u64::from(MESSAGES));
    assert_eq!((progress.trouble(), progress.unconfirmed().messages), (None, 0));
    assert_eq!(bus.write_error("LAKE_0").await.unwrap(), None);
    let status = bus.stream("LAKE_0").await.unwrap();
    let mut stored = BTreeSet::new();
    for sequence in 1..=status.last_sequence {
        stored.insert(bus.message_at("LAKE_0", sequence).await.unwrap().unwrap().payload);
    }
    let count = (status.messages, u64::try_from(stored.len()).unwrap());
    assert_eq!(count, (u64::from(MESSAGES), u64::from(MESSAGES)), "each is stored once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_stream_takes_is_told_and_is_stored_when_there_is_one() {
    let server = server().await;
    let bus = impatient(&server).await;
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    let progress = publisher.progress();
    publisher.publish(message(1)).await.unwrap();
    let told = until("word of what waits", async || Ok(progress.trouble().is_some()));
    told.await.unwrap();
    let trouble = progress.trouble().unwrap();
    for words in ["no stream takes lake.access.0.test", "lakegauge streams"] {
        assert!(trouble.contains(words), "{words}: {trouble}");
    }
    with_streams(&server).await;
    assert_eq!(publisher.flush().await.unwrap().stored, 1);
    assert_eq!(progress.trouble(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_broker_is_told_by_every_service_and_nothing_is_lost_or_counted_twice() {
    let settings = [("NATS_UNCONFIRMED_AFTER_MS", "500"), ("NATS_REQUEST_TIMEOUT_MS", "1000")];
    let mut pipeline = Pipeline::start_on(server().await, &settings).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let simulator = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    let bus = pipeline.bus().await.unwrap();
    let begun = until("messages", async || {
        Ok(bus.stream("LAKE_0").await.is_ok_and(|status| status.last_sequence > 20))
    });
    begun.await.unwrap();
    // Of every file, so of every stream, and of what snapshots and leases are kept in.
    pipeline.nats.fill_disk(1).unwrap();
    let series = format!("{OLDEST}{{messages=\"events\",stream=\"LAKE_0\"}}");
    let told = until("word of the simulator", async || {
        let waited = simulator.process.metric(&series);
        let (status, why) = simulator.process.readiness().unwrap_or_default();
        Ok(waited.is_some_and(|waited| waited > 0.5)
            && status == 503
            && why.contains("not acknowledged")
            && why.contains("full disk")
            && simulator.process.log().contains("publishing waits"))
    });
    told.await.unwrap();
    let told = until("word of the aggregator", async || {
        let (status, why) = pipeline.part(Part::Aggregator)?.readiness().unwrap_or_default();
        Ok(status == 503 && why.contains("could not be renewed"))
    });
    told.await.unwrap();
    let found = pipeline.tool(["doctor"], &pipeline.database.reader_url()).unwrap();
    assert!(found.stdout.contains("stream LAKE_0 stores nothing"), "{}", found.stdout);
    let log = simulator.process.log();
    assert_eq!(
        log.matches("publishing waits").count(),
        1,
        "said once, and not at each look: {log}"
    );

    pipeline.nats.kill();
    pipeline.nats.restart().await.unwrap();
    let expected = simulator.finish().await.unwrap();
    assert_eq!(expected["published"], TRAFFIC.events);
    let shown = laws::hold(&pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &[expected]);
}
