//! Values that can't be read, by table, row and column.

use crate::error::StoreError;

/// A value that no release of this program up to this one has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    column: &'static str,
    value: i64,
}

impl Unreadable {
    /// The error about the value in a row of a table.
    pub(crate) fn of(self, table: &str, row: &str) -> StoreError {
        let Self { column, value } = self;
        StoreError::Inconsistent(format!(
            "the row {row} of lakegauge.{table} has {value} as its {column}, which this release \
             can't read"
        ))
    }
}

/// A quantity of ours in a signed column.
pub(crate) fn quantity(column: &'static str, value: i64) -> Result<u64, Unreadable> {
    u64::try_from(value).map_err(|_| Unreadable { column, value })
}

/// What the code in a column means.
pub(crate) fn code<T>(
    column: &'static str,
    value: i16,
    from_code: fn(u8) -> Option<T>,
) -> Result<T, Unreadable> {
    let code = u8::try_from(value).ok().and_then(from_code);
    code.ok_or(Unreadable { column, value: value.into() })
}
