//! The one reader: every message after a position, once, in ascending order.

use std::time::Duration;

use bus::{
    Bus, Comparison, PublisherLimits, Read, Reader, ReaderSettings, Topology, TopologyOverrides,
};
use domain::{Mark, Rules};
use integration_tests::nats::NatsServer;
use integration_tests::raw_nats::RawNats;
use serde_json::json;
use wire::{Headers, Sealed};

/// Far above what any condition here takes, and below what a person waits for.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

async fn bus_with_streams(server: &NatsServer) -> Bus {
    let bus = server.bus("test").await.expect("a connection");
    make_streams(&bus).await;
    bus
}

async fn make_streams(bus: &Bus) {
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    bus.apply_topology(&topology).await.expect("the streams");
}

/// Publishes messages that say their number, from the first to before the last.
async fn publish(bus: &Bus, numbers: std::ops::Range<u64>) {
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    for number in numbers {
        let sealed =
            Sealed::new("lake.access.0.test".to_owned(), "application/json", number.to_string(), 1);
        publisher.publish(sealed).await.expect("sent");
    }
    soon(publisher.flush()).await.expect("stored");
}

fn settings(after: u64) -> ReaderSettings {
    ReaderSettings {
        batch_messages_max: 100,
        heartbeat: Duration::from_millis(500),
        backoff_max: Duration::from_millis(500),
        ..ReaderSettings::new("LAKE_0", "test", after)
    }
}

fn archiver(after: u64) -> ReaderSettings {
    ReaderSettings { consumer: "archiver".to_owned(), acknowledge: true, ..settings(after) }
}

/// What comes next besides subscriptions.
async fn next(reader: &mut Reader) -> Read {
    loop {
        match soon(reader.next()).await.expect("the reader goes on") {
            Read::Subscribed(_) => {}
            read @ (Read::Message(_) | Read::Deleted { .. } | Read::Changed(_)) => return read,
        }
    }
}

/// Reads messages and demands that their sequences are exactly these.
async fn expect(reader: &mut Reader, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        match next(reader).await {
            Read::Message(delivery) => assert_eq!(delivery.sequence, sequence),
            other @ (Read::Subscribed(_) | Read::Deleted { .. } | Read::Changed(_)) => {
                panic!("{other:?} instead of message {sequence}")
            }
        }
    }
}

async fn mark(bus: &Bus, sequence: u64) -> Mark {
    let status = bus.stream("LAKE_0").await.expect("the stream");
    let message = bus.message_at("LAKE_0", sequence).await.expect("an answer");
    Mark {
        epoch: 0,
        sequence,
        broker_ns: message.expect("the message").broker_ns,
        created_ns: status.created_ns,
    }
}

#[tokio::test]
async fn reading_starts_after_the_position_and_goes_on_with_what_is_published_later() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..1_001).await;
    for start in [0, 1, 500, 1_000] {
        let mut reader = bus.reader(settings(start));
        expect(&mut reader, start + 1..=1_000).await;
    }
    let mut reader = bus.reader(settings(999));
    let Read::Message(delivery) = next(&mut reader).await else { panic!("no message") };
    assert_eq!(
        (delivery.payload.as_ref(), &delivery.headers, delivery.pending),
        (b"1000".as_ref(), &Headers::of("application/json"), 0)
    );
    let stored = bus.message_at("LAKE_0", 1_000).await.unwrap().unwrap();
    assert_eq!(stored, delivery, "the broker's time to the nanosecond, and all else");
    publish(&bus, 2_001..2_011).await;
    expect(&mut reader, 1_001..=1_010).await;
}

#[tokio::test]
async fn dropping_a_call_in_the_middle_loses_nothing() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..2_001).await;
    let mut reader = bus.reader(settings(0));
    let mut sequence = 0;
    while sequence < 2_000 {
        let hasty = tokio::time::timeout(Duration::from_micros(50), reader.next()).await;
        if let Ok(Ok(Read::Message(delivery))) = hasty {
            assert_eq!(delivery.sequence, sequence + 1);
            sequence = delivery.sequence;
        }
    }
}

