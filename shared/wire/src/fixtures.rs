//! Events for tests.

use domain::{
    Event, EventId, Fact, LakeAccess, LakeAccessRestored, LakeInventory, Operation, Outcome, Rules,
    Run, Statement, Stream, Timestamp, WarehouseQuery,
    accept::{QUANTITY_MAX, TIME_END, accept},
};
use proptest::{array::uniform5, option, prelude::*, sample::select};
use test_support::withdrawn;

use crate::derived;

/// 2026-11-23T06:43:00.123456Z.
pub(crate) const AT: Timestamp = Timestamp(1_795_416_180_123_456);

/// One event of each type, with every field filled.
pub(crate) fn one_of_each() -> Vec<Event> {
    let run = Run::new(1_795_416_180_000, 0xabcde);
    let facts = [
        Fact::LakeAccess(LakeAccess {
            bucket: "raw".to_owned(),
            key: "a/b \"ü\".parquet".to_owned(),
            operation: Operation::Write,
            bytes: 1_048_576,
            object_bytes: Some(1_048_576),
            sequencer: Some("0055AED6DCD90281E5".to_owned()),
            duration_us: 5_200,
            outcome: Outcome::Ok,
            principal: "spark".to_owned(),
        }),
        Fact::LakeInventory(LakeInventory {
            bucket: "raw".to_owned(),
            objects: 1_200,
            bytes: 98_765_432,
        }),
        Fact::WarehouseQuery(WarehouseQuery {
            warehouse: "etl".to_owned(),
            database: "dw".to_owned(),
            statement: Statement::Select,
            queued_us: 1_000,
            executed_us: 52_000,
            rows_processed: 1_000,
            rows_returned: 10,
            bytes_scanned: 123_456,
            cache_hit: false,
            outcome: Outcome::Ok,
            principal: "bi".to_owned(),
            fingerprint: "5d41402a".to_owned(),
        }),
    ];
    let mut events: Vec<Event> = (0..)
        .zip(facts)
        .map(|(number, fact)| Event { id: EventId::sequenced(run, number), occurred_at: AT, fact })
        .collect();
    let (access, query) = (&events[0], &events[2]);
    let corrections = [withdrawn(access), restored(access), withdrawn(query)];
    events.extend(corrections.map(|fact| corrected(AT, fact)));
    events
}

fn restored(event: &Event) -> Fact {
    let Fact::LakeAccess(access) = event.fact.clone() else { unreachable!() };
    Fact::LakeAccessRestored(LakeAccessRestored { of: event.identity(), access })
}

fn corrected(occurred_at: Timestamp, fact: Fact) -> Event {
    let id = derived::of_correction(occurred_at, &fact).unwrap();
    Event { id, occurred_at, fact }
}

/// A write of an object.
pub(crate) fn access_of(key: &str) -> Event {
    let mut event = one_of_each().remove(0);
    let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
    access.key = key.to_owned();
    event
}

/// Any event that the types can express, accepted or not.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let fact = prop_oneof![
        any_access().prop_map(Fact::LakeAccess),
        any_inventory().prop_map(Fact::LakeInventory),
        any_query().prop_map(Fact::WarehouseQuery),
    ];
    (any::<[u8; 16]>(), any_time(), fact, 0..6).prop_map(|(id, occurred_at, fact, kind)| {
        let event = Event { id: EventId::from_bytes(id), occurred_at, fact };
        match (kind, &event.fact) {
            (0, Fact::LakeAccess(_) | Fact::WarehouseQuery(_)) => {
                corrected(occurred_at, withdrawn(&event))
            }
            (1, Fact::LakeAccess(_)) => corrected(occurred_at, restored(&event)),
            _ => event,
        }
    })
}

/// Any event that is accepted in a stream of its side.
pub(crate) fn accepted_event() -> impl Strategy<Value = Event> {
    any_event().prop_filter("acceptance takes it", |event| {
        let stream = Stream { side: event.fact.side(), partition: 0 };
        accept(event, stream, TIME_END, &Rules::default()).is_ok()
    })
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![1 => any::<i64>(), 4 => 0..TIME_END.0].prop_map(Timestamp)
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/.]{1,20}", any::<String>()]
}

/// Quantities, most of them within the range that is accepted.
fn any_quantity() -> impl Strategy<Value = u64> {
    prop_oneof![1 => any::<u64>(), 9 => 0..=QUANTITY_MAX]
}

fn any_access() -> impl Strategy<Value = LakeAccess> {
    let numbers = (any_quantity(), option::of(any_quantity()), any_quantity());
    let texts = (any_text(), any_text(), option::of(any_text()), any_text());
    (numbers, texts, select(Operation::ALL), select(Outcome::ALL)).prop_map(
        |(
            (bytes, object_bytes, duration_us),
            (bucket, key, sequencer, principal),
            operation,
            outcome,
        )| LakeAccess {
            bucket,
            key,
            operation,
            bytes,
            object_bytes,
            sequencer,
            duration_us,
            outcome,
            principal,
        },
    )
}

fn any_inventory() -> impl Strategy<Value = LakeInventory> {
    (any_text(), any_quantity(), any_quantity())
        .prop_map(|(bucket, objects, bytes)| LakeInventory { bucket, objects, bytes })
}

fn any_query() -> impl Strategy<Value = WarehouseQuery> {
    let texts = (any_text(), any_text(), any_text(), any_text());
    (uniform5(any_quantity()), texts, any::<bool>(), select(Statement::ALL), select(Outcome::ALL))
        .prop_map(
            |(
                numbers,
                (warehouse, database, principal, fingerprint),
                cache_hit,
                statement,
                outcome,
            )| {
                let [queued_us, executed_us, rows_processed, rows_returned, bytes_scanned] =
                    numbers;
                WarehouseQuery {
                    warehouse,
                    database,
                    statement,
                    queued_us,
                    executed_us,
                    rows_processed,
                    rows_returned,
                    bytes_scanned,
                    cache_hit,
                    outcome,
                    principal,
                    fingerprint,
                }
            },
        )
}
