//! Looking at the archive from outside: what it adds up to, and what its server is.

pub mod audit;
pub(crate) mod known;
pub(crate) mod server;
pub(crate) mod tally;
pub mod totals;
