//! What every service reports about itself, so that a page can show all of them without knowing
//! where they run: a few lines of JSON every second, sent by plain publishing. Reports are not
//! stored, nothing waits for them, and no count depends on them.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use service_kit::{Clock, Context, Readiness, readiness::PartHealth};
use wire::Subjects;

use crate::connection::Bus;

/// Interval of reports that contain nothing new. Three may be lost before silence counts as an
/// outage, and that must be visible within five seconds.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How often a service checks whether there is something new to report.
const LOOK: Duration = Duration::from_millis(250);
/// How long the last report may take, because an ending service does not wait for a broker that is
/// away.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// Largest status that is read, in bytes. Ours have at most [`PARTS_MAX`] parts of
/// [`DETAIL_CHARS_MAX`].
const STATUS_BYTES_MAX: usize = 64 * 1024;
/// Parts that are reported: the archiver has about a dozen.
const PARTS_MAX: usize = 32;
/// Characters of a detail that are reported; `/readyz` shows the whole text.
const DETAIL_CHARS_MAX: usize = 400;

/// The status of a service at one moment. A missing field gets its default value, so that sender
/// and receiver may be of different releases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceStatus {
    /// The service's name: `archiver`.
    pub service: String,
    /// Machine and process; distinguishes it from another instance of the same service.
    pub instance: String,
    /// What it works on, as its partitions or its source. Another instance with the same work can
    /// replace it.
    pub work: String,
    /// The service's release.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: i64,
    /// Whether it is ready, as `/readyz` reports it.
    pub ready: bool,
    /// Whether it is on standby because another instance does the work.
    pub standby: bool,
    /// Whether it ends on purpose; no further report follows.
    pub ends: bool,
    /// The parts that are not healthy.
    pub parts: Vec<StatusPart>,
    /// The state of the archive, which only the archiver reports.
    pub archive: Option<ArchiveStatus>,
}

/// A part of a service that is not healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusPart {
    /// The part's name in `/readyz`.
    pub name: String,
    /// Why it is not healthy.
    pub detail: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// Whether another process does its work instead.
    pub standby: bool,
}

/// The state of the archive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveStatus {
    /// The streams, by name.
    pub streams: BTreeMap<String, ArchivedStreamStatus>,
    /// The latest sums of the ledger; `None` before they were first read.
    pub ledger: Option<LedgerStatus>,
}

/// The state of a stream's archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchivedStreamStatus {
    /// Whether another archiver writes the stream.
    pub standby: bool,
    /// Messages that are not committed yet; `None` while the number is not known.
    pub lag_messages: Option<u64>,
    /// Sequence of the last message committed; 0 before it is known.
    pub position: u64,
    /// When this process last committed, in milliseconds since 1970.
    pub last_commit_ms: Option<i64>,
}

/// The sums of the archive's ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerStatus {
    /// When they were read, in milliseconds since 1970.
    pub checked_ms: i64,
    /// Ranges that do not begin where the previous one ends; it must be 0.
    pub gaps: u64,
    /// Messages that the broker lost before they could be archived.
    pub lost_messages: u64,
    /// Dead letters that nobody has closed.
    pub dead_letters_open: u64,
}

impl ServiceStatus {
    /// The fields that do not change while a service runs.
    pub fn named(context: &Context, work: &str) -> Self {
        Self {
            service: context.service.name.to_owned(),
            instance: context.instance(),
            work: work.to_owned(),
            version: context.service.version.to_owned(),
            started_ms: context.clock.now_us() / 1_000,
            ..Self::default()
        }
    }

    /// The same with the current state of the service.
    #[must_use]
    pub fn now(self, readiness: &Readiness) -> Self {
        Self {
            ready: readiness.is_ready(),
            standby: readiness.is_standby(),
            parts: parts(readiness),
            ..self
        }
    }
}

/// Reports the status of a service again and again.
#[derive(Clone, Debug)]
pub struct Announcer {
    bus: Bus,
    readiness: Readiness,
    clock: Clock,
    subject: String,
    /// The fields that do not change.
    name: ServiceStatus,
}

impl Announcer {
    /// Reports on the service of this context, with `work` as what it works on.
    pub fn new(bus: &Bus, context: &Context, work: &str) -> Self {
        Self {
            bus: bus.clone(),
            readiness: context.readiness.clone(),
            clock: context.clock.clone(),
            subject: Subjects::new(&bus.settings().subject_prefix).status(context.service.name),
            name: ServiceStatus::named(context, work),
        }
    }

    fn status(&self) -> ServiceStatus {
        self.name.clone().now(&self.readiness)
    }

    /// Reports until the service drains: as soon as something is new, and every second otherwise.
    /// `archive` is called at each look.
    pub fn spawn(
        self,
        context: &Context,
        archive: impl Fn() -> Option<ArchiveStatus> + Send + Sync + 'static,
    ) {
        let lifecycle = context.lifecycle.clone();
        let drain = lifecycle.drain_token();
        lifecycle.spawn("status", async move {
            tokio::select! {
                () = drain.cancelled() => {}
                () = self.announce(&archive) => {}
            }
            let last =
                ServiceStatus { ready: false, ends: true, archive: archive(), ..self.status() };
            // If the last report is lost, the listeners notice the silence.
            drop(tokio::time::timeout(FAREWELL_WAIT, self.say_and_flush(&last)).await);
            Ok(())
        });
    }

