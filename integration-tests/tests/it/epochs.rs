//! Streams that were purged, made again, restored from an older copy, or cut and refilled: noticed,
//! said, counted, and archive and metrics agree again.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::{Bus, PublisherLimits, Topology, TopologyOverrides};
use domain::{Event, Rules, Stream};
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::json;
use service_kit::Clock;
use tempfile::TempDir;
use wire::{Format, Subjects, seal};

use crate::laws::{self, Broker};
use crate::store_events::{access, query};

const STREAMS: [&str; 2] = ["LAKE_0", "WAREHOUSE_0"];
/// Events of one message, and messages of one phase besides the last.
const PACKED: usize = 5;
const MESSAGES: u64 = 8;

/// What happens to the broker's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// `LAKE_0` is emptied; its sequences go on.
    Purged,
    /// `LAKE_0` is deleted and made again.
    MadeAgain,
    /// The whole store is what it was some time before.
    OlderCopy,
    /// The same, and other messages take the sequences of those that are gone, and more.
    Refilled,
}

/// Who does not see it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Nobody,
    Archiver,
    Aggregator,
    Both,
}

impl Down {
    fn parts(self) -> &'static [Part] {
        match self {
            Self::Nobody => &[],
            Self::Archiver => &[Part::Archiver],
            Self::Aggregator => &[Part::Aggregator],
            Self::Both => &[Part::Archiver, Part::Aggregator],
        }
    }
}

/// Cases whose every kind of damage is tried each time; the others with `LAKEGAUGE_TEST_FULL`.
const TELLING: [Down; 3] = [Down::Archiver, Down::Nobody, Down::Both];
const ALL: [Down; 4] = [Down::Archiver, Down::Nobody, Down::Both, Down::Aggregator];

/// A pipeline whose broker is damaged again and again, and what must be known of it.
struct Case {
    pipeline: Pipeline,
    damage: Damage,
    /// Number of the next event of each side.
    next: u64,
    /// Messages and events published into `LAKE_0` while the archiver was down, and lost since.
    lost_events: u64,
    broker: Broker,
}

/// One message of each side, and one more in another second of the broker: samples are due then.
async fn phase(case: &mut Case, bus: &Bus) {
    let clock = Clock::system();
    let began = clock.now_us() / 1_000_000;
    publish(case, bus, MESSAGES).await;
    until("another second", async || Ok(clock.now_us() / 1_000_000 > began)).await.unwrap();
    publish(case, bus, 1).await;
}

async fn publish(case: &mut Case, bus: &Bus, messages: u64) {
    let subjects = Subjects::new("");
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    for _ in 0..messages {
        let sides: [fn(u64, i64) -> Event; 2] = [access, query];
        for side in sides {
            let numbers = case.next..case.next + u64::try_from(PACKED).unwrap();
            let events: Vec<Event> = numbers.map(|number| side(number, 1)).collect();
            case.next += u64::try_from(PACKED).unwrap();
            let subject = subjects.of(&events[0].fact, 0, "test");
            publisher.publish(seal(&subject, Format::Bincode, &events)).await.unwrap();
        }
    }
    publisher.flush().await.unwrap();
}

impl Case {
    async fn start(damage: Damage) -> Self {
        let mut pipeline = Pipeline::start(&[]).await.unwrap();
        pipeline.run(Part::Archiver).unwrap();
        pipeline.run(Part::Aggregator).unwrap();
        until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
        let broker = Broker { epochs: STREAMS.map(|name| (name, 1)), lost: 0 };
        Self { pipeline, damage, next: 0, lost_events: 0, broker }
    }

    /// Damages the broker while somebody is down, and waits until everybody is back and at rest.
    async fn damage(&mut self, down: Down) {
        let bus = self.pipeline.bus().await.unwrap();
        phase(self, &bus).await;
        let copy = self.copied().await;
        let bus = self.pipeline.bus().await.unwrap();
        phase(self, &bus).await;
        self.pipeline.rest().await.unwrap();
        for part in down.parts() {
            self.pipeline.stop(*part).await.unwrap();
        }
        if down.parts().contains(&Part::Archiver) {
            self.unarchived(&bus, down).await;
        }
        self.happen(copy).await;
        for part in down.parts() {
            self.pipeline.run(*part).unwrap();
        }
        self.noticed(down).await;
        let bus = self.pipeline.bus().await.unwrap();
        phase(self, &bus).await;
        self.check().await;
    }

