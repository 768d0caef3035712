//! Messages that the client library can't read: the reader gives them with their bytes and goes on.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::time::Duration;

use bus::{
    Bus, Comparison, Delivery, Observed, Read, Reader, ReaderSettings, StoredMessage, Topology,
    TopologyOverrides, Watch,
};
use domain::{Mark, Rules};
use integration_tests::nats::NatsServer;
use integration_tests::raw_nats::RawNats;
use integration_tests::unreadable::{self, Form, forms, statuses};
use service_kit::Jitter;
use wire::Headers;

/// Far above what any condition here takes, and below what a person waits for.
const DEADLINE: Duration = Duration::from_secs(60);
/// Connections that a reader may make for one stretch of unreadable messages: the one that breaks,
/// the one that steps over, and one more for what was published meanwhile.
const CONNECTIONS_MAX: u64 = 3;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

struct Here {
    _server: NatsServer,
    bus: Bus,
    raw: RawNats,
}

impl Here {
    async fn start() -> Self {
        let server = NatsServer::start_or_given().await.unwrap();
        let bus = server.bus("test").await.unwrap();
        let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
        bus.apply_topology(&topology).await.unwrap();
        let raw = RawNats::connect(server.port()).await.unwrap();
        Self { _server: server, bus, raw }
    }

    async fn good(&mut self, number: u64) -> u64 {
        let body = number.to_string();
        self.raw.publish_bytes(b"lake.access.0.good", b"", body.as_bytes()).await.unwrap()
    }

    async fn bad(&mut self, form: &Form) -> u64 {
        unreadable::publish(&mut self.raw, "lake.access.0.", form, b"body").await.unwrap()
    }

    fn reader(&self, after: u64) -> Reader {
        self.bus.reader(ReaderSettings {
            heartbeat: Duration::from_millis(500),
            overdue_check: Duration::from_millis(100),
            ..ReaderSettings::new("LAKE_0", "test", after)
        })
    }

    async fn mark(&self, sequence: u64) -> Mark {
        let created_ns = self.bus.stream("LAKE_0").await.unwrap().created_ns;
        let message = self.bus.message_at("LAKE_0", sequence).await.unwrap();
        let message = message.unwrap_or_else(|| panic!("message {sequence} is not there"));
        Mark { epoch: 0, sequence, broker_ns: message.broker_ns, created_ns }
    }
}

/// The next message, with nothing said of what stood behind it.
async fn next(reader: &mut Reader) -> Delivery {
    loop {
        match soon(reader.next()).await.unwrap() {
            Read::Subscribed(_) => {}
            Read::Message(delivery) => return Delivery { pending: 0, ..delivery },
            read @ (Read::Deleted { .. } | Read::Changed(_)) => panic!("{read:?}"),
        }
    }
}

fn is_unreadable(delivery: &Delivery, form: &Form) -> bool {
    match &delivery.headers {
        Headers::Unreadable(headers) => headers.block == form.block,
        Headers::Read { .. } => false,
    }
}

#[tokio::test]
async fn every_malformed_message_is_given_with_its_bytes_and_what_is_behind_it_follows() {
    let mut here = Here::start().await;
    let mut waiting = here.reader(0);
    for form in forms() {
        let before = here.good(1).await;
        assert_eq!(next(&mut waiting).await.sequence, before, "{}", form.name);
        // One reader meets it where it waits, the other where it begins.
        let sequence = here.bad(&form).await;
        let behind = here.good(2).await;
        let mut late = here.reader(before);
        for reader in [&mut waiting, &mut late] {
            let given = next(reader).await;
            assert_eq!(given.sequence, sequence, "{}", form.name);
            assert!(is_unreadable(&given, &form), "{}: {:?}", form.name, given.headers);
            assert_eq!(given.payload, "body", "{}", form.name);
            assert_eq!(next(reader).await.sequence, behind, "{}", form.name);
        }
    }
}

