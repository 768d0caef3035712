//! Events as rows: which table, which columns, in which order.

use domain::{
    Event, Fact, IdKind, LakeAccess, LakeInventory, Position, Side, Timestamp, WarehouseQuery,
};

use crate::{
    numbers::{bigint, integer},
    rows::copy_buffer::CopyBuffer,
};

/// A table of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    LakeAccess,
    LakeInventory,
    WarehouseQuery,
}

/// An event, where it stands, and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it stands.
    pub position: Position,
    /// The broker's timestamp of the message, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// The number of its source in [`crate::Sources`]; none where it is not kept.
    pub source: Option<i16>,
    /// The event.
    pub event: Event,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::LakeAccess, Self::LakeInventory, Self::WarehouseQuery];

    pub(crate) const fn of(fact: &Fact) -> Self {
        match fact {
            Fact::LakeAccess(_) => Self::LakeAccess,
            Fact::LakeInventory(_) => Self::LakeInventory,
            Fact::WarehouseQuery(_) => Self::WarehouseQuery,
        }
    }

    /// The kinds that a stream of this side carries; none carries samples.
    pub(crate) const fn of_side(side: Option<Side>) -> &'static [Self] {
        match side {
            Some(Side::Lake) => &[Self::LakeAccess, Self::LakeInventory],
            Some(Side::Warehouse) => &[Self::WarehouseQuery],
            None => &[],
        }
    }

    /// Its place in [`Kind::ALL`].
    pub(crate) const fn place(self) -> usize {
        match self {
            Self::LakeAccess => 0,
            Self::LakeInventory => 1,
            Self::WarehouseQuery => 2,
        }
    }

    /// Its table, in the schema `lakegauge`.
    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::LakeAccess => "lake_access",
            Self::LakeInventory => "lake_inventory",
            Self::WarehouseQuery => "warehouse_query",
        }
    }

    /// The statement whose columns [`encode`] writes.
    pub(crate) const fn copy(self) -> &'static str {
        match self {
            Self::LakeAccess => {
                "copy lakegauge.lake_access (occurred_at, id, stream, epoch, sequence, index, \
                 derived, source, operation, outcome, bytes, object_bytes, duration_us, bucket, \
                 key, sequencer, principal) from stdin (format binary)"
            }
            Self::LakeInventory => {
                "copy lakegauge.lake_inventory (occurred_at, id, stream, epoch, sequence, index, \
                 derived, source, objects, bytes, bucket) from stdin (format binary)"
            }
            Self::WarehouseQuery => {
                "copy lakegauge.warehouse_query (occurred_at, id, stream, epoch, sequence, index, \
                 derived, source, statement, outcome, queued_us, executed_us, rows_processed, \
                 rows_returned, bytes_scanned, cache_hit, warehouse, database, principal, \
                 fingerprint) from stdin (format binary)"
            }
        }
    }
}

/// Whether an id was derived from a natural key.
pub(crate) fn is_derived(event: &Event) -> bool {
    match event.id.kind() {
        IdKind::Derived => true,
        IdKind::Sequenced { .. } => false,
    }
}

/// Writes an event as a row of its kind's COPY statement.
pub(crate) fn encode(buffer: &mut CopyBuffer, stream: i16, placed: &Placed) {
    match &placed.event.fact {
        Fact::LakeAccess(access) => lake_access(buffer, stream, placed, access),
        Fact::LakeInventory(inventory) => lake_inventory(buffer, stream, placed, inventory),
        Fact::WarehouseQuery(query) => warehouse_query(buffer, stream, placed, query),
    }
}

fn place(buffer: &mut CopyBuffer, stream: i16, placed: &Placed) {
    let Placed { position, source, event, .. } = placed;
    let Timestamp(micros) = event.occurred_at;
    buffer.timestamptz(micros);
    buffer.uuid(event.id.as_bytes());
    buffer.smallint(stream);
    buffer.integer(integer(position.epoch));
    buffer.bigint(bigint(position.sequence));
    buffer.integer(integer(position.index));
    buffer.boolean(is_derived(event));
    match source {
        Some(source) => buffer.smallint(*source),
        None => buffer.null(),
    }
}

fn lake_access(buffer: &mut CopyBuffer, stream: i16, placed: &Placed, access: &LakeAccess) {
    buffer.row(17);
    place(buffer, stream, placed);
    buffer.smallint(i16::from(access.operation.code()));
    buffer.smallint(i16::from(access.outcome.code()));
    buffer.bigint(bigint(access.bytes));
    match access.object_bytes {
        Some(bytes) => buffer.bigint(bigint(bytes)),
        None => buffer.null(),
    }
    buffer.bigint(bigint(access.duration_us));
    buffer.text(&access.bucket);
    buffer.text(&access.key);
    match &access.sequencer {
        Some(sequencer) => buffer.text(sequencer),
        None => buffer.null(),
    }
    buffer.text(&access.principal);
}

fn lake_inventory(
    buffer: &mut CopyBuffer,
    stream: i16,
    placed: &Placed,
    inventory: &LakeInventory,
) {
    buffer.row(11);
    place(buffer, stream, placed);
    buffer.bigint(bigint(inventory.objects));
    buffer.bigint(bigint(inventory.bytes));
    buffer.text(&inventory.bucket);
}

fn warehouse_query(buffer: &mut CopyBuffer, stream: i16, placed: &Placed, query: &WarehouseQuery) {
    buffer.row(20);
    place(buffer, stream, placed);
    buffer.smallint(i16::from(query.statement.code()));
    buffer.smallint(i16::from(query.outcome.code()));
    buffer.bigint(bigint(query.queued_us));
    buffer.bigint(bigint(query.executed_us));
    buffer.bigint(bigint(query.rows_processed));
    buffer.bigint(bigint(query.rows_returned));
    buffer.bigint(bigint(query.bytes_scanned));
    buffer.boolean(query.cache_hit);
    buffer.text(&query.warehouse);
    buffer.text(&query.database);
    buffer.text(&query.principal);
    buffer.text(&query.fingerprint);
}
