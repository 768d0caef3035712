//! Events to archive, and a writer for them.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::sync::Arc;

use domain::{
    Event, EventId, Fact, Judgement, Ladder, LakeAccess, LakeInventory, Mark, Operation, Outcome,
    Position, Run, Seen, Statement, Timestamp, WarehouseQuery,
};
use event_store::{Appended, Archive, Batch, BatchBuilder, Placed, StoreError, StoreSettings};
use tokio::sync::watch;

/// 2024-01-01T00:00:00Z: before any broker's time.
pub(crate) const START: Timestamp = Timestamp(1_704_067_200_000_000);
pub(crate) const CREATED_NS: i64 = 77;
const RUN: Run = Run::new(1_704_067_200_000, 1);

pub(crate) fn access(number: u64, seconds: i64) -> Event {
    Event {
        id: EventId::sequenced(RUN, number),
        occurred_at: START.plus_seconds(seconds),
        fact: Fact::LakeAccess(LakeAccess {
            bucket: if number.is_multiple_of(3) { "raw" } else { "curated" }.to_owned(),
            key: format!("part-{number}.parquet"),
            operation: if number.is_multiple_of(2) { Operation::Write } else { Operation::Read },
            bytes: 1_000 + number,
            object_bytes: number.is_multiple_of(2).then_some(1_000 + number),
            sequencer: number.is_multiple_of(5).then(|| format!("{number:016X}")),
            duration_us: 100 + number * 37,
            outcome: if number.is_multiple_of(11) { Outcome::NotFound } else { Outcome::Ok },
            principal: "spark".to_owned(),
        }),
    }
}

pub(crate) fn derived(number: u8, seconds: i64) -> Event {
    let mut id = [number; 16];
    id[6] = 0x50 | (number & 0x0f);
    id[8] = 0x80;
    Event { id: EventId::from_bytes(id), ..access(u64::from(number), seconds) }
}

pub(crate) fn inventory(number: u64, seconds: i64) -> Event {
    Event {
        fact: Fact::LakeInventory(LakeInventory {
            bucket: "raw".to_owned(),
            objects: 5,
            bytes: 12_345,
        }),
        ..access(number, seconds)
    }
}

pub(crate) fn query(number: u64, seconds: i64) -> Event {
    Event {
        fact: Fact::WarehouseQuery(WarehouseQuery {
            warehouse: "etl".to_owned(),
            database: "dw".to_owned(),
            statement: if number.is_multiple_of(2) { Statement::Select } else { Statement::Merge },
            queued_us: number,
            executed_us: 50_000 + number * 101,
            rows_processed: number * 7,
            rows_returned: 1,
            bytes_scanned: 1 << 20,
            cache_hit: number.is_multiple_of(4),
            outcome: Outcome::Ok,
            principal: "bi".to_owned(),
            fingerprint: "a1b2".to_owned(),
        }),
        ..access(number, seconds)
    }
}

/// A mark at a sequence of the first epoch.
pub(crate) fn mark(sequence: u64) -> Mark {
    let second = i64::try_from(sequence).unwrap();
    let broker_ns = START.plus_seconds(second).0 * 1_000;
    Mark { epoch: 1, sequence, broker_ns, created_ns: CREATED_NS }
}

pub(crate) async fn open(
    settings: &StoreSettings,
    stream: &str,
    writer: u8,
) -> Result<Archive, StoreError> {
    let (waiting_for, _) = watch::channel(None);
    Archive::open(settings, stream, [writer; 16], Arc::new(waiting_for), None).await
}

/// Windows of ten seconds and of a minute, for ever.
pub(crate) fn ladder() -> Ladder {
    "10s,60s".parse().unwrap()
}

/// One message of events as a batch, judged by `seen`.
pub(crate) fn message(archive: &Archive, seen: &mut Seen, events: &[Event]) -> Batch {
    let before = archive.checkpoint().map(|checkpoint| checkpoint.mark);
    let after = mark(before.map_or(0, |before| before.sequence) + 1);
    let mut builder = BatchBuilder::new(archive.stream(), &ladder(), before);
    for (index, event) in (0..).zip(events) {
        let judgement = seen.judge(event);
        builder.event(placed(after, index, event.clone()), judgement);
    }
    builder.seal(after, seen)
}

/// The same, with every event judged alike.
pub(crate) fn judged(
    archive: &Archive,
    seen: &Seen,
    events: &[Event],
    judgement: Judgement,
) -> Batch {
    let before = archive.checkpoint().map(|checkpoint| checkpoint.mark);
    let after = mark(before.map_or(0, |before| before.sequence) + 1);
    let mut builder = BatchBuilder::new(archive.stream(), &ladder(), before);
    for (index, event) in (0..).zip(events) {
        builder.event(placed(after, index, event.clone()), judgement);
    }
    builder.seal(after, seen)
}

/// The source of every event here, by its number.
pub(crate) const SOURCE: Option<i16> = Some(3);

pub(crate) fn placed(mark: Mark, index: u32, event: Event) -> Placed {
    Placed { position: at(mark, index), broker_ns: mark.broker_ns, source: SOURCE, event }
}

pub(crate) const fn at(mark: Mark, index: u32) -> Position {
    Position { epoch: mark.epoch, sequence: mark.sequence, index }
}

pub(crate) async fn append(
    archive: &mut Archive,
    seen: &mut Seen,
    events: &[Event],
) -> Result<Appended, StoreError> {
    let batch = message(archive, seen, events);
    archive.append(&batch).await
}
