//! The forms in which other systems report, one module each. Pure: bytes in, [`Parsed`] out.

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

impl Report {
    /// Its name in metrics: the path without its slash.
    pub fn label(&self) -> &'static str {
        self.path.trim_start_matches('/')
    }
}

/// What a store that speaks S3 is asked through. It reports the same request as a notification and as
/// an audit record, with nothing in common by which one could be told to be the other: one of the two
/// is the source of each kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Sources {
    /// Notifications are the source of everything.
    Events,
    /// Notifications are the source of changes, audit records of reads, lists and failures.
    EventsAndAudit,
    /// Audit records are the source of everything.
    Audit,
}

impl S3Sources {
    /// Every value with its name.
    pub const CHOICES: [(&str, Self); 3] = [
        ("events", Self::Events),
        ("events-and-audit", Self::EventsAndAudit),
        ("audit", Self::Audit),
    ];

    /// Every kind of report that is taken.
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
