//! What each kind of event says, as columns of its table. A new column is added here and by a
//! migration.

use domain::{LakeAccess, LakeInventory, Operation, Outcome, Statement, WarehouseQuery};

use crate::{
    numbers::bigint,
    rows::{
        columns::columns,
        unreadable::{Unreadable, code, quantity},
    },
};

columns! {
    /// The columns of `lake_access`.
    LakeAccessRow<'r> {
        operation: i16,
        outcome: i16,
        bytes: i64,
        object_bytes: Option<i64>,
        duration_us: i64,
        bucket: &'r str,
        key: &'r str,
        sequencer: Option<&'r str>,
        principal: &'r str,
    }
}

columns! {
    /// The columns of `lake_inventory`.
    LakeInventoryRow<'r> {
        objects: i64,
        bytes: i64,
        bucket: &'r str,
    }
}

columns! {
    /// The columns of `warehouse_query`.
    WarehouseQueryRow<'r> {
        statement: i16,
        outcome: i16,
        queued_us: i64,
        executed_us: i64,
        rows_processed: i64,
        rows_returned: i64,
        bytes_scanned: i64,
        cache_hit: bool,
        warehouse: &'r str,
        database: &'r str,
        principal: &'r str,
        fingerprint: &'r str,
    }
}

impl<'r> From<&'r LakeAccess> for LakeAccessRow<'r> {
    fn from(access: &'r LakeAccess) -> Self {
        Self {
            operation: access.operation.code().into(),
            outcome: access.outcome.code().into(),
            bytes: bigint(access.bytes),
            object_bytes: access.object_bytes.map(bigint),
            duration_us: bigint(access.duration_us),
            bucket: &access.bucket,
            key: &access.key,
            sequencer: access.sequencer.as_deref(),
            principal: &access.principal,
        }
    }
}

impl TryFrom<LakeAccessRow<'_>> for LakeAccess {
    type Error = Unreadable;

    fn try_from(row: LakeAccessRow<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            operation: code("operation", row.operation, Operation::from_code)?,
            outcome: code("outcome", row.outcome, Outcome::from_code)?,
            bytes: quantity("bytes", row.bytes)?,
            object_bytes: row
                .object_bytes
                .map(|bytes| quantity("object_bytes", bytes))
                .transpose()?,
            duration_us: quantity("duration_us", row.duration_us)?,
            bucket: row.bucket.to_owned(),
            key: row.key.to_owned(),
            sequencer: row.sequencer.map(str::to_owned),
            principal: row.principal.to_owned(),
        })
    }
}

impl<'r> From<&'r LakeInventory> for LakeInventoryRow<'r> {
    fn from(inventory: &'r LakeInventory) -> Self {
        Self {
            objects: bigint(inventory.objects),
            bytes: bigint(inventory.bytes),
            bucket: &inventory.bucket,
        }
    }
}

impl TryFrom<LakeInventoryRow<'_>> for LakeInventory {
    type Error = Unreadable;

    fn try_from(row: LakeInventoryRow<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            objects: quantity("objects", row.objects)?,
            bytes: quantity("bytes", row.bytes)?,
            bucket: row.bucket.to_owned(),
        })
    }
}

impl<'r> From<&'r WarehouseQuery> for WarehouseQueryRow<'r> {
    fn from(query: &'r WarehouseQuery) -> Self {
        Self {
            statement: query.statement.code().into(),
            outcome: query.outcome.code().into(),
            queued_us: bigint(query.queued_us),
            executed_us: bigint(query.executed_us),
            rows_processed: bigint(query.rows_processed),
            rows_returned: bigint(query.rows_returned),
            bytes_scanned: bigint(query.bytes_scanned),
            cache_hit: query.cache_hit,
            warehouse: &query.warehouse,
            database: &query.database,
            principal: &query.principal,
            fingerprint: &query.fingerprint,
        }
    }
}

impl TryFrom<WarehouseQueryRow<'_>> for WarehouseQuery {
    type Error = Unreadable;

    fn try_from(row: WarehouseQueryRow<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            statement: code("statement", row.statement, Statement::from_code)?,
            outcome: code("outcome", row.outcome, Outcome::from_code)?,
            queued_us: quantity("queued_us", row.queued_us)?,
            executed_us: quantity("executed_us", row.executed_us)?,
            rows_processed: quantity("rows_processed", row.rows_processed)?,
            rows_returned: quantity("rows_returned", row.rows_returned)?,
            bytes_scanned: quantity("bytes_scanned", row.bytes_scanned)?,
            cache_hit: row.cache_hit,
            warehouse: row.warehouse.to_owned(),
            database: row.database.to_owned(),
            principal: row.principal.to_owned(),
            fingerprint: row.fingerprint.to_owned(),
        })
    }
}
