//! Events as rows of the tables of their kinds: written and read.

use std::sync::LazyLock;

use domain::{
    Event, EventId, EventIdentity, Fact, IdKind, LakeAccess, LakeAccessRestored,
    LakeAccessWithdrawn, LakeInventory, Position, Timestamp, WarehouseQuery,
    WarehouseQueryWithdrawn,
};
use sqlx::postgres::PgRow;
use wire::json::format_time;

use crate::{
    error::StoreError,
    rows::{
        columns::{BoundQuery, Column, Columns, arrays, columns, insert, names, names_in, read},
        copy_buffer::CopyBuffer,
        kind::{Correction, EventTable, Placed},
    },
};

/// What the error names if a row can't be read.
pub(crate) const DOING: &str = "reading the archive";

/// An event at the position where it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its own position; the position of its verdict if the event was too old to judge.
    pub position: Position,
    /// The number of its verdict, if it was too old to judge.
    pub verdict: Option<u64>,
    /// The number of its source in [`crate::ArchiveView::sources`]; `None` if none is kept.
    pub source: Option<i16>,
    /// The event.
    pub event: Event,
}

// The columns of each kind. A new field of an event needs a line here and a migration.
columns!(LakeAccess {
    operation,
    outcome,
    bytes,
    object_bytes,
    duration_us,
    bucket,
    key,
    sequencer,
    principal,
});
columns!(LakeInventory { objects, bytes, bucket });
columns!(WarehouseQuery {
    statement,
    outcome,
    queued_us,
    executed_us,
    rows_processed,
    rows_returned,
    bytes_scanned,
    cache_hit,
    warehouse,
    database,
    principal,
    fingerprint,
});

/// The other columns of a row of any kind, from the writer.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    occurred_at: Timestamp,
    id: EventId,
    stream: i16,
    epoch: u32,
    sequence: u64,
    index: u32,
    derived: bool,
    source: Option<i16>,
}
columns!(Stamp { occurred_at, id, stream, epoch, sequence, index, derived, source });

/// What a row corrects. A COPY leaves these columns out: only the archive judges corrections, so they
/// come by INSERT, and the rows of a COPY correct nothing.
#[derive(Clone, Copy, Debug)]
struct Corrected {
    correction: Option<Correction>,
    of_at: Option<Timestamp>,
    of_id: Option<EventId>,
}
columns!(Corrected { correction, of_at, of_id });

/// The statements of a kind.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Copies the rows that [`copy`] writes.
    pub(crate) copy: String,
    /// Inserts the rows that [`bind`] binds, and returns the positions of the new ones.
    pub(crate) insert: String,
    /// Selects the positions of those rows that [`bind`] binds and that correct no row as they say it.
    pub(crate) without_original: String,
    /// Selects the rows that [`counted`] reads, at their own positions.
    pub(crate) select: String,
    /// Selects the same rows at the positions where their verdicts were read back.
    pub(crate) select_noted: String,
}

static STATEMENTS: LazyLock<[Statements; 3]> =
    LazyLock::new(|| EventTable::ALL.map(Statements::of));

impl Statements {
    fn of(kind: EventTable) -> Self {
        let table = kind.table();
        let copied = Stamp::COLUMNS.iter().chain(columns_of(kind));
        let inserted = Stamp::COLUMNS.iter().chain(Corrected::COLUMNS).chain(columns_of(kind));
        let read = format!(
            "verdict, source, occurred_at, id, correction, of_at, of_id, {}",
            names(columns_of(kind).iter())
        );
        Self {
            copy: format!("copy lakegauge.{table} ({}) from stdin (format binary)", names(copied)),
            without_original: without_original(kind, inserted.clone()),
            insert: insert(table, inserted) + " returning epoch, sequence, index",
            select: format!("select epoch, sequence, index, {read} from lakegauge.{table}"),
            select_noted: format!(
                "select noted_epoch as epoch, noted_sequence as sequence, noted_index as index, \
                 {read} from lakegauge.{table}"
            ),
        }
    }
}

/// The statements of a kind.
pub(crate) fn statements(kind: EventTable) -> &'static Statements {
    &STATEMENTS[kind.place()]
}

