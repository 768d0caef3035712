//! Events as rows of the tables of their kinds: on the way in, and back.

use std::sync::LazyLock;

use domain::{
    Event, EventId, Fact, IdKind, LakeAccess, LakeInventory, Position, Timestamp, WarehouseQuery,
};
use sqlx::{FromRow, postgres::PgRow};
use uuid::Uuid;
use wire::json::format_time;

use crate::{
    error::StoreError,
    numbers::{bigint, integer, number, unsigned},
    rows::{
        columns::{BoundQuery, Column, Columns, columns, insert, names},
        copy_buffer::CopyBuffer,
        facts::{LakeAccessRow, LakeInventoryRow, WarehouseQueryRow},
        kind::{Kind, Placed},
    },
    statement::Doing,
    timestamptz::Timestamptz,
};

/// What is being done when a row can't be read.
pub(crate) const DOING: &str = "reading the archive";

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

columns! {
    /// The columns that the writer gives a row of any kind.
    WrittenRow {
        occurred_at: Timestamptz,
        id: Uuid,
        stream: i16,
        epoch: i32,
        sequence: i64,
        index: i32,
        derived: bool,
        source: Option<i16>,
    }
}

columns! {
    /// The columns of a row of any kind that are read besides its position.
    ReadRow {
        verdict: Option<i64>,
        source: Option<i16>,
        occurred_at: Timestamptz,
        id: Uuid,
    }
}

/// The statements of a kind.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Copies the rows that [`copy`] writes.
    pub(crate) copy: String,
    /// Inserts the rows that [`bind`] binds, and returns the positions of those that were not known.
    pub(crate) insert: String,
    /// Selects the rows that [`counted`] reads, at their own positions.
    pub(crate) select: String,
    /// The same at the positions where their verdicts were read back.
    pub(crate) select_noted: String,
}

static STATEMENTS: LazyLock<[Statements; 3]> = LazyLock::new(|| Kind::ALL.map(Statements::of));

impl Statements {
    fn of(kind: Kind) -> Self {
        let table = kind.table();
        let written = WrittenRow::COLUMNS.iter().chain(columns_of(kind));
        let read = names(ReadRow::COLUMNS.iter().chain(columns_of(kind)));
        Self {
            copy: format!(
                "copy lakegauge.{table} ({}) from stdin (format binary)",
                names(written.clone())
            ),
            insert: insert(table, written) + " returning epoch, sequence, index",
            select: format!("select epoch, sequence, index, {read} from lakegauge.{table}"),
            select_noted: format!(
                "select noted_epoch as epoch, noted_sequence as sequence, noted_index as index, \
                 {read} from lakegauge.{table}"
            ),
        }
    }
}

/// The statements of a kind.
pub(crate) fn statements(kind: Kind) -> &'static Statements {
    &STATEMENTS[kind.place()]
}

/// The columns of what an event of a kind says.
const fn columns_of(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::LakeAccess => LakeAccessRow::COLUMNS,
        Kind::LakeInventory => LakeInventoryRow::COLUMNS,
        Kind::WarehouseQuery => WarehouseQueryRow::COLUMNS,
    }
}

/// Writes an event as a row of its kind's COPY.
pub(crate) fn copy(buffer: &mut CopyBuffer, stream: i16, placed: &Placed) {
    let written = written(stream, placed);
    match &placed.event.fact {
        Fact::LakeAccess(access) => copy_row(buffer, &written, &LakeAccessRow::from(access)),
        Fact::LakeInventory(inventory) => {
            copy_row(buffer, &written, &LakeInventoryRow::from(inventory));
        }
        Fact::WarehouseQuery(query) => copy_row(buffer, &written, &WarehouseQueryRow::from(query)),
    }
}

fn copy_row<T: Columns>(buffer: &mut CopyBuffer, written: &WrittenRow, fact: &T) {
    buffer.row(WrittenRow::COLUMNS.len() + T::COLUMNS.len());
    written.copy(buffer);
    fact.copy(buffer);
}

/// Binds events of one kind to its INSERT.
pub(crate) fn bind(query: BoundQuery, kind: Kind, stream: i16, rows: &[&Placed]) -> BoundQuery {
    let (mut accesses, mut inventories, mut queries) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match &row.event.fact {
            Fact::LakeAccess(access) => accesses.push(LakeAccessRow::from(access)),
            Fact::LakeInventory(inventory) => inventories.push(LakeInventoryRow::from(inventory)),
            Fact::WarehouseQuery(query) => queries.push(WarehouseQueryRow::from(query)),
        }
    }
    let written: Vec<WrittenRow> = rows.iter().map(|row| written(stream, row)).collect();
    let query = WrittenRow::bind(&written, query);
    match kind {
        Kind::LakeAccess => LakeAccessRow::bind(&accesses, query),
        Kind::LakeInventory => LakeInventoryRow::bind(&inventories, query),
        Kind::WarehouseQuery => WarehouseQueryRow::bind(&queries, query),
    }
}

