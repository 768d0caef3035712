//! `lakegauge doctor`: checks servers, permissions and settings, and shows how to correct problems.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use bus::{Bus, BusError};
use clap::{ArgMatches, Command};
use domain::{ArchiveSide, BrokerSide, Rules, Stream};
use event_store::{ServerFacts, StoreError, StoreSettings};
use service_kit::{Clock, Setting, SettingProblem, Settings, settings::Recorded};

use crate::{
    addresses::{self, DatabaseLogin},
    command, identity, services,
    waiting::WaitingMessages,
};

/// Streams for readers and writers, and those of snapshots and pointers.
const STREAMS: &[&str] =
    &["LAKE_0", "WAREHOUSE_0", "TELEMETRY", "KV_LAKEGAUGE", "OBJ_LAKEGAUGE_SNAPSHOTS"];
/// A stream that is fuller than this will soon make producers wait.
const FULL_PERCENT: u64 = 80;
/// A database that is fuller than this will soon be read-only.
const DATABASE_FULL_PERCENT: u64 = 90;
/// Events per second of both simulators together by default.
const DEMO_PER_S_MAX: f64 = 20.0;
/// Bytes of an event in the archive at such rates, with windows and rollups (measured:
/// docs/supabase.md, section 6).
const EVENT_BYTES: f64 = 390.0;
/// How long a receiver may take to accept a connection.
const RECEIVER_WAIT: Duration = Duration::from_secs(2);
/// Oldest supported PostgreSQL: 15.0.
const POSTGRES_MIN: i32 = 150_000;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Check {
    /// It is as it should be.
    Good(String),
    /// It may be intended.
    Note(String),
    /// It is wrong; `todo` is how to correct it.
    Bad { what: String, todo: String },
}

fn bad(what: impl Into<String>, todo: impl Into<String>) -> Check {
    Check::Bad { what: what.into(), todo: todo.into() }
}

fn settings() -> Vec<Setting> {
    [bus::service::table(), event_store::service::table()].concat()
}

