//! Rows of events as events.

use domain::{
    Event, EventId, Fact, LakeAccess, LakeInventory, Operation, Outcome, Position, Statement,
    Timestamp, WarehouseQuery,
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::StoreError,
    numbers::{number, unsigned},
    rows::kind::Kind,
    statement::Doing,
    timestamptz::Timestamptz,
};

/// An event at the position where it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its own position; of an event that was too old to judge, that of its verdict.
    pub position: Position,
    /// The number of its verdict, if it was too old to judge.
    pub verdict: Option<u64>,
    /// The number of its source in [`crate::ArchiveView::sources`]; none where it is not kept.
    pub source: Option<i16>,
    /// The event.
    pub event: Event,
}

pub(crate) const DOING: &str = "reading the archive";

pub(crate) fn position(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        epoch: number(row, "epoch")?,
        sequence: number(row, "sequence")?,
        index: number(row, "index")?,
    })
}

pub(crate) fn counted(kind: Kind, row: &PgRow) -> Result<Counted, StoreError> {
    let at: Timestamptz = row.try_get("occurred_at").doing(DOING)?;
    let id: Uuid = row.try_get("id").doing(DOING)?;
    let fact = match kind {
        Kind::LakeAccess => Fact::LakeAccess(LakeAccess {
            bucket: get(row, "bucket")?,
            key: get(row, "key")?,
            operation: code(row, "operation", Operation::from_code)?,
            bytes: quantity(row, "bytes")?,
            object_bytes: get::<Option<i64>>(row, "object_bytes")?.map(unsigned).transpose()?,
            sequencer: get(row, "sequencer")?,
            duration_us: quantity(row, "duration_us")?,
            outcome: code(row, "outcome", Outcome::from_code)?,
            principal: get(row, "principal")?,
        }),
        Kind::LakeInventory => Fact::LakeInventory(LakeInventory {
            bucket: get(row, "bucket")?,
            objects: quantity(row, "objects")?,
            bytes: quantity(row, "bytes")?,
        }),
        Kind::WarehouseQuery => Fact::WarehouseQuery(WarehouseQuery {
            warehouse: get(row, "warehouse")?,
            database: get(row, "database")?,
            statement: code(row, "statement", Statement::from_code)?,
            queued_us: quantity(row, "queued_us")?,
            executed_us: quantity(row, "executed_us")?,
            rows_processed: quantity(row, "rows_processed")?,
            rows_returned: quantity(row, "rows_returned")?,
            bytes_scanned: quantity(row, "bytes_scanned")?,
            cache_hit: get(row, "cache_hit")?,
            outcome: code(row, "outcome", Outcome::from_code)?,
            principal: get(row, "principal")?,
            fingerprint: get(row, "fingerprint")?,
        }),
    };
    let event =
        Event { id: EventId::from_bytes(*id.as_bytes()), occurred_at: Timestamp(at.0), fact };
    let verdict = get::<Option<i64>>(row, "verdict")?.map(unsigned).transpose()?;
    Ok(Counted {
        position: position(row).doing(DOING)?,
        verdict,
        source: get(row, "source")?,
        event,
    })
}

pub(crate) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).doing(DOING)
}

pub(crate) fn quantity(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    number(row, column).doing(DOING)
}

pub(crate) fn code<T>(row: &PgRow, column: &str, of: fn(u8) -> Option<T>) -> Result<T, StoreError> {
    let code: i16 = get(row, column)?;
    u8::try_from(code)
        .ok()
        .and_then(of)
        .ok_or_else(|| StoreError::Inconsistent(format!("{column} has the unknown code {code}")))
}
