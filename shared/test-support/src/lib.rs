//! Facts for tests: a test states the fields that it is about, and takes the others from here, so that
//! a new field is written once.
//!
//! Only a dev-dependency of the crates that have tests. `domain` has its own (`domain::test_util`): its
//! unit tests are another compilation of its types than the one that this crate returns.

use domain::{
    Event, Fact, LakeAccess, LakeAccessWithdrawn, Operation, Outcome, Statement, WarehouseQuery,
    WarehouseQueryWithdrawn,
};

/// A read of no byte of an object without a name in the bucket `raw`, which took no time.
pub fn lake_access() -> LakeAccess {
    LakeAccess {
        bucket: "raw".to_owned(),
        key: String::new(),
        operation: Operation::Read,
        bytes: 0,
        object_bytes: None,
        sequencer: None,
        duration_us: 0,
        outcome: Outcome::Ok,
        principal: String::new(),
    }
}

/// A selection of no row in the warehouse `etl`, which took no time.
pub fn warehouse_query() -> WarehouseQuery {
    WarehouseQuery {
        warehouse: "etl".to_owned(),
        database: "dw".to_owned(),
        statement: Statement::Select,
        queued_us: 0,
        executed_us: 0,
        rows_processed: 0,
        rows_returned: 0,
        bytes_scanned: 0,
        cache_hit: false,
        outcome: Outcome::Ok,
        principal: String::new(),
        fingerprint: String::new(),
    }
}

/// The fact that a request or a query is withdrawn.
///
/// # Panics
///
/// The event can't be withdrawn.
pub fn withdrawn(event: &Event) -> Fact {
    let of = event.id;
    match event.fact.clone() {
        Fact::LakeAccess(access) => Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, access }),
        Fact::WarehouseQuery(query) => {
            Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, query })
        }
        Fact::LakeInventory(_)
        | Fact::LakeAccessWithdrawn(_)
        | Fact::LakeAccessRestored(_)
        | Fact::WarehouseQueryWithdrawn(_) => panic!("{event:?} is not withdrawn"),
    }
}
