//! The schema of the database, and which objects in it are ours.

pub(crate) mod migrate;
pub(crate) mod ownership;
