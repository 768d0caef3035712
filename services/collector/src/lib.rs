//! The collector: converts the reports of real lakes and warehouses to events of the pipeline.
//!
//! Each source has a module in [`sources`]. These modules are pure: they convert bytes to events,
//! without input or output of their own. Each event has an id that is derived from the source's own
//! key, so that a report that arrives twice counts once. The result ([`Parsed`]) is published to
//! the streams through the [`Outlet`]. Other modules provide the bytes: [`http`] is a port that
//! answers 2xx only after the broker has stored the report; [`postgres_log`] follows log files, and
//! saves its position only after the broker has stored the events. [`folder`] needs no report: it
//! counts the files of a folder itself.

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