#[tokio::test]
async fn what_was_trimmed_or_deleted_is_told_as_a_range_and_nothing_else_is_missing() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..101).await;
    assert_eq!(bus.trim("LAKE_0", 11).await, Ok(10));
    assert_eq!(bus.trim("LAKE_0", 11).await, Ok(0));
    assert_eq!(bus.trim("LAKE_0", 0).await, Ok(0), "0 does not mean everything");
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    for sequence in [50, 51, 70] {
        raw.demand("STREAM.MSG.DELETE.LAKE_0", &json!({ "seq": sequence })).await.unwrap();
    }
    let mut reader = bus.reader(settings(3));
    assert_eq!(next(&mut reader).await, Read::Deleted { first: 4, last: 10 });
    expect(&mut reader, 11..=49).await;
    assert_eq!(next(&mut reader).await, Read::Deleted { first: 50, last: 51 });
    expect(&mut reader, 52..=69).await;
    assert_eq!(next(&mut reader).await, Read::Deleted { first: 70, last: 70 });
    expect(&mut reader, 71..=100).await;
    assert_eq!(reader.progress().subscriptions(), 1);
    assert_eq!(reader.progress().lost_ranges(), 0);
}

#[tokio::test]
async fn a_stream_that_was_emptied_goes_on_after_the_gap() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..11).await;
    let mut reader = bus.reader(settings(5));
    expect(&mut reader, 6..=10).await;
    bus.trim("LAKE_0", 11).await.unwrap();
    publish(&bus, 11..13).await;
    expect(&mut reader, 11..=12).await;
    bus.trim("LAKE_0", 13).await.unwrap();
    let mut late = bus.reader(settings(5));
    publish(&bus, 13..14).await;
    assert_eq!(next(&mut late).await, Read::Deleted { first: 6, last: 12 });
    expect(&mut late, 13..=13).await;
}

#[tokio::test]
async fn messages_that_another_puller_took_are_read_all_the_same() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..11).await;
    let mut reader = bus.reader(archiver(0));
    expect(&mut reader, 1..=10).await;
    // The server gives to the one or to the other.
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    let thief = tokio::spawn(async move { raw.take("LAKE_0", "archiver", 40).await });
    let progress = reader.progress();
    let mut number = 11;
    soon(async {
        while progress.lost_ranges() == 0 {
            publish(&bus, number..number + 10).await;
            expect(&mut reader, number..number + 10).await;
            number += 10;
        }
    })
    .await;
    thief.abort();
    publish(&bus, number..number + 10).await;
    expect(&mut reader, number..number + 10).await;
}

