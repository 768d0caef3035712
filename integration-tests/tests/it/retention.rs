//! Retention: old days are dropped, and what was counted stays counted.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::PublisherLimits;
use domain::{
    Applied, Event, Fact, Judgement, Mark, Operation, Outcome, Reason, Rules, Seen, Stream,
    StreamState, Timestamp, accept, time::SECONDS_PER_DAY,
};
use event_store::Base;
use event_store::{Archive, ArchiveView, BatchBuilder};
use integration_tests::executable;
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::postgres::{Database, PostgresServer};
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::json;
use service_kit::Clock;
use wire::snapshot::encode_state;
use wire::{Format, seal};

use crate::audit::audit;
use crate::rollups::roll_up;
use crate::store_events::{CREATED_NS, START, access, derived, ladder, open, placed};

const STREAM: Stream = Stream::lake(0);
const EVENTS_A_DAY: u64 = 40;

fn rules() -> Rules {
    Rules { retention_days: 1, derived_ids_max: 60, ..Rules::default() }
}

/// An archive that is written as the archiver would, with the broker's clock in the test's hand.
struct Written {
    archive: Archive,
    seen: Seen,
    /// What the aggregator has.
    live: StreamState,
    mark: Mark,
}

impl Written {
    async fn new(database: &Database, from: Timestamp) -> Self {
        // The days of the test are days of the grid.
        let days = from.day();
        let sql =
            format!("update lakegauge.installation set installed_on = date '1970-01-01' + {days}");
        database.sql(&sql).unwrap();
        let mut archive = open(&database.archiver(), "LAKE_0", 1).await.unwrap();
        let start = domain::Mark { epoch: 1, sequence: 0, broker_ns: 0, created_ns: CREATED_NS };
        archive.begin_epoch(start, 0).await.unwrap();
        let mark = archive.checkpoint().unwrap().mark;
        let live = StreamState::new(STREAM, rules());
        Self { archive, seen: Seen::new(&rules()), live, mark }
    }

    /// One message that the broker took at a time.
    async fn message(&mut self, broker: Timestamp, events: &[Event]) -> event_store::Appended {
        let (before, sequence) = (self.mark, self.mark.sequence + 1);
        self.mark = Mark { sequence, broker_ns: broker.0 * 1_000, ..before };
        let mut builder = BatchBuilder::new(self.archive.stream(), &ladder(), Some(before));
        for (index, event) in (0..).zip(events) {
            accept(event, STREAM, broker, &rules()).unwrap();
            let judgement = self.seen.judge(event);
            builder.event(placed(self.mark, index, event.clone()), judgement);
            // Without verdicts, what is too old to judge is archived and not counted.
            self.live.apply(event);
        }
        let batch = builder.seal(self.mark, &self.seen);
        self.archive.append(&batch).await.unwrap()
    }

    /// Days of events, each dated within its day and taken by the broker then.
    async fn days(&mut self, from: Timestamp, days: std::ops::Range<i64>) {
        for day in days {
            let at = from.plus_seconds(day * SECONDS_PER_DAY + 100);
            let events: Vec<Event> = (0..EVENTS_A_DAY)
                .map(|number| {
                    let unique = u64::try_from(day).unwrap() * EVENTS_A_DAY + number;
                    let event = if number % 4 == 0 {
                        derived(u8::try_from(unique / 4).unwrap(), 0)
                    } else {
                        access(unique, 0)
                    };
                    let occurred_at = at.plus_seconds(i64::try_from(number).unwrap());
                    Event { occurred_at, ..event }
                })
                .collect();
            for part in events.chunks(10) {
                self.message(at.plus_seconds(60), part).await;
            }
        }
    }

    fn snapshot(&self) -> (Mark, Vec<u8>) {
        (self.mark, encode_state(&self.live, &self.mark))
    }
}

async fn fold(database: &Database) -> StreamState {
    let mut view = ArchiveView::open(&database.reader(), STREAM).await.unwrap();
    let mut state = view.origin(&rules()).unwrap();
    while let Some(page) = view.next_page().await.unwrap() {
        for counted in page {
            let recounted = state.recount(&counted.event, counted.verdict);
            assert!(matches!(recounted, Applied::Counted(_)), "{counted:?}");
        }
    }
    state
}

