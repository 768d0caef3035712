//! The part of `/api/now` about the pipeline: its parts, what is wrong, and the ledger.

use serde::{Deserialize, Serialize};

/// One part of the pipeline: a service, or a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PipelinePart {
    /// `archiver`, `aggregator`, `lake-simulator`, `NATS`, `PostgreSQL`.
    pub name: String,
    /// Machine and process of a service.
    pub instance: String,
    /// Release of a service.
    pub version: String,
    /// What a service works on: its partitions, or its source.
    pub work: String,
    /// The state of the part.
    pub state: PartState,
    /// Since when, in milliseconds since 1970; `None` if the part is healthy or was never known.
    pub since_ms: Option<i64>,
    /// More about it, in its own words.
    pub detail: String,
}

/// The state of a part of the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// It does its job.
    Well,
    /// It does not do its job.
    Failing,
    /// Another instance does its job; this one takes over when the other ends.
    Standby,
    /// Its reports have stopped.
    Silent,
    /// It ended on purpose.
    Stopped,
    /// Its state can't be determined now.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Incident {
    /// What is wrong.
    pub kind: IncidentKind,
    /// Whether a person must act.
    pub severity: Severity,
    /// The part that it concerns.
    pub part: String,
    /// Since when, in milliseconds since 1970; `None` if that is not known.
    pub since_ms: Option<i64>,
    /// Messages that wait to be archived meanwhile, and are not lost; `None` if no messages wait
    /// because of this, or the number is not known.
    pub waiting_messages: Option<u64>,
    /// More about it, in the part's own words. For [`IncidentKind::DeadLetters`] their number.
    pub detail: String,
    /// What is wrong, in English.
    pub title: String,
    /// What to do, in English.
    pub todo: String,
}

/// Whether a person must act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A part does not do its job.
    #[default]
    Incident,
    /// Every part does its job, but a person should look at something.
    #[serde(other)]
    Note,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// There is no connection to NATS.
    NatsDown,
    /// NATS refuses the aggregator's login.
    NatsLogin,
    /// The archiver can't reach PostgreSQL.
    PostgresDown,
    /// PostgreSQL refuses the archiver's login.
    PostgresLogin,
    /// No reports come from the archiver.
    ArchiverSilent,
    /// The archiver ended on purpose, and no other one archives.
    ArchiverStopped,
    /// Messages wait, and the archiver commits none of them.
    ArchiverStalled,
    /// The archiver is not ready for another reason.
    ArchiverFailing,
    /// Every archiver that reports waits for another one.
    StandbyOnly,
    /// The ledger of the archive has a gap.
    LedgerGap,
    /// This aggregator waits for another one that reports and counts.
    AggregatorStandby,
    /// This aggregator waits for another one that does not report.
    AggregatorWaits,
    /// The aggregator is not ready, and catching up is not the reason.
    AggregatorFailing,
    /// No reports come from a service that published events.
    SourceSilent,
    /// A service can't publish its events.
    SourceWaits,
    /// Dead letters are open.
    DeadLetters,
    /// A kind that only a newer aggregator knows.
    #[default]
    #[serde(other)]
    Other,
}

impl IncidentKind {
    /// Every kind that this aggregator reports.
    pub const ALL: [Self; 16] = [
        Self::NatsDown,
        Self::NatsLogin,
        Self::PostgresDown,
        Self::PostgresLogin,
        Self::ArchiverSilent,
        Self::ArchiverStopped,
        Self::ArchiverStalled,
        Self::ArchiverFailing,
        Self::StandbyOnly,
        Self::LedgerGap,
        Self::AggregatorStandby,
        Self::AggregatorWaits,
        Self::AggregatorFailing,
        Self::SourceSilent,
        Self::SourceWaits,
        Self::DeadLetters,
    ];

    /// The kind's name in `/api/now`.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(|name| name.as_str()).unwrap_or("other").to_owned()
    }

    /// What is wrong, with `{part}` in place of the part, and what to do; in English.
    pub(crate) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NatsDown => (
                "NATS can't be reached",
                "Start nats-server, or repair the network; every service connects again by itself. \
                 Publishers keep unacknowledged messages and send them again then.",
            ),
            Self::NatsLogin => (
                "NATS refuses the login",
                "Put the right login where the detail says; it is read again at each attempt.",
            ),
            Self::PostgresDown => (
                "The archiver can't reach PostgreSQL",
                "Start PostgreSQL, or look at its log; the archiver connects again by itself.",
            ),
            Self::PostgresLogin => (
                "PostgreSQL refuses the archiver's login",
                "Put the right login where the detail says; it is read again at each attempt.",
            ),
            Self::ArchiverSilent => (
                "No reports come from the archiver",
                "Look at its log, and start it if it does not run; it resumes at its checkpoint.",
            ),
            Self::ArchiverStopped => {
                ("The archiver was stopped", "Start it again; it resumes at its checkpoint.")
            }
            Self::ArchiverStalled => (
                "The archiver is stalled",
                "The detail, /readyz?verbose of its admin port and its log show what it waits for.",
            ),
            Self::ArchiverFailing => (
                "The archiver does not do its job",
                "The detail, /readyz?verbose of its admin port and its log show why.",
            ),
            Self::StandbyOnly => (
                "No archiver writes: each waits for another",
                "The detail names the holder of the lock, which hangs or is cut off. End it, and a \
                 waiting one takes over.",
            ),
            Self::LedgerGap => (
                "The ledger of the archive has a gap",
                "Run `lakegauge audit`; see the runbook's section LakegaugeArchiveAlarm.",
            ),
            Self::AggregatorStandby => (
                "This aggregator waits for another that counts",
                "The detail names the other aggregator; its page shows the numbers.",
            ),
            Self::AggregatorWaits => (
                "This aggregator waits for another that does not report",
                "It takes over by itself when the other's lease has expired.",
            ),
            Self::AggregatorFailing => (
                "The aggregator does not do its job",
                "The detail, /readyz?verbose of its admin port and its log show why.",
            ),
            Self::SourceSilent => (
                "No reports come from {part}",
                "Look at its log, and start it if it does not run. Acknowledged events count.",
            ),
            Self::SourceWaits => {
                ("{part} can't publish", "The detail shows the cause; it resumes by itself.")
            }
            Self::DeadLetters => (
                "Events could not be archived as events",
                "Their bytes are kept: `lakegauge dead-letters list` shows them, `retry` or `drop` \
                 closes them.",
            ),
            Self::Other => ("Something is wrong", "A newer version of this program shows what."),
        }
    }
}

/// An incident that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndedIncident {
    /// The kind of the incident.
    pub kind: IncidentKind,
    /// The part that it concerned.
    pub part: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// When every part was healthy again, in milliseconds since 1970.
    pub until_ms: i64,
    /// What was wrong, in English.
    pub title: String,
}

/// The latest sums of the archive's ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerCheck {
    /// When they were read, in milliseconds since 1970.
    pub checked_ms: i64,
    /// Whether every range begins where the previous one ends.
    pub well: bool,
    /// Ranges that do not begin there.
    pub gaps: u64,
    /// Messages that the broker lost before they could be archived.
    pub lost_messages: u64,
    /// Dead letters that nobody has closed.
    pub dead_letters_open: u64,
}
