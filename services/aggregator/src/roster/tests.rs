use bus::status::{ArchiveStatus, ArchivedStreamStatus, StatusPart};

use super::*;
use crate::api::IncidentKind;

const LAKE: &str = "LAKE_0";

fn status(service: &str, instance: &str) -> ServiceStatus {
    ServiceStatus {
        service: service.to_owned(),
        instance: instance.to_owned(),
        work: "0".to_owned(),
        ready: true,
        ..ServiceStatus::default()
    }
}

fn archiver(instance: &str, standby: bool, position: u64) -> ServiceStatus {
    let stream = ArchivedStreamStatus {
        standby,
        lag_messages: Some(3),
        position,
        ..ArchivedStreamStatus::default()
    };
    let archive =
        ArchiveStatus { streams: [(LAKE.to_owned(), stream)].into(), ..ArchiveStatus::default() };
    let part = StatusPart {
        name: "archive".to_owned(),
        detail: "LAKE_0: waiting for the lock that a:1 holds".to_owned(),
        since_ms: 5,
        standby: true,
    };
    ServiceStatus {
        ready: !standby,
        standby,
        parts: if standby { vec![part] } else { Vec::new() },
        archive: Some(archive),
        ..status(ARCHIVER, instance)
    }
}

fn failing_part(name: &str, detail: &str, since_ms: i64) -> Vec<StatusPart> {
    vec![StatusPart { name: name.to_owned(), detail: detail.to_owned(), since_ms, standby: false }]
}

/// A moment `now_ms` milliseconds after the start, at which this process is healthy.
fn moment(now_ms: u64) -> Moment {
    let health = HealthNumbers { position: 90, lag_messages: 10, ..HealthNumbers::default() };
    Moment {
        now_ms,
        wall_ms: wall(now_ms),
        own: status(AGGREGATOR, "page:1"),
        streams: vec![(Stream::lake(0), health)],
    }
}

fn wall(now_ms: u64) -> i64 {
    1_000_000 + i64::try_from(now_ms).unwrap()
}

/// The incidents after these services have reported this for a while, and `later_ms` after the last
/// report.
fn wrong(heard: &[ServiceStatus], later_ms: u64) -> Vec<Incident> {
    let roster = Roster::new();
    for status in heard {
        roster.heard(status.clone(), 0, wall(0));
    }
    roster.look(&moment(0));
    for status in heard {
        roster.heard(status.clone(), 20_000, wall(20_000));
    }
    roster.look(&moment(20_000 + later_ms)).incidents
}

fn kinds(incidents: &[Incident]) -> Vec<IncidentKind> {
    incidents.iter().map(|incident| incident.kind).collect()
}

fn states(roster: &Roster, moment: &Moment) -> Vec<(String, PartState)> {
    roster.look(moment).parts.into_iter().map(|part| (part.name, part.state)).collect()
}

#[test]
fn a_pipeline_whose_parts_all_speak_has_nothing_wrong() {
    let heard = [archiver("a:1", false, 50), status("lake-simulator", "a:2")];
    assert_eq!(wrong(&heard, 3_999), []);
}

#[test]
fn who_is_not_heard_of_is_told_within_five_seconds_with_since_when_and_how_many_wait() {
    let heard = [archiver("a:1", false, 50), status("lake-simulator", "a:2")];
    let found = wrong(&heard, 4_001);
    assert_eq!(kinds(&found), [IncidentKind::ArchiverSilent, IncidentKind::SourceSilent]);
    assert_eq!(found[0].since_ms, Some(wall(20_000)));
    // The archiver was at 50, and what is counted or will be reaches to 100.
    assert_eq!(found[0].waiting_messages, Some(50));
    assert_eq!(found[1].title, "No reports come from lake-simulator");
}

