//! The shape of the database, and what in it is ours.

pub(crate) mod migrate;
pub(crate) mod ownership;
