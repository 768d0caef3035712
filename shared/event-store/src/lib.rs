//! The archive in PostgreSQL. The only user of sqlx.
//!
//! Writing is [`Archive`]: one writer per stream, one transaction per [`Batch`]. Nothing else
//! changes the archive. Reading is [`ArchiveView`]: a stream at one moment, in counting
//! order. What is pure (encoding, the grid of partitions, the table of errors) stands in modules
//! without I/O.

mod adoption;
mod append;
mod archive;
pub mod audit;
mod batch;
mod checkpoint;
mod copy;
pub mod dead_letters;
mod error;
mod grid;
mod identity;
mod insert;
mod inspect;
pub mod kept;
mod letters;
mod login;
mod migrate;
mod ours;
mod pages;
mod partitions;
mod pg;
mod read;
pub mod retention;
mod rows;
mod samples;
pub mod service;
mod settings;
#[cfg(test)]
mod simulation;
mod sources;
mod span;
mod sqlstate;
pub mod standing;
mod stored_window;
mod verdicts;
mod view;
mod windows;

pub use adoption::{Adopting, Holdings};
pub use archive::{Appended, Archive};
pub use batch::{Batch, BatchBuilder, Letter, StreamId};
pub use checkpoint::Checkpoint;
pub use error::StoreError;
pub use grid::{Grid, Partition};
pub use identity::{archive_side, name_pipeline};
pub use inspect::{ServerFacts, Tally, inspect, tally};
pub use login::{Logins, Refusal};
pub use migrate::{Applied, check_fit, check_version, migrate};
pub use read::{ArchiveView, Counted, read_checkpoint};
pub use rows::Placed;
pub use settings::StoreSettings;
pub use sources::{SOURCES_MAX, Sources};
pub use sqlstate::{Recovery, recovery};
pub use stored_window::WindowRow;
pub use verdicts::VerdictsToCome;
pub use view::{Loss, Range};
