//! A broker that takes smaller messages than ours, from the start or from a restart on.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::time::Duration;

use bus::{Bus, BusError, PublisherLimits, ReaderSettings, Recovery, Topology, TopologyOverrides};
use domain::{Event, Fact, Rules, Side, Timestamp};
use integration_tests::nats::{NatsServer, Profile};
use integration_tests::pipeline::{Part, Pipeline, Traffic};
use integration_tests::process::Process;
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use service_kit::Clock;
use wire::json::encode_line;
use wire::{Format, Headers, PAYLOAD_BYTES_MIN, Sealed, decode, seal};

use crate::{laws, store_events::access};

const DEFAULT: &str = "max_payload: 1MB";
const TRAFFIC: Traffic = Traffic { events: 20_000, rate: 4_000, format: "json" };
/// Messages of many events, far above what the small broker takes.
const LARGE_MESSAGES: [(&str, &str); 2] =
    [("SIMULATE_LAKE_BATCH_EVENTS_MAX", "5000"), ("SIMULATE_LAKE_BATCH_AGE_MS_MAX", "250")];

async fn server(max_payload: &str) -> NatsServer {
    let with = format!("max_payload: {max_payload}");
    let change = |config: String| config.replace(DEFAULT, &with);
    NatsServer::start_with(Profile::Development, change).await.unwrap()
}

/// Starts the server again with another size.
async fn restart(server: &mut NatsServer, from: &str, to: &str) {
    server.kill();
    let (from, to) = (format!("max_payload: {from}"), format!("max_payload: {to}"));
    server.reconfigure(|config| config.replace(&from, &to)).unwrap();
    server.restart().await.unwrap();
}

/// A connection that tells early what is not acknowledged, on which the streams stand.
async fn with_streams(server: &NatsServer) -> Bus {
    // Made on one that waits as long as a busy machine needs.
    let patient = server.bus("streams").await.unwrap();
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    patient.apply_topology(&topology).await.unwrap();
    let mut settings = server.settings("test");
    settings.request_timeout = Duration::from_millis(500);
    settings.unconfirmed_after = Duration::from_millis(500);
    Bus::connect(&settings).await.unwrap()
}

/// Messages of 70 KB (bincode) or more, and their events.
fn messages(format: Format) -> (Vec<Sealed>, Vec<Event>) {
    let events: Vec<Event> = (0..3_000).map(|number| access(number, 0)).collect();
    let sealed = events.chunks(1_000).map(|part| seal("lake.access.0.test", format, part));
    (sealed.collect(), events)
}

