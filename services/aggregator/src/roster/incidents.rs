//! What is wrong with the pipeline, for people: each cause once, the worst first, with what to do.

use bus::status::{ServiceStatus, StatusPart};
use domain::ArchivedStream;
use service_kit::secret::LOGIN_REFUSED;

use super::{
    AGGREGATOR, ARCHIVER, CONNECTING_MS, Heard, HeardService, Moment, NATS, NATS_PART, POSTGRES,
    POSTGRES_PART, STARTING_MS, failing, hanging,
};
use crate::api::{Incident, IncidentKind, Severity};

/// Conditions of the aggregator that fail while it catches up; they are not reported as incidents.
const CATCHING_UP: [&str; 2] = ["started", "caught up"];
/// The condition of the archiver that fails while messages wait and none is committed.
const BACKLOG: &str = "backlog";

/// All that is wrong now.
pub(super) fn of(heard: &Heard, moment: &Moment) -> Vec<Incident> {
    // Without NATS no reports arrive, so it is not known what else may be wrong.
    if let Some(part) = failing(&moment.own, NATS_PART) {
        let kind = if is_refused(part) { IncidentKind::NatsLogin } else { IncidentKind::NatsDown };
        return vec![incident(kind, NATS, Some(part.since_ms), &part.detail)];
    }
    if let Some(part) = heard.hanging_since(moment).map(hanging) {
        return vec![incident(IncidentKind::NatsDown, NATS, Some(part.since_ms), &part.detail)];
    }
    let mut found = Vec::new();
    found.extend(of_postgres(heard));
    let is_explained = !found.is_empty();
    found.extend(of_archiver(heard, moment).filter(|_| !is_explained));
    for incident in &mut found {
        incident.waiting_messages = waiting(heard, moment);
    }
    found.extend(of_ledger(heard));
    found.extend(of_aggregator(heard, moment));
    found.extend(heard.services.values().filter_map(|it| of_source(it, moment)));
    found.extend(dead_letters(heard));
    found
}

fn incident(kind: IncidentKind, part: &str, since_ms: Option<i64>, detail: &str) -> Incident {
    let (title, todo) = kind.words();
    Incident {
        kind,
        severity: Severity::Incident,
        part: part.to_owned(),
        since_ms,
        waiting_messages: None,
        detail: detail.to_owned(),
        title: title.replace("{part}", part),
        todo: todo.to_owned(),
    }
}

fn is_refused(part: &StatusPart) -> bool {
    part.detail.starts_with(LOGIN_REFUSED)
}

/// PostgreSQL, as the reporting archivers see it.
fn of_postgres(heard: &Heard) -> Option<Incident> {
    let mut archivers = heard.archivers().filter(|it| !it.is_silent);
    let part = archivers.find_map(|it| failing(&it.status, POSTGRES_PART))?;
    let kind =
        if is_refused(part) { IncidentKind::PostgresLogin } else { IncidentKind::PostgresDown };
    Some(incident(kind, POSTGRES, Some(part.since_ms), &part.detail))
}

fn of_archiver(heard: &Heard, moment: &Moment) -> Option<Incident> {
    let Some(first) = heard.archivers().next() else {
        // No archiver ever reported, although there was enough time.
        let (since_ms, wall_ms) = heard.listening?;
        let detail = heard.denial.clone().unwrap_or_default();
        return (moment.now_ms - since_ms > CONNECTING_MS)
            .then(|| incident(IncidentKind::ArchiverSilent, ARCHIVER, Some(wall_ms), &detail));
    };
    let standing_by = heard.archivers().find(|it| !it.is_silent && stands_by_alone(heard, it));
    let gone = heard.archivers().find(|it| it.is_silent);
    if let Some(waits) = standing_by {
        let part = waits.status.parts.iter().find(|part| part.standby);
        let since_ms = gone.map(|it| it.wall_ms).or(part.map(|part| part.since_ms));
        let detail = part.map(|part| part.detail.as_str()).unwrap_or_default();
        return Some(incident(IncidentKind::StandbyOnly, ARCHIVER, since_ms, detail));
    }
    let it = gone.unwrap_or(first);
    if it.status.ends {
        return Some(incident(IncidentKind::ArchiverStopped, ARCHIVER, Some(it.wall_ms), ""));
    }
    if it.is_silent {
        let detail = last_word_of(it);
        return Some(incident(IncidentKind::ArchiverSilent, ARCHIVER, Some(it.wall_ms), &detail));
    }
    let troubled = heard
        .archivers()
        .find(|it| !it.status.ready && !it.status.standby && !it.is_starting(moment))?;
    let kind = if failing(&troubled.status, BACKLOG).is_some() {
        IncidentKind::ArchiverStalled
    } else {
        IncidentKind::ArchiverFailing
    };
    Some(of_parts(kind, ARCHIVER, &troubled.status))
}

impl HeardService {
    fn is_starting(&self, moment: &Moment) -> bool {
        moment.now_ms.saturating_sub(self.first_ms) < STARTING_MS
    }
}

