//! Counts the streams and serves the four metrics.
//!
//! Per stream: the state is found (snapshot, stream or archive), then every message is counted in
//! order, samples are published as the broker's time passes, and snapshots are stored. The metrics
//! port answers 503 until every stream has reached what was its last sequence at start, so that no
//! scrape sees a partial state. The same port has a page for people, with the last hour.
//!
//! A crash at any point changes nothing: the state in memory is the fold of the stream up to its
//! mark, and the next process folds the same.

pub mod api;
#[cfg(test)]
mod ask;
mod board;
mod config;
pub mod exposition;
pub mod fold;
mod follow;
mod gap;
mod metrics;
mod origin;
mod page;
mod rebuild;
mod replayed;
mod run;
#[cfg(test)]
mod series_bound;
mod snapshotter;
mod stream;
mod tenure;

pub use config::{Config, Links};
pub use run::run;
