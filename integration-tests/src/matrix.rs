//! The crash matrix: a pipeline under load, disturbed in every way that a seed can think of.
//!
//! A round is one pipeline, from empty servers to rest. Everything random in it follows from its
//! seed: which faults come in which order, after which waits, for how long, and what is sent. When
//! exactly a process is hit is the machine's.

pub mod faults;
pub mod ledger;
mod passwords;
pub mod points;
pub mod producer;
pub mod round;
pub mod summary;
pub mod watch;
