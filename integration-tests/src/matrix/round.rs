//! One round: a pipeline from empty servers through faults under load to rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use domain::{EventId, Side};
use serde_json::{Value, json};
use service_kit::Clock;

use crate::matrix::faults::{Fault, Schedule, Server, Step};
use crate::matrix::ledger::Ledger;
use crate::matrix::passwords::Passwords;
use crate::matrix::points::{Needs, Point};
use crate::matrix::producer::Producer;
use crate::matrix::watch::Watch;
use crate::nats::{NatsServer, Profile};
use crate::pipeline::{Networks, Part, Pipeline, STREAMS, SimulatedRun};
use crate::process::Process;
use crate::proxy::{Proxy, Weather};
use crate::raw_nats::RawNats;
use crate::unreadable;
use crate::waiting::until;

/// Settings of the services: every wait is short, so that a stopped process outlasts them all, and
/// streams are trimmed as far as they may be.
const SETTINGS: [(&str, &str); 10] = [
    ("NATS_CONNECT_TIMEOUT_MS", "1000"),
    ("NATS_REQUEST_TIMEOUT_MS", "1000"),
    ("NATS_PING_INTERVAL_MS", "500"),
    ("DATABASE_CONNECT_TIMEOUT_MS", "1000"),
    ("DATABASE_STATEMENT_TIMEOUT_MS", "2500"),
    ("DATABASE_LOCK_TIMEOUT_MS", "500"),
    // Above every pause of a fault.
    ("STALLED_AFTER_MS", "5000"),
    ("ARCHIVER_STREAM_KEEP_S", "0"),
    ("ARCHIVER_BATCH_EVENTS_MAX", "5000"),
    // So few ids that late ones are too old to judge: verdicts are on their way all the time.
    ("NATS_STREAM_RULES", "sample_interval_s=1;derived_ids_max=500;windows=10s,60s,3600s"),
];
/// The same for the broker: what it waits for a client that does not answer.
const NATS_WAITS: &str = "\nping_interval: \"500ms\"\nping_max: 2\nwrite_deadline: \"1s\"\n";
/// What the broker takes in its configuration, and what it takes for a while: snapshots are larger.
const USUAL_PAYLOAD: &str = "max_payload: 1MB";
const SMALL_PAYLOAD: &str = "max_payload: 64KB";
/// How long a network takes for each piece when it is slow.
const SLOW: Duration = Duration::from_millis(30);
/// How long a process may take to come by a fail point before it is killed elsewhere.
const POINT_MAX: Duration = Duration::from_secs(5);
/// The same where it must come by, on a machine however busy.
const POINT_PATIENCE: Duration = Duration::from_secs(120);
/// How long the one that was replaced is watched after it came back, and how long a second one
/// lives on alone after the first was killed.
const TOGETHER: Duration = Duration::from_millis(1_000);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// What a round is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// How long faults come.
    pub load_for: Duration,
    /// Events per second of the test's own producer.
    pub rate: u64,
    /// Events per second of each of the product's simulators.
    pub simulated_rate: u64,
}

/// A pipeline at rest after its faults, and what is known of what was sent.
#[derive(Debug)]
pub struct Rested {
    /// At rest.
    pub pipeline: Pipeline,
    /// What the test's own producer sent.
    pub ledger: Ledger,
    /// What the simulators that ended well expect: side, first and last id, expectation.
    pub expected: Vec<(Side, (EventId, EventId), Value)>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Scrapes that were answered.
    pub scrapes: u64,
    _networks: Networks,
    /// The files that the tools of the laws log in with.
    _passwords: Passwords,
}

/// Runs a round with the faults of its seed.
///
/// # Errors
///
/// A service ended by itself, the order of effects was broken, a counter went back, or the pipeline
/// does not come to rest.
pub async fn run(plan: Plan) -> Result<Rested> {
    let clock = Clock::system();
    let mut round = Round::start(plan, &[]).await?;
    let end = clock.monotonic() + plan.load_for;
    for step in Schedule::new(plan.seed) {
        if clock.monotonic() >= end {
            break;
        }
        if let Err(error) = round.step(&step).await {
            let logs = keep_logs(round.pipeline.folder(), plan.seed);
            return Err(error.context(format!("{step:?}")).context(logs));
        }
    }
    round.finish().await
}

