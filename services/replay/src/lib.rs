//! The archive, read again: as a proof that it gives the numbers that were shown, and as events for
//! whoever wants to see them once more.
//!
//! - [`verify`] folds the archive and compares the result with the aggregator's snapshot, with every
//!   sample and with every window aggregate. It only reads.
//! - [`replay`] publishes archived events, in the order in which live counted them, into streams of a
//!   run's own. It changes nothing of live.

pub mod plan;
mod progress;
mod run;
mod source;
pub mod verify;

pub use progress::ReplayProgress;
pub use run::{Replay, ReplayReport, Target, replay};
