//! Facts: what happened in the lake and in the warehouse. A fact is named in the past tense and
//! cannot be refused.

use crate::{id::EventId, time::Timestamp};

/// One fact with its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Given once, at the origin. (occurred at, id) is the event's identity in every service.
    pub id: EventId,
    /// When the event happened: for an inventory the time that it describes, for a query its end.
    pub occurred_at: Timestamp,
    /// What happened.
    pub fact: Fact,
}

/// The identity of an event: two deliveries with the same identity are the same event. Ordered by
/// time.
pub type EventIdentity = (Timestamp, EventId);

impl Event {
    /// The identity of the event.
    pub const fn identity(&self) -> EventIdentity {
        (self.occurred_at, self.id)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A request to the object store.
    LakeAccess(LakeAccess),
    /// What a bucket held at a time, as counted by the store.
    LakeInventory(LakeInventory),
    /// A query that finished.
    WarehouseQuery(WarehouseQuery),
    /// A request was reported wrongly and counts no longer.
    LakeAccessWithdrawn(LakeAccessWithdrawn),
    /// A change that decides about its object again, because a later one was withdrawn.
    LakeAccessRestored(LakeAccessRestored),
    /// A query was reported wrongly and counts no longer.
    WarehouseQueryWithdrawn(WarehouseQueryWithdrawn),
}

impl Fact {
    /// The side that the fact belongs to.
    pub const fn side(&self) -> Side {
        match self {
            Self::LakeAccess(_)
            | Self::LakeInventory(_)
            | Self::LakeAccessWithdrawn(_)
            | Self::LakeAccessRestored(_) => Side::Lake,
            Self::WarehouseQuery(_) | Self::WarehouseQueryWithdrawn(_) => Side::Warehouse,
        }
    }

    /// Whether the fact corrects what an archived event said. Only the archive, which has that event,
    /// can judge it.
    pub const fn is_correction(&self) -> bool {
        match self {
            Self::LakeAccessWithdrawn(_)
            | Self::LakeAccessRestored(_)
            | Self::WarehouseQueryWithdrawn(_) => true,
            Self::LakeAccess(_) | Self::LakeInventory(_) | Self::WarehouseQuery(_) => false,
        }
    }
}

/// The lake or the warehouse. Each side has its own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Object store requests and inventories.
    Lake,
    /// Finished queries.
    Warehouse,
}

/// A request to the object store, successful or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeAccess {
    /// Bucket of the object.
    pub bucket: String,
    /// Key of the object. For a copy: the key of the destination. For a list: empty.
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
    /// How the request ended.
    pub outcome: Outcome,
    /// Who sent the request.
    pub principal: String,
}

/// What a bucket held at the event's time, as counted by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeInventory {
    /// The bucket.
    pub bucket: String,
    /// Number of objects.
    pub objects: u64,
    /// Bytes stored.
    pub bytes: u64,
}

/// A finished query, successful or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarehouseQuery {
    /// The cluster or virtual warehouse that ran it.
    pub warehouse: String,
    /// The database.
    pub database: String,
    /// Kind of the statement.
    pub statement: Statement,
    /// Time that the query waited before it ran, in microseconds.
    pub queued_us: u64,
    /// Time that the query ran, in microseconds.
    pub executed_us: u64,
    /// Rows read or written.
    pub rows_processed: u64,
    /// Rows returned.
    pub rows_returned: u64,
    /// Bytes read from storage.
    pub bytes_scanned: u64,
    /// Whether the result came from a cache.
    pub cache_hit: bool,
    /// How the query ended.
    pub outcome: Outcome,
    /// Who sent the query.
    pub principal: String,
    /// A name for the shape of the query without its literals.
    pub fingerprint: String,
}

impl WarehouseQuery {
    /// Response time: queue and execution, in microseconds.
    pub const fn response_us(&self) -> u64 {
        self.queued_us.saturating_add(self.executed_us)
    }
}

/// A request that is withdrawn: it happened at the time of this event, or did not happen at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeAccessWithdrawn {
    /// The id of the request; its time is that of this event.
    pub of: EventId,
    /// The request as it was reported.
    pub access: LakeAccess,
}

/// A change of an object that counts for used space as if it arrived now, at the time of this event:
/// the time of the withdrawn change in whose place it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeAccessRestored {
    /// The identity of the change, which decides about its place among the object's changes.
    pub of: EventIdentity,
    /// The change as it was reported. It is not counted as a request again.
    pub access: LakeAccess,
}

/// A query that is withdrawn: it finished at the time of this event, or did not run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarehouseQueryWithdrawn {
    /// The id of the query; its time is that of this event.
    pub of: EventId,
    /// The query as it was reported.
    pub query: WarehouseQuery,
}

/// Declares an enum whose values are written by name in JSON and in labels, and by number in
/// bincode and rows.
macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The names of all values, in the same order.
            pub const NAMES: &[&str] = &[$($text,)+];

            /// The name of the value in JSON, labels and views.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }

            /// The number of the value in stored rows and in the binary form. A number is never
            /// given to another value.
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
    /// How a request or a query ended. Every outcome but `Ok` is a failure, with its reason.
    Outcome {
        /// The request was done.
        Ok = 0, "ok";
        /// There is no such object, table or column.
        NotFound = 1, "not_found";
        /// The principal has no right to do this.
        Denied = 2, "denied";
        /// Too many requests, or a full queue.
        Throttled = 3, "throttled";
        /// The request took too long.
        Timeout = 4, "timeout";
        /// The user cancelled the request.
        Cancelled = 5, "cancelled";
        /// Another error of the caller: syntax, types, preconditions.
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
