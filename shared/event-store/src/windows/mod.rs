//! Window aggregates as they are stored, and which of them a stream keeps.

pub(crate) mod kept;
pub(crate) mod stored;
