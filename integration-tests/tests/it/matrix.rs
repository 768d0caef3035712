//! The crash matrix: whatever happens at random moments under load, the laws hold.
//!
//! `./test` runs it with fixed seeds. `./test --torture 10m` runs rounds of random seeds for so
//! long, and `./test --torture-seed N` one round again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use domain::{EventId, EventIdentity, Side, Timestamp};
use event_store::tally;
use integration_tests::matrix::faults::Schedule;
use integration_tests::matrix::points::{POINTS, Point};
use integration_tests::matrix::round::{self, Plan, Rested};
use integration_tests::matrix::summary::Summary;
use integration_tests::pipeline::{FOUR, Part, Pipeline, STREAMS, to_f64};
use integration_tests::postgres::Database;
use integration_tests::waiting::until;
use serde_json::Value;
use service_kit::Clock;
use simulator::rng::SeededRng;

use crate::laws;
use crate::samples::due_and_kept;

/// As many as a round has time for.
const FAULTS_PRINTED: usize = 24;
/// Rounds of `./test`: together they meet nearly every kind of fault; the torture meets all.
const SEEDS: [u64; 2] = [4, 11];
const SHORT: Plan =
    Plan { seed: 0, load_for: Duration::from_secs(30), rate: 6_000, simulated_rate: 500 };