pub(crate) fn command() -> Command {
    let command = Command::new("doctor")
        .about("Check servers, permissions and settings, and show how to correct problems")
        .after_help(
            "Addresses that are not set are those of the `lakegauge up` that runs in --data-dir.\n\
             Exit status: 0 if nothing is wrong, 1 otherwise.",
        );
    command::of_tool(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Reader);
    let findings = command::block_on(async {
        let mut settings = given.settings()?;
        let bus = bus::service::load("doctor", &mut settings);
        let store = event_store::service::load_optional("lakegauge-doctor", &mut settings);
        let mut problems = problems(settings);
        let mut all = given.settings()?;
        services::load_everything(&mut all);
        let room = Room::load(&mut given.settings()?);
        for problem in self::problems(all) {
            // A missing setting is no mistake here, because not every service runs everywhere.
            if !problem.is_missing && !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let mut findings: Vec<Check> = problems.iter().map(of_problem).collect();
        if findings.is_empty() {
            findings.push(Check::Good("every setting can be read".to_owned()));
        }
        findings.extend(local::servers().into_iter().map(|tool| match tool {
            Ok(found) => Check::Good(found),
            Err(missing) => Check::Note(format!("{missing} (only `up` needs it)")),
        }));
        findings.extend(addresses::told().map(|told| Check::Note(told.to_owned())));
        if let Ok(bus) = &bus {
            findings.extend(of_nats(bus).await);
        }
        let receiver = collector::http::Config::load(&mut given.settings()?).ok();
        if let Some(receiver) = receiver.filter(collector::http::Config::is_set) {
            findings.extend(of_receiver(&receiver).await);
        }
        match store {
            Ok(Some(store)) => {
                findings.extend(of_postgres(&store, &room).await);
                if let Ok(bus) = &bus
                    && let Ok(bus) = Bus::connect(&bus.settings).await
                {
                    findings.push(of_identity(identity::compare(&bus, &store).await));
                    findings.extend(of_backlog(&bus, &store).await.unwrap_or_else(|error| {
                        vec![Check::Note(format!("waiting messages were not checked: {error}"))]
                    }));
                }
            }
            Ok(None) => findings.push(Check::Note(
                "PostgreSQL was not checked: DATABASE_URL is not set".to_owned(),
            )),
            Err(Recorded) => {}
        }
        Ok(findings)
    });
    command::report_status(findings.and_then(|findings| tell(&findings)))
}

/// Writes the findings. Returns whether none is bad.
fn tell(findings: &[Check]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut wrong = 0;
    for finding in findings {
        match finding {
            Check::Good(what) => writeln!(out, "ok    {what}")?,
            Check::Note(what) => writeln!(out, "note  {what}")?,
            Check::Bad { what, todo } => {
                wrong += 1;
                writeln!(out, "WRONG {what}\n      -> {todo}")?;
            }
        }
    }
    match wrong {
        0 => writeln!(out, "nothing is wrong")?,
        1 => writeln!(out, "one thing is wrong")?,
        _ => writeln!(out, "{wrong} things are wrong")?,
    }
    Ok(wrong == 0)
}

fn problems(settings: Settings<'_>) -> Vec<SettingProblem> {
    settings.finish().err().map(|problems| problems.0).unwrap_or_default()
}

fn of_problem(problem: &SettingProblem) -> Check {
    bad(format!("setting {problem}"), "`lakegauge settings` shows what each means")
}

async fn of_nats(config: &bus::service::BusConfig) -> Vec<Check> {
    let place = config.settings.shown_url();
    let bus = match Bus::connect(&config.settings).await {
        Ok(bus) => bus,
        Err(error) => {
            return vec![bad(
                format!("NATS: {error}"),
                "start it (`lakegauge up` has its own), or set NATS_URL and the login",
            )];
        }
    };
    let mut findings = vec![Check::Good(format!("NATS {} at {place}", bus.server_version()))];
    findings.push(of_payload(bus.max_payload(), bus.message_bytes_max()));
    for stream in STREAMS {
        let found = look(&bus, stream).await;
        if let (Err(BusError::NoAnswer { .. }), refused @ [_, ..]) = (&found, &*bus.denials()) {
            // Every other request would wait just as long.
            findings.extend(refused.iter().map(|denial| of_denial(denial)));
            break;
        }
        findings.push(match found {
            Ok(status) => of_stream(stream, &status),
            Err(BusError::NoStream { .. }) => {
                Check::Note(format!("stream {stream} does not exist; the services create it"))
            }
            Err(error) => bad(
                format!("stream {stream}: {error}"),
                "this login needs $JS.API.> and JetStream must be on",
            ),
        });
    }
    findings.extend(of_writing(&bus).await);
    findings
}

/// Checks whether the receiver of `lakegauge collect http` can work with its settings, and whether
/// it runs.
async fn of_receiver(config: &collector::http::Config) -> Vec<Check> {
    let mut findings = Vec::new();
    for wrong in [config.check(), config.check_token()] {
        if let Err(error) = wrong {
            findings.push(bad(
                format!("the receiver: {error:#}"),
                "`lakegauge collect http --help` shows what each setting means",
            ));
        }
    }
    match config.tls() {
        Ok(None) => {}
        Ok(Some(_)) => findings.push(Check::Good("the receiver has a certificate".to_owned())),
        Err(error) => findings.push(bad(
            format!("the receiver: {error:#}"),
            "give it both files in PEM, readable by the user that it runs as",
        )),
    }
    let address = config.http_addr();
    let connecting = tokio::net::TcpStream::connect(address);
    findings.push(match tokio::time::timeout(RECEIVER_WAIT, connecting).await {
        Ok(Ok(_)) => Check::Good(format!("a receiver listens at {address}")),
        Ok(Err(_)) | Err(_) => Check::Note(format!(
            "no receiver listens at {address} (COLLECT_HTTP_ADDR): `lakegauge collect http` does \
             not run on this machine"
        )),
    });
    findings
}

/// Checks whether the server writes to the streams: after its disk was full it stores nothing and
/// reports nothing.
async fn of_writing(bus: &Bus) -> Vec<Check> {
    let mut findings = Vec::new();
    for stream in STREAMS {
        match bus.write_error(stream).await {
            Ok(None) | Err(BusError::NoStream { .. }) => {}
            Ok(Some(error)) => findings.push(of_write_error(stream, &error)),
            // Every other request would fail too.
            Err(_) => {
                let what = "whether NATS can write to its disk was not checked: this login may \
                            not purge";
                return vec![Check::Note(what.to_owned())];
            }
        }
    }
    if findings.is_empty() {
        findings.push(Check::Good("NATS writes to every stream".to_owned()));
    }
    findings
}

/// How large a message may be. To a server with a smaller limit there is no connection.
fn of_payload(max_payload: usize, message_bytes_max: usize) -> Check {
    if message_bytes_max < wire::MESSAGE_BYTES_MAX {
        return Check::Note(format!(
            "NATS takes messages of at most {max_payload} bytes (max_payload): larger ones and pieces \
             of snapshots are cut to {message_bytes_max}, which is slower; max_payload: 1MB avoids \
             that"
        ));
    }
    Check::Good(format!("NATS takes messages of {max_payload} bytes (max_payload)"))
}

fn of_write_error(stream: &str, error: &str) -> Check {
    bad(
        format!("stream {stream} stores nothing: NATS can't write to it ({error})"),
        "free space on the disk of NATS, then restart nats-server: after a failed write a stream \
         stores nothing until then. Waiting messages are sent again by themselves",
    )
}

/// A stream, and whether its messages can be read one by one (`STREAM.MSG.GET`), which readers need
/// for a message that no client can read.
async fn look(bus: &Bus, stream: &str) -> Result<bus::StreamStatus, BusError> {
    let status = bus.stream(stream).await?;
    bus.first_after(stream, status.last_sequence.saturating_sub(1)).await?;
    Ok(status)
}

/// Messages that have waited too long to be archived or counted.
async fn of_backlog(bus: &Bus, store: &StoreSettings) -> anyhow::Result<Vec<Check>> {
    let now_us = Clock::system().now_us();
    let mut findings = Vec::new();
    for stream in Stream::of_partition(0) {
        let stream = stream.to_string();
        let archived = event_store::read_checkpoint(store, &stream).await?;
        let counted = bus.snapshots().pointer(&stream).await?.map(|(pointer, _)| pointer.mark);
        for (mark, done, part) in
            [(archived, "archived", "archiver"), (counted, "counted", "aggregator")]
        {
            let after = mark.map_or(0, |mark| mark.sequence);
            let waiting = WaitingMessages::look(bus, &stream, after, now_us).await?;
            findings.push(of_waiting(&stream, after, waiting, done, part));
        }
    }
    Ok(findings)
}

/// Whether broker and archive belong to one pipeline.
fn of_identity(compared: anyhow::Result<(Option<BrokerSide>, ArchiveSide)>) -> Check {
    match compared {
        Ok((Some(broker), archive)) if broker.archive.is_some() => Check::Good(format!(
            "broker and archive are one: pipeline {}, archive {}",
            broker.pipeline.id, archive.id
        )),
        Ok(_) => Check::Note(
            "broker and archive are not joined yet: the archiver's first start joins them"
                .to_owned(),
        ),
        Err(error) => match command::mismatch(&error) {
            Some(mismatch) if mismatch.is_adoptable() => bad(
                format!("broker and archive are not one pipeline: {mismatch}"),
                "point NATS_URL or DATABASE_URL at the one that belongs to the other",
            ),
            Some(mismatch) => {
                bad(format!("broker and archive don't fit: {mismatch}"), "see the text")
            }
            None => Check::Note(format!("broker and archive were not compared: {error:#}")),
        },
    }
}

fn of_waiting(
    stream: &str,
    after: u64,
    waiting: Option<WaitingMessages>,
    done: &str,
    part: &str,
) -> Check {
    match waiting {
        Some(WaitingMessages { messages, oldest_s })
            if waiting.is_some_and(|it| it.is_overdue()) =>
        {
            bad(
                format!(
                    "stream {stream}: {messages} messages wait behind message {after} to be {done}, \
                 the oldest for {oldest_s} s"
                ),
                format!(
                    "is the {part} running? /readyz?verbose of its admin port shows why it waits"
                ),
            )
        }
        Some(_) | None => Check::Good(format!("stream {stream}: all messages are {done}")),
    }
}

/// A missing permission, in the server's words.
fn of_denial(denial: &str) -> Check {
    let todo = if denial.contains("Subscription") {
        "answers can't arrive: set NATS_INBOX_PREFIX to the prefix that this user may subscribe to \
         (nats/accounts.conf), or permit this prefix to the user"
    } else {
        "permit that subject to this user in the server's configuration (nats/accounts.conf)"
    };
    bad(format!("NATS: {denial}"), todo)
}

fn of_stream(name: &str, status: &bus::StreamStatus) -> Check {
    let limit = u64::try_from(status.max_bytes).ok().filter(|limit| *limit > 0);
    let percent = limit.map(|limit| status.bytes.saturating_mul(100) / limit);
    if let Some(percent) = percent.filter(|percent| *percent >= FULL_PERCENT) {
        return bad(
            format!("stream {name} is {percent} % full: producers will have to wait"),
            "check whether archiver and aggregator run (/readyz of their admin ports); they trim \
             it. NATS_EVENT_STREAM_MAX_BYTES makes it larger",
        );
    }
    let is_event_stream = name.ends_with("_0");
    if is_event_stream && let Err(error) = Rules::from_metadata(&status.metadata) {
        return bad(format!("stream {name}: {error}"), "run a release that knows this rule");
    }
    let fill = percent.map_or_else(String::new, |percent| format!(", {percent} % full"));
    Check::Good(format!("stream {name}: {} messages{fill}", status.messages))
}

/// The settings that determine how soon a database is full.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Events per second of both simulators together.
    simulated_per_s: f64,
    /// The largest allowed size of the database, in bytes.
    limit_bytes: Option<u64>,
}

impl Room {
    /// Problems of these settings are reported elsewhere.
    fn load(settings: &mut Settings<'_>) -> Self {
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

async fn of_postgres(settings: &StoreSettings, room: &Room) -> Vec<Check> {
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
    fn what_waits_for_long_is_wrong_and_what_came_just_now_is_not() {
        let of = |oldest_s| {
            let waiting = Some(WaitingMessages { messages: 3, oldest_s });
            of_waiting("LAKE_0", 7, waiting, "archived", "archiver")
        };
        assert!(matches!(of(3), Check::Good(_)));
        assert!(matches!(of(300), Check::Bad { .. }));
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