/// Whether an archiver is on standby for a stream that no reporting archiver writes.
fn stands_by_alone(heard: &Heard, archiver: &HeardService) -> bool {
    let Some(archive) = &archiver.status.archive else { return false };
    let mut waits = archive.streams.iter().filter(|(_, stream)| stream.standby);
    waits.any(|(name, _)| {
        let mut archivers = heard.archivers().filter(|it| !it.is_silent);
        archivers.all(|it| {
            let stream = it.status.archive.as_ref().and_then(|archive| archive.streams.get(name));
            stream.is_none_or(|stream| stream.standby)
        })
    })
}

fn of_ledger(heard: &Heard) -> Option<Incident> {
    let ledger = heard.ledger().filter(|ledger| ledger.gaps > 0)?;
    let detail = format!("{} gaps", ledger.gaps);
    Some(incident(IncidentKind::LedgerGap, POSTGRES, Some(ledger.checked_ms), &detail))
}

fn of_aggregator(heard: &Heard, moment: &Moment) -> Option<Incident> {
    let own = &moment.own;
    if own.standby {
        let mut others =
            heard.services.values().filter(|it| it.status.service == AGGREGATOR && !it.is_silent);
        let part = own.parts.iter().find(|part| part.standby && !catches_up(part))?;
        let (since_ms, detail) = (Some(part.since_ms), part.detail.as_str());
        let kind = if others.any(|it| !it.status.standby) {
            IncidentKind::AggregatorStandby
        } else {
            IncidentKind::AggregatorWaits
        };
        let mut found = incident(kind, AGGREGATOR, since_ms, detail);
        if kind == IncidentKind::AggregatorStandby {
            found.severity = Severity::Note;
        }
        return Some(found);
    }
    // While the aggregator catches up, other conditions fail too, and need no report.
    let is_beginning = moment.now_ms < STARTING_MS || own.parts.iter().any(catches_up);
    (!is_beginning && own.parts.iter().any(|part| !part.standby))
        .then(|| of_parts(IncidentKind::AggregatorFailing, AGGREGATOR, own))
}

fn catches_up(part: &StatusPart) -> bool {
    CATCHING_UP.contains(&part.name.as_str())
}

fn last_word_of(it: &HeardService) -> String {
    format!("its last report came from {}", it.status.instance)
}

/// A service that publishes events: a simulator or a collector.
fn of_source(it: &HeardService, moment: &Moment) -> Option<Incident> {
    let status = &it.status;
    if [ARCHIVER, AGGREGATOR].contains(&status.service.as_str()) || status.ends {
        return None;
    }
    if it.is_silent {
        let (kind, since_ms) = (IncidentKind::SourceSilent, Some(it.wall_ms));
        return Some(incident(kind, &status.service, since_ms, &last_word_of(it)));
    }
    (!status.ready && !it.is_starting(moment))
        .then(|| of_parts(IncidentKind::SourceWaits, &status.service, status))
}

fn of_parts(kind: IncidentKind, name: &str, status: &ServiceStatus) -> Incident {
    let parts: Vec<_> = status.parts.iter().filter(|part| !part.standby).collect();
    let details: Vec<String> =
        parts.iter().map(|part| format!("{}: {}", part.name, part.detail)).collect();
    incident(kind, name, parts.iter().map(|part| part.since_ms).min(), &details.join("; "))
}

fn dead_letters(heard: &Heard) -> Option<Incident> {
    let open = heard.ledger()?.dead_letters_open;
    (open > 0).then(|| {
        let (kind, detail) = (IncidentKind::DeadLetters, open.to_string());
        Incident { severity: Severity::Note, ..incident(kind, ARCHIVER, None, &detail) }
    })
}

/// Messages that wait to be archived, as a reporting archiver counts them. Without such a report:
/// the messages between the archiver's last known position and the end of what this process has
/// counted or will count.
fn waiting(heard: &Heard, moment: &Moment) -> Option<u64> {
    let said = |name: &str| {
        let archivers = heard.archivers().filter(|it| !it.is_silent);
        let streams = archivers.filter_map(|it| it.status.archive.as_ref()?.streams.get(name));
        streams.filter(|stream| !stream.standby).find_map(|stream| stream.lag_messages)
    };
    let stood_at = |name: &str| {
        let streams =
            heard.archivers().filter_map(|it| it.status.archive.as_ref()?.streams.get(name));
        streams.map(|stream| stream.position).max()
    };
    let mut waits = None;
    for (stream, health) in &moment.streams {
        let name = ArchivedStream::Events(*stream).to_string();
        let reached = health.position.saturating_add(health.lag_messages);
        let of_stream = said(&name)
            .or_else(|| stood_at(&name).map(|position| reached.saturating_sub(position)));
        if let Some(messages) = of_stream {
            waits = Some(waits.unwrap_or(0_u64).saturating_add(messages));
        }
    }
    waits
}