/// A round of the torture: long enough for some faults, and short enough for its laws to be checked
/// within seconds.
const LONG: Plan =
    Plan { seed: 0, load_for: Duration::from_secs(40), rate: 20_000, simulated_rate: 1_500 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_named_point_changes_nothing() {
    let mut rng = SeededRng::new(1, 9);
    let mut points: Vec<(Point, u64)> =
        POINTS.iter().map(|point| (*point, 1 + rng.below(point.passings_max))).collect();
    // Those of the first start keep their order: each leaves the next something to begin.
    for place in (4..points.len()).rev() {
        let other = 3 + rng.index(place - 2);
        points.swap(place, other);
    }
    let rested = round::run_points(SHORT, &points).await.unwrap();
    laws_hold(rested, SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_laws_hold_whatever_happens_at_random_moments() {
    let clock = Clock::system();
    let mut plan = SHORT;
    let mut seeds: Box<dyn Iterator<Item = u64> + Send> = Box::new(SEEDS.into_iter());
    let mut end = Duration::MAX;
    if let Some(seed) = number("LAKEGAUGE_TORTURE_SEED") {
        plan = LONG;
        seeds = Box::new(std::iter::once(seed));
    } else if let Some(torture_s) = number("LAKEGAUGE_TORTURE_S") {
        plan = LONG;
        end = Duration::from_secs(torture_s);
        let mut rng = SeededRng::new(clock.now_us().unsigned_abs(), 9);
        // Short enough to be typed.
        seeds = Box::new(std::iter::repeat_with(move || rng.below(1_000_000)));
    }
    plan.rate = number("LAKEGAUGE_TORTURE_RATE").unwrap_or(plan.rate);
    let mut sum = Sum::default();
    for seed in seeds {
        if clock.monotonic() >= end {
            break;
        }
        let plan = Plan { seed, ..plan };
        sum.seed = Some(seed);
        println!("seed {seed}: {} s of faults", plan.load_for.as_secs());
        let began = clock.monotonic();
        let rested = round::run(plan).await.unwrap();
        let mut round = laws_hold(rested, plan).await;
        round.took = clock.monotonic().saturating_sub(began);
        println!(
            "seed {seed}: {} events, {} faults, {} s: the laws hold",
            round.events,
            round.faults(),
            round.took.as_secs()
        );
        sum.summary.add(&round);
        sum.seed = None;
    }
}

/// What seed 21 found: the first went on behind the gap, and its next sample was wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_slept_while_another_counted_and_the_stream_was_trimmed_misses_nothing()
{
    // The first stores nothing while it sleeps and wakes: it must find the gap itself.
    let settings = [("ARCHIVER_STREAM_KEEP_S", "0"), ("SNAPSHOT_INTERVAL_MS", "15000")];
    let mut pipeline = Pipeline::start(&settings).await.unwrap();
    let networks = pipeline.behind_networks().await.unwrap();
    for part in [Part::Archiver, Part::Aggregator] {
        pipeline.run(part).unwrap();
    }
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
    let lake = pipeline.simulate_numbered(Side::Lake, 1, 2_000).unwrap();
    let warehouse = pipeline.simulate_numbered(Side::Warehouse, 1, 500).unwrap();
    let bus = pipeline.bus().await.unwrap();
    let position = "lakegauge_aggregator_counted_sequence{stream=\"LAKE_0\"}";
    let counted = until("counted messages", async || {
        Ok(pipeline.part(Part::Aggregator)?.metric(position) > Some(20.0))
    });
    counted.await.unwrap();
    pipeline.pause(Part::Aggregator).unwrap();
    // What it has asked for goes nowhere.
    networks.nats.cut();
    pipeline.set("SNAPSHOT_INTERVAL_MS", "300");
    let second = pipeline.second(Part::Aggregator).unwrap();
    let slept_at = bus.stream("LAKE_0").await.unwrap().last_sequence;
    let trimmed = until("trimmed stream", async || {
        Ok(bus.stream("LAKE_0").await?.first_sequence > slept_at + 100)
    });
    trimmed.await.unwrap();
    drop(second);
    pipeline.resume(Part::Aggregator).unwrap();
    // It waits for the second's lease, and goes on from what that stored.
    let awake = until("an aggregator that counts", async || {
        let position = pipeline.part(Part::Aggregator)?.metric(position);
        Ok(position > Some(to_f64(slept_at + 100)))
    });
    awake.await.unwrap();
    let expected = [lake.finish().await.unwrap(), warehouse.finish().await.unwrap()];
    laws::agree_with_the_simulators(&laws::hold(&pipeline).await, &pipeline.database, &expected);
}

/// Prints the sum, also if a round fails, and how to run that again.
#[derive(Default)]
struct Sum {
    summary: Summary,
    seed: Option<u64>,
}

impl Drop for Sum {
    #[expect(clippy::print_stdout, reason = "people who torture read it")]
    fn drop(&mut self) {
        println!("{}", self.summary);
        if let Some(seed) = self.seed {
            println!("seed {seed} FAILED; again: ./test --torture-seed {seed}; its first faults:");
            for step in Schedule::new(seed).take(FAULTS_PRINTED) {
                println!("  {step:?}");
            }
        }
    }
}

/// Keeps what the services of a round wrote, if its laws do not hold.
struct Logs {
    seed: u64,
    folder: PathBuf,
}

impl Drop for Logs {
    #[expect(clippy::print_stdout, reason = "people who look for the cause read it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", round::keep_logs(&self.folder, self.seed));
        }
    }
}

fn number(key: &str) -> Option<u64> {
    std::env::var_os(key)?.to_str()?.parse().ok()
}

/// Checks a pipeline at rest against everything that is known of it.
async fn laws_hold(rested: Rested, plan: Plan) -> Summary {
    let Rested { mut pipeline, ledger, expected, faults, scrapes, .. } = rested;
    let _logs = Logs { seed: plan.seed, folder: pipeline.folder().to_owned() };
    let database = pipeline.database.clone();
    let archived = archived(&database);
    let archive = tally(&database.archiver()).await.unwrap();
    let summary = Summary {
        seeds: vec![plan.seed],
        faults,
        events: archive.events,
        duplicates: unsigned(
            &database,
            "select coalesce(sum(duplicates), 0) from lakegauge.ledger",
        ),
        dead_letters: archive.dead_letters,
        scrapes,
        produced: ledger.counts(),
        lost: ledger.lost(&archived),
        doubled: archive.duplicates,
        windows_differing: u64::try_from(laws::windows_wrong(&database)).unwrap(),
        took: Duration::ZERO,
    };
    let wrong = (summary.lost, summary.doubled, summary.windows_differing);
    assert_eq!(wrong, (0, 0, 0), "lost, doubled, windows that differ");
    ledger.holds_of(&archived).unwrap();
    ledger.holds_of_letters(&letters(&database)).unwrap();
    laws::keep(&pipeline).await;
    every_interval_has_its_sample(&pipeline).await;
    let four = pipeline.shown().await.unwrap();
    shown_is_what_the_rows_say(&database, four);
    for (side, ids, expected) in &expected {
        rows_are_what_the_simulators_expect(&database, *side, *ids, expected);
    }
    a_restart_changes_nothing(&mut pipeline, four).await;
    summary
}

/// Whoever died in between: no sample is missing.
async fn every_interval_has_its_sample(pipeline: &Pipeline) {
    for stream in STREAMS {
        let (due, kept) = due_and_kept(pipeline, stream, &round::copy_of(stream)).await;
        let missing: Vec<&u64> = due.difference(&kept).collect();
        assert!(due.len() > 2 && missing.is_empty(), "{stream}: {missing:?} of {due:?}");
    }
}

async fn a_restart_changes_nothing(pipeline: &mut Pipeline, four: [f64; 4]) {
    let before = tally(&pipeline.database.archiver()).await.unwrap();
    for part in [Part::Archiver, Part::Aggregator] {
        pipeline.stop(part).await.unwrap();
        pipeline.run(part).unwrap();
    }
    pipeline.rest().await.unwrap();
    assert_eq!(pipeline.shown().await.unwrap(), four, "{FOUR:?} after a restart");
    let after = tally(&pipeline.database.archiver()).await.unwrap();
    assert_eq!((after.events, after.dead_letters), (before.events, before.dead_letters));
    assert_eq!(laws::windows_wrong(&pipeline.database), 0);
}

/// Identities of the rows of the test's own producer.
fn archived(database: &Database) -> BTreeSet<EventIdentity> {
    let rows = database.sql(
        "select (extract(epoch from occurred_at) * 1000000)::bigint, id from lakegauge.lake_access
            where principal = 'matrix'
        union all
        select (extract(epoch from occurred_at) * 1000000)::bigint, id
            from lakegauge.warehouse_query where principal = 'matrix'",
    );
    let identity = |row: String| {
        let (at, id) = row.split_once('|').unwrap();
        let id = EventId::from_bytes(id.parse::<uuid::Uuid>().unwrap().into_bytes());
        (Timestamp(at.parse().unwrap()), id)
    };
    rows.unwrap().into_iter().map(identity).collect()
}

fn letters(database: &Database) -> BTreeSet<Vec<u8>> {
    let rows = database.sql("select encode(bytes, 'hex') from lakegauge.dead_letter").unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    rows.iter().map(|row| row.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// Bytes stored by the rows, without the fold: of each object the latest change decides.
fn used_bytes_sql(condition: &str) -> String {
    format!(
        "select coalesce(sum(size), 0) from (
            select distinct on (bucket, key)
                case when operation = 5 then 0 else coalesce(object_bytes, bytes) end as size
            from lakegauge.lake_access where operation in (3, 4, 5) and outcome = 0 and {condition}
            order by bucket, key, occurred_at desc, sequencer collate \"C\" desc nulls last, id desc
        ) as objects"
    )
}

/// The four metrics are what plain SQL says of the rows.
fn shown_is_what_the_rows_say(database: &Database, four: [f64; 4]) {
    let rows = [
        format!("select ({})::numeric / 1e9", used_bytes_sql("true")),
        "select count(*) from lakegauge.lake_access".to_owned(),
        "select coalesce(avg(queued_us + executed_us) / 1000, 0) from lakegauge.warehouse_query
            where floor(extract(epoch from occurred_at)) > (
                select floor(extract(epoch from max(occurred_at))) - 60
                from lakegauge.warehouse_query)"
            .to_owned(),
        "select coalesce(sum(rows_processed), 0) from lakegauge.warehouse_query".to_owned(),
    ];
    for ((name, shown), sql) in FOUR.iter().zip(four).zip(rows) {
        let of_rows: f64 = database.value(&sql).unwrap().parse().unwrap();
        assert!((shown - of_rows).abs() <= of_rows.abs() * 1e-9, "{name}: {shown}, rows {of_rows}");
    }
}

/// What a simulator expects is what the rows of its run say.
fn rows_are_what_the_simulators_expect(
    database: &Database,
    side: Side,
    (first, last): (EventId, EventId),
    expected: &Value,
) {
    let of_run = format!("id between '{first}' and '{last}'");
    let (table, metric, sql) = match side {
        Side::Lake => ("lake_access", "data_lake_espaco_utilizado_bytes", used_bytes_sql(&of_run)),
        Side::Warehouse => (
            "warehouse_query",
            "data_warehouse_registros_processados",
            format!(
                "select coalesce(sum(rows_processed), 0) from lakegauge.warehouse_query
                where {of_run}"
            ),
        ),
    };
    let rows = format!("select count(*) from lakegauge.{table} where {of_run}");
    assert_eq!(Some(unsigned(database, &rows)), expected["published"].as_u64(), "{side:?} {first}");
    assert_eq!(Some(unsigned(database, &sql)), expected["metrics"][metric].as_u64(), "{metric}");
}

fn unsigned(database: &Database, sql: &str) -> u64 {
    database.value(sql).unwrap().parse().unwrap()
}