#[test]
fn an_archiver_that_never_spoke_is_missed_once_there_was_time() {
    let roster = Roster::new();
    assert_eq!(kinds(&roster.look(&moment(0)).incidents), []);
    let unknown = (ARCHIVER.to_owned(), PartState::Unknown);
    assert!(states(&roster, &moment(CONNECTING_MS)).contains(&unknown));
    roster.denied(Some("Permissions Violation".to_owned()));
    let found = roster.look(&moment(CONNECTING_MS + 1)).incidents;
    assert_eq!(kinds(&found), [IncidentKind::ArchiverSilent]);
    assert_eq!(
        (found[0].since_ms, found[0].detail.as_str()),
        (Some(wall(0)), "Permissions Violation")
    );
}

#[test]
fn without_nats_only_that_is_told_and_afterwards_everybody_has_time_to_come_back() {
    let roster = Roster::new();
    roster.heard(archiver("a:1", false, 50), 1_000, wall(1_000));
    roster.look(&moment(1_500));
    let mut away = moment(30_000);
    away.own.parts = failing_part(NATS_PART, "no connection since …", 7);
    let view = roster.look(&away);
    assert_eq!(kinds(&view.incidents), [IncidentKind::NatsDown]);
    assert_eq!(view.incidents[0].since_ms, Some(7));
    let unknown = [POSTGRES, ARCHIVER];
    assert!(
        view.parts
            .iter()
            .filter(|it| unknown.contains(&it.name.as_str()))
            .all(|it| it.state == PartState::Unknown)
    );
    assert_eq!(kinds(&roster.look(&moment(31_000)).incidents), [], "it is back");
    let later = roster.look(&moment(31_001 + CONNECTING_MS)).incidents;
    assert_eq!(kinds(&later), [IncidentKind::ArchiverSilent]);
    away.own.parts = failing_part(NATS_PART, "login refused since … (…): …", 7);
    assert_eq!(kinds(&roster.look(&away).incidents), [IncidentKind::NatsLogin]);
}

#[test]
fn a_broker_that_hangs_is_told_from_services_that_do() {
    let roster = Roster::new();
    let own = || moment(0).own;
    roster.heard(own(), 0, wall(0));
    roster.heard(archiver("a:1", false, 50), 0, wall(0));
    roster.look(&moment(0));
    assert_eq!(roster.look(&moment(4_000)).incidents, []);
    // No report arrives, not even our own.
    let view = roster.look(&moment(4_001));
    assert_eq!(kinds(&view.incidents), [IncidentKind::NatsDown]);
    assert_eq!(
        (view.incidents[0].since_ms, view.parts[0].state),
        (Some(wall(0)), PartState::Failing)
    );
    roster.heard(own(), 5_000, wall(5_000));
    assert_eq!(
        roster.look(&moment(5_000)).incidents,
        [],
        "it answers, and all have time to come back"
    );
    roster.heard(own(), 18_000, wall(18_000));
    assert_eq!(kinds(&roster.look(&moment(18_000)).incidents), [IncidentKind::ArchiverSilent]);
}

#[test]
fn who_begins_has_a_moment_until_it_is_ready() {
    let mut begins = archiver("a:1", false, 0);
    begins.ready = false;
    begins.parts = failing_part("backlog", "nobody has said yet", 1);
    let roster = Roster::new();
    roster.heard(begins.clone(), 0, 0);
    roster.heard(begins, 3_999, 0);
    assert_eq!(roster.look(&moment(3_999)).incidents, []);
    assert_eq!(kinds(&roster.look(&moment(4_000)).incidents), [IncidentKind::ArchiverStalled]);
}

#[test]
fn postgres_that_is_away_explains_what_the_archiver_can_not_do() {
    let mut told = archiver("a:1", false, 50);
    told.ready = false;
    told.parts = failing_part("archive", "LAKE_0: batch not committed", 8);
    assert_eq!(kinds(&wrong(&[told.clone()], 0)), [IncidentKind::ArchiverFailing]);
    told.parts.extend(failing_part(POSTGRES_PART, "no connection since …", 9));
    let found = wrong(&[told.clone()], 0);
    assert_eq!(kinds(&found), [IncidentKind::PostgresDown]);
    assert_eq!(
        (found[0].since_ms, found[0].waiting_messages),
        (Some(9), Some(3)),
        "as it says itself"
    );
    told.parts = failing_part(POSTGRES_PART, "login refused since … (…): …", 9);
    assert_eq!(kinds(&wrong(&[told.clone()], 0)), [IncidentKind::PostgresLogin]);
    told.parts = failing_part("backlog", "LAKE_0: 9 messages wait", 9);
    let found = wrong(&[told], 0);
    assert_eq!(kinds(&found), [IncidentKind::ArchiverStalled]);
    assert_eq!(found[0].detail, "backlog: LAKE_0: 9 messages wait");
}