#[tokio::test]
async fn a_megabyte_behind_headers_that_cannot_be_read_is_kept_whole() {
    let mut here = Here::start().await;
    let mut reader = here.reader(0);
    let body = vec![0xe3; 1_000_000];
    let block = b"NATS/1.0\r\nx: Jo\xe3o\r\n\r\n";
    here.raw.publish_bytes(b"lake.access.0.x", block, &body).await.unwrap();
    let given = next(&mut reader).await;
    assert!(given.payload == body, "{} bytes", given.payload.len());
}

#[tokio::test]
async fn a_message_like_a_word_of_the_server_is_a_message_all_the_same() {
    let mut here = Here::start().await;
    let mut reader = here.reader(0);
    for form in statuses() {
        let sequence = here.bad(&form).await;
        let stored = here.bus.message_at("LAKE_0", sequence).await.unwrap().unwrap();
        assert_eq!(next(&mut reader).await, stored, "{}", form.name);
        let behind = here.good(1).await;
        assert_eq!(next(&mut reader).await.sequence, behind, "{}", form.name);
    }
}

#[tokio::test]
async fn what_can_be_read_is_the_same_whichever_way_it_came() {
    let mut here = Here::start().await;
    let mut reader = here.reader(0);
    let mut jitter = Jitter::seeded(17);
    let plain = b"NATS/1.0 200 OK\r\nContent-Type: application/json; a=b\r\n more\r\nx: y\r\n\r\n";
    for _ in 0..300 {
        let mut block = plain.to_vec();
        let mut draw =
            |below: usize| usize::try_from(jitter.below(u64::try_from(below).unwrap())).unwrap();
        for _ in 0..=draw(3) {
            if block.is_empty() {
                break;
            }
            let at = draw(block.len());
            match draw(4) {
                0 => block[at] = u8::try_from(draw(256)).unwrap(),
                1 => block[at] = b"\r\n: \t"[draw(5)],
                2 => drop(block.remove(at)),
                _ => block.truncate(at.max(1)),
            }
        }
        let shown = String::from_utf8_lossy(&block).into_owned();
        let sequence =
            here.raw.publish_bytes(b"lake.access.0.x", &block, b"body").await.expect(&shown);
        let given = next(&mut reader).await;
        let stored = here.bus.message_at("LAKE_0", sequence).await.unwrap().unwrap();
        assert_eq!(given, stored, "{shown:?}");
    }
}

#[tokio::test]
async fn a_thousand_in_a_row_cost_one_connection_and_delay_no_other_stream() {
    let mut here = Here::start().await;
    let mut reader = here.reader(0);
    let mut other = here.bus.reader(ReaderSettings::new("WAREHOUSE_0", "test", 0));
    let all = forms();
    let small: Vec<&Form> = all.iter().filter(|form| form.block.len() < 1_000).collect();
    for form in small.iter().cycle().take(1_000) {
        here.bad(form).await;
    }
    let last = here.good(1).await;
    let connections = here.bus.connections();
    // From the beginning, as after a restart.
    let mut late = here.reader(0);
    for sequence in 1..=last {
        assert_eq!(next(&mut late).await.sequence, sequence);
        assert_eq!(next(&mut reader).await.sequence, sequence);
    }
    assert_eq!(late.progress().unreadable(), 1_000);
    assert!(late.progress().subscriptions() <= CONNECTIONS_MAX);
    assert!(!connections.has_changed().unwrap(), "the connection that all share was made again");
    here.raw.publish("warehouse.query.0.x", "behind").await.unwrap();
    assert_eq!(next(&mut other).await.payload, "behind");
    assert_eq!(other.progress().subscriptions(), 1, "the other stream was disturbed");
}

