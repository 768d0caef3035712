//! The archive, read again: as a proof that it gives the numbers that were shown, and as events for
//! whoever wants to see them once more.
//!
//! - [`verify`] folds the archive and compares the result with the aggregator's snapshot, with every
//!   sample and with every window aggregate. It only reads.

mod progress;
pub mod verify;

pub use progress::Progress;
