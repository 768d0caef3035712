//! The collector: what real lakes and warehouses report, as events of the pipeline.
//!
//! Each source has a module in [`sources`] that is pure: bytes in, events out, each with an id that is
//! derived from the source's own key, so that a report that comes twice counts once. What it read
//! ([`Parsed`]) goes through the [`Outlet`] into the streams. A shell brings the bytes: [`http`] is a
//! port that answers 2xx only after the broker has stored what came; [`postgres_log`] follows log
//! files, and keeps its position after that. [`folder`] needs no report: it counts the files of a
//! folder itself.

pub mod folder;
pub mod http;
mod metrics;
mod outlet;
mod parsed;
pub mod postgres_log;
mod sealing;
pub mod sources;

pub use metrics::CollectorMetrics;
pub use outlet::Outlet;
pub use parsed::{Parsed, RefusedRecord, UnreadableReport};
pub use sealing::Outgoing;