    /// A copy of the store, if the damage needs one.
    async fn copied(&mut self) -> Option<TempDir> {
        match self.damage {
            Damage::Purged | Damage::MadeAgain => None,
            Damage::OlderCopy | Damage::Refilled => {
                self.pipeline.rest().await.unwrap();
                self.pipeline.nats.stop().unwrap();
                let copy = self.pipeline.nats.copy_store().unwrap();
                self.pipeline.nats.restart().await.unwrap();
                Some(copy)
            }
        }
    }

    /// Publishes what only the broker, and perhaps the aggregator, will know of.
    async fn unarchived(&mut self, bus: &Bus, down: Down) {
        let (before, first) = (messages(bus).await, self.next);
        phase(self, bus).await;
        let after = messages(bus).await;
        if down == Down::Archiver {
            self.counted(after).await;
        }
        // Events of the stream that is damaged, or of both.
        let both = i64::try_from(after[0] - before[0] + after[1] - before[1]).unwrap();
        let lake = i64::try_from(after[0] - before[0]).unwrap();
        let events = self.next - first;
        match (self.damage, down) {
            // The broker's own sequences tell.
            (Damage::Purged, _) => {
                self.broker.lost += lake;
                self.lost_events += events / 2;
            }
            // Only the aggregator can tell; without it nobody knows that there was anything.
            (Damage::MadeAgain, _) => {
                self.broker.lost += if down == Down::Archiver { lake } else { 0 };
                self.lost_events += events / 2;
            }
            (Damage::OlderCopy | Damage::Refilled, _) => {
                self.broker.lost += if down == Down::Archiver { both } else { 0 };
                self.lost_events += events;
            }
        }
    }

    /// Waits until the aggregator has counted up to these sequences.
    async fn counted(&self, sequences: [u64; 2]) {
        let counted = until("what is not archived to be counted", async || {
            Ok(STREAMS.iter().zip(sequences).all(|(name, sequence)| {
                let series = format!("lakegauge_aggregator_counted_sequence{{stream=\"{name}\"}}");
                let position = self.pipeline.part(Part::Aggregator).unwrap().metric(&series);
                position == Some(integration_tests::pipeline::to_f64(sequence))
            }))
        });
        counted.await.unwrap();
    }

    async fn happen(&mut self, copy: Option<TempDir>) {
        let damaged: &[usize] = match self.damage {
            Damage::Purged | Damage::MadeAgain => &[0],
            Damage::OlderCopy | Damage::Refilled => &[0, 1],
        };
        for side in damaged {
            self.broker.epochs[*side].1 += 1;
        }
        match self.damage {
            Damage::Purged => {
                let mut operator = RawNats::connect(self.pipeline.nats.port()).await.unwrap();
                operator.demand("STREAM.PURGE.LAKE_0", &json!({})).await.unwrap();
            }
            Damage::MadeAgain => {
                let mut operator = RawNats::connect(self.pipeline.nats.port()).await.unwrap();
                operator.demand("STREAM.DELETE.LAKE_0", &json!({})).await.unwrap();
                let rules = Rules { sample_interval_s: 1, ..Rules::default() };
                let topology = Topology::embedded("", &TopologyOverrides::default(), &rules);
                let bus = self.pipeline.bus().await.unwrap();
                bus.apply_topology(&topology).await.unwrap();
            }
            Damage::OlderCopy | Damage::Refilled => {
                self.pipeline.nats.stop().unwrap();
                self.pipeline.nats.put_store(&copy.unwrap()).unwrap();
                self.pipeline.nats.restart().await.unwrap();
            }
        }
        if self.damage == Damage::Refilled {
            let bus = self.pipeline.bus().await.unwrap();
            // More than was lost: one phase before the services ended, perhaps one after.
            publish(self, &bus, 3 * MESSAGES).await;
        }
    }

