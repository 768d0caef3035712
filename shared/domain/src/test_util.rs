//! Short constructors of events, for tests.

use crate::{
    event::{
        Event, Fact, LakeAccess, LakeAccessWithdrawn, LakeInventory, Operation, Outcome, Statement,
        WarehouseQuery, WarehouseQueryWithdrawn,
    },
    id::{EventId, Run},
    time::{MICROS_PER_SECOND, Timestamp},
};

/// The start of a second.
pub(crate) const fn at(second: i64) -> Timestamp {
    Timestamp(second * MICROS_PER_SECOND)
}

/// The `number`th id of one run.
pub(crate) fn sequenced(number: u64) -> EventId {
    EventId::sequenced(Run::new(1, 1), number)
}

/// A derived id.
pub(crate) fn derived(number: u64) -> EventId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    EventId::from_bytes(bytes)
}

/// A read of one byte.
pub(crate) fn access(number: u64, occurred_at: Timestamp) -> Event {
    change(number, occurred_at, Operation::Read, "key", None)
}

/// A request that states the size of its object.
pub(crate) fn change(
    number: u64,
    occurred_at: Timestamp,
    operation: Operation,
    key: &str,
    object_bytes: Option<u64>,
) -> Event {
    let fact = Fact::LakeAccess(LakeAccess {
        bucket: "raw".to_owned(),
        key: key.to_owned(),
        operation,
        bytes: 1,
        object_bytes,
        sequencer: None,
        duration_us: 1_000,
        outcome: Outcome::Ok,
        principal: "spark".to_owned(),
    });
    Event { id: sequenced(number), occurred_at, fact }
}

/// An inventory of the bucket that the others use.
pub(crate) fn inventory(number: u64, as_of: Timestamp, bytes: u64) -> Event {
    let fact = Fact::LakeInventory(LakeInventory { bucket: "raw".to_owned(), objects: 1, bytes });
    Event { id: sequenced(number), occurred_at: as_of, fact }
}

/// A query with its execution time and rows.
pub(crate) fn query(number: u64, occurred_at: Timestamp, executed_us: u64, rows: u64) -> Event {
    let fact = Fact::WarehouseQuery(WarehouseQuery {
        warehouse: "etl".to_owned(),
        database: "dw".to_owned(),
        statement: Statement::Select,
        queued_us: 0,
        executed_us,
        rows_processed: rows,
        rows_returned: rows,
        bytes_scanned: 10,
        cache_hit: false,
        outcome: Outcome::Ok,
        principal: "bi".to_owned(),
        fingerprint: "f".to_owned(),
    });
    Event { id: sequenced(number), occurred_at, fact }
}

/// The withdrawal of a request or of a query.
pub(crate) fn withdrawn(event: &Event) -> Event {
    let of = event.id;
    let fact = match event.fact.clone() {
        Fact::LakeAccess(access) => Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, access }),
        Fact::WarehouseQuery(query) => {
            Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, query })
        }
        Fact::LakeInventory(_)
        | Fact::LakeAccessWithdrawn(_)
        | Fact::LakeAccessRestored(_)
        | Fact::WarehouseQueryWithdrawn(_) => panic!("{event:?} is not withdrawn"),
    };
    Event { id: derived(u64::MAX), occurred_at: event.occurred_at, fact }
}
