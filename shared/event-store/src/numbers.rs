//! Converts our unsigned numbers to the database's signed types, and back.

use crate::error::StoreError;

/// One of our numbers in the database's signed type.
pub(crate) fn signed(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} does not fit into a bigint")))
}

/// A number of the database in our unsigned type.
pub(crate) fn unsigned(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} must not be negative")))
}

/// An epoch or an index in the database's signed type.
pub(crate) fn signed_32(value: u32) -> Result<i32, StoreError> {
    i32::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} does not fit into an integer")))
}

/// An epoch or an index of the database.
pub(crate) fn unsigned_32(value: i32) -> Result<u32, StoreError> {
    u32::try_from(value)
        .map_err(|_| StoreError::Inconsistent(format!("{value} must not be negative")))
}

/// Accepted quantities are below 2^53 and the broker's sequences below 2^63.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Epochs and indexes are far below 2^31.
pub(crate) fn integer(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// The number of elements of a collection.
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits into 64 bits")
}
