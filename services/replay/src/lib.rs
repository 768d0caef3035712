//! Reads the archive again: to prove that it gives the numbers that were shown, and to publish its
//! events once more.
//!
//! - [`verify`] folds the archive and compares the result with the aggregator's snapshot, with every
//!   sample and with every window aggregate. It only reads.
//! - [`replay`] publishes archived events, in the order in which the live aggregator counted them,
//!   into streams of their own. It does not affect live streams.

pub mod plan;
mod progress;
mod run;
mod source;
pub mod verify;

pub use progress::ReplayProgress;
pub use run::{Replay, ReplayReport, Target, replay};
