//! Two aggregators on one partition: one counts, the other waits and says for whom.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::PublisherLimits;
use domain::Event;
use integration_tests::http;
use integration_tests::pipeline::{Part, Pipeline, four};
use integration_tests::ports::free_port;
use integration_tests::process::Process;
use integration_tests::waiting::until;
use rustix::process::Signal;
use wire::{Format, Subjects, seal};

use crate::store_events::access;

/// Events of one message.
const PACKED: usize = 10;

/// Longer than the disk of a busy machine stands still, so that nobody but a sleeper loses it.
const LEASE_MS: &str = "3000";
/// Far beyond the patience of a test.
const FOR_EVER_MS: &str = "3600000";

/// An aggregator and the port of its metrics.
struct Aggregator {
    service: Process,
    metrics: u16,
}

impl Aggregator {
    fn start(pipeline: &Pipeline, lease_ms: &str) -> Self {
        let metrics = free_port().unwrap();
        let (nats, database) = (pipeline.nats.url(), pipeline.database.reader_url());
        let address = format!("127.0.0.1:{metrics}");
        let settings = [
            ("NATS_URL", nats.as_str()),
            ("DATABASE_URL", &database),
            ("METRICS_ADDR", &address),
            ("SNAPSHOT_INTERVAL_MS", "100"),
            ("AGGREGATOR_LEASE_MS", lease_ms),
        ];
        Self { service: Process::start(&["aggregate"], &settings).unwrap(), metrics }
    }

    /// Whether it shows that many accesses.
    fn shows(&self, accesses: u32) -> bool {
        let shown = four(self.metrics).unwrap();
        shown.is_some_and(|[_, shown, ..]| shown.total_cmp(&f64::from(accesses)).is_eq())
    }

    async fn until_shows(&self, accesses: u32) {
        let shown = until("that many accesses", async || Ok(self.shows(accesses))).await;
        shown.unwrap_or_else(|error| panic!("{error}\n{}", self.service.log()));
    }

    fn owns(&self) -> Option<f64> {
        self.service.metric("lakegauge_aggregator_owner")
    }

    /// Waits until it says that it waits for another.
    async fn until_waits_for(&self, other: &Self) {
        let address = format!("at 127.0.0.1:{}", other.metrics);
        let waits = until("one that waits", async || {
            let answer = self.service.get("/readyz?verbose");
            Ok(answer.is_ok_and(|(status, body)| {
                status == 503 && body.contains("waiting for aggregator") && body.contains(&address)
            }))
        });
        waits.await.unwrap();
        let log = self.service.log();
        assert!(log.contains("waiting for the owner") && log.contains(&address), "{log}");
        // The other parts of readiness follow within half a second.
        let scraped = until("a scrape of who waits, which is no failure", async || {
            let (status, page) = http::get(self.metrics, "/metrics")?;
            assert!(!page.contains("data_"), "who waits shows nothing: {page}");
            Ok(status == 200 && page.starts_with("# Standing by"))
        });
        scraped.await.unwrap();
        assert_eq!(self.owns(), Some(0.0));
    }
}

/// Publishes accesses; gives how many there are by then.
async fn publish(pipeline: &Pipeline, numbers: std::ops::Range<u32>) -> u32 {
    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    let events: Vec<Event> = numbers.clone().map(|number| access(u64::from(number), 1)).collect();
    for part in events.chunks(PACKED) {
        let subject = Subjects::new("").of(&part[0].fact, 0, "test");
        publisher.publish(seal(&subject, Format::Bincode, part)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    numbers.end
}

async fn servers() -> Pipeline {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.part(Part::Archiver).unwrap().ready().await.unwrap();
    pipeline
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_aggregator_waits_and_takes_over_when_the_first_is_killed() {
    let pipeline = servers().await;
    let mut first = Aggregator::start(&pipeline, LEASE_MS);
    let accesses = publish(&pipeline, 0..200).await;
    first.until_shows(accesses).await;
    let second = Aggregator::start(&pipeline, LEASE_MS);
    second.until_waits_for(&first).await;
    assert!(first.shows(accesses));
    first.service.kill().unwrap();
    let accesses = publish(&pipeline, 200..400).await;
    second.until_shows(accesses).await;
    assert_eq!(second.owns(), Some(1.0));
    // Whoever comes back is the one that waits.
    first.service.start_again().unwrap();
    first.until_waits_for(&second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_was_stopped_longer_than_its_lease_owns_nothing_when_it_comes_back() {
    let pipeline = servers().await;
    let first = Aggregator::start(&pipeline, LEASE_MS);
    let accesses = publish(&pipeline, 0..200).await;
    first.until_shows(accesses).await;
    let second = Aggregator::start(&pipeline, LEASE_MS);
    second.until_waits_for(&first).await;
    for (sleeper, other, numbers) in
        [(&first, &second, 200..400), (&second, &first, 400..600), (&first, &second, 600..800)]
    {
        sleeper.service.signal(Signal::STOP).unwrap();
        let accesses = publish(&pipeline, numbers).await;
        other.until_shows(accesses).await;
        sleeper.service.signal(Signal::CONT).unwrap();
        sleeper.until_waits_for(other).await;
        assert!(other.shows(accesses), "the sleeper changed nothing");
        assert_eq!(other.owns(), Some(1.0));
        let log = other.service.log();
        assert!(!log.contains("recovering the state again"), "it stored none: {log}");
    }
    let lost = "lakegauge_aggregator_ownerships_lost_total";
    let lost = [&first, &second].map(|one| one.service.metric(lost));
    assert_eq!(lost, [Some(2.0), Some(1.0)]);
    let differing =
        "lakegauge_archiver_alarms_total{alarm=\"sample_differs\",stream=\"TELEMETRY\"}";
    assert_eq!(pipeline.part(Part::Archiver).unwrap().metric(differing), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_given_back_is_taken_at_once() {
    let pipeline = servers().await;
    let mut first = Aggregator::start(&pipeline, FOR_EVER_MS);
    let accesses = publish(&pipeline, 0..200).await;
    first.until_shows(accesses).await;
    first.service.terminate().unwrap();
    assert!(first.service.ended().await.unwrap().success(), "{}", first.service.log());
    let second = Aggregator::start(&pipeline, FOR_EVER_MS);
    second.until_shows(accesses).await;
    assert_eq!(second.owns(), Some(1.0));
}