fn without_original<'a>(
    kind: EventTable,
    inserted: impl Iterator<Item = &'a Column> + Clone,
) -> String {
    let said = |table: &str| names_in(table, columns_of(kind).iter());
    format!(
        "select part.epoch, part.sequence, part.index from {} where not exists (\
         select from lakegauge.{} as original where original.occurred_at = part.of_at \
         and original.id = part.of_id and original.stream = part.stream \
         and original.correction is null and ({}) is not distinct from ({}))",
        arrays(inserted),
        kind.table(),
        said("original"),
        said("part")
    )
}

/// The columns of the fields of an event.
pub(crate) const fn columns_of(kind: EventTable) -> &'static [Column] {
    match kind {
        EventTable::LakeAccess => LakeAccess::COLUMNS,
        EventTable::LakeInventory => LakeInventory::COLUMNS,
        EventTable::WarehouseQuery => WarehouseQuery::COLUMNS,
    }
}

/// Writes an event that corrects no other as a row of the COPY of its kind.
pub(crate) fn copy(buffer: &mut CopyBuffer, stream: i16, placed: &Placed) {
    let stamp = Stamp::of(stream, placed);
    match &placed.event.fact {
        Fact::LakeAccess(access)
        | Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access, .. })
        | Fact::LakeAccessRestored(LakeAccessRestored { access, .. }) => {
            copy_row(buffer, stamp, access);
        }
        Fact::LakeInventory(inventory) => copy_row(buffer, stamp, inventory),
        Fact::WarehouseQuery(query)
        | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { query, .. }) => {
            copy_row(buffer, stamp, query);
        }
    }
}

fn copy_row<T: Columns>(buffer: &mut CopyBuffer, stamp: Stamp, fact: &T) {
    buffer.row(Stamp::COLUMNS.len() + T::COLUMNS.len());
    stamp.copy(buffer);
    fact.copy(buffer);
}

/// Binds events of one kind to the INSERT of the kind.
pub(crate) fn bind(
    query: BoundQuery,
    kind: EventTable,
    stream: i16,
    rows: &[&Placed],
) -> BoundQuery {
    let (mut accesses, mut inventories, mut queries) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match &row.event.fact {
            Fact::LakeAccess(access)
            | Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access, .. })
            | Fact::LakeAccessRestored(LakeAccessRestored { access, .. }) => accesses.push(access),
            Fact::LakeInventory(inventory) => inventories.push(inventory),
            Fact::WarehouseQuery(query)
            | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { query, .. }) => {
                queries.push(query);
            }
        }
    }
    let stamps: Vec<Stamp> = rows.iter().map(|row| Stamp::of(stream, row)).collect();
    let corrected: Vec<Corrected> = rows.iter().map(|row| Corrected::of(&row.event)).collect();
    let query = Corrected::bind(corrected.iter(), Stamp::bind(stamps.iter(), query));
    match kind {
        EventTable::LakeAccess => LakeAccess::bind(accesses.into_iter(), query),
        EventTable::LakeInventory => LakeInventory::bind(inventories.into_iter(), query),
        EventTable::WarehouseQuery => WarehouseQuery::bind(queries.into_iter(), query),
    }
}

impl Stamp {
    fn of(stream: i16, placed: &Placed) -> Self {
        let Placed { position, source, event, .. } = placed;
        Self {
            occurred_at: event.occurred_at,
            id: event.id,
            stream,
            epoch: position.epoch,
            sequence: position.sequence,
            index: position.index,
            derived: matches!(event.id.kind(), IdKind::Derived),
            source: *source,
        }
    }
}

impl Corrected {
    fn of(event: &Event) -> Self {
        let (correction, of) = corrected(event).unzip();
        Self { correction, of_at: of.map(|(at, _)| at), of_id: of.map(|(_, id)| id) }
    }
}

