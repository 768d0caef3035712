//! What the doctor checks of PostgreSQL.

use event_store::{ServerFacts, StoreError, StoreSettings};
use service_kit::Settings;

use super::check::{Check, bad};

/// A database that is fuller than this will soon be read-only.
const DATABASE_FULL_PERCENT: u64 = 90;
/// Events per second of both simulators together by default.
const DEMO_PER_S_MAX: f64 = 20.0;
/// Bytes of an event in the archive at such rates, with windows and rollups (measured:
/// docs/supabase.md, section 6).
const EVENT_BYTES: f64 = 390.0;
/// Oldest supported PostgreSQL: 15.0.
const POSTGRES_MIN: i32 = 150_000;

/// The settings that determine how soon a database is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Events per second of both simulators together.
    simulated_per_s: f64,
    /// The largest allowed size of the database, in bytes.
    limit_bytes: Option<u64>,
}

impl Room {
    /// Problems of these settings are reported elsewhere.
    pub(super) fn load(settings: &mut Settings<'_>) -> Self {
        let lake = simulator::lake::Config::load(settings).map(|lake| lake.common.rate.per_s);
        let warehouse = simulator::warehouse::Config::load(settings);
        let warehouse = warehouse.map(|warehouse| warehouse.common.rate.per_s);
        let archiver = archiver::Config::load(settings);
        Self {
            simulated_per_s: lake.unwrap_or_default() + warehouse.unwrap_or_default(),
            limit_bytes: archiver.ok().and_then(|archiver| archiver.database_limit_bytes()),
        }
    }
}

/// How long the space of a database lasts, if it is remote or has a limit.
fn of_room(room: &Room, is_remote: bool, bytes: u64) -> Vec<Check> {
    let mut findings = Vec::new();
    if let Some(limit) = room.limit_bytes {
        let percent = u128::from(bytes) * 100 / u128::from(limit.max(1));
        let what = format!("the database has {bytes} of {limit} bytes ({percent} %)");
        findings.push(if percent >= u128::from(DATABASE_FULL_PERCENT) {
            bad(what, "drop old days (retention_days in NATS_STREAM_RULES), or allow more space")
        } else {
            Check::Good(what)
        });
    }
    if is_remote && room.simulated_per_s > DEMO_PER_S_MAX {
        let gigabytes = room.simulated_per_s * 86_400.0 * EVENT_BYTES / 1e9;
        findings.push(Check::Note(format!(
            "simulators are set to {} events/s together (SIMULATE_LAKE_RATE, \
             SIMULATE_WAREHOUSE_RATE): with them, this remote database grows by about \
             {gigabytes:.1} GB per day; Supabase's free plan ends at 0.5 GB",
            room.simulated_per_s
        )));
    }
    findings
}

pub(super) async fn of_postgres(settings: &StoreSettings, room: &Room) -> Vec<Check> {
    let mut findings: Vec<Check> = settings.raised_tls().map(Check::Note).into_iter().collect();
    let facts = match event_store::inspect(settings).await {
        Ok(facts) => facts,
        Err(error) => {
            let todo = if matches!(error, StoreError::Version(_)) {
                "set DATABASE_URL to that database"
            } else {
                "start it, or set DATABASE_URL to the direct address or the session pooler"
            };
            findings.push(bad(format!("PostgreSQL: {error}"), todo));
            return findings;
        }
    };
    findings.extend(of_server(&facts, &settings.place()));
    findings.extend(of_room(room, settings.is_remote(), facts.database_bytes));
    findings.push(match event_store::check_version(settings).await {
        Ok(()) => Check::Good("the database has every migration".to_owned()),
        Err(error) => {
            let todo = if matches!(error, StoreError::NotOurs(_)) {
                "or set DATABASE_URL to another database"
            } else {
                "run `lakegauge migrate` with the owner's address in MIGRATION_DATABASE_URL"
            };
            bad(format!("migrations: {error}"), todo)
        }
    });
    findings
}

