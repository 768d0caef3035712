//! What must hold of every archive at rest, whatever happened before.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::collections::BTreeMap;

use bus::FoundSnapshot;
use domain::{Rules, SampleValues, Stream, StreamState, state::Applied};
use event_store::{ArchiveView, Counted, tally};
use integration_tests::pipeline::{FOUR, Part, Pipeline};
use integration_tests::postgres::Database;
use integration_tests::waiting::until;
use serde_json::Value;

/// Windows, rows and metrics of a pipeline at rest: what must not depend on what happened.
#[derive(Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) four: [f64; 4],
    pub(crate) windows: Vec<String>,
    /// Number and digest of the rows, without their positions and the number of their stream.
    pub(crate) rows: Vec<String>,
}

impl Shown {
    /// Both are equal; what differs is named, and not all that does not.
    pub(crate) fn assert_equals(&self, other: &Self) {
        assert_eq!(self.four, other.four, "{FOUR:?}");
        assert_eq!(self.rows, other.rows, "number and digest of rows");
        for (own, others) in self.windows.iter().zip(&other.windows) {
            assert_eq!(own, others);
        }
        assert_eq!(self.windows.len(), other.windows.len());
    }
}

const WINDOWS: &str = "
    select to_jsonb(w) - 'series', name, action, outcome from lakegauge.lake_window as w
        join lakegauge.window_series as s on s.id = w.series
        order by window_start, length_s, name, action, outcome;
    select to_jsonb(w) - 'series', name, action, outcome from lakegauge.warehouse_window as w
        join lakegauge.window_series as s on s.id = w.series
        order by window_start, length_s, name, action, outcome";

const ROWS: &str = "
    select count(*), md5(string_agg(md5((to_jsonb(r) - 'sequence' - 'index' - 'epoch' - 'stream')::text), ''
        order by occurred_at, id)) from lakegauge.lake_access as r;
    select count(*), md5(string_agg(md5((to_jsonb(r) - 'sequence' - 'index' - 'epoch' - 'stream')::text), ''
        order by occurred_at, id)) from lakegauge.warehouse_query as r";

/// Messages that the broker deleted before they were archived.
const LOST: &str = "select coalesce(sum(last - first + 1), 0) from lakegauge.declared_loss";

/// The same, of the streams of events.
pub(crate) const EVENTS_LOST: &str = "
    select coalesce(sum(last - first + 1), 0) from lakegauge.declared_loss
    where stream in (select id from lakegauge.stream where name <> 'TELEMETRY')";

/// What the ledger says was inserted, less the rows and samples that are there.
const NOT_IN_LEDGER: &str = "
    select (select coalesce(sum(inserted), 0) from lakegauge.ledger)
        - (select count(*) from lakegauge.lake_access)
        - (select count(*) from lakegauge.lake_inventory)
        - (select count(*) from lakegauge.warehouse_query)
        - (select count(*) from lakegauge.sample)";

/// Windows that differ from what plain SQL adds up from the rows.
const WINDOWS_WRONG: &str = "
    with kept as (
        select stream, length_s, coalesce(kept_from, '-infinity') as kept_from
        from lakegauge.window_kept
    ), lake as (
        select stream, to_timestamp(floor(extract(epoch from occurred_at) / length_s) * length_s)
                as window_start, length_s, bucket as name, operation as action, outcome,
            count(*) as events, sum(bytes) as bytes, sum(duration_us) as duration_us
        from lakegauge.lake_access join kept using (stream)
        where to_timestamp(floor(extract(epoch from occurred_at) / length_s) * length_s)
            >= kept_from
        group by 1, 2, 3, 4, 5, 6
    ), warehouse as (
        select stream, to_timestamp(floor(extract(epoch from occurred_at) / length_s) * length_s)
                as window_start, length_s, warehouse as name, statement as action, outcome,
            count(*) as events, sum(bytes_scanned) as bytes,
            sum(queued_us + executed_us) as duration_us
        from lakegauge.warehouse_query join kept using (stream)
        where to_timestamp(floor(extract(epoch from occurred_at) / length_s) * length_s)
            >= kept_from
        group by 1, 2, 3, 4, 5, 6
    ), kept_lake as (
        select stream, window_start, length_s, name, action, outcome, events, bytes, duration_us
        from lakegauge.lake_window join lakegauge.window_series on id = series
    ), kept_warehouse as (
        select stream, window_start, length_s, name, action, outcome, events, bytes_scanned,
            response_us
        from lakegauge.warehouse_window join lakegauge.window_series on id = series
    )
    select (select count(*) from (table lake except table kept_lake) as a)
        + (select count(*) from (table kept_lake except table lake) as b)
        + (select count(*) from (table warehouse except table kept_warehouse) as c)
        + (select count(*) from (table kept_warehouse except table warehouse) as d)
        + (select count(*) from lakegauge.lake_window where events <> (select sum(pair & 524287)
            from unnest((lakegauge.window_sketch(bucket_max, events, sketch)).pairs) as pair))";