#[tokio::test]
async fn the_position_is_the_callers_and_never_what_the_server_thinks_was_acknowledged() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..101).await;
    let mut reader = bus.reader(archiver(0));
    expect(&mut reader, 1..=100).await;
    reader.acknowledge(100).await.unwrap();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    let acknowledged = async |raw: &mut RawNats| {
        let info = raw.demand("CONSUMER.INFO.LAKE_0.archiver", &json!({})).await.unwrap();
        info["ack_floor"]["stream_seq"].as_u64().unwrap()
    };
    soon(async {
        while acknowledged(&mut raw).await != 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(reader);
    // The transaction of 41..=100 was rolled back, or the database restored.
    let mut reader = bus.reader(archiver(40));
    expect(&mut reader, 41..=100).await;
    // The database is ahead of what the server heard.
    let mut reader = bus.reader(archiver(90));
    expect(&mut reader, 91..=100).await;
}

#[tokio::test]
async fn the_lag_of_an_acknowledging_reader_shows_on_the_server() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..101).await;
    let mut reader = bus.reader(archiver(0));
    expect(&mut reader, 1..=100).await;
    reader.acknowledge(60).await.unwrap();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    soon(async {
        loop {
            let info = raw.demand("CONSUMER.INFO.LAKE_0.archiver", &json!({})).await.unwrap();
            if info["ack_floor"]["stream_seq"] == json!(60) {
                break assert_eq!(info["num_ack_pending"], json!(40));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_server_gives_again_is_dropped() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..51).await;
    let mut reader = bus.reader(archiver(0));
    expect(&mut reader, 1..=50).await;
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    raw.demand("CONSUMER.RESET.LAKE_0.archiver", &json!({ "seq": 11 })).await.unwrap();
    publish(&bus, 51..101).await;
    expect(&mut reader, 51..=100).await;
    assert!(reader.progress().repeated() > 0, "nothing was given again");
}

#[tokio::test]
async fn a_deleted_consumer_is_made_again_at_the_position() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..51).await;
    let mut reader = bus.reader(archiver(0));
    expect(&mut reader, 1..=50).await;
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    raw.demand("CONSUMER.DELETE.LAKE_0.archiver", &json!({})).await.unwrap();
    publish(&bus, 51..101).await;
    expect(&mut reader, 51..=100).await;
    assert_eq!(reader.progress().subscriptions(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_server_again_and_again_loses_and_repeats_nothing() {
    let mut server = NatsServer::start().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..30_001).await;
    for reader_settings in [settings(0), archiver(0)] {
        let mut reader = bus.reader(reader_settings);
        for third in 0..3 {
            expect(&mut reader, third * 10_000 + 1..=third * 10_000 + 5_000).await;
            server.kill();
            server.restart().await.unwrap();
            expect(&mut reader, third * 10_000 + 5_001..=(third + 1) * 10_000).await;
        }
        assert!(reader.progress().subscriptions() > 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hung_is_read_on_when_it_answers_again() {
    let server = NatsServer::start().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..11).await;
    let mut reader = bus.reader(settings(0));
    expect(&mut reader, 1..=10).await;
    let progress = reader.progress();
    server.pause().unwrap();
    soon(async {
        while progress.trouble().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    server.resume().unwrap();
    publish(&bus, 11..21).await;
    expect(&mut reader, 11..=20).await;
    assert_eq!(progress.trouble(), None);
}

#[tokio::test]
async fn a_stream_that_was_made_again_is_told_and_ends_the_reader() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..11).await;
    let old = mark(&bus, 10).await;
    let mut reader = bus.reader(settings(0));
    expect(&mut reader, 1..=10).await;
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    raw.demand("STREAM.DELETE.LAKE_0", &json!({})).await.unwrap();
    make_streams(&bus).await;
    publish(&bus, 101..121).await;
    assert!(matches!(next(&mut reader).await, Read::Changed(_)));
    assert!(soon(reader.next()).await.is_err());
    assert!(matches!(bus.compare("LAKE_0", &old).await, Ok(Comparison::Other(_))));
    expect(&mut bus.reader(settings(0)), 1..=20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lost_its_tail_is_told_even_if_it_has_grown_again() {
    let mut server = NatsServer::start().await.unwrap();
    let bus = bus_with_streams(&server).await;
    publish(&bus, 1..11).await;
    server.stop().unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&server.store(), copy.path());
    server.restart().await.unwrap();
    publish(&bus, 11..21).await;
    let mut reader = bus.reader(settings(0));
    expect(&mut reader, 1..=20).await;
    let (early, late) = (mark(&bus, 10).await, mark(&bus, 20).await);
    // The power fails before the tail is on the disk.
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy_folder(copy.path(), &server.store());
    server.restart().await.unwrap();
    assert_eq!(soon(compare(&bus, &early)).await, Comparison::Same);
    assert!(matches!(soon(compare(&bus, &late)).await, Comparison::Other(_)));
    assert!(matches!(next(&mut reader).await, Read::Changed(_)));
    publish(&bus, 101..121).await;
    assert_eq!(soon(compare(&bus, &early)).await, Comparison::Same);
    assert!(matches!(soon(compare(&bus, &late)).await, Comparison::Other(_)));
    bus.trim("LAKE_0", 15).await.unwrap();
    assert!(matches!(soon(compare(&bus, &early)).await, Comparison::Purged(_)));
}

/// Compares once the connection stands again.
async fn compare(bus: &Bus, mark: &Mark) -> Comparison {
    loop {
        match bus.compare("LAKE_0", mark).await {
            Ok(comparison) => return comparison,
            Err(error) => assert_eq!(error.recovery(), bus::Recovery::Retry, "{error}"),
        }
    }
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
