//! The report formats of other systems, one module each. Pure: the functions convert bytes to
//! [`Parsed`].

mod aws;
mod decimal;
mod fingerprint;
pub mod postgres_log;
pub mod s3_audit;
pub mod s3_events;
mod s3_key;
pub mod seaweedfs;
mod split;
pub mod trino;
mod undecodable;

pub use fingerprint::fingerprint;

use crate::parsed::{Parsed, UnreadableReport};

/// A kind of report that other systems send.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Path of the HTTP port to which the report is sent.
    pub path: &'static str,
    /// Description of the report, for people.
    pub what: &'static str,
    /// Reads the report.
    pub parse: fn(&[u8]) -> Result<Parsed, UnreadableReport>,
}

impl Report {
    /// The report's name in metrics: the path without its slash.
    pub fn label(&self) -> &'static str {
        self.path.trim_start_matches('/')
    }
}

/// The kinds of report that are used for S3 stores. A store reports the same request both as a
/// notification and as an audit record, and the two have no common id by which they could be
/// deduplicated. Therefore only one of the two is used for each kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Sources {
    /// Notifications are used for all requests.
    Events,
    /// Notifications are used for changes; audit records for reads, lists and failures.
    EventsAndAudit,
    /// Audit records are used for all requests.
    Audit,
}

impl S3Sources {
    /// Every variant with its name in the settings.
    pub const CHOICES: [(&str, Self); 3] = [
        ("events", Self::Events),
        ("events-and-audit", Self::EventsAndAudit),
        ("audit", Self::Audit),
    ];

    /// Every kind of report that is accepted.
    pub fn reports(self) -> Vec<Report> {
        let events = |parse| Report {
            path: "/s3-events",
            what: "S3 event notifications (AWS, MinIO, RustFS)",
            parse,
        };
        let audit = |parse| Report {
            path: "/s3-audit",
            what: "audit records of S3 requests (MinIO, RustFS)",
            parse,
        };
        let mut reports = match self {
            Self::Events => vec![events(s3_events::parse)],
            Self::EventsAndAudit => {
                vec![events(s3_events::parse_changes), audit(s3_audit::parse_reads)]
            }
            Self::Audit => vec![audit(s3_audit::parse)],
        };
        reports.push(Report {
            path: "/seaweedfs",
            what: "notifications of a filer (webhook of SeaweedFS)",
            parse: seaweedfs::parse,
        });
        reports.push(Report {
            path: "/trino",
            what: "completed queries (HTTP event listener of Trino and Presto)",
            parse: trino::parse,
        });
        reports
    }
}
