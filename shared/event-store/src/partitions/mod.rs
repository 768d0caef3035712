//! Partitions: their layout, creating them, and dropping old ones.

pub(crate) mod base;
pub(crate) mod create;
pub(crate) mod layout;
pub(crate) mod retention;