#[tokio::test]
async fn a_position_at_an_unreadable_message_is_compared_resumed_from_and_trimmed_to() {
    let mut here = Here::start().await;
    here.good(1).await;
    for form in forms() {
        let sequence = here.bad(&form).await;
        let mark = here.mark(sequence).await;
        let behind = here.good(2).await;
        assert_eq!(here.bus.compare("LAKE_0", &mark).await, Ok(Comparison::Same), "{}", form.name);
        let other = Mark { broker_ns: mark.broker_ns + 1, ..mark };
        let compared = here.bus.compare("LAKE_0", &other).await.unwrap();
        assert!(matches!(compared, Comparison::Other(_)), "{}: {compared:?}", form.name);
        assert_eq!(next(&mut here.reader(sequence)).await.sequence, behind, "{}", form.name);
        assert!(here.bus.trim("LAKE_0", sequence).await.unwrap() > 0, "{}", form.name);
        assert_eq!(here.bus.compare("LAKE_0", &mark).await, Ok(Comparison::Same), "{}", form.name);
    }
}

#[tokio::test]
async fn entries_of_the_bucket_whose_headers_cannot_be_read_are_the_values_they_hold() {
    let mut here = Here::start().await;
    let epochs = here.bus.epochs();
    assert_eq!(epochs.raise("LAKE_0", 3).await, Ok(4));
    for form in forms().into_iter().filter(|form| form.token == b"raw") {
        let subject = b"$KV.LAKEGAUGE.epoch.LAKE_0";
        here.raw.publish_bytes(subject, &form.block, b"7").await.unwrap();
        assert_eq!(epochs.get("LAKE_0").await, Ok(Some(7)), "{}", form.name);
    }
    assert_eq!(epochs.raise("LAKE_0", 7).await, Ok(8));
    assert!(here.bus.is_connected());
}

async fn seen(watch: &mut Watch) -> StoredMessage {
    match soon(watch.next()).await {
        Some(Observed::Message(seen)) => seen,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_looks_on_sees_every_malformed_message_and_what_is_behind_it() {
    let mut here = Here::start().await;
    here.good(0).await;
    let subjects = ["lake.*.0.>".to_owned(), "warehouse.>".to_owned()];
    let mut watch = here.bus.watch(&subjects).await.unwrap();
    for form in forms() {
        here.bad(&form).await;
        here.good(2).await;
        let bad = seen(&mut watch).await;
        assert!(matches!(bad.headers, Headers::Unreadable(_)), "{}: {bad:?}", form.name);
        assert_eq!(bad.payload, "body", "{}", form.name);
        assert_eq!(seen(&mut watch).await.payload, "2", "{}", form.name);
    }
    // What no pattern means is passed over; the other stream is looked at as well.
    here.raw.publish("lake.late.0", "late").await.unwrap();
    here.raw.publish("lake.inventory.0.x", "inventory").await.unwrap();
    assert_eq!(seen(&mut watch).await.payload, "inventory");
    here.raw.publish("warehouse.query.0.x", "query").await.unwrap();
    assert_eq!(seen(&mut watch).await.payload, "query");
}

#[tokio::test]
async fn who_looks_on_is_told_that_the_stream_became_another_and_goes_on() {
    let mut here = Here::start().await;
    let mut watch = here.bus.watch(&["lake.>".to_owned()]).await.unwrap();
    here.good(1).await;
    assert_eq!(seen(&mut watch).await.payload, "1");
    here.raw.demand("STREAM.DELETE.LAKE_0", &serde_json::json!({})).await.unwrap();
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    here.bus.apply_topology(&topology).await.unwrap();
    let told = soon(watch.next()).await;
    assert!(matches!(&told, Some(Observed::Missed(why)) if why.contains("LAKE_0")), "{told:?}");
    here.good(2).await;
    assert_eq!(seen(&mut watch).await.payload, "2");
}

#[tokio::test]
async fn a_subject_that_no_stream_holds_is_named() {
    let here = Here::start().await;
    let refused = here.bus.watch(&["nowhere.>".to_owned()]).await.unwrap_err().to_string();
    assert!(refused.contains("nowhere.>"), "{refused}");
}