async fn stored(server: &NatsServer) -> (Vec<usize>, Vec<Event>) {
    let bus = server.bus("looks").await.unwrap();
    let status = bus.stream("LAKE_0").await.unwrap();
    let (mut sizes, mut events) = (Vec::new(), Vec::new());
    for sequence in 1..=status.last_sequence {
        let message = bus.message_at("LAKE_0", sequence).await.unwrap().unwrap();
        sizes.push(message.payload.len());
        let content_type = message.headers.content_type().unwrap().unwrap();
        let raw = decode(&Headers::of(content_type), &message.payload).unwrap();
        let read = |raw: wire::Raw<'_>| {
            raw.decoded.unwrap().or_id(|| panic!("an event came back without its id"))
        };
        events.extend(raw.into_iter().map(read));
    }
    (sizes, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_sealed_for_a_larger_broker_is_stored_in_parts_each_event_once() {
    for format in [Format::Json, Format::Bincode] {
        let mut server = server("1MB").await;
        let bus = with_streams(&server).await;
        let one_at_a_time = PublisherLimits { unconfirmed_max: 1, ..PublisherLimits::default() };
        let publisher = bus.publisher(one_at_a_time, |_| {});
        server.kill();
        let (messages, events) = messages(format);
        let large = messages.first().unwrap().payload.len();
        assert!(large > 64 << 10, "{large}");
        let publishing = async {
            for message in messages {
                publisher.publish(message).await.unwrap();
            }
            publisher.flush().await.unwrap()
        };
        let (confirmed, ()) = tokio::join!(publishing, restart(&mut server, "1MB", "64KB"));
        assert_eq!((confirmed.stored, confirmed.events), (3, 3_000), "what was published");
        assert_eq!(bus.max_payload(), 64 << 10);
        assert_eq!(publisher.progress().trouble(), None);
        let (sizes, found) = stored(&server).await;
        assert!(sizes.iter().all(|size| *size <= bus.message_bytes_max()), "{sizes:?}");
        assert_eq!(found, events);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_started_again_and_takes_too_little_is_waited_for_and_that_is_told() {
    let mut server = server("64KB").await;
    let bus = with_streams(&server).await;
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    restart(&mut server, "64KB", "8KB").await;
    let connected = until("a connection", async || Ok(bus.max_payload() == 8 << 10));
    connected.await.unwrap();
    let (messages, _) = messages(Format::Json);
    for message in messages {
        publisher.publish(message).await.unwrap();
    }
    let progress = publisher.progress();
    let told = until("word of what waits", async || Ok(progress.trouble().is_some()));
    told.await.unwrap();
    let trouble = progress.trouble().unwrap();
    for words in ["max_payload", "8192", "nats-server.conf"] {
        assert!(trouble.contains(words), "{words}: {trouble}");
    }
    restart(&mut server, "8KB", "32KB").await;
    assert_eq!(publisher.flush().await.unwrap().events, 3_000);
    assert_eq!(stored(&server).await.1.len(), 3_000);
}

#[tokio::test]
async fn a_broker_that_takes_too_little_is_refused_at_start_with_what_to_do() {
    let server = server("8KB").await;
    let error = server.bus("test").await.unwrap_err();
    let error = error.downcast::<BusError>().unwrap();
    assert!(matches!(error, BusError::SmallPayload { .. }), "{error}");
    assert_eq!(error.recovery(), Recovery::Stop);
    let url = server.url();
    let settings = [
        ("NATS_URL", url.as_str()),
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("METRICS_ADDR", "127.0.0.1:0"),
    ];
    let least = PAYLOAD_BYTES_MIN.to_string();
    for word in [&["archive"][..], &["aggregate"], &["simulate", "lake"], &["doctor"]] {
        let mut service = Process::start(word, &settings).unwrap();
        assert_eq!(service.wait().unwrap().code(), Some(1), "{word:?}: {}", service.log());
        let said = service.log();
        for words in ["max_payload", "8192", least.as_str(), "nats-server.conf"] {
            assert!(said.contains(words), "{word:?} {words}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_all_that_is_asked_for_at_once_is_read_like_any_other() {
    const EVENTS: u64 = 20_000;
    let mut pipeline = Pipeline::start_on(server("64MB").await, &[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let lines: Vec<String> = (0..EVENTS)
        .map(|number| {
            let mut event = access(number, 0);
            event.occurred_at = Timestamp(Clock::system().now_us());
            if let Fact::LakeAccess(access) = &mut event.fact {
                access.key = format!("{:0700}", number);
            }
            encode_line(&event)
        })
        .collect();
    let large = lines.join("\n");
    assert!(large.len() > 2 * ReaderSettings::new("LAKE_0", "test", 0).batch_bytes_max);
    let mut raw = RawNats::connect(pipeline.nats.port()).await.unwrap();
    for payload in [lines[0].as_str(), large.as_str(), lines[1].as_str()] {
        raw.publish("lake.access.0.large", payload).await.unwrap();
    }
    pipeline.rest().await.unwrap();
    let rows = pipeline.database.number("select count(*) from lakegauge.lake_access").unwrap();
    assert_eq!(rows, i64::try_from(EVENTS).unwrap());
    assert_eq!(pipeline.shown().await.unwrap()[1], f64::from(20_000));
    for part in [Part::Archiver, Part::Aggregator] {
        let log = pipeline.part(part).unwrap().log();
        assert!(!log.contains("one by one"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_max_payload_that_gets_smaller_leaves_numbers_snapshots_and_trimming_as_ever() {
    let mut settings = vec![("ARCHIVER_STREAM_KEEP_S", "0")];
    settings.extend(LARGE_MESSAGES);
    let mut pipeline = Pipeline::start_on(server("64KB").await, &settings).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let simulator = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    let snapshot = "lakegauge_aggregator_snapshot_sequence{stream=\"LAKE_0\"}";
    let saved = until("a snapshot", async || {
        Ok(pipeline.part(Part::Aggregator)?.metric(snapshot).is_some_and(|position| position > 9.0))
    });
    saved.await.unwrap();
    let before = pipeline.part(Part::Aggregator).unwrap().metric(snapshot).unwrap();
    restart(&mut pipeline.nats, "64KB", "20KB").await;
    let expected = simulator.finish().await.unwrap();
    assert_eq!(expected["published"], TRAFFIC.events);
    let shown = laws::hold(&pipeline).await;
    laws::agree_with_the_simulators(&shown, &pipeline.database, &[expected]);
    let aggregator = pipeline.part(Part::Aggregator).unwrap();
    let later = async || Ok(aggregator.metric(snapshot).is_some_and(|position| position > before));
    until("a snapshot after the restart", later).await.unwrap();
    let bytes = "lakegauge_aggregator_snapshot_bytes{stream=\"LAKE_0\"}";
    assert!(aggregator.metric(bytes).unwrap() > 20.0 * 1_024.0, "one piece was enough");
    let bus = pipeline.bus().await.unwrap();
    let trimmed = until("a trimmed stream", async || {
        let status = bus.stream("LAKE_0").await?;
        Ok(status.first_sequence + 1 >= status.last_sequence)
    });
    trimmed.await.unwrap();
}