/// Ranges that do not begin where the one before ended, epochs that do not begin at 1 or where the
/// one before says, and checkpoints that the ledger does not reach.
const LEDGER_WRONG: &str = "
    select (select count(*) from (
            select first, coalesce(lag(last) over (partition by stream, epoch order by last),
                (select next_after from lakegauge.epoch as e
                 where e.stream = l.stream and e.epoch < l.epoch order by e.epoch desc limit 1),
                0) as before
            from lakegauge.ledger as l) as ranges where first <> before + 1)
        + (select count(*) from lakegauge.ledger where events <> inserted + duplicates + dead)
        + (select count(*) from lakegauge.checkpoint as c where sequence <>
            (select coalesce(max(last), case when c.broker_ns = 0 then c.sequence else 0 end)
             from lakegauge.ledger as l where l.stream = c.stream and l.epoch = c.epoch))";

const ALARMS: &[&str] =
    &["known_though_new", "sample_differs", "stuck", "out_of_order", "verdict_out_of_turn"];

/// Verdicts that are not noted, and numbers that are not gap-free, given twice or noted out of order.
const VERDICTS_WRONG: &str = "
    with late as (
        select stream, verdict, noted_epoch, noted_sequence, noted_index from lakegauge.lake_access
            where verdict is not null
        union all select stream, verdict, noted_epoch, noted_sequence, noted_index
            from lakegauge.lake_inventory where verdict is not null
        union all select stream, verdict, noted_epoch, noted_sequence, noted_index
            from lakegauge.warehouse_query where verdict is not null
    )
    select (select count(*) from lakegauge.checkpoint where noted_verdict <> next_verdict - 1)
        + (select count(*) from late where noted_sequence is null)
        + (select count(*) from (
            select verdict, row_number() over (partition by stream order by verdict) as expected,
                row_number() over (partition by stream
                    order by noted_epoch, noted_sequence, noted_index) as noted
            from late) as numbers where verdict <> expected or verdict <> noted)
        + (select count(*) from lakegauge.checkpoint as c where next_verdict - 1 <>
            (select count(*) from late where late.stream = c.stream))";

/// Waits until every verdict that was given is read back and noted.
pub(crate) async fn verdicts_rest(pipeline: &Pipeline) {
    let rested = until("verdicts that are all noted", async || {
        pipeline.rest().await?;
        let waiting = "select coalesce(sum(next_verdict - 1 - noted_verdict), 0)::bigint
            from lakegauge.checkpoint";
        Ok(pipeline.database.number(waiting)? == 0)
    });
    rested.await.unwrap();
    pipeline.rest().await.unwrap();
}

