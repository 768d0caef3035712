//! The archiver as a process, against real servers: whatever ends, each event is archived once.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::time::Duration;

use bus::{Bus, PublisherLimits, Topology, TopologyOverrides};
use domain::{Event, Rules, Stream};
use event_store::ArchiveView;
use integration_tests::{
    nats::NatsServer,
    postgres::{Database, PostgresServer},
    process::Process,
};
use wire::{Format, Sealed, Subjects, seal};

use crate::store_events::{access, inventory, query};

/// Far above what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// Events of one message.
const PACKED: usize = 100;

struct Pipeline {
    nats: NatsServer,
    postgres: PostgresServer,
    database: Database,
    bus: Bus,
    settings: Vec<(String, String)>,
}

impl Pipeline {
    async fn start() -> Self {
        let nats = NatsServer::start().await.unwrap();
        let postgres = PostgresServer::start_private().unwrap();
        let database = postgres.database().await.unwrap();
        let bus = nats.bus("test").await.unwrap();
        // The events are older than windows of these lengths are kept by default.
        let rules = Rules { windows: "10s,60s".parse().unwrap(), ..Rules::default() };
        let topology = Topology::embedded("", &TopologyOverrides::default(), &rules);
        bus.apply_topology(&topology).await.unwrap();
        let settings = [
            ("NATS_URL", nats.url()),
            ("DATABASE_URL", database.archiver_url()),
            ("ARCHIVER_BATCH_EVENTS_MAX", "2000".to_owned()),
            ("ARCHIVER_BATCH_AGE_MS_MAX", "50".to_owned()),
            ("ARCHIVER_TRIM_INTERVAL_MS", "100".to_owned()),
            ("ARCHIVER_EPOCH_CHECK_MS", "100".to_owned()),
        ];
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { nats, postgres, database, bus, settings }
    }

    fn archiver_with(&self, more: &[(&str, &str)]) -> Process {
        let mut settings: Vec<(&str, &str)> =
            self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        settings.extend(more);
        Process::start(&["archive"], &settings).unwrap()
    }

    fn archiver(&self) -> Process {
        self.archiver_with(&[])
    }

    async fn publish(&self, events: &[Event]) {
        let subjects = Subjects::new("");
        let sealed = events.chunks(PACKED).map(|part| {
            let subject = subjects.of(&part[0].fact, 0, "test");
            seal(&subject, Format::Bincode, part)
        });
        self.publish_sealed(sealed).await;
    }

    async fn publish_sealed(&self, messages: impl IntoIterator<Item = Sealed>) {
        let publisher = self.bus.publisher(PublisherLimits::default(), |_| {});
        for message in messages {
            publisher.publish(message).await.unwrap();
        }
        tokio::time::timeout(DEADLINE, publisher.flush()).await.unwrap().unwrap();
    }

    fn rows(&self) -> i64 {
        self.database
            .number(
                "select (select count(*) from lakegauge.lake_access) \
                 + (select count(*) from lakegauge.lake_inventory) \
                 + (select count(*) from lakegauge.warehouse_query)",
            )
            .unwrap_or(-1)
    }

    /// Waits until the checkpoint of a stream is its last message.
    async fn archived(&self, stream: &str, archiver: &Process) {
        let last = self.bus.stream(stream).await.unwrap().last_sequence;
        let sql =
            format!("select sequence from lakegauge_api.checkpoint where stream = '{stream}'");
        until(archiver, "the checkpoint to reach the end of the stream", || {
            self.database
                .sql(&sql)
                .is_ok_and(|rows| rows.first().is_some_and(|row| *row == last.to_string()))
        })
        .await;
    }

    async fn read_back(&self, stream: Stream) -> Vec<Event> {
        let mut view = ArchiveView::open(&self.database.reader(), stream).await.unwrap();
        let mut events = Vec::new();
        while let Some(page) = view.next_page().await.unwrap() {
            events.extend(page.into_iter().map(|counted| counted.event));
        }
        events
    }

    /// Windows hold exactly the rows, and nothing was read twice.
    fn check(&self, events: i64) {
        assert_eq!(self.rows(), events);
        for length_s in [10, 60] {
            let counted = self.database.number(&format!(
                "select coalesce((select sum(events) from lakegauge.lake_window \
                   where length_s = {length_s}), 0) \
                 + coalesce((select sum(events) from lakegauge.warehouse_window \
                   where length_s = {length_s}), 0) \
                 + (select count(*) from lakegauge.lake_inventory)"
            ));
            assert_eq!(counted.unwrap(), events, "windows of {length_s} s");
        }
        assert_eq!(
            self.database
                .sql("select sum(events), sum(duplicates) from lakegauge_api.ledger")
                .unwrap(),
            [format!("{events}|0")]
        );
    }
}

