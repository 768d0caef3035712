//! The columns of a table, written once.
//!
//! The macro `columns` makes a struct of a list of columns, and everything that depends on their order:
//! their names and types, from which statements are made, the fields of a COPY, the arrays of an INSERT,
//! and the way back from a row that was read.

use sqlx::{Postgres, postgres::PgArguments, query::Query};
use uuid::Uuid;

use crate::{rows::copy_buffer::CopyBuffer, timestamptz::Timestamptz};

/// A query whose arguments are bound.
pub(crate) type BoundQuery = Query<'static, Postgres, PgArguments>;

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) sql_type: &'static str,
}

/// Some columns of a table, with their values in one row.
pub(crate) trait Columns: Sized {
    /// The columns, in the order in which the other functions take them.
    const COLUMNS: &'static [Column];

    /// Writes the values as fields of a row that was begun.
    fn copy(&self, buffer: &mut CopyBuffer);

    /// Binds an array of each column.
    fn bind(rows: &[Self], query: BoundQuery) -> BoundQuery;
}

/// A value of a column.
pub(crate) trait Field {
    /// The type of the column.
    const SQL_TYPE: &'static str;

    /// Writes the value as a field of a row that was begun.
    fn copy(&self, buffer: &mut CopyBuffer);
}

/// Makes a struct whose fields are columns of the same names.
///
/// Its values are borrowed, if any is, for the lifetime `'r`.
macro_rules! columns {
    (
        $(#[$meta:meta])*
        $name:ident $(<$row:lifetime>)? { $($column:ident: $type:ty,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name $(<$row>)? {
            $(pub(crate) $column: $type,)+
        }

        impl $(<$row>)? $crate::rows::columns::Columns for $name $(<$row>)? {
            const COLUMNS: &'static [$crate::rows::columns::Column] = &[
                $($crate::rows::columns::Column {
                    name: stringify!($column),
                    sql_type: <$type as $crate::rows::columns::Field>::SQL_TYPE,
                },)+
            ];

            fn copy(&self, buffer: &mut $crate::rows::copy_buffer::CopyBuffer) {
                $($crate::rows::columns::Field::copy(&self.$column, buffer);)+
            }

            fn bind(
                rows: &[Self],
                query: $crate::rows::columns::BoundQuery,
            ) -> $crate::rows::columns::BoundQuery {
                query$(.bind(rows.iter().map(|row| row.$column).collect::<Vec<$type>>()))+
            }
        }

        impl<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> for $name $(<$row>)? {
            fn from_row(row: &'r sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                Ok(Self { $($column: row.try_get(stringify!($column))?,)+ })
            }
        }
    };
}
pub(crate) use columns;

/// The names of columns, with commas between them.
pub(crate) fn names<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    columns.map(|column| column.name).collect::<Vec<&str>>().join(", ")
}

/// The statement that inserts the arrays that [`Columns::bind`] binds, but for rows that are known.
pub(crate) fn insert<'a>(table: &str, columns: impl Iterator<Item = &'a Column> + Clone) -> String {
    let arrays: Vec<String> = columns
        .clone()
        .zip(1..)
        .map(|(column, number)| format!("${number}::{}[]", column.sql_type))
        .collect();
    format!(
        "insert into lakegauge.{table} ({}) select part.* from unnest({}) as part \
         on conflict do nothing",
        names(columns),
        arrays.join(", ")
    )
}

impl Field for i16 {
    const SQL_TYPE: &'static str = "smallint";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.smallint(*self);
    }
}

impl Field for i32 {
    const SQL_TYPE: &'static str = "integer";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.integer(*self);
    }
}

impl Field for i64 {
    const SQL_TYPE: &'static str = "bigint";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.bigint(*self);
    }
}

impl Field for bool {
    const SQL_TYPE: &'static str = "boolean";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.boolean(*self);
    }
}

impl Field for Uuid {
    const SQL_TYPE: &'static str = "uuid";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.uuid(self.as_bytes());
    }
}

impl Field for Timestamptz {
    const SQL_TYPE: &'static str = "timestamptz";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.timestamptz(self.0);
    }
}

impl Field for &str {
    const SQL_TYPE: &'static str = "text";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.bytea(self.as_bytes());
    }
}

impl Field for &[u8] {
    const SQL_TYPE: &'static str = "bytea";

    fn copy(&self, buffer: &mut CopyBuffer) {
        buffer.bytea(self);
    }
}

impl<T: Field> Field for Option<T> {
    const SQL_TYPE: &'static str = T::SQL_TYPE;

    fn copy(&self, buffer: &mut CopyBuffer) {
        match self {
            Some(value) => value.copy(buffer),
            None => buffer.null(),
        }
    }
}