#[test]
fn another_of_the_same_work_stands_in_and_one_that_only_waits_does_not() {
    let (first, second) = (archiver("a:1", false, 50), archiver("b:1", true, 0));
    let roster = Roster::new();
    roster.look(&moment(0));
    roster.heard(first, 20_000, wall(20_000));
    roster.heard(second, 20_000, wall(20_000));
    assert_eq!(roster.look(&moment(20_000)).incidents, []);
    // The first is gone and still holds its lock.
    roster.heard(archiver("b:1", true, 0), 25_000, wall(25_000));
    let found = roster.look(&moment(25_000)).incidents;
    assert_eq!(kinds(&found), [IncidentKind::StandbyOnly]);
    assert_eq!(found[0].since_ms, Some(wall(20_000)), "since the first was heard");
    assert!(found[0].detail.contains("a:1 holds"), "{:?}", found[0]);
    // The second takes over, so the first is not missed any more.
    roster.heard(archiver("b:1", false, 60), 26_000, wall(26_000));
    assert_eq!(roster.look(&moment(26_000)).incidents, []);
    let archivers =
        states(&roster, &moment(26_000)).into_iter().filter(|(name, _)| name == ARCHIVER);
    assert_eq!(archivers.count(), 1);
}

#[test]
fn a_source_that_says_farewell_is_forgotten_and_an_archiver_that_does_is_not() {
    let farewell = |status: ServiceStatus| ServiceStatus { ends: true, ready: false, ..status };
    let heard = [farewell(archiver("a:1", false, 50)), farewell(status("lake-simulator", "a:2"))];
    assert_eq!(kinds(&wrong(&heard, 0)), [IncidentKind::ArchiverStopped]);
    let roster = Roster::new();
    roster.look(&moment(0));
    roster.heard(status("lake-simulator", "a:2"), 20_000, wall(20_000));
    roster.heard(archiver("a:1", false, 50), 20_000 + FORGOTTEN_AFTER_MS, 0);
    let late = roster.look(&moment(20_000 + FORGOTTEN_AFTER_MS));
    assert_eq!(kinds(&late.incidents), [], "it was taken away for good");
}

#[test]
fn the_ledger_is_told_and_its_gaps_and_open_letters() {
    let found = |gaps, dead_letters_open| {
        let mut told = archiver("a:1", false, 50);
        let ledger =
            LedgerStatus { checked_ms: 4, gaps, dead_letters_open, ..LedgerStatus::default() };
        told.archive.as_mut().unwrap().ledger = Some(ledger);
        let roster = Roster::new();
        roster.heard(told, 0, 0);
        roster.look(&moment(0))
    };
    let well = found(0, 15);
    assert_eq!(kinds(&well.incidents), [IncidentKind::DeadLetters]);
    assert_eq!(
        (well.incidents[0].severity, well.incidents[0].detail.as_str()),
        (Severity::Note, "15")
    );
    assert!(well.ledger.unwrap().well);
    let gap = found(1, 0);
    assert_eq!(kinds(&gap.incidents), [IncidentKind::LedgerGap]);
    assert!(!gap.ledger.unwrap().well);
}

