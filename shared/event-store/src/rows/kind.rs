//! The kinds of events, each with a table.

use domain::{Event, Fact, Position, Side};

/// A table of events, and of what corrects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EventTable {
    LakeAccess,
    LakeInventory,
    WarehouseQuery,
}

/// How a row corrects another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Correction {
    Withdrawn,
    Restored,
}

impl Correction {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Withdrawn => 0,
            Self::Restored => 1,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Withdrawn),
            1 => Some(Self::Restored),
            _ => None,
        }
    }
}

/// An event with its position and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The position.
    pub position: Position,
    /// The broker's timestamp of the message, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// The number of its source in [`crate::Sources`]; `None` if none is kept.
    pub source: Option<i16>,
    /// The event.
    pub event: Event,
}

impl EventTable {
    pub(crate) const ALL: [Self; 3] = [Self::LakeAccess, Self::LakeInventory, Self::WarehouseQuery];

    pub(crate) const fn of(fact: &Fact) -> Self {
        match fact {
            Fact::LakeAccess(_) | Fact::LakeAccessWithdrawn(_) | Fact::LakeAccessRestored(_) => {
                Self::LakeAccess
            }
            Fact::LakeInventory(_) => Self::LakeInventory,
            Fact::WarehouseQuery(_) | Fact::WarehouseQueryWithdrawn(_) => Self::WarehouseQuery,
        }
    }

    /// The kinds that a stream of this side carries; the stream of samples carries none.
    pub(crate) const fn of_side(side: Option<Side>) -> &'static [Self] {
        match side {
            Some(Side::Lake) => &[Self::LakeAccess, Self::LakeInventory],
            Some(Side::Warehouse) => &[Self::WarehouseQuery],
            None => &[],
        }
    }

    /// Its index in [`EventTable::ALL`].
    pub(crate) const fn place(self) -> usize {
        match self {
            Self::LakeAccess => 0,
            Self::LakeInventory => 1,
            Self::WarehouseQuery => 2,
        }
    }

    /// The name of the table, in the schema `lakegauge`.
    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::LakeAccess => "lake_access",
            Self::LakeInventory => "lake_inventory",
            Self::WarehouseQuery => "warehouse_query",
        }
    }

    /// The kind of a side whose rows are added to windows.
    pub(crate) const fn with_windows(side: Side) -> Self {
        match side {
            Side::Lake => Self::LakeAccess,
            Side::Warehouse => Self::WarehouseQuery,
        }
    }
}
