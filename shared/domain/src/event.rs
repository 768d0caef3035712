//! Facts: what happened in the lake and in the warehouse. Past tense, never refused.

use crate::{id::EventId, time::Timestamp};

/// One fact with its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Given once, at the origin. (occurred at, id) is the identity of an event everywhere.
    pub id: EventId,
    /// When it happened; of an inventory the time it speaks of; of a query when it finished.
    pub occurred_at: Timestamp,
    /// What happened.
    pub fact: Fact,
}

/// The identity of an event: what makes two deliveries the same one. Ordered by time.
pub type EventIdentity = (Timestamp, EventId);

impl Event {
    /// Its identity.
    pub const fn identity(&self) -> EventIdentity {
        (self.occurred_at, self.id)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A request to the object store.
    LakeAccess(LakeAccess),
    /// What a bucket held at a time, by its own count.
    LakeInventory(LakeInventory),
    /// A query that finished.
    WarehouseQuery(WarehouseQuery),
}

impl Fact {
    /// The side of the house that it belongs to.
    pub const fn side(&self) -> Side {
        match self {
            Self::LakeAccess(_) | Self::LakeInventory(_) => Side::Lake,
            Self::WarehouseQuery(_) => Side::Warehouse,
        }
    }
}

/// The lake or the warehouse: each has streams of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Object store requests and inventories.
    Lake,
    /// Finished queries.
    Warehouse,
}

/// A request to the object store, whatever its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeAccess {
    /// Bucket of the object.
    pub bucket: String,
    /// Key of the object; of a copy the destination; empty for a list.
    pub key: String,
    /// What was asked for.
    pub operation: Operation,
    /// Bytes transferred.
    pub bytes: u64,
    /// Size of the object after the operation, in bytes, where known.
    pub object_bytes: Option<u64>,
    /// Orders changes of one key that carry the same time; compared as bytes.
    pub sequencer: Option<String>,
    /// How long it took, in microseconds; 0 where that is not known.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked.
    pub principal: String,
}

/// What a bucket held at the event's time, by the store's own count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeInventory {
    /// The bucket.
    pub bucket: String,
    /// Number of objects.
    pub objects: u64,
    /// Bytes stored.
    pub bytes: u64,
}

/// A finished query, whatever its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarehouseQuery {
    /// The cluster or virtual warehouse that ran it.
    pub warehouse: String,
    /// The database.
    pub database: String,
    /// Kind of statement.
    pub statement: Statement,
    /// Time it waited before it ran, in microseconds.
    pub queued_us: u64,
    /// Time it ran, in microseconds.
    pub executed_us: u64,
    /// Rows read or written.
    pub rows_processed: u64,
    /// Rows given back.
    pub rows_returned: u64,
    /// Bytes read from storage.
    pub bytes_scanned: u64,
    /// Whether the result came from a cache.
    pub cache_hit: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked.
    pub principal: String,
    /// Names the query's shape, without its literals.
    pub fingerprint: String,
}

impl WarehouseQuery {
    /// Response time: queue and execution, in microseconds.
    pub const fn response_us(&self) -> u64 {
        self.queued_us.saturating_add(self.executed_us)
    }
}

/// Declares an enum of names that stand in JSON, in labels and, by number, in bincode and rows.
macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Their names, in the same order.
            pub const NAMES: &[&str] = &[$($text,)+];

            /// Its name, as it stands in JSON, labels and views.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }

            /// Its number in stored rows and in the binary form. Never given to another value.
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The value with this number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use names;

names! {
    /// What was asked of the object store.
    Operation {
        /// The object's bytes, or a range of them.
        Read = 0, "read";
        /// The object's metadata.
        Head = 1, "head";
        /// The keys of a bucket.
        List = 2, "list";
        /// The object was stored, whole.
        Write = 3, "write";
        /// The object was stored from another.
        Copy = 4, "copy";
        /// The object was removed.
        Delete = 5, "delete";
        /// Anything else: tags, retention, permissions.
        Other = 6, "other";
    }
}

names! {
    /// How a request or a query ended. Everything but `Ok` is a failure by reason.
    Outcome {
        /// It did what was asked.
        Ok = 0, "ok";
        /// There is no such object, table or column.
        NotFound = 1, "not_found";
        /// The principal may not do this.
        Denied = 2, "denied";
        /// Too many requests, or no room in a queue.
        Throttled = 3, "throttled";
        /// It took too long.
        Timeout = 4, "timeout";
        /// Its user ended it.
        Cancelled = 5, "cancelled";
        /// Another mistake of the caller: syntax, types, preconditions.
        ClientError = 6, "client_error";
        /// The store or the warehouse failed.
        ServerError = 7, "server_error";
    }
}

names! {
    /// Kind of a statement.
    Statement {
        /// Reads.
        Select = 0, "select";
        /// Adds rows.
        Insert = 1, "insert";
        /// Changes rows.
        Update = 2, "update";
        /// Removes rows.
        Delete = 3, "delete";
        /// Inserts, changes and removes by a join.
        Merge = 4, "merge";
        /// Loads files.
        Copy = 5, "copy";
        /// Writes files.
        Unload = 6, "unload";
        /// A table from a query.
        CreateTableAs = 7, "create_table_as";
        /// Other definitions.
        Ddl = 8, "ddl";
        /// Statistics, vacuum and the like.
        Maintenance = 9, "maintenance";
        /// Anything else.
        Other = 10, "other";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gives_back<T: Copy + PartialEq + std::fmt::Debug>(
        all: &[T],
        name: fn(T) -> &'static str,
        from_name: fn(&str) -> Option<T>,
        code: fn(T) -> u8,
        from_code: fn(u8) -> Option<T>,
    ) {
        for (place, value) in all.iter().enumerate() {
            assert_eq!(from_name(name(*value)), Some(*value));
            assert_eq!(from_code(code(*value)), Some(*value));
            assert_eq!(usize::from(code(*value)), place, "codes are dense and in order");
        }
        assert_eq!(from_name("no such name"), None);
        assert_eq!(from_code(u8::MAX), None);
    }

    #[test]
    fn names_and_codes_give_back_their_value() {
        gives_back(
            Operation::ALL,
            Operation::name,
            Operation::from_name,
            Operation::code,
            Operation::from_code,
        );
        gives_back(
            Outcome::ALL,
            Outcome::name,
            Outcome::from_name,
            Outcome::code,
            Outcome::from_code,
        );
        gives_back(
            Statement::ALL,
            Statement::name,
            Statement::from_name,
            Statement::code,
            Statement::from_code,
        );
    }
}