/// Keeps what the services of a seed's round wrote, and says where.
pub fn keep_logs(folder: &Path, seed: u64) -> String {
    let kept = std::env::temp_dir().join(format!("lakegauge-torture-{seed}"));
    let copied = Command::new("cp").arg("-r").arg(folder).arg(&kept).status();
    format!("logs of seed {seed}: {} ({copied:?})", kept.display())
}

/// Runs a round in which the services are killed once at each of these fail points, in this order.
///
/// # Errors
///
/// As [`run`]; or a point was not passed.
pub async fn run_points(plan: Plan, points: &[(Point, u64)]) -> Result<Rested> {
    let (first, under_load): (Vec<_>, Vec<_>) =
        points.iter().copied().partition(|(point, _)| point.needs == Needs::FirstStart);
    let mut round = Round::start(plan, &first).await?;
    for (point, passing) in &under_load {
        let missed =
            round.kill_at(point, *passing, POINT_PATIENCE).await.with_context(|| point.name)?;
        if let Some(said) = missed {
            bail!("fail point {} was not passed {passing} times:\n{said}", point.name);
        }
        round.note("killed at a fail point");
    }
    round.finish().await
}

/// A round that is going on.
struct Round {
    pipeline: Pipeline,
    networks: Networks,
    passwords: Passwords,
    producer: Producer,
    simulators: BTreeMap<Side, SimulatedRun>,
    watch: Watch,
    plan: Plan,
    runs: u32,
    /// Messages so far that no client can read.
    unreadable: u64,
    /// Those beside the first, with their parts.
    seconds: Vec<(Part, Process)>,
    faults: BTreeMap<&'static str, u64>,
}

impl Round {
    /// The services are killed at these fail points before they are started for good.
    async fn start(plan: Plan, first: &[(Point, u64)]) -> Result<Self> {
        let passwords = Passwords::new()?;
        let nats = NatsServer::start_local_with(Profile::Development, |config| {
            passwords.of_nats()(config + NATS_WAITS)
        })
        .await?;
        let mut pipeline = Pipeline::start_on(nats, &SETTINGS).await?;
        let networks = pipeline.behind_networks().await?;
        passwords.give(&mut pipeline, &networks)?;
        for (point, passing) in first {
            pipeline.run_with(point.part, &armed(point, *passing))?;
            if let Some(said) = killed(&mut pipeline, point, POINT_PATIENCE).await? {
                bail!("fail point {} was not passed:\n{said}", point.name);
            }
        }
        for part in [Part::Archiver, Part::Aggregator] {
            pipeline.run(part)?;
        }
        until("first scrape", async || Ok(pipeline.four()?.is_some())).await?;
        witness(pipeline.nats.port()).await?;
        let watch = Watch::start(
            pipeline.nats.port(),
            pipeline.database.archiver(),
            pipeline.metrics_port(),
            [
                (Part::Aggregator, pipeline.part(Part::Aggregator)?.admin_port()),
                (Part::Archiver, pipeline.part(Part::Archiver)?.admin_port()),
            ],
        );
        let bus = pipeline.bus_at(networks.nats.port()).await?;
        let producer = Producer::start(&bus, plan.seed, plan.rate);
        let mut round = Self {
            pipeline,
            networks,
            passwords,
            producer,
            simulators: BTreeMap::new(),
            watch,
            plan,
            runs: 0,
            unreadable: 0,
            seconds: Vec::new(),
            faults: BTreeMap::new(),
        };
        first.iter().for_each(|_| round.note("killed at a fail point"));
        for side in [Side::Lake, Side::Warehouse] {
            round.simulate(side)?;
        }
        Ok(round)
    }

    /// Another run of a simulator; the one before is killed.
    fn simulate(&mut self, side: Side) -> Result<()> {
        self.runs += 1;
        drop(self.simulators.remove(&side));
        let run = self.pipeline.simulate_numbered(side, self.runs, self.plan.simulated_rate)?;
        self.simulators.insert(side, run);
        Ok(())
    }

    fn note(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        tokio::time::sleep(step.wait).await;
        for fault in &step.faults {
            self.note(fault.kind());
            self.begin(fault).await?;
        }
        tokio::time::sleep(step.hold).await;
        for fault in step.faults.iter().rev() {
            self.end(fault).await?;
        }
        self.nobody_ended()
    }