/// What the broker did to the streams, as far as the archive must know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broker {
    /// Epochs of the streams of events.
    pub(crate) epochs: [(&'static str, u32); 2],
    /// Messages declared lost, of all streams of events.
    pub(crate) lost: i64,
}

/// A broker that kept what it acknowledged.
const FAITHFUL: Broker = Broker { epochs: [("LAKE_0", 1), ("WAREHOUSE_0", 1)], lost: 0 };

/// Checks the archive of a pipeline at rest, and gives what it shows.
pub(crate) async fn hold(pipeline: &Pipeline) -> Shown {
    keep(pipeline).await;
    shown(pipeline).await
}

/// The same, after a broker did these things.
pub(crate) async fn hold_after(pipeline: &Pipeline, broker: &Broker) -> Shown {
    keep_after(pipeline, broker).await;
    shown(pipeline).await
}

async fn shown(pipeline: &Pipeline) -> Shown {
    Shown {
        four: pipeline.shown().await.unwrap(),
        windows: pipeline.database.sql(WINDOWS).unwrap(),
        rows: pipeline.database.sql(ROWS).unwrap(),
    }
}

/// How many windows differ from their rows.
pub(crate) fn windows_wrong(database: &Database) -> i64 {
    database.number(WINDOWS_WRONG).unwrap()
}

/// Checks the archive of a pipeline at rest.
pub(crate) async fn keep(pipeline: &Pipeline) {
    keep_after(pipeline, &FAITHFUL).await;
    assert_eq!(pipeline.database.number(LOST).unwrap(), 0, "nothing declared lost");
}

async fn keep_after(pipeline: &Pipeline, broker: &Broker) {
    verdicts_rest(pipeline).await;
    let database = &pipeline.database;
    assert_eq!(database.number(VERDICTS_WRONG).unwrap(), 0, "verdicts given and noted in order");
    assert_eq!(windows_wrong(database), 0, "windows of exactly the rows");
    assert_eq!(database.number(LEDGER_WRONG).unwrap(), 0, "a contiguous ledger");
    assert_eq!(tally(&database.archiver()).await.unwrap().duplicates, 0);
    assert_eq!(database.number(EVENTS_LOST).unwrap(), broker.lost, "messages declared lost");
    assert_eq!(database.number(NOT_IN_LEDGER).unwrap(), 0, "the ledger says what is there");
    let archiver = pipeline.part(Part::Archiver).unwrap();
    for stream in ["LAKE_0", "WAREHOUSE_0", "TELEMETRY"] {
        for alarm in ALARMS {
            let series =
                format!("lakegauge_archiver_alarms_total{{alarm=\"{alarm}\",stream=\"{stream}\"}}");
            assert_eq!(archiver.metric(&series), Some(0.0), "{series}");
        }
    }
    let bus = pipeline.bus().await.unwrap();
    let status = bus.stream("LAKE_0").await.unwrap();
    let rules = Rules::from_metadata(&status.metadata).unwrap();
    for (stream, epoch) in broker.epochs {
        let in_force = bus.epochs().get(stream).await.unwrap();
        assert_eq!(in_force, Some(epoch), "how often {stream} was taken for another stream");
    }
    samples_equal_the_fold(database, Stream::lake(0), &rules).await;
    samples_equal_the_fold(database, Stream::warehouse(0), &rules).await;
    // What an operator can ask for says the same.
    for question in [&["replay", "--verify"][..], &["audit"]] {
        let ended = pipeline.tool(question.iter().copied(), &database.reader_url()).unwrap();
        assert_eq!(ended.status, Some(0), "{question:?}: {}{}", ended.stdout, ended.stderr);
    }
}

/// What the simulators expect must be shown and archived.
pub(crate) fn agree_with_the_simulators(shown: &Shown, database: &Database, expected: &[Value]) {
    let published: u64 = expected.iter().map(|one| one["published"].as_u64().unwrap()).sum();
    let rows = "select (select count(*) from lakegauge.lake_access)
        + (select count(*) from lakegauge.warehouse_query)";
    assert_eq!(database.number(rows).unwrap(), i64::try_from(published).unwrap());
    for (value, name) in shown.four.iter().zip(FOUR) {
        let of_simulators = expected.iter().find_map(|one| one["metrics"][name].as_f64());
        if let Some(of_simulators) = of_simulators {
            assert!(
                (value - of_simulators).abs() <= of_simulators.abs() * 1e-12,
                "{name}: {value} {of_simulators}"
            );
        }
    }
}

/// Each sample is what the fold of the archive has at its position.
async fn samples_equal_the_fold(database: &Database, stream: Stream, rules: &Rules) {
    let mut samples = samples(database, stream);
    let mut view = ArchiveView::open(&database.archiver(), stream).await.unwrap();
    let mut events: Vec<Counted> = Vec::new();
    while let Some(page) = view.next_page().await.unwrap() {
        events.extend(page);
    }
    assert!(!samples.is_empty() || events.is_empty(), "no sample of {stream}");
    let mut state = StreamState::new(stream, rules.clone());
    for counted in events {
        while let Some(sample) = samples.first_entry()
            && *sample.key() < (counted.position.epoch, counted.position.sequence)
        {
            let (position, values) = sample.remove_entry();
            assert_eq!(values, state.sample(), "the sample of {stream} at {position:?}");
        }
        let applied = state.recount(&counted.event, counted.verdict);
        assert!(matches!(applied, Applied::Counted(_)), "{applied:?}: {counted:?}");
    }
    for (position, values) in samples {
        assert_eq!(values, state.sample(), "the sample of {stream} at {position:?}");
    }
}

/// The snapshot that is in force after the last message is the fold of the archive, to the bit.
pub(crate) async fn snapshot_equals_the_fold(pipeline: &Pipeline, stream: Stream) {
    let (bus, name) = (pipeline.bus().await.unwrap(), stream.to_string());
    let status = bus.stream(&name).await.unwrap();
    let rules = Rules::from_metadata(&status.metadata).unwrap();
    let epoch = bus.epochs().get(&name).await.unwrap().unwrap();
    let reached = until("a snapshot of the end", async || {
        let pointer = bus.snapshots().pointer(&name).await?;
        let end = (epoch, status.last_sequence);
        Ok(pointer.is_some_and(|(pointer, _)| (pointer.mark.epoch, pointer.mark.sequence) == end))
    });
    reached.await.unwrap();
    let found = bus.snapshots().load(&name).await.unwrap().found;
    let FoundSnapshot::Whole(_, bytes) = found else { panic!("{name}: {found:?}") };
    let (live, _) = wire::snapshot::decode_state(&bytes).unwrap();
    let mut folded = StreamState::new(stream, rules);
    let settings = pipeline.database.archiver();
    let mut view = ArchiveView::open(&settings, stream).await.unwrap();
    while let Some(page) = view.next_page().await.unwrap() {
        for counted in page {
            if folded.apply(&counted.event) == Applied::TooOld {
                folded.count(&counted.event);
            }
        }
    }
    assert_eq!(folded.sample(), live.sample(), "{name}: fold of the archive, and live");
    assert!(folded == live, "{name}: the fold of the archive is not the state that is live");
}

/// By epoch and sequence. Those behind the end of a closed epoch tell of what is declared lost.
fn samples(database: &Database, stream: Stream) -> BTreeMap<(u32, u64), SampleValues> {
    let rows = database.sql(&format!(
        "select to_jsonb(s) || jsonb_build_object('used', used_bytes::text,
            'held', buckets::text, 'response', response_us_in_window::text,
            'read', records::text)
        from lakegauge.sample as s join lakegauge.stream as t on t.id = s.stream
        where t.name = '{stream}' and not exists (select from lakegauge.epoch as e
            where e.stream = s.stream and e.epoch = s.epoch and e.sequence < s.sequence)"
    ));
    let sample = |row: String| {
        let row: Value = serde_json::from_str(&row).unwrap();
        let wide = |name: &str| row[name].as_str().unwrap().parse().unwrap();
        let values = match row["used"].as_str() {
            Some(used_bytes) => SampleValues::Lake {
                used_bytes: used_bytes.parse().unwrap(),
                accesses: row["accesses"].as_u64().unwrap(),
                buckets: serde_json::from_str(row["held"].as_str().unwrap()).unwrap(),
            },
            None => SampleValues::Warehouse {
                queries_in_window: row["queries_in_window"].as_u64().unwrap(),
                response_us_in_window: wide("response"),
                records: wide("read"),
            },
        };
        let epoch = u32::try_from(row["epoch"].as_u64().unwrap()).unwrap();
        ((epoch, row["sequence"].as_u64().unwrap()), values)
    };
    rows.unwrap().into_iter().map(sample).collect()
}
