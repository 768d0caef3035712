//! The names of the JSON form, in one place for encoder and decoder.

/// Declares the fields with their indices and names.
macro_rules! fields {
    ($($field:ident = $place:literal, $text:literal;)+) => {
        /// A field of some type of event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field { $($field,)+ }

        impl Field {
            /// Every field, in the order of the indices.
            pub(super) const ALL: &[Self] = &[$(Self::$field,)+];

            /// The name of the field.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$field => $text,)+ }
            }

            /// The field with this name.
            pub(super) fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$field),)+ _ => None }
            }

            /// The index of the field among all fields, from 0.
            pub(super) const fn place(self) -> usize {
                match self { $(Self::$field => $place,)+ }
            }
        }
    };
}

fields! {
    Type = 0, "type";
    Id = 1, "id";
    OccurredAt = 2, "occurred_at";
    Bucket = 3, "bucket";
    Key = 4, "key";
    Operation = 5, "operation";
    Bytes = 6, "bytes";
    ObjectBytes = 7, "object_bytes";
    Sequencer = 8, "sequencer";
    DurationUs = 9, "duration_us";
    Outcome = 10, "outcome";
    Principal = 11, "principal";
    Objects = 12, "objects";
    AsOf = 13, "as_of";
    Warehouse = 14, "warehouse";
    Database = 15, "database";
    Statement = 16, "statement";
    QueuedUs = 17, "queued_us";
    ExecutedUs = 18, "executed_us";
    RowsProcessed = 19, "rows_processed";
    RowsReturned = 20, "rows_returned";
    BytesScanned = 21, "bytes_scanned";
    CacheHit = 22, "cache_hit";
    Fingerprint = 23, "fingerprint";
    Verdict = 24, "verdict";
    OfId = 25, "of_id";
    OfOccurredAt = 26, "of_occurred_at";
}

/// How many fields there are.
pub(super) const COUNT: usize = Field::ALL.len();

/// Fields as a set of bits.
pub(super) fn set(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |bits, field| bits | 1 << field.place())
}

/// The types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventType {
    LakeAccess,
    LakeInventory,
    WarehouseQuery,
    LakeAccessWithdrawn,
    LakeAccessRestored,
    WarehouseQueryWithdrawn,
}

impl EventType {
    /// Every type.
    pub(super) const ALL: &[Self] = &[
        Self::LakeAccess,
        Self::LakeInventory,
        Self::WarehouseQuery,
        Self::LakeAccessWithdrawn,
        Self::LakeAccessRestored,
        Self::WarehouseQueryWithdrawn,
    ];

    /// The value of `type`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::LakeAccess => "lake.access",
            Self::LakeInventory => "lake.inventory",
            Self::WarehouseQuery => "warehouse.query",
            Self::LakeAccessWithdrawn => "lake.access.withdrawn",
            Self::LakeAccessRestored => "lake.access.restored",
            Self::WarehouseQueryWithdrawn => "warehouse.query.withdrawn",
        }
    }

    /// The type with this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The field that holds the time of the event.
    pub(super) const fn time_field(self) -> Field {
        match self {
            Self::LakeAccess
            | Self::WarehouseQuery
            | Self::LakeAccessWithdrawn
            | Self::LakeAccessRestored
            | Self::WarehouseQueryWithdrawn => Field::OccurredAt,
            Self::LakeInventory => Field::AsOf,
        }
    }

    /// The fields of the type.
    pub(super) const fn fields(self) -> &'static [Field] {
        match self {
            Self::LakeAccess => &[
                Field::Type,
                Field::Id,
                Field::OccurredAt,
                Field::Bucket,
                Field::Key,
                Field::Operation,
                Field::Bytes,
                Field::ObjectBytes,
                Field::Sequencer,
                Field::DurationUs,
                Field::Outcome,
                Field::Principal,
            ],
            Self::LakeInventory => {
                &[Field::Type, Field::Id, Field::Bucket, Field::Objects, Field::Bytes, Field::AsOf]
            }
            Self::WarehouseQuery => &[
                Field::Type,
                Field::Id,
                Field::OccurredAt,
                Field::Warehouse,
                Field::Database,
                Field::Statement,
                Field::QueuedUs,
                Field::ExecutedUs,
                Field::RowsProcessed,
                Field::RowsReturned,
                Field::BytesScanned,
                Field::CacheHit,
                Field::Outcome,
                Field::Principal,
                Field::Fingerprint,
            ],
            Self::LakeAccessWithdrawn => &[
                Field::Type,
                Field::Id,
                Field::OccurredAt,
                Field::OfId,
                Field::Bucket,
                Field::Key,
                Field::Operation,
                Field::Bytes,
                Field::ObjectBytes,
                Field::Sequencer,
                Field::DurationUs,
                Field::Outcome,
                Field::Principal,
            ],
            Self::LakeAccessRestored => &[
                Field::Type,
                Field::Id,
                Field::OccurredAt,
                Field::OfId,
                Field::OfOccurredAt,
                Field::Bucket,
                Field::Key,
                Field::Operation,
                Field::Bytes,
                Field::ObjectBytes,
                Field::Sequencer,
                Field::DurationUs,
                Field::Outcome,
                Field::Principal,
            ],
            Self::WarehouseQueryWithdrawn => &[
                Field::Type,
                Field::Id,
                Field::OccurredAt,
                Field::OfId,
                Field::Warehouse,
                Field::Database,
                Field::Statement,
                Field::QueuedUs,
                Field::ExecutedUs,
                Field::RowsProcessed,
                Field::RowsReturned,
                Field::BytesScanned,
                Field::CacheHit,
                Field::Outcome,
                Field::Principal,
                Field::Fingerprint,
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_dense_and_names_give_back_their_field() {
        for (place, field) in Field::ALL.iter().enumerate() {
            assert_eq!(field.place(), place);
            assert_eq!(Field::from_name(field.name()), Some(*field));
        }
        assert_eq!(Field::from_name("no such field"), None);
    }
}
