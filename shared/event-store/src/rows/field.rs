//! How our types are stored in the database.

use std::collections::BTreeMap;

use domain::{EventId, Operation, Outcome, Reason, Statement, Timestamp};
use sqlx::error::BoxDynError;
use uuid::Uuid;

use crate::{
    numbers::{bigint, integer},
    rows::{copy_buffer::CopyBuffer, kind::Correction},
    timestamptz::Timestamptz,
};

/// A type of the database.
pub(crate) trait ColumnType {
    /// The type's name in SQL.
    const SQL_TYPE: &'static str;

    /// Writes a value as a field of the current row.
    fn copy(self, buffer: &mut CopyBuffer);
}

/// One of our types that is stored in a column.
pub(crate) trait ColumnValue: Sized + 'static {
    /// The type of the column.
    type Column<'a>: ColumnType;

    fn to_column(&self) -> Self::Column<'_>;

    fn from_column(stored: Self::Column<'_>) -> Result<Self, BoxDynError>;
}

macro_rules! column_types {
    ($($type:ty: $sql_type:literal, |$buffer:ident, $value:ident| $copy:expr;)+) => {
        $(impl ColumnType for $type {
            const SQL_TYPE: &'static str = $sql_type;

            fn copy(self, $buffer: &mut CopyBuffer) {
                let $value = self;
                $copy;
            }
        })+
    };
}

column_types! {
    i16: "smallint", |buffer, value| buffer.smallint(value);
    i32: "integer", |buffer, value| buffer.integer(value);
    i64: "bigint", |buffer, value| buffer.bigint(value);
    bool: "boolean", |buffer, value| buffer.boolean(value);
    Uuid: "uuid", |buffer, value| buffer.uuid(value.as_bytes());
    Timestamptz: "timestamptz", |buffer, value| buffer.timestamptz(value.0);
    String: "text", |buffer, value| buffer.bytea(value.as_bytes());
    &str: "text", |buffer, value| buffer.bytea(value.as_bytes());
    &[u8]: "bytea", |buffer, value| buffer.bytea(value);
}

impl<T: ColumnType> ColumnType for Option<T> {
    const SQL_TYPE: &'static str = T::SQL_TYPE;

    fn copy(self, buffer: &mut CopyBuffer) {
        match self {
            Some(value) => value.copy(buffer),
            None => buffer.null(),
        }
    }
}

macro_rules! fields {
    ($($type:ty as $column:ty: |$value:ident| $to:expr, |$stored:ident| $from:expr;)+) => {
        $(impl ColumnValue for $type {
            type Column<'a> = $column;

            fn to_column(&self) -> Self::Column<'_> {
                let $value = self;
                $to
            }

            fn from_column($stored: Self::Column<'_>) -> Result<Self, BoxDynError> {
                Ok($from)
            }
        })+
    };
}

// Numbers with more than 64 bits are sent as text, and so is JSON with such numbers.
fields! {
    i16 as i16: |value| *value, |stored| stored;
    i64 as i64: |value| *value, |stored| stored;
    bool as bool: |value| *value, |stored| stored;
    u8 as i16: |value| (*value).into(), |stored| stored.try_into()?;
    u32 as i32: |value| integer(*value), |stored| stored.try_into()?;
    u64 as i64: |value| bigint(*value), |stored| stored.try_into()?;
    Timestamp as Timestamptz: |value| Timestamptz(value.0), |stored| Self(stored.0);
    EventId as Uuid: |value| Uuid::from_bytes(*value.as_bytes()), |stored| Self::from_bytes(stored.into_bytes());
    String as &'a str: |value| value, |stored| stored.to_owned();
    Vec<u8> as &'a [u8]: |value| value, |stored| stored.to_owned();
    i128 as String: |value| value.to_string(), |stored| stored.parse()?;
    u128 as String: |value| value.to_string(), |stored| stored.parse()?;
    BTreeMap<String, i128> as String:
        |value| serde_json::to_string(value).expect("texts and integers"),
        |stored| serde_json::from_str(&stored)?;
    Operation as i16: |value| value.code().into(), |stored| known(stored, Self::from_code)?;
    Outcome as i16: |value| value.code().into(), |stored| known(stored, Self::from_code)?;
    Statement as i16: |value| value.code().into(), |stored| known(stored, Self::from_code)?;
    Reason as i16: |value| value.code().into(), |stored| known(stored, Self::from_code)?;
    Correction as i16: |value| value.code().into(), |stored| known(stored, Self::from_code)?;
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    type Column<'a> = Option<T::Column<'a>>;

    fn to_column(&self) -> Self::Column<'_> {
        self.as_ref().map(T::to_column)
    }

    fn from_column(stored: Self::Column<'_>) -> Result<Self, BoxDynError> {
        stored.map(T::from_column).transpose()
    }
}

/// The meaning of a code in this release.
fn known<T>(stored: i16, from_code: fn(u8) -> Option<T>) -> Result<T, BoxDynError> {
    let known = u8::try_from(stored).ok().and_then(from_code);
    known.ok_or_else(|| format!("the code {stored} is unknown to this release").into())
}
