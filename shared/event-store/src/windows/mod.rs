//! The stored form of window aggregates, and which of them a stream keeps.

pub(crate) mod kept;
pub(crate) mod stored;