    /// No service ended by itself: each waits for what it needs, whatever happens.
    fn nobody_ended(&mut self) -> Result<()> {
        for part in [Part::Archiver, Part::Aggregator] {
            if let Some(said) = self.pipeline.take_ended(part)? {
                bail!(said);
            }
        }
        Ok(())
    }

    async fn begin(&mut self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Kill(part) => self.pipeline.kill(*part)?,
            Fault::KillAt(point, passing) => {
                let _missed_and_killed_elsewhere = self.kill_at(point, *passing, POINT_MAX).await?;
            }
            Fault::KillSimulator(side) => self.simulate(*side)?,
            Fault::Stop(part) => self.pipeline.pause(*part)?,
            Fault::Second(part, _) => {
                let second = self.pipeline.second(*part)?;
                self.seconds.push((*part, second));
            }
            Fault::Zombie(part) => {
                self.pipeline.pause(*part)?;
                // Its session ends, and with it the lock: a server notices in its own time.
                self.networks.postgres.cut();
                let second = self.pipeline.second(*part)?;
                self.seconds.push((*part, second));
            }
            Fault::LoseSnapshots => {
                self.pipeline.kill(Part::Aggregator)?;
                self.lose_snapshots().await?;
            }
            Fault::KillNats => self.pipeline.nats.kill(),
            Fault::StopNats => self.pipeline.nats.pause()?,
            // Of every file, so of every stream, and of what snapshots and leases are kept in.
            Fault::FillDisk => self.pipeline.nats.fill_disk(1)?,
            Fault::SmallPayload => self.take(USUAL_PAYLOAD, SMALL_PAYLOAD).await?,
            Fault::StopPostgres => self.pipeline.postgres.stop_immediately()?,
            Fault::Cut(server) => self.network(*server).cut(),
            Fault::Refuse(server) => self.network(*server).set(Weather::Down),
            Fault::Slow(server) => self.network(*server).set(Weather::Slow(SLOW)),
            Fault::LoseAnswers(server) => self.network(*server).set(Weather::AnswersLost),
            Fault::RotateLogin(server) => self.passwords.rotate(*server, &self.pipeline)?,
            Fault::CrashProducer => self.producer.crash(),
            Fault::Unreadable(first, count) => self.unreadable(*first, *count).await?,
        }
        Ok(())
    }

    /// Starts the broker again with another size of messages.
    async fn take(&mut self, before: &str, after: &str) -> Result<()> {
        self.pipeline.nats.kill();
        self.pipeline.nats.reconfigure(|config| config.replace(before, after))?;
        self.pipeline.nats.restart().await
    }

    /// Publishes messages that no client can read on every stream, each with bytes of its own.
    async fn unreadable(&mut self, first: usize, count: usize) -> Result<()> {
        let forms = unreadable::forms();
        let mut raw = RawNats::connect(self.pipeline.nats.port()).await?;
        for form in forms.iter().cycle().skip(first).take(count) {
            for beginning in unreadable::SUBJECTS {
                self.unreadable += 1;
                let body = format!("no client reads {}", self.unreadable);
                let letter = [form.block.as_slice(), body.as_bytes()].concat().into();
                self.producer.ledger.attempt_poison(&letter);
                unreadable::publish(&mut raw, beginning, form, body.as_bytes()).await?;
                self.producer.ledger.acknowledge_poison(&letter);
            }
        }
        Ok(())
    }

    async fn end(&mut self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Kill(part) => self.pipeline.run(*part)?,
            Fault::LoseSnapshots => self.pipeline.run(Part::Aggregator)?,
            Fault::Stop(part) => self.pipeline.resume(*part)?,
            Fault::Second(part, first_is_killed) => {
                if *first_is_killed {
                    self.pipeline.kill(*part)?;
                    tokio::time::sleep(TOGETHER).await;
                    self.pipeline.run(*part)?;
                }
                self.end_second(*part);
            }
            Fault::Zombie(part) => {
                self.pipeline.resume(*part)?;
                tokio::time::sleep(TOGETHER).await;
                self.end_second(*part);
            }
            Fault::KillNats => self.pipeline.nats.restart().await?,
            Fault::StopNats => self.pipeline.nats.resume()?,
            Fault::FillDisk => {
                self.pipeline.nats.kill();
                self.pipeline.nats.restart().await?;
            }
            Fault::SmallPayload => self.take(SMALL_PAYLOAD, USUAL_PAYLOAD).await?,
            Fault::StopPostgres => self.pipeline.postgres.start_again()?,
            Fault::Refuse(server) | Fault::Slow(server) => self.network(*server).set(Weather::Fair),
            Fault::LoseAnswers(server) => self.network(*server).cut_and_heal(),
            Fault::RotateLogin(server) => self.passwords.tell(*server)?,
            Fault::KillAt(..)
            | Fault::KillSimulator(_)
            | Fault::Cut(_)
            | Fault::CrashProducer
            | Fault::Unreadable(..) => {}
        }
        Ok(())
    }

    const fn network(&self, server: Server) -> &Proxy {
        match server {
            Server::Nats => &self.networks.nats,
            Server::Postgres => &self.networks.postgres,
        }
    }

    /// Kills the second one of a service.
    fn end_second(&mut self, part: Part) {
        self.seconds.retain(|(second, _)| *second != part);
    }

    /// Starts a service that dies at a fail point, waits for that, and starts it again. What the
    /// services said, if it did not come by, and was killed.
    async fn kill_at(
        &mut self,
        point: &Point,
        passing: u64,
        longest: Duration,
    ) -> Result<Option<String>> {
        self.pipeline.kill(point.part)?;
        if point.needs == Needs::NoSnapshot {
            self.lose_snapshots().await?;
        }
        self.pipeline.run_with(point.part, &armed(point, passing))?;
        let missed = killed(&mut self.pipeline, point, longest).await?;
        self.pipeline.run(point.part)?;
        Ok(missed)
    }

    async fn lose_snapshots(&self) -> Result<()> {
        let mut operator = RawNats::connect(self.pipeline.nats.port()).await?;
        for stream in STREAMS {
            let purge = json!({ "filter": format!("$KV.LAKEGAUGE.snapshot.{stream}") });
            operator.demand("STREAM.PURGE.KV_LAKEGAUGE", &purge).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Rested> {
        tokio::time::sleep(TOGETHER).await;
        self.nobody_ended()?;
        let resting = async {
            let ledger = self.producer.finish().await?;
            let mut expected = Vec::new();
            for (side, run) in self.simulators {
                let ids = run.ids();
                expected.push((side, ids, run.finish().await.context("a simulator")?));
            }
            self.pipeline.rest().await?;
            let scrapes = self.watch.finish().await?;
            ensure!(scrapes > 0, "no scrape was answered");
            Ok((ledger, expected, scrapes))
        };
        let rested = resting.await;
        let (ledger, expected, scrapes) =
            rested.with_context(|| keep_logs(self.pipeline.folder(), self.plan.seed))?;
        Ok(Rested {
            pipeline: self.pipeline,
            ledger,
            expected,
            faults: self.faults,
            scrapes,
            _networks: self.networks,
            _passwords: self.passwords,
        })
    }
}

/// The copy of a stream that the broker keeps for the laws: nobody trims it.
pub fn copy_of(stream: &str) -> String {
    format!("WITNESS_{stream}")
}

/// Lets the broker copy the streams of events from now on.
async fn witness(port: u16) -> Result<()> {
    let mut operator = RawNats::connect(port).await?;
    for stream in STREAMS {
        let name = copy_of(stream);
        let copy = json!({ "name": name, "mirror": { "name": stream }, "storage": "file" });
        operator.demand(&format!("STREAM.CREATE.{name}"), &copy).await?;
    }
    Ok(())
}

fn armed(point: &Point, passing: u64) -> String {
    format!("{}=kill@{passing}", point.name)
}

/// Waits until a service has died at its fail point. What the services said, if it did not come by,
/// and was killed.
async fn killed(
    pipeline: &mut Pipeline,
    point: &Point,
    longest: Duration,
) -> Result<Option<String>> {
    let clock = Clock::system();
    let end = clock.monotonic() + longest;
    while clock.monotonic() < end {
        tokio::time::sleep(POLL).await;
        if let Some(said) = pipeline.take_ended(point.part)? {
            ensure!(said.contains("killed at a fail point"), said);
            return Ok(None);
        }
    }
    let said = pipeline.said();
    pipeline.kill(point.part)?;
    Ok(Some(said))
}
