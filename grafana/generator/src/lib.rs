//! The dashboards of Lakegauge as Grafana reads them: classic JSON, schema version 42, which
//! Grafana 10 to 13 load from files and import.
//!
//! [`all`] is the source, `grafana/dashboards/` what it gives; a test fails when they differ.

mod board;
mod boards;
mod panel;
mod scope;

pub use board::{Board, Row, Variable};
pub use boards::all;
pub use panel::{Form, Panel, Query};
