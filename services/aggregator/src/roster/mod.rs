//! All parts of the pipeline as this aggregator knows them: what each service reports, how long no
//! report has come, and what that means. Pure, except for its lock.

mod incidents;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::status::{LedgerStatus, ServiceStatus, StatusPart};
use domain::Stream;

use crate::{
    api::{EndedIncident, Incident, LedgerCheck, PartState, PipelinePart, Severity},
    health::HealthNumbers,
};

/// After this time without a report, a service counts as gone. Three reports of one second each may
/// be lost, and a page that updates once a second shows the outage within five seconds.
const SILENT_AFTER_MS: u64 = 4_000;
/// The same limit after the connection to NATS, or this process, was started: each service connects
/// again by itself, with pauses of up to some seconds.
const CONNECTING_MS: u64 = 12_000;
/// How long a starting service may take before it is reported as failing.
const STARTING_MS: u64 = 4_000;
/// A source without reports for this long was probably removed on purpose; that no events arrive
/// any more is shown by the age of the newest event. An hour, in milliseconds.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;
/// Services that are remembered at most, to bound memory: a pipeline has about five.
const SERVICES_MAX: usize = 64;
/// A shorter incident is not shown as the last one. In milliseconds.
const BRIEF_MS: i64 = 3_000;
/// How long the last incident is shown. An hour, in milliseconds.
const ENDED_SHOWN_MS: i64 = 3_600_000;

/// The service that every pipeline must have.
const ARCHIVER: &str = "archiver";
/// The name of this service.
const AGGREGATOR: &str = "aggregator";
/// The condition for a service's connection to NATS.
const NATS_PART: &str = "nats";
/// The condition for the archiver's connection to PostgreSQL.
const POSTGRES_PART: &str = "postgres";
/// The names of the servers for people.
const NATS: &str = "NATS";
const POSTGRES: &str = "PostgreSQL";

/// The reports of all services. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Roster(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    services: BTreeMap<(String, String), HeardService>,
    /// Why the broker does not allow listening.
    denial: Option<String>,
    /// Since when reports can arrive: in monotonic and in wall-clock time. `None` while they can't.
    listening: Option<(u64, i64)>,
    /// When our own last report arrived, as in `listening`. It travels like all others, so that a
    /// broker that hangs is distinguished from services that hang.
    echo: Option<(u64, i64)>,
    /// The current incident, as it began, and the last one that ended.
    current: Option<Incident>,
    ended: Option<EndedIncident>,
}

/// The last report of a service.
#[derive(Clone, Debug)]
struct HeardService {
    status: ServiceStatus,
    /// When it arrived, by our own clocks: monotonic, and wall-clock in milliseconds since 1970.
    at_ms: u64,
    wall_ms: i64,
    /// When the service's first report arrived.
    first_ms: u64,
    is_silent: bool,
}

/// What is known at a moment, in addition to the reports of others.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// Monotonic time, in milliseconds.
    pub(crate) now_ms: u64,
    /// Wall-clock time, in milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// The report of this process itself.
    pub(crate) own: ServiceStatus,
    /// How far this process has counted.
    pub(crate) streams: Vec<(Stream, HealthNumbers)>,
}

/// The pipeline at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PipelineView {
    pub(crate) parts: Vec<PipelinePart>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) last_incident: Option<EndedIncident>,
    pub(crate) ledger: Option<LedgerCheck>,
}

