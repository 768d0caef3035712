//! The columns of a table, listed once: the names, the fields of a COPY, the arrays of an INSERT
//! and the reading of rows are all made from this list.

use std::fmt::Display;

use sqlx::{
    Decode, Postgres, Row, Type,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use crate::rows::{
    copy_buffer::CopyBuffer,
    field::{ColumnType, ColumnValue},
};

/// A query whose arguments are bound.
pub(crate) type BoundQuery = Query<'static, Postgres, PgArguments>;

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    name: &'static str,
    sql_type: &'static str,
}

impl Column {
    /// The column that a field of `T` is stored in.
    pub(crate) const fn of<T, F: ColumnValue>(name: &'static str, _: fn(&T) -> &F) -> Self {
        Self { name, sql_type: <F::Column<'static> as ColumnType>::SQL_TYPE }
    }
}

/// A type that is stored in some columns of a table.
pub(crate) trait Columns: Sized {
    /// The columns, in the order of the other functions.
    const COLUMNS: &'static [Column];

    /// Writes the values as fields of the current row.
    fn copy(&self, buffer: &mut CopyBuffer);

    /// Binds one array per column.
    fn bind<'a>(rows: impl Iterator<Item = &'a Self> + Clone, query: BoundQuery) -> BoundQuery
    where
        Self: 'a;

    /// Reads the values of a row. The error contains the name of the column.
    fn read(row: &PgRow) -> Result<Self, sqlx::Error>;
}

/// Stores the fields of a struct in columns of the same names, in this order.
macro_rules! columns {
    ($type:ty { $($column:ident),+ $(,)? }) => {
        impl $crate::rows::columns::Columns for $type {
            const COLUMNS: &'static [$crate::rows::columns::Column] = &[$(
                $crate::rows::columns::Column::of(stringify!($column), |row: &Self| &row.$column),
            )+];

            fn copy(&self, buffer: &mut $crate::rows::copy_buffer::CopyBuffer) {
                use $crate::rows::field::{ColumnType, ColumnValue};
                $(self.$column.to_column().copy(buffer);)+
            }

            fn bind<'a>(
                rows: impl Iterator<Item = &'a Self> + Clone,
                query: $crate::rows::columns::BoundQuery,
            ) -> $crate::rows::columns::BoundQuery {
                use $crate::rows::field::ColumnValue;
                query$(.bind(rows.clone().map(|row| row.$column.to_column()).collect::<Vec<_>>()))+
            }

            fn read(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($column: $crate::rows::columns::read(row, stringify!($column))?,)+ })
            }
        }
    };
}
pub(crate) use columns;

/// The value in a column. The error contains the column's name.
pub(crate) fn read<'r, F: ColumnValue>(row: &'r PgRow, column: &str) -> Result<F, sqlx::Error>
where
    F::Column<'r>: Decode<'r, Postgres> + Type<Postgres>,
{
    F::from_column(row.try_get(column)?)
        .map_err(|source| sqlx::Error::ColumnDecode { index: column.to_owned(), source })
}

/// The names of columns, separated by commas.
pub(crate) fn names<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    columns.map(|column| column.name).collect::<Vec<&str>>().join(", ")
}

/// The names of columns of a table, with commas between them.
pub(crate) fn names_in<'a>(table: &str, columns: impl Iterator<Item = &'a Column>) -> String {
    let names: Vec<String> = columns.map(|column| format!("{table}.{}", column.name)).collect();
    names.join(", ")
}

/// The arrays that [`Columns::bind`] binds as rows of a table that is called `part`.
pub(crate) fn arrays<'a>(columns: impl Iterator<Item = &'a Column> + Clone) -> String {
    let arrays: Vec<String> = columns
        .clone()
        .zip(1..)
        .map(|(column, number)| format!("${number}::{}[]", column.sql_type))
        .collect();
    format!("unnest({}) as part ({})", arrays.join(", "), names(columns))
}

/// The statement that inserts the arrays that [`Columns::bind`] binds, but for rows that are known.
pub(crate) fn insert<'a>(
    table: impl Display,
    columns: impl Iterator<Item = &'a Column> + Clone,
) -> String {
    format!(
        "insert into lakegauge.{table} ({}) select part.* from {} on conflict do nothing",
        names(columns.clone()),
        arrays(columns)
    )
}