fn of_server(facts: &ServerFacts, place: &str) -> Vec<Check> {
    let release = format!("{}.{}", facts.version / 10_000, facts.version % 10_000);
    let mut findings = vec![if facts.version >= POSTGRES_MIN {
        Check::Good(format!("PostgreSQL {release} at {place} as {}", facts.user))
    } else {
        bad(format!("PostgreSQL {release} at {place}"), "use 15 or newer")
    }];
    let is = |name: &str| facts.settings.get(name).map(String::as_str).unwrap_or_default();
    for name in ["fsync", "full_page_writes"] {
        if is(name) != "on" {
            findings.push(bad(
                format!("{name} is {}: a crash of the machine can destroy the archive", is(name)),
                format!("alter system set {name} = on"),
            ));
        }
    }
    if is("synchronous_commit") == "off" {
        findings.push(Check::Note(
            "synchronous_commit is off by default; our sessions turn it on".to_owned(),
        ));
    }
    if is("default_transaction_read_only") == "on" {
        findings.push(bad(
            "the database is read-only",
            "connect to the primary, or free disk space (Supabase sets this when it is full)",
        ));
    }
    findings.push(match (facts.may_write, facts.may_read) {
        (true, _) => Check::Good(format!("{} may write the archive", facts.user)),
        (false, true) => Check::Note(format!(
            "{} may read the archive, but not write it: enough for all but the archiver",
            facts.user
        )),
        (false, false) => bad(
            format!("{} may neither write nor read the archive", facts.user),
            "after `lakegauge migrate`: grant lakegauge_archiver (or lakegauge_reader) to it",
        ),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn facts(settings: &[(&str, &str)]) -> ServerFacts {
        let mut all = BTreeMap::from([("fsync", "on"), ("full_page_writes", "on")]);
        all.extend(settings.iter().copied());
        ServerFacts {
            version: 150_014,
            user: "archiver".to_owned(),
            may_write: true,
            may_read: true,
            database_bytes: 9_000_000,
            settings: all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    }

    fn wrong(facts: &ServerFacts) -> usize {
        let is_bad = |finding: &Check| matches!(finding, Check::Bad { .. });
        of_server(facts, "h:5432/d").iter().filter(|finding| is_bad(finding)).count()
    }

    #[test]
    fn a_server_that_is_fit_has_nothing_wrong() {
        assert_eq!(wrong(&facts(&[])), 0);
    }

    #[test]
    fn a_remote_database_that_simulators_would_fill_is_said_and_a_full_one_is_wrong() {
        let demo = Room { simulated_per_s: 20.0, limit_bytes: None };
        assert_eq!(of_room(&demo, true, 1), []);
        let fast = Room { simulated_per_s: 500.0, ..demo };
        assert_eq!(of_room(&fast, false, 1), []);
        let [Check::Note(said)] = &of_room(&fast, true, 1)[..] else { panic!("one note") };
        assert!(said.contains("500 events/s") && said.contains("16.8 GB per day"), "{said}");
        let limited = Room { limit_bytes: Some(1_000), ..demo };
        assert!(matches!(of_room(&limited, false, 899)[..], [Check::Good(_)]));
        assert!(matches!(of_room(&limited, false, 900)[..], [Check::Bad { .. }]));
    }

    #[test]
    fn what_would_lose_data_is_wrong() {
        assert_eq!(wrong(&facts(&[("fsync", "off")])), 1);
        assert_eq!(wrong(&facts(&[("full_page_writes", "off")])), 1);
        assert_eq!(wrong(&facts(&[("default_transaction_read_only", "on")])), 1);
        assert_eq!(wrong(&ServerFacts { version: 140_000, ..facts(&[]) }), 1);
        assert_eq!(wrong(&ServerFacts { may_write: false, may_read: false, ..facts(&[]) }), 1);
    }
}