async fn until(service: &Process, what: &str, mut condition: impl FnMut() -> bool) {
    let tries = DEADLINE.as_millis() / POLL.as_millis();
    for _ in 0..tries {
        if condition() {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
    panic!("waited in vain for {what}; the service wrote:\n{}", service.log());
}

/// Waits until the lake's stream could have been trimmed several times from now on.
async fn several_trims(archiver: &Process) {
    let trims = || archiver.metric("lakegauge_archiver_trims_total{stream=\"LAKE_0\"}");
    let mut wanted = None;
    until(archiver, "several chances to trim", || {
        let now = trims();
        wanted = wanted.or_else(|| now.map(|now| now + 3.0));
        now >= wanted && wanted.is_some()
    })
    .await;
}

fn events(numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(|number| access(number, i64::try_from(number / 1_000).unwrap())).collect()
}

#[tokio::test]
async fn rows_are_events_in_their_order_whenever_the_archiver_is_killed() {
    let pipeline = Pipeline::start().await;
    let mut archiver = pipeline.archiver();
    let all = events(0..60_000);
    for (round, part) in all.chunks(10_000).enumerate() {
        pipeline.publish(part).await;
        // Somewhere in the middle of reading, judging or committing.
        tokio::time::sleep(Duration::from_millis(u64::try_from(round).unwrap() * 60)).await;
        archiver.kill().unwrap();
        archiver.start_again().unwrap();
    }
    pipeline.archived("LAKE_0", &archiver).await;
    pipeline.check(60_000);
    until(&archiver, "a lag of nothing", || {
        archiver.metric("lakegauge_archiver_lag_messages{stream=\"LAKE_0\"}") == Some(0.0)
    })
    .await;
    assert!(pipeline.read_back(Stream::lake(0)).await == all, "other events, or in another order");
}

#[tokio::test]
async fn a_database_that_is_gone_is_waited_for_and_said() {
    let mut pipeline = Pipeline::start().await;
    let archiver = pipeline.archiver();
    until(&archiver, "the archiver to be ready", || archiver.is_ready()).await;
    pipeline.publish(&events(0..5_000)).await;
    pipeline.postgres.stop_immediately().unwrap();
    pipeline.publish(&events(5_000..20_000)).await;
    until(&archiver, "the archiver to say what it waits for", || {
        archiver.get("/readyz").is_ok_and(|(status, _)| status == 503)
    })
    .await;
    assert_eq!(archiver.get("/livez").unwrap().0, 200);
    pipeline.publish(&events(20_000..30_000)).await;
    pipeline.postgres.start_again().unwrap();
    pipeline.archived("LAKE_0", &archiver).await;
    pipeline.check(30_000);
    until(&archiver, "the archiver to be ready again", || archiver.is_ready()).await;
}

#[tokio::test]
async fn an_archiver_that_starts_before_the_database_waits_for_it() {
    let mut pipeline = Pipeline::start().await;
    pipeline.publish(&events(0..1_000)).await;
    pipeline.postgres.stop_immediately().unwrap();
    let mut archiver = pipeline.archiver();
    until(&archiver, "the archiver to answer", || archiver.get("/livez").is_ok()).await;
    assert!(!archiver.is_ready());
    pipeline.postgres.start_again().unwrap();
    pipeline.archived("LAKE_0", &archiver).await;
    pipeline.check(1_000);
    assert!(archiver.is_running().unwrap());
}

#[tokio::test]
async fn a_broker_that_dies_and_comes_back_loses_nothing() {
    let mut pipeline = Pipeline::start().await;
    let archiver = pipeline.archiver();
    for round in 0..3 {
        pipeline.publish(&events(round * 5_000..(round + 1) * 5_000)).await;
        pipeline.nats.kill();
        pipeline.nats.restart().await.unwrap();
    }
    pipeline.archived("LAKE_0", &archiver).await;
    pipeline.check(15_000);
}

#[tokio::test]
async fn garbage_is_one_letter_with_its_bytes_and_stops_nothing() {
    let pipeline = Pipeline::start().await;
    let archiver = pipeline.archiver();
    pipeline.publish(&events(0..300)).await;
    let garbage = |content_type, bytes: &'static [u8]| {
        Sealed::new("lake.access.0.test".to_owned(), content_type, bytes, 1)
    };
    pipeline
        .publish_sealed([
            garbage("application/json", b"{\"type\":\"lake.access\",\"bytes\":\"many\"}"),
            garbage("application/x-bincode; v=1", b"\xff\x00\x01"),
            garbage("image/png", b"\x89PNG"),
        ])
        .await;
    pipeline.publish(&[inventory(900, 1)]).await;
    pipeline.publish(&events(300..600)).await;
    pipeline.publish(&[query(901, 1), query(902, 2)]).await;
    pipeline.archived("LAKE_0", &archiver).await;
    pipeline.archived("WAREHOUSE_0", &archiver).await;
    assert_eq!(pipeline.rows(), 603);
    let letters = pipeline
        .database
        .sql("select bytes, counted from lakegauge_api.dead_letter order by sequence");
    assert_eq!(
        letters.unwrap(),
        [
            "\\x7b2274797065223a226c616b652e616363657373222c226279746573223a226d616e79227d|f",
            "\\xff0001|f",
            "\\x89504e47|f",
        ]
    );
    let (_, metrics) = archiver.get("/metrics").unwrap();
    let letters: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("lakegauge_archiver_dead_letters_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(letters, 3);
}

#[tokio::test]
async fn the_same_events_published_again_are_duplicates_after_a_restart_too() {
    let pipeline = Pipeline::start().await;
    let mut archiver = pipeline.archiver();
    let all = events(0..3_000);
    pipeline.publish(&all).await;
    pipeline.archived("LAKE_0", &archiver).await;
    archiver.terminate().unwrap();
    assert!(archiver.ended().await.unwrap().success(), "{}", archiver.log());
    archiver.start_again().unwrap();
    // In other messages, so that the broker does not know them.
    let subjects = Subjects::new("");
    let again = all
        .chunks(77)
        .map(|part| seal(&subjects.of(&part[0].fact, 0, "again"), Format::Json, part));
    pipeline.publish_sealed(again.collect::<Vec<_>>()).await;
    pipeline.archived("LAKE_0", &archiver).await;
    assert_eq!(pipeline.rows(), 3_000);
    assert_eq!(
        pipeline
            .database
            .sql("select sum(inserted), sum(duplicates) from lakegauge_api.ledger")
            .unwrap(),
        ["3000|3000"]
    );
}

#[tokio::test]
async fn a_stream_that_was_made_again_is_another_epoch_and_known_events_count_once() {
    let pipeline = Pipeline::start().await;
    let archiver = pipeline.archiver();
    pipeline.publish(&events(0..2_000)).await;
    pipeline.archived("LAKE_0", &archiver).await;

    let mut raw =
        integration_tests::raw_nats::RawNats::connect(pipeline.nats.port()).await.unwrap();
    raw.demand("STREAM.DELETE.LAKE_0", &serde_json::json!({})).await.unwrap();
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    pipeline.bus.apply_topology(&topology).await.unwrap();
    // The last thousand again, and a thousand that are new.
    pipeline.publish(&events(1_000..3_000)).await;
    until(&archiver, "the new epoch to be archived", || pipeline.rows() == 3_000).await;
    pipeline.archived("LAKE_0", &archiver).await;
    assert_eq!(
        pipeline
            .database
            .sql("select sum(inserted), sum(duplicates) from lakegauge_api.ledger where stream = 'LAKE_0'")
            .unwrap(),
        ["3000|1000"]
    );
    let epochs = "select count(distinct epoch) from lakegauge_api.ledger where stream = 'LAKE_0'";
    assert_eq!(pipeline.database.number(epochs).unwrap(), 2);
    assert_eq!(pipeline.database.number("select count(*) from lakegauge.epoch").unwrap(), 1);
}

#[tokio::test]
async fn a_second_archiver_waits_and_takes_over_when_the_first_is_killed() {
    let pipeline = Pipeline::start().await;
    let mut first = pipeline.archiver();
    until(&first, "the first to be ready", || first.is_ready()).await;
    let second = pipeline.archiver();
    until(&second, "the second to say for whom it waits", || {
        second.get("/readyz").is_ok_and(|(status, body)| {
            status == 503 && body.contains("waiting for the lock that lakegauge-archiver")
        })
    })
    .await;
    pipeline.publish(&events(0..5_000)).await;
    first.kill().unwrap();
    pipeline.archived("LAKE_0", &second).await;
    pipeline.check(5_000);
    until(&second, "the second to be ready", || second.is_ready()).await;
}

#[tokio::test]
async fn a_stream_is_trimmed_below_the_checkpoint_and_never_at_it() {
    let pipeline = Pipeline::start().await;
    pipeline.publish(&events(0..5_000)).await;
    let kept = pipeline.archiver_with(&[("ARCHIVER_AWAIT_AGGREGATOR", "false")]);
    pipeline.archived("LAKE_0", &kept).await;
    // All within the time that is kept.
    several_trims(&kept).await;
    assert_eq!(pipeline.bus.stream("LAKE_0").await.unwrap().first_sequence, 1);
    drop(kept);

    let waiting = pipeline.archiver_with(&[("ARCHIVER_STREAM_KEEP_S", "0")]);
    several_trims(&waiting).await;
    let status = pipeline.bus.stream("LAKE_0").await.unwrap();
    assert_eq!(status.first_sequence, 1, "no snapshot has passed it");
    drop(waiting);

    let mut trimming = pipeline
        .archiver_with(&[("ARCHIVER_STREAM_KEEP_S", "0"), ("ARCHIVER_AWAIT_AGGREGATOR", "false")]);
    for _ in 0..DEADLINE.as_millis() / POLL.as_millis() {
        let status = pipeline.bus.stream("LAKE_0").await.unwrap();
        if status.first_sequence == status.last_sequence {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let status = pipeline.bus.stream("LAKE_0").await.unwrap();
    assert_eq!((status.first_sequence, status.last_sequence), (50, 50));
    // What was trimmed is no loss, also after a restart.
    trimming.kill().unwrap();
    trimming.start_again().unwrap();
    pipeline.publish(&events(5_000..6_000)).await;
    pipeline.archived("LAKE_0", &trimming).await;
    pipeline.check(6_000);
    assert_eq!(
        pipeline.database.sql("select * from lakegauge_api.declared_loss").unwrap(),
        Vec::<String>::new()
    );
}