    async fn announce(&self, archive: &(impl Fn() -> Option<ArchiveStatus> + Sync)) {
        let mut said: Option<(ServiceStatus, Duration)> = None;
        loop {
            let status = ServiceStatus { archive: archive(), ..self.status() };
            let now = self.clock.monotonic();
            let is_due = said.as_ref().is_none_or(|(before, at)| {
                now.saturating_sub(*at) >= STATUS_INTERVAL || is_news(before, &status)
            });
            if is_due && self.say(&status).await {
                said = Some((status, now));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether the status was sent. While the connection is down, the client would only keep it for
    /// later, and what the server refuses, it refuses until the next connection.
    async fn say(&self, status: &ServiceStatus) -> bool {
        if !self.bus.is_connected() || self.bus.denial(&self.subject).is_some() {
            return false;
        }
        let Ok(bytes) = serde_json::to_vec(status) else { return false };
        self.bus.client().publish(self.subject.clone(), bytes.into()).await.is_ok()
    }

    async fn say_and_flush(&self, status: &ServiceStatus) {
        if self.say(status).await {
            // At this point nobody can act on an error.
            drop(self.bus.client().flush().await);
        }
    }
}

/// Whether something important changed; numbers that change all the time do not count.
fn is_news(before: &ServiceStatus, now: &ServiceStatus) -> bool {
    let names = |status: &ServiceStatus| -> Vec<(String, bool)> {
        status.parts.iter().map(|part| (part.name.clone(), part.standby)).collect()
    };
    let ledger = |status: &ServiceStatus| {
        status
            .archive
            .as_ref()
            .and_then(|archive| archive.ledger)
            .map(|ledger| LedgerStatus { checked_ms: 0, ..ledger })
    };
    (before.ready, before.standby, names(before), ledger(before))
        != (now.ready, now.standby, names(now), ledger(now))
}

fn parts(readiness: &Readiness) -> Vec<StatusPart> {
    let parts = readiness.parts().into_iter().filter(|part| part.health != PartHealth::Well);
    let told = parts.take(PARTS_MAX).map(|part| StatusPart {
        name: part.name.to_owned(),
        detail: part.detail.chars().take(DETAIL_CHARS_MAX).collect(),
        since_ms: part.since_us / 1_000,
        standby: part.health == PartHealth::StandsBy,
    });
    told.collect()
}

/// Listens to the reports of all services.
#[derive(Debug)]
pub struct StatusListener {
    bus: Bus,
    subject: String,
}

impl StatusListener {
    /// Listens to the services at this broker, under our prefix.
    pub fn new(bus: &Bus) -> Self {
        let subject = Subjects::new(&bus.settings().subject_prefix).status("*");
        Self { bus: bus.clone(), subject }
    }

    /// Why the server does not allow listening, if it reported that.
    pub fn denial(&self) -> Option<String> {
        self.bus.denial(&self.subject)
    }

    /// Calls `told` with each report, for ever. The client subscribes again after a reconnect.
    pub async fn run(&self, told: impl Fn(ServiceStatus)) {
        let mut words = match self.bus.client().subscribe(self.subject.clone()).await {
            Ok(words) => words,
            Err(error) => {
                tracing::error!(%error, "can't listen to the reports of the services");
                return pending().await;
            }
        };
        while let Some(word) = words.next().await {
            match read(&word.subject, &word.payload) {
                Some(status) => told(status),
                None => tracing::debug!(subject = %word.subject, "this is no status"),
            }
        }
        pending().await
    }
}

/// A status, if it comes from the service that its subject names, so that a user who may publish as
/// one service can't report for another.
fn read(subject: &str, bytes: &[u8]) -> Option<ServiceStatus> {
    if bytes.len() > STATUS_BYTES_MAX {
        return None;
    }
    let mut status: ServiceStatus = serde_json::from_slice(bytes).ok()?;
    let service = subject.rsplit('.').next()?;
    if status.service != service {
        return None;
    }
    status.parts.truncate(PARTS_MAX);
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_is_told_with_since_when_and_what_is_well_is_not() {
        let clock = Clock::manual(7_000_000);
        let readiness = Readiness::new(clock);
        let (nats, archive) = (readiness.condition("nats"), readiness.condition("archive"));
        nats.pass("connected");
        archive.fail("x".repeat(1_000));
        let told = parts(&readiness);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].name.as_str(), told[0].since_ms), ("archive", 7_000));
        assert_eq!(told[0].detail.len(), DETAIL_CHARS_MAX);
    }

    #[test]
    fn only_what_people_wait_for_is_news() {
        let ledger = |checked_ms, dead_letters_open| {
            let ledger = LedgerStatus { checked_ms, dead_letters_open, ..LedgerStatus::default() };
            let archive = ArchiveStatus { ledger: Some(ledger), ..ArchiveStatus::default() };
            ServiceStatus { archive: Some(archive), ..ServiceStatus::default() }
        };
        assert!(!is_news(&ledger(1, 0), &ledger(2, 0)), "it was looked at again");
        assert!(is_news(&ledger(1, 0), &ledger(2, 15)));
        let failing = |detail: &str| {
            let part = StatusPart { detail: detail.to_owned(), ..StatusPart::default() };
            ServiceStatus { parts: vec![part], ..ServiceStatus::default() }
        };
        assert!(is_news(&ServiceStatus::default(), &failing("for 1 s")));
        assert!(!is_news(&failing("for 1 s"), &failing("for 2 s")));
    }

    #[test]
    fn nobody_speaks_for_another_and_nonsense_is_no_status() {
        let bytes = br#"{"service":"archiver","ready":true,"a_later_field":1}"#;
        let status = read("acme.telemetry.status.archiver", bytes).unwrap();
        assert!(status.ready && !status.ends);
        assert_eq!(read("telemetry.status.aggregator", bytes), None);
        assert_eq!(read("telemetry.status.archiver", b"hello"), None);
        assert_eq!(read("telemetry.status.archiver", &vec![b' '; STATUS_BYTES_MAX + 1]), None);
    }
}