#[tokio::test]
async fn after_old_days_were_dropped_fold_and_judgement_are_what_they_were() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut written = Written::new(&database, START).await;
    written.days(START, 0..4).await;
    let (mark, state) = written.snapshot();
    written.days(START, 4..6).await;
    let windows = "select count(*), sum(events), md5(string_agg(w::text, '' order by w::text)) \
        from lakegauge.lake_window as w";
    let before = database.sql(windows).unwrap();
    assert_eq!(fold(&database).await, written.live);

    assert!(written.archive.is_overdue(&mark, 1).await.unwrap());
    let digest = blake3::hash(&state).to_hex().to_string();
    let base = Base { mark, state: &state, digest: &digest };
    let ahead = Base { mark: Mark { sequence: 99, ..mark }, ..base };
    let nothing = written.archive.retain(&ahead, 1).await.unwrap();
    assert_eq!(nothing.partitions, Vec::<String>::new(), "the checkpoint has not reached it");
    let waits = written.archive.retain(&base, 1).await.unwrap();
    assert_eq!(waits.waiting, ["lake_access_d20240101"], "the rollups have not reached it");
    roll_up(&database, &written.archive, true).await;
    let retained = written.archive.retain(&base, 1).await.unwrap();
    // The base stands on the fourth day: one day of retention and one beyond are kept before it.
    assert_eq!(retained.partitions, ["lake_access_d20240101"]);
    assert_eq!((retained.rows, retained.waiting), (EVENTS_A_DAY, Vec::new()));
    assert!(!written.archive.is_overdue(&mark, 1).await.unwrap());
    assert_eq!(database.sql(windows).unwrap(), before, "windows are kept");
    let dropped = "select kind, rows from lakegauge_api.dropped";
    assert_eq!(database.sql(dropped).unwrap(), [format!("lake_access|{EVENTS_A_DAY}")]);

    assert!(fold(&database).await == written.live, "another fold");
    let mut again = open_again(written, &database).await;
    // What is dropped is remembered as far as it was: nothing is counted twice by either.
    let sets = again.archive.seen(&rules()).await.unwrap();
    assert!(&sets == again.live.seen(), "other sets");
    again.seen = sets;
    // The fold goes on, and a second base follows the first.
    again.days(START, 6..8).await;
    let (mark, state) = again.snapshot();
    let base = Base { mark, state: &state, digest: &digest };
    roll_up(&database, &again.archive, true).await;
    let retained = again.archive.retain(&base, 1).await.unwrap();
    assert_eq!(retained.partitions.len(), 4, "{retained:?}");
    assert!(fold(&database).await == again.live, "another fold after the second base");
}

/// The same archive as after a restart.
async fn open_again(written: Written, database: &Database) -> Written {
    let Written { archive, seen, live, mark } = written;
    drop(archive);
    let archive = open(&database.archiver(), "LAKE_0", 2).await.unwrap();
    Written { archive, seen, live, mark }
}