#[test]
fn this_process_tells_what_it_can_not_do_unless_it_only_catches_up() {
    let own = |parts: Vec<StatusPart>, standby| {
        let roster = Roster::new();
        roster.heard(archiver("a:1", false, 50), STARTING_MS, 0);
        let own = ServiceStatus { ready: false, standby, parts, ..status(AGGREGATOR, "page:1") };
        roster.look(&Moment { own, ..moment(STARTING_MS) }).incidents
    };
    let mut catches_up = failing_part("caught up", "reading", 1);
    catches_up.extend(failing_part("backlog", "the position was not found yet", 1));
    assert_eq!(own(catches_up, false), []);
    let failing = own(failing_part("snapshot", "not stored", 1), false);
    assert_eq!(kinds(&failing), [IncidentKind::AggregatorFailing]);
    let mut waits = failing_part("owner", "waiting for another", 1);
    waits[0].standby = true;
    assert_eq!(kinds(&own(waits.clone(), true)), [IncidentKind::AggregatorWaits]);
    let roster = Roster::new();
    roster.heard(archiver("a:1", false, 50), 0, 0);
    roster.heard(status(AGGREGATOR, "owner:1"), 0, 0);
    let own =
        ServiceStatus { ready: false, standby: true, parts: waits, ..status(AGGREGATOR, "page:1") };
    let found = roster.look(&Moment { own, ..moment(0) }).incidents;
    assert_eq!(
        (kinds(&found), found[0].severity),
        (vec![IncidentKind::AggregatorStandby], Severity::Note)
    );
}

#[test]
fn an_incident_that_is_over_is_told_with_its_span_for_an_hour() {
    let roster = Roster::new();
    let mut told = archiver("a:1", false, 50);
    told.ready = false;
    told.parts = failing_part("archive", "LAKE_0: batch not committed", wall(500));
    roster.heard(archiver("a:1", false, 50), 0, wall(0));
    roster.heard(told.clone(), 5_000, wall(5_000));
    assert_eq!(kinds(&roster.look(&moment(5_000)).incidents), [IncidentKind::ArchiverFailing]);
    // The cause is reported later.
    told.parts.extend(failing_part(POSTGRES_PART, "no connection since …", wall(900)));
    roster.heard(told, 6_000, wall(6_000));
    assert_eq!(roster.look(&moment(6_000)).last_incident, None, "it is not over");
    roster.heard(archiver("a:1", false, 60), 7_000, wall(7_000));
    let ended = roster.look(&moment(7_000)).last_incident.unwrap();
    let span = (ended.kind, ended.since_ms, ended.until_ms);
    assert_eq!(span, (IncidentKind::PostgresDown, wall(500), wall(7_000)));
    let mut brief = archiver("a:1", false, 60);
    brief.ready = false;
    brief.parts = failing_part("archive", "LAKE_0: batch not committed", wall(7_500));
    roster.heard(brief, 7_500, wall(7_500));
    roster.look(&moment(7_500));
    roster.heard(archiver("a:1", false, 60), 8_000, wall(8_000));
    assert_eq!(roster.look(&moment(8_000)).last_incident, Some(ended), "a hiccup is not told");
    let hour = u64::try_from(ENDED_SHOWN_MS).unwrap();
    roster.heard(archiver("a:1", false, 60), 7_000 + hour, 0);
    assert!(roster.look(&moment(7_000 + hour)).last_incident.is_some());
    assert_eq!(roster.look(&moment(7_001 + hour)).last_incident, None);
}

#[test]
fn services_are_remembered_within_a_bound() {
    let roster = Roster::new();
    for number in 0..200_u64 {
        roster.heard(status("lake-simulator", &number.to_string()), number, 0);
    }
    assert_eq!(roster.lock().services.len(), SERVICES_MAX);
    assert!(roster.lock().services.values().all(|service| service.at_ms >= 136), "the newest");
}

#[test]
fn every_kind_has_a_name_and_words_of_its_own() {
    let mut titles: Vec<&str> = IncidentKind::ALL.iter().map(|kind| kind.words().0).collect();
    titles.sort_unstable();
    titles.dedup();
    assert_eq!(titles.len(), IncidentKind::ALL.len());
    assert_eq!(IncidentKind::PostgresDown.name(), "postgres_down");
}