fn written(stream: i16, placed: &Placed) -> WrittenRow {
    let Placed { position, source, event, .. } = placed;
    WrittenRow {
        occurred_at: Timestamptz(event.occurred_at.0),
        id: Uuid::from_bytes(*event.id.as_bytes()),
        stream,
        epoch: integer(position.epoch),
        sequence: bigint(position.sequence),
        index: integer(position.index),
        derived: match event.id.kind() {
            IdKind::Derived => true,
            IdKind::Sequenced { .. } => false,
        },
        source: *source,
    }
}

/// The event in a row that a statement of its kind selected.
pub(crate) fn counted(kind: Kind, row: &PgRow) -> Result<Counted, StoreError> {
    let position = position(row).doing(DOING)?;
    let read = ReadRow::from_row(row).doing(DOING)?;
    let (occurred_at, id) =
        (Timestamp(read.occurred_at.0), EventId::from_bytes(*read.id.as_bytes()));
    let fact = match kind {
        Kind::LakeAccess => {
            LakeAccess::try_from(LakeAccessRow::from_row(row).doing(DOING)?).map(Fact::LakeAccess)
        }
        Kind::LakeInventory => {
            LakeInventory::try_from(LakeInventoryRow::from_row(row).doing(DOING)?)
                .map(Fact::LakeInventory)
        }
        Kind::WarehouseQuery => {
            WarehouseQuery::try_from(WarehouseQueryRow::from_row(row).doing(DOING)?)
                .map(Fact::WarehouseQuery)
        }
    };
    let fact = fact.map_err(|unreadable| {
        let at = format_time(occurred_at).unwrap_or_default();
        unreadable.of(kind.table(), &format!("{at} {id}"))
    })?;
    Ok(Counted {
        position,
        verdict: read.verdict.map(unsigned).transpose()?,
        source: read.source,
        event: Event { id, occurred_at, fact },
    })
}

/// The position in a row that has its three columns.
pub(crate) fn position(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        epoch: number(row, "epoch")?,
        sequence: number(row, "sequence")?,
        index: number(row, "index")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_of_a_kind_name_the_columns_of_its_row_in_their_order() {
        let Statements { copy, insert, select, select_noted } = statements(Kind::LakeInventory);
        assert_eq!(
            copy,
            "copy lakegauge.lake_inventory (occurred_at, id, stream, epoch, sequence, index, \
             derived, source, objects, bytes, bucket) from stdin (format binary)"
        );
        assert_eq!(
            insert,
            "insert into lakegauge.lake_inventory (occurred_at, id, stream, epoch, sequence, \
             index, derived, source, objects, bytes, bucket) select part.* from \
             unnest($1::timestamptz[], $2::uuid[], $3::smallint[], $4::integer[], $5::bigint[], \
             $6::integer[], $7::boolean[], $8::smallint[], $9::bigint[], $10::bigint[], \
             $11::text[]) as part on conflict do nothing returning epoch, sequence, index"
        );
        assert_eq!(
            select,
            "select epoch, sequence, index, verdict, source, occurred_at, id, objects, bytes, \
             bucket from lakegauge.lake_inventory"
        );
        assert!(select_noted.starts_with("select noted_epoch as epoch, "), "{select_noted}");
    }

    #[test]
    fn a_row_comes_back_as_what_was_written_and_says_which_value_it_can_t_read() {
        let access = LakeAccess {
            bucket: "raw".to_owned(),
            key: "a".to_owned(),
            operation: domain::Operation::Write,
            bytes: 5,
            object_bytes: Some(7),
            sequencer: None,
            duration_us: 1,
            outcome: domain::Outcome::Ok,
            principal: "me".to_owned(),
        };
        let row = LakeAccessRow::from(&access);
        assert_eq!(LakeAccess::try_from(row), Ok(access.clone()));
        let wrong = LakeAccess::try_from(LakeAccessRow { outcome: 99, ..row }).unwrap_err();
        assert_eq!(
            wrong.of("lake_access", "2026-11-23T00:00:00.000000Z 5").to_string(),
            "the row 2026-11-23T00:00:00.000000Z 5 of lakegauge.lake_access has 99 as its outcome, \
             which this release can't read"
        );
    }
}