/// What an event corrects, and how; `None` for an event that corrects nothing.
const fn corrected(event: &Event) -> Option<(Correction, EventIdentity)> {
    match &event.fact {
        Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, .. })
        | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, .. }) => {
            Some((Correction::Withdrawn, (event.occurred_at, *of)))
        }
        Fact::LakeAccessRestored(LakeAccessRestored { of, .. }) => {
            Some((Correction::Restored, *of))
        }
        Fact::LakeAccess(_) | Fact::LakeInventory(_) | Fact::WarehouseQuery(_) => None,
    }
}

/// The event in a row that a statement of its kind selected.
pub(crate) fn counted(kind: EventTable, row: &PgRow) -> Result<Counted, StoreError> {
    read_counted(kind, row).map_err(|error| {
        let at = read(row, "occurred_at").ok().and_then(format_time).unwrap_or_default();
        let id = read(row, "id").map_or_else(|_| String::new(), |id: EventId| id.to_string());
        let table = kind.table();
        StoreError::Inconsistent(format!("the row {at} {id} of lakegauge.{table}: {error}"))
    })
}

fn read_counted(kind: EventTable, row: &PgRow) -> Result<Counted, sqlx::Error> {
    let fact = match (kind, read(row, "correction")?) {
        (EventTable::LakeAccess, None) => Fact::LakeAccess(Columns::read(row)?),
        (EventTable::LakeAccess, Some(Correction::Withdrawn)) => {
            let (of, access) = (read(row, "of_id")?, Columns::read(row)?);
            Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, access })
        }
        (EventTable::LakeAccess, Some(Correction::Restored)) => {
            let of = (read(row, "of_at")?, read(row, "of_id")?);
            Fact::LakeAccessRestored(LakeAccessRestored { of, access: Columns::read(row)? })
        }
        // The table allows no corrections of inventories, and no restored query.
        (EventTable::LakeInventory, _) => Fact::LakeInventory(Columns::read(row)?),
        (EventTable::WarehouseQuery, None) => Fact::WarehouseQuery(Columns::read(row)?),
        (EventTable::WarehouseQuery, Some(_)) => {
            let (of, query) = (read(row, "of_id")?, Columns::read(row)?);
            Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, query })
        }
    };
    Ok(Counted {
        position: position(row)?,
        verdict: read(row, "verdict")?,
        source: read(row, "source")?,
        event: Event { id: read(row, "id")?, occurred_at: read(row, "occurred_at")?, fact },
    })
}

/// The position in a row that has its three columns.
pub(crate) fn position(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        epoch: read(row, "epoch")?,
        sequence: read(row, "sequence")?,
        index: read(row, "index")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_of_a_kind_name_the_columns_of_its_row_in_their_order() {
        let Statements { copy, insert, without_original, select, select_noted } =
            statements(EventTable::LakeInventory);
        assert_eq!(
            copy,
            "copy lakegauge.lake_inventory (occurred_at, id, stream, epoch, sequence, index, \
             derived, source, objects, bytes, bucket) from stdin (format binary)"
        );
        assert_eq!(
            insert,
            "insert into lakegauge.lake_inventory (occurred_at, id, stream, epoch, sequence, \
             index, derived, source, correction, of_at, of_id, objects, bytes, bucket) select \
             part.* from unnest($1::timestamptz[], $2::uuid[], $3::smallint[], $4::integer[], \
             $5::bigint[], $6::integer[], $7::boolean[], $8::smallint[], $9::smallint[], \
             $10::timestamptz[], $11::uuid[], $12::bigint[], $13::bigint[], $14::text[]) as part \
             (occurred_at, id, stream, epoch, sequence, index, derived, source, correction, of_at, \
             of_id, objects, bytes, bucket) on conflict do nothing returning epoch, sequence, index"
        );
        assert_eq!(
            select,
            "select epoch, sequence, index, verdict, source, occurred_at, id, correction, of_at, \
             of_id, objects, bytes, bucket from lakegauge.lake_inventory"
        );
        let same = "(original.objects, original.bytes, original.bucket) is not distinct from \
                    (part.objects, part.bytes, part.bucket))";
        assert!(without_original.ends_with(same), "{without_original}");
        assert!(select_noted.starts_with("select noted_epoch as epoch, "), "{select_noted}");
    }
}
