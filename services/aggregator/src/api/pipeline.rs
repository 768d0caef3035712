//! The part of `/api/now` that tells how the pipeline is: its parts, what is wrong, the ledger.

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
    /// How it is.
    pub state: PartState,
    /// Since when, in milliseconds since 1970; `None` where it is well or was never known.
    pub since_ms: Option<i64>,
    /// More about it, in its own words.
    pub detail: String,
}

/// How a part of the pipeline is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// It does its job.
    Well,
    /// It does not.
    Failing,
    /// Another does its job; it takes over when that one ends.
    Standby,
    /// Nothing is heard of it any more.
    Silent,
    /// It ended on purpose.
    Stopped,
    /// It can't be told now.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Incident {
    /// What it is.
    pub kind: IncidentKind,
    /// Whether somebody is needed for it.
    pub severity: Severity,
    /// The part that it is about.
    pub part: String,
    /// Since when, in milliseconds since 1970; `None` where that is not known.
    pub since_ms: Option<i64>,
    /// Messages that wait to be archived meanwhile, and are not lost; `None` where nothing waits for
    /// it, or nobody can say how many.
    pub waiting_messages: Option<u64>,
    /// More about it, in the part's own words. Of [`IncidentKind::DeadLetters`] how many there are.
    pub detail: String,
    /// What is wrong, in English.
    pub title: String,
    /// What to do, in English.
    pub todo: String,
}

/// Whether somebody is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A part does not do its job.
    #[default]
    Incident,
    /// Every part does its job, and there is something to look at all the same.
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
    /// Nothing is heard of the archiver.
    ArchiverSilent,
    /// The archiver ended on purpose, and no other archives.
    ArchiverStopped,
    /// Messages wait, and the archiver commits none.
    ArchiverStalled,
    /// The archiver is not ready for another reason.
    ArchiverFailing,
    /// Every archiver that is heard waits for another.
    StandbyOnly,
    /// The ledger of the archive has a gap.
    LedgerGap,
    /// This aggregator waits for another that is heard and counts.
    AggregatorStandby,
    /// This aggregator waits for another that is not heard.
    AggregatorWaits,
    /// The aggregator is not ready, and not because it catches up.
    AggregatorFailing,
    /// Nothing is heard of a service that published events.
    SourceSilent,
    /// A service can't publish its events.
    SourceWaits,
    /// Dead letters are open.
    DeadLetters,
    /// What a newer aggregator knows.
    #[default]
    #[serde(other)]
    Other,
}

impl IncidentKind {
    /// Every kind that this aggregator tells.
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

    /// Its name in `/api/now`.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(|name| name.as_str()).unwrap_or("other").to_owned()
    }

    /// What is wrong, where `{part}` stands for the part, and what to do, in English.
    pub(crate) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NatsDown => (
                "NATS can't be reached",
                "Start nats-server, or mend the way to it; every service connects again by itself. \
                 Publishers keep what was not acknowledged and send it then.",
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
                "Nothing is heard of the archiver",
                "Look at its log, and start it if it does not run; it goes on at its checkpoint.",
            ),
            Self::ArchiverStopped => {
                ("The archiver was stopped", "Start it again; it goes on at its checkpoint.")
            }
            Self::ArchiverStalled => (
                "The archiver stands still",
                "The detail, /readyz?verbose of its admin port and its log say what it waits for.",
            ),
            Self::ArchiverFailing => (
                "The archiver does not do its job",
                "The detail, /readyz?verbose of its admin port and its log say why.",
            ),
            Self::StandbyOnly => (
                "No archiver writes: each waits for another",
                "The detail says who holds the lock: it hangs, or is cut off. End it, and one that \
                 waits takes over.",
            ),
            Self::LedgerGap => (
                "The ledger of the archive has a gap",
                "Run `lakegauge audit`; the runbook's section LakegaugeArchiveAlarm says more.",
            ),
            Self::AggregatorStandby => (
                "This aggregator stands by for another",
                "The detail says which one counts: its page has the numbers.",
            ),
            Self::AggregatorWaits => (
                "This aggregator waits for another that is not heard",
                "It takes over by itself when the other's lease has run out.",
            ),
            Self::AggregatorFailing => (
                "The aggregator does not do its job",
                "The detail, /readyz?verbose of its admin port and its log say why.",
            ),
            Self::SourceSilent => (
                "Nothing is heard of {part}",
                "Look at its log, and start it if it does not run. What it got acknowledged is counted.",
            ),
            Self::SourceWaits => {
                ("{part} can't publish", "The detail says what it waits for; it goes on by itself.")
            }
            Self::DeadLetters => (
                "Events could not be archived as events",
                "Their bytes are kept: `lakegauge dead-letters list` shows them, `retry` or `drop` \
                 closes them.",
            ),
            Self::Other => ("Something is wrong", "A newer version of this program says what."),
        }
    }
}

/// An incident that is over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndedIncident {
    /// What it was.
    pub kind: IncidentKind,
    /// The part that it was about.
    pub part: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// Until when every part was well again, in milliseconds since 1970.
    pub until_ms: i64,
    /// What was wrong, in English.
    pub title: String,
}

/// The last look at the ledger of the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerCheck {
    /// When, in milliseconds since 1970.
    pub checked_ms: i64,
    /// Whether every range begins where the one before ends.
    pub well: bool,
    /// Ranges that do not.
    pub gaps: u64,
    /// Messages that the broker lost before they could be archived.
    pub lost_messages: u64,
    /// Dead letters that nobody has closed.
    pub dead_letters_open: u64,
}