impl Roster {
    /// A roster without reports.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Records a report of a service.
    pub(crate) fn heard(&self, status: ServiceStatus, at_ms: u64, wall_ms: i64) {
        let mut heard = self.lock();
        let key = (status.service.clone(), status.instance.clone());
        if !heard.services.contains_key(&key) && heard.services.len() >= SERVICES_MAX {
            let oldest = heard.services.iter().min_by_key(|(_, service)| service.at_ms);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                heard.services.remove(&oldest);
            }
        }
        let first_ms = heard.services.get(&key).map_or(at_ms, |known| known.first_ms);
        heard
            .services
            .insert(key, HeardService { status, at_ms, wall_ms, first_ms, is_silent: false });
    }

    /// Sets why the broker does not allow listening.
    pub(crate) fn denied(&self, denial: Option<String>) {
        self.lock().denial = denial;
    }

    /// The state of the pipeline.
    pub(crate) fn look(&self, moment: &Moment) -> PipelineView {
        let mut heard = self.lock();
        heard.pass_time(moment);
        let incidents = incidents::of(&heard, moment);
        heard.follow(&incidents, moment.wall_ms);
        PipelineView {
            parts: heard.parts(moment),
            incidents,
            last_incident: heard.ended.clone(),
            ledger: heard.ledger().map(|found| LedgerCheck {
                checked_ms: found.checked_ms,
                well: found.gaps == 0,
                gaps: found.gaps,
                lost_messages: found.lost_messages,
                dead_letters_open: found.dead_letters_open,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        // Each change is complete when the lock is released, even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    /// Marks services as silent, and forgets those that are not missed.
    fn pass_time(&mut self, moment: &Moment) {
        let own_key = (moment.own.service.clone(), moment.own.instance.clone());
        if let Some(own) = self.services.remove(&own_key) {
            self.echo = Some((own.at_ms, own.wall_ms));
        }
        if failing(&moment.own, NATS_PART).is_some() {
            (self.listening, self.echo) = (None, None);
            return;
        }
        if self.hanging_since(moment).is_some() {
            self.listening = None;
            return;
        }
        let (since_ms, _) = *self.listening.get_or_insert((moment.now_ms, moment.wall_ms));
        for service in self.services.values_mut() {
            let limit = if service.at_ms < since_ms { CONNECTING_MS } else { SILENT_AFTER_MS };
            let silent_ms = moment.now_ms.saturating_sub(service.at_ms.max(since_ms));
            service.is_silent = service.status.ends || silent_ms > limit;
        }
        let own = moment.own.ready.then_some(&moment.own);
        let working: Vec<(String, String)> = self
            .services
            .values()
            .filter(|service| !service.is_silent && !service.status.standby)
            .map(|service| &service.status)
            .chain(own)
            .map(|status| (status.service.clone(), status.work.clone()))
            .collect();
        self.services.retain(|_, service| {
            let status = &service.status;
            let work = (status.service.clone(), status.work.clone());
            let is_missed = !working.contains(&work)
                && (status.service == ARCHIVER || !status.ends)
                && (status.service == ARCHIVER
                    || moment.now_ms.saturating_sub(service.at_ms) < FORGOTTEN_AFTER_MS);
            !service.is_silent || is_missed
        });
    }

    /// Since when our own reports have not come back, although the connection seems to work.
    fn hanging_since(&self, moment: &Moment) -> Option<i64> {
        let (at_ms, wall_ms) = self.echo?;
        let since_ms = at_ms.max(self.listening.map_or(0, |(since_ms, _)| since_ms));
        (moment.now_ms.saturating_sub(since_ms) > SILENT_AFTER_MS).then_some(wall_ms)
    }

    /// Remembers when the last incident began and ended.
    fn follow(&mut self, incidents: &[Incident], wall_ms: i64) {
        let worst = incidents.iter().find(|incident| incident.severity == Severity::Incident);
        match (worst, self.current.take()) {
            // Incidents without a healthy moment between them are one: it began with the first, and
            // is named after the cause that explains most.
            (Some(worst), Some(before)) => {
                let since_ms = before.since_ms;
                let told = if worst.kind < before.kind { worst.clone() } else { before };
                self.current = Some(Incident { since_ms, ..told });
            }
            (Some(worst), None) => self.current = Some(worst.clone()),
            (None, Some(over))
                if over.since_ms.is_some_and(|since| wall_ms.saturating_sub(since) < BRIEF_MS) => {}
            (None, Some(over)) => {
                self.ended = Some(EndedIncident {
                    since_ms: over.since_ms.unwrap_or(wall_ms),
                    until_ms: wall_ms,
                    kind: over.kind,
                    part: over.part,
                    title: over.title,
                });
            }
            (None, None) => {}
        }
        let is_old =
            |ended: &EndedIncident| wall_ms.saturating_sub(ended.until_ms) > ENDED_SHOWN_MS;
        if self.ended.as_ref().is_some_and(is_old) {
            self.ended = None;
        }
    }

    fn archivers(&self) -> impl Iterator<Item = &HeardService> {
        self.services.values().filter(|service| service.status.service == ARCHIVER)
    }

    /// The latest sums of the ledger, from any archiver.
    fn ledger(&self) -> Option<LedgerStatus> {
        let looks = self.archivers().filter_map(|it| it.status.archive.as_ref()?.ledger);
        looks.max_by_key(|ledger| ledger.checked_ms)
    }

    /// Every part, servers first.
    fn parts(&self, moment: &Moment) -> Vec<PipelinePart> {
        let hangs = self.hanging_since(moment).map(hanging);
        let nats = failing(&moment.own, NATS_PART).or(hangs.as_ref());
        let mut parts = vec![server(NATS, nats, true), self.postgres()];
        parts.push(part(&moment.own, false, true, moment.wall_ms));
        let is_heard = self.listening.is_some();
        let services = self.services.values();
        parts.extend(services.map(|it| part(&it.status, it.is_silent, is_heard, it.wall_ms)));
        if self.archivers().next().is_none() {
            let (state, since_ms) = match self.listening {
                Some((since_ms, wall_ms)) if moment.now_ms - since_ms > CONNECTING_MS => {
                    (PartState::Silent, Some(wall_ms))
                }
                Some(_) | None => (PartState::Unknown, None),
            };
            let detail = self.denial.clone().unwrap_or_default();
            let name = ARCHIVER.to_owned();
            parts.push(PipelinePart { name, state, since_ms, detail, ..PipelinePart::default() });
        }
        parts
    }

    /// The archive's server, as the archivers see it: only they use it all the time.
    fn postgres(&self) -> PipelinePart {
        let mut heard = self.archivers().filter(|it| !it.is_silent).peekable();
        let is_known = heard.peek().is_some() && self.listening.is_some();
        server(POSTGRES, heard.find_map(|it| failing(&it.status, POSTGRES_PART)), is_known)
    }
}

/// What a service reports about a part that fails.
fn failing<'a>(status: &'a ServiceStatus, name: &str) -> Option<&'a StatusPart> {
    status.parts.iter().find(|part| part.name == name && !part.standby)
}

/// The report about a broker that hangs.
fn hanging(since_ms: i64) -> StatusPart {
    StatusPart {
        name: NATS_PART.to_owned(),
        detail: "there is a connection, but nothing comes back over it".to_owned(),
        since_ms,
        standby: false,
    }
}

fn server(name: &str, failing: Option<&StatusPart>, is_known: bool) -> PipelinePart {
    let state = match failing {
        Some(_) => PartState::Failing,
        None if is_known => PartState::Well,
        None => PartState::Unknown,
    };
    PipelinePart {
        name: name.to_owned(),
        state,
        since_ms: failing.map(|part| part.since_ms),
        detail: failing.map(|part| part.detail.clone()).unwrap_or_default(),
        ..PipelinePart::default()
    }
}

fn part(status: &ServiceStatus, is_silent: bool, is_heard: bool, wall_ms: i64) -> PipelinePart {
    let failing: Vec<_> = status.parts.iter().filter(|part| !part.standby).collect();
    let standing_by = status.parts.iter().find(|part| part.standby);
    let told = |name: &str, detail: &str| format!("{name}: {detail}");
    let (state, since_ms, detail) = if status.ends {
        (PartState::Stopped, Some(wall_ms), String::new())
    } else if !is_heard {
        (PartState::Unknown, Some(wall_ms), String::new())
    } else if is_silent {
        (PartState::Silent, Some(wall_ms), String::new())
    } else if status.ready {
        (PartState::Well, None, String::new())
    } else if status.standby {
        let detail = standing_by.map(|part| part.detail.clone());
        (PartState::Standby, standing_by.map(|part| part.since_ms), detail.unwrap_or_default())
    } else {
        let details = failing.iter().map(|part| told(&part.name, &part.detail));
        let since_ms = failing.iter().map(|part| part.since_ms).min();
        (PartState::Failing, since_ms, details.collect::<Vec<_>>().join("; "))
    };
    PipelinePart {
        name: status.service.clone(),
        instance: status.instance.clone(),
        version: status.version.clone(),
        work: status.work.clone(),
        state,
        since_ms,
        detail,
    }
}

#[cfg(test)]
mod tests;
