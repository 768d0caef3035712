//! The forms in which other systems report, one module each. Pure: bytes in, [`Parsed`] out.

pub mod s3_events;

use crate::parsed::{Parsed, UnreadableReport};

/// A kind of report that other systems post.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Where it is posted.
    pub path: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Reads it.
    pub parse: fn(&[u8]) -> Result<Parsed, UnreadableReport>,
}

/// Every kind that is posted.
pub const REPORTS: &[Report] = &[Report {
    path: "/s3-events",
    what: "S3 event notifications (AWS, MinIO, RustFS)",
    parse: s3_events::parse,
}];
