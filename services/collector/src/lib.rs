//! The collector: what real lakes and warehouses report, as events of the pipeline.
//!
//! Each source has a module that is pure (bytes in, events out, each with an id that is derived from
//! the source's own key, so that a report that comes twice counts once) and shares one shell: the
//! receiver, an HTTP port that answers 2xx only after the broker has stored what came.

mod body;
mod config;
mod metrics;
mod outlet;
mod receiver;
mod run;
mod s3_events;

pub use config::Config;
pub use run::run;
