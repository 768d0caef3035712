//! Writes every event, window aggregate and sample into the archive, exactly once.
//!
//! Per stream: one reader after the checkpoint, the sets that judge, a batch that is built while
//! the one before it is being committed, and one transaction a batch. Acknowledging and trimming
//! come after the commit.
//!
//! A crash at any point repeats nothing and loses nothing: what is committed moved the checkpoint
//! in the same transaction, and what is not is read again.

mod batcher;
mod board;
mod config;
mod intake;
mod ledger;
mod meeting;
mod metrics;
mod run;
mod size;
mod stream;

pub use config::Config;
pub use run::run;