#[tokio::test]
async fn a_day_with_a_row_that_is_not_counted_yet_is_kept() {
    let server = PostgresServer::start().unwrap();
    let database = server.database().await.unwrap();
    let mut written = Written::new(&database, START).await;
    written.days(START, 0..1).await;
    // Below the floor of a set of its own: a verdict that is under way.
    let before = written.mark;
    written.mark = Mark { sequence: before.sequence + 1, ..before };
    let mut builder = BatchBuilder::new(written.archive.stream(), &ladder(), Some(before));
    let late = derived(250, 5);
    builder.event(placed(written.mark, 0, late), Judgement::TooOld);
    let appended =
        written.archive.append(&builder.seal(written.mark, &written.seen)).await.unwrap();
    assert_eq!(appended.too_old, 1);
    written.days(START, 1..5).await;
    let (mark, state) = written.snapshot();
    let base = Base { mark, state: &state, digest: "" };
    roll_up(&database, &written.archive, true).await;
    let retained = written.archive.retain(&base, 1).await.unwrap();
    assert_eq!(retained.waiting, ["lake_access_d20240101"]);
    assert_eq!(retained.partitions, ["lake_access_d20240102"]);

    // Its verdict was read back at a message that the next base has counted.
    let noted = format!(
        "update lakegauge.lake_access set noted_epoch = 1, noted_sequence = {}, noted_index = 0 \
         where verdict is not null",
        mark.sequence
    );
    database.sql(&noted).unwrap();
    let retained = written.archive.retain(&base, 1).await.unwrap();
    assert_eq!(retained.partitions, ["lake_access_d20240101"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipeline_drops_old_days_counts_none_of_their_events_again_and_shows_the_same() {
    let rules = ("NATS_STREAM_RULES", "sample_interval_s=1;retention_days=1;derived_ids_max=60");
    let settings =
        [rules, ("ARCHIVER_RETENTION_INTERVAL_MS", "100"), ("ARCHIVER_ROLLUP_INTERVAL_MS", "100")];
    let mut pipeline = Pipeline::start(&settings).await.unwrap();
    // An archive of the days before, of a stream that is gone.
    let now = Timestamp(Clock::system().now_us());
    let from = Timestamp((now.day() - 5) * SECONDS_PER_DAY * 1_000_000);
    let mut written = Written::new(&pipeline.database, from).await;
    written.days(from, 0..1).await;
    let old: Vec<Event> = (0..4).map(|number| old_write(from, number)).collect();
    written.message(from.plus_seconds(200), &old).await;
    written.message(from.plus_seconds(201), &[old_delete(from)]).await;
    written.days(from, 1..4).await;
    let live = written.live.sample();
    drop(written);

    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
    let new: Vec<Event> =
        (1_000..1_050).map(|number| Event { occurred_at: now, ..access(number, 0) }).collect();
    // The first message of the new epoch; then the aggregator is rebuilt from the days before.
    publish(&pipeline, &new[..25]).await;
    until("rebuild", async || Ok(rebuilds(&pipeline) == Some(1.0))).await.unwrap();
    publish(&pipeline, &new[25..]).await;
    let series = "lakegauge_archiver_dropped_partitions_total{stream=\"LAKE_0\"}";
    until("dropped days", async || {
        Ok(pipeline.part(Part::Archiver)?.metric(series).is_some_and(|dropped| dropped >= 3.0))
    })
    .await
    .unwrap();
    let deleted = "select count(*) from lakegauge_api.lake_object where change = 'delete'";
    until("deleted keys that are forgotten", async || {
        let log = pipeline.part(Part::Archiver)?.log();
        Ok(log.contains("\"deleted keys forgotten: older than retention\"")
            && pipeline.database.number(deleted)? == 0)
    })
    .await
    .unwrap();
    pipeline.rest().await.unwrap();
    let four = pipeline.shown().await.unwrap();
    let domain::SampleValues::Lake { accesses, .. } = live else { panic!("not of the lake") };
    assert_eq!(four[1], f64::from(u32::try_from(accesses + 50).unwrap()));
    let rows = "select count(*) from lakegauge.lake_access";
    let left = pipeline.database.number(rows).unwrap();
    assert!(left < 50 + 4 * i64::try_from(EVENTS_A_DAY).unwrap(), "{left} rows");
    let log = pipeline.part(Part::Archiver).unwrap().log();
    assert!(
        log.matches("\"dropped a partition that is older than retention\"").count() >= 3,
        "{log}"
    );
    let dropped =
        |certificate: &serde_json::Value| certificate["streams"][0]["dropped_rows"].clone();
    let (status, certificate) = audit(&pipeline, &[]);
    assert_eq!(status, Some(0), "{certificate:#}");
    assert_ne!(dropped(&certificate), 0);
    assert!(certificate["unchecked"][0].as_str().unwrap().contains("retention"), "{certificate:#}");

    // An event of a dropped day once more: refused before anybody judges it.
    publish(&pipeline, &old).await;
    pipeline.rest().await.unwrap();
    assert_eq!(pipeline.shown().await.unwrap(), four);
    assert_eq!(pipeline.database.number(rows).unwrap(), left);
    let letters = format!(
        "select count(*) from lakegauge_api.dead_letter where reason = '{}'",
        Reason::OlderThanRetention.name()
    );
    assert_eq!(pipeline.database.number(&letters).unwrap(), 4);

    // Verify folds from the base on, and compares what is left.
    let (url, nats) = (pipeline.database.reader_url(), pipeline.nats.url());
    let arguments = ["replay", "--verify", "--database-url", &url, "--nats-url", &nats];
    let verified = executable::run(arguments, b"").unwrap();
    assert_eq!(verified.status, Some(0), "{verified:?}");
    assert!(verified.stdout.contains("old days were dropped"), "{verified:?}");

    // The archive alone gives the same, from its base on.
    pipeline.stop(Part::Aggregator).await.unwrap();
    let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
    let purge = json!({ "filter": "$KV.LAKEGAUGE.snapshot.LAKE_0" });
    operator.demand("STREAM.PURGE.KV_LAKEGAUGE", &purge).await.unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.rest().await.unwrap();
    assert_eq!(rebuilds(&pipeline), Some(1.0), "since it was started again");
    assert_eq!(pipeline.shown().await.unwrap(), four);
}

/// A write of the first day.
fn old_write(from: Timestamp, number: u64) -> Event {
    let mut event = access(5_000 + number, 0);
    event.occurred_at = from.plus_seconds(150);
    if let Fact::LakeAccess(access) = &mut event.fact {
        access.operation = Operation::Write;
        access.outcome = Outcome::Ok;
    }
    event
}

/// A delete of the first day.
fn old_delete(from: Timestamp) -> Event {
    let mut event = old_write(from, 10);
    if let Fact::LakeAccess(access) = &mut event.fact {
        access.operation = Operation::Delete;
        access.object_bytes = None;
    }
    event
}

async fn publish(pipeline: &Pipeline, events: &[Event]) {
    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    publisher.publish(seal("lake.access.0.test", Format::Bincode, events)).await.unwrap();
    publisher.flush().await.unwrap();
    pipeline.rest().await.unwrap();
}

fn rebuilds(pipeline: &Pipeline) -> Option<f64> {
    let series = "lakegauge_aggregator_rebuilds_total{stream=\"LAKE_0\"}";
    pipeline.part(Part::Aggregator).unwrap().metric(series)
}
