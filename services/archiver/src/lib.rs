//! Writes every event, window aggregate and sample into the archive, exactly once.
//!
//! Each stream has one reader that starts after the checkpoint, the sets that judge, a batch that
//! is filled while the previous one is being committed, and one transaction per batch.
//! Acknowledging and trimming come after the commit.
//!
//! A crash at any point repeats nothing and loses nothing: a transaction that was committed also
//! moved the checkpoint, and messages that were not committed are read again.

mod batcher;
mod config;
mod intake;
mod ledger;
mod meeting;
mod metrics;
mod rollup_lag;
mod run;
mod shared_status;
mod size;
mod stream;

pub use config::Config;
pub use run::run;