    /// Waits until both services are in the epochs that must be in force; they say and count it.
    async fn noticed(&self, down: Down) {
        let parts = [(Part::Archiver, "archiver"), (Part::Aggregator, "aggregator")];
        for (part, name) in parts {
            let noticed = until("the new epoch in both services", async || {
                Ok(self.broker.epochs.iter().all(|(stream, epoch)| {
                    let series = format!("lakegauge_{name}_epoch{{stream=\"{stream}\"}}");
                    let shown = self.pipeline.part(part).unwrap().metric(&series);
                    shown == Some(f64::from(*epoch))
                }))
            });
            let process = self.pipeline.part(part).unwrap();
            noticed.await.unwrap_or_else(|error| {
                panic!("{:?} {down:?}: {name}: {error}\n{}", self.damage, process.log())
            });
        }
        let archiver = self.pipeline.part(Part::Archiver).unwrap();
        let begun = archiver.metric("lakegauge_archiver_epochs_begun_total{stream=\"LAKE_0\"}");
        assert!(begun >= Some(1.0), "{begun:?}");
        assert!(archiver.log().contains("a new epoch begins"), "{}", archiver.log());
        let aggregator = self.pipeline.part(Part::Aggregator).unwrap();
        let rebuilds = aggregator.metric("lakegauge_aggregator_rebuilds_total{stream=\"LAKE_0\"}");
        assert!(rebuilds >= Some(1.0), "{rebuilds:?}");
        let said = ["the stream is another", "the epoch ended", "snapshot refused"];
        let log = aggregator.log();
        assert!(said.iter().any(|said| log.contains(said)), "{log}");
    }

    async fn check(&self) {
        // What only the aggregator had seen may be known later than the epoch is closed.
        let declared = until("the loss to be declared", async || {
            Ok(self.pipeline.database.number(laws::EVENTS_LOST)? >= self.broker.lost)
        });
        declared.await.unwrap();
        laws::hold_after(&self.pipeline, &self.broker).await;
        for stream in [Stream::lake(0), Stream::warehouse(0)] {
            laws::snapshot_equals_the_fold(&self.pipeline, stream).await;
        }
        let rows = "select (select count(*) from lakegauge.lake_access)
            + (select count(*) from lakegauge.warehouse_query)";
        let rows = self.pipeline.database.number(rows).unwrap();
        let kept = i64::try_from(self.next - self.lost_events).unwrap();
        assert_eq!(rows, kept, "every event but those that the broker lost is archived once");
        let [_, accesses, _, records] = self.pipeline.shown().await.unwrap();
        let counted = self.pipeline.database.sql(
            "select (select count(*) from lakegauge.lake_access),
                (select sum(rows_processed) from lakegauge.warehouse_query)",
        );
        assert_eq!(counted.unwrap(), [format!("{accesses}|{records}")]);
    }
}

/// The last sequences of both streams.
async fn messages(bus: &Bus) -> [u64; 2] {
    let [lake, warehouse] = STREAMS.map(async |name| bus.stream(name).await.unwrap().last_sequence);
    [lake.await, warehouse.await]
}

async fn whoever_is_down(damage: Damage) {
    let full = std::env::var_os("LAKEGAUGE_TEST_FULL").is_some();
    let cases: &[Down] = if full { &ALL } else { &TELLING };
    let mut case = Case::start(damage).await;
    for down in cases {
        case.damage(*down).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_stream_is_another_epoch_that_begins_behind_it_whoever_is_down() {
    whoever_is_down(Damage::Purged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_again_is_another_epoch_whoever_is_down() {
    whoever_is_down(Damage::MadeAgain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_broker_is_another_epoch_whoever_is_down() {
    whoever_is_down(Damage::OlderCopy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_cut_and_refilled_is_another_epoch_whoever_is_down() {
    whoever_is_down(Damage::Refilled).await;
}
