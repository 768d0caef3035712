//! Counts the streams and serves the four metrics.
//!
//! For each stream, the state is recovered (from the snapshot, the stream or the archive). Then
//! every message is counted in order, samples are published as the broker's time passes, and
//! snapshots are stored. The metrics port answers 503 until every stream has reached the last
//! sequence that it had at the start, so that no scrape sees a partial state. The same port serves
//! a page for people, with the last hour.
//!
//! A crash at any point changes nothing: the state in memory is the fold of the stream up to its
//! mark, and the next process computes the same fold.

pub mod api;
#[cfg(test)]
mod ask;
mod config;
mod exposed_state;
pub mod exposition;
mod fold;
mod health;
mod lease;
mod metrics;
mod page;
mod partition;
mod roster;
mod run;
#[cfg(test)]
mod series_bound;
mod shared_fold;
mod snapshot_refusal;
mod sources;
mod stream;

pub use config::{Config, Links};
pub use run::run;
