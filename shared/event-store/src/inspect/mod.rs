//! Inspecting the archive from outside: its sums, and its server.

pub mod audit;
pub(crate) mod known;
pub(crate) mod server;
pub(crate) mod tally;
pub mod totals;
