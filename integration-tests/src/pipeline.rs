//! The whole pipeline for a test: servers of its own, and the services as processes of their own.

mod disturbed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bus::{Bus, ReplayRun};
use domain::Side;
use event_store::read_checkpoint;
use serde_json::Value;
use service_kit::fail_points;
use tempfile::TempDir;

pub use disturbed::{Networks, SimulatedRun};

use crate::executable::{Ended, finish, lakegauge};
use crate::http;
use crate::nats::NatsServer;
use crate::ports::free_port;
use crate::postgres::{Database, PostgresServer};
use crate::process::Process;
use crate::waiting::until;

/// The streams of events.
pub const STREAMS: [&str; 2] = ["LAKE_0", "WAREHOUSE_0"];
/// The stream of samples.
const SAMPLES: &str = "TELEMETRY";
/// The four metrics.
pub const FOUR: [&str; 4] = [
    "data_lake_espaco_utilizado_gb",
    "data_lake_numero_acessos",
    "data_warehouse_tempo_resposta_ms",
    "data_warehouse_registros_processados",
];

/// Settings of every service: short intervals, so that within seconds there are snapshots and
/// samples to go wrong. The lease is longer than the disk of a busy machine stands still: an
/// aggregator that loses its partition for a moment shows nothing for that moment.
const SETTINGS: [(&str, &str); 9] = [
    ("NATS_STREAM_RULES", "sample_interval_s=1;windows=10s,60s,3600s"),
    ("SNAPSHOT_INTERVAL_MS", "300"),
    ("ARCHIVER_BATCH_EVENTS_MAX", "2000"),
    ("ARCHIVER_BATCH_AGE_MS_MAX", "100"),
    ("ARCHIVER_TRIM_INTERVAL_MS", "200"),
    ("AGGREGATOR_LEASE_MS", "1500"),
    ("ARCHIVER_EPOCH_CHECK_MS", "100"),
    ("EPOCH_CHECK_MS", "100"),
    ("LOG_FORMAT", "json"),
];

/// A service that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Counts.
    Aggregator,
    /// Archives.
    Archiver,
}

/// What a simulator is asked for; the same gives the same events.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Distinct events.
    pub events: u64,
    /// Events per second.
    pub rate: u64,
    /// `json` or `bincode`.
    pub format: &'static str,
}

/// NATS, PostgreSQL, and the services that were started.
#[derive(Debug)]
pub struct Pipeline {
    // Before the servers: services are killed first.
    parts: BTreeMap<Part, Process>,
    /// The broker.
    pub nats: NatsServer,
    /// The database server.
    pub postgres: PostgresServer,
    /// The archive.
    pub database: Database,
    folder: TempDir,
    settings: Vec<(String, String)>,
    ports: BTreeMap<Part, u16>,
    metrics_port: u16,
    /// Where the services find the database server, if not at its own port.
    database_port: Option<u16>,
    /// The file with the address of the archive, for services that are not given the address.
    database_files: BTreeMap<Part, PathBuf>,
    started: u32,
}

/// The four metrics as they were shown, in the order of [`FOUR`].
pub type Four = [f64; 4];

impl Pipeline {
    /// Starts the servers, with these settings for every service on top of the harness's own.
    ///
    /// # Errors
    ///
    /// A server is missing or does not start.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_on(NatsServer::start().await?, settings).await
    }

    /// The same on a broker that runs already.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::start`].
    pub async fn start_on(nats: NatsServer, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_on_both(nats, PostgresServer::start_private()?, settings).await
    }

    /// The same with both servers given.
    ///
    /// # Errors
    ///
    /// The database can't be made.
    pub async fn start_on_both(
        nats: NatsServer,
        postgres: PostgresServer,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let database = postgres.database().await?;
        let mut all: BTreeMap<&str, &str> = SETTINGS.into_iter().collect();
        all.extend(settings.iter().copied());
        let settings = all.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        // First, so that a test may set another.
        let settings = [("NATS_URL".to_owned(), nats.url())].into_iter().chain(settings).collect();
        Ok(Self {
            parts: BTreeMap::new(),
            nats,
            postgres,
            database,
            folder: tempfile::Builder::new().prefix("lakegauge-pipeline-").tempdir()?,
            settings,
            ports: BTreeMap::from([
                (Part::Aggregator, free_port()?),
                (Part::Archiver, free_port()?),
            ]),
            metrics_port: free_port()?,
            database_port: None,
            database_files: BTreeMap::new(),
            started: 0,
        })
    }

    /// Starts a service that is not running, always at the same ports.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn run(&mut self, part: Part) -> Result<()> {
        self.run_with(part, "")
    }

    /// Starts a service at the usual ports, or a second one at others.
    fn service(&mut self, part: Part, second: bool, fail_points: &str) -> Result<Process> {
        let (admin, metrics) = if second {
            (free_port()?, free_port()?)
        } else {
            (self.ports.get(&part).copied().context("no port")?, self.metrics_port)
        };
        let (word, url) = match part {
            Part::Aggregator => ("aggregate", self.database.reader_url()),
            Part::Archiver => ("archive", self.database.archiver_url()),
        };
        let url = match self.database_port {
            Some(port) => self.postgres.url_through(&url, port)?,
            None => url,
        };
        let metrics = format!("127.0.0.1:{metrics}");
        let file = self.database_files.get(&part).map(|file| file.display().to_string());
        let own = [
            match &file {
                Some(file) => ("DATABASE_URL_FILE", file.as_str()),
                None => ("DATABASE_URL", url.as_str()),
            },
            ("METRICS_ADDR", &metrics),
            (fail_points::VARIABLE, fail_points),
        ];
        self.process(&[word], &own, admin)
    }

    /// `kill -9`.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn kill(&mut self, part: Part) -> Result<()> {
        self.parts.remove(&part).context("it is not running")?.kill()
    }

    /// Ends a service as an operator would, and waits until it has.
    ///
    /// # Errors
    ///
    /// It does not end, or not with status 0.
    pub async fn stop(&mut self, part: Part) -> Result<()> {
        let mut process = self.parts.remove(&part).context("it is not running")?;
        process.terminate()?;
        let status = process.ended().await?;
        ensure!(status.success(), "{part:?} ended with {status}:\n{}", process.log());
        Ok(())
    }

    /// A service that runs.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn part(&self, part: Part) -> Result<&Process> {
        self.parts.get(&part).context("it is not running")
    }

    /// Starts a simulator of one side.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn simulate(&mut self, side: Side, traffic: Traffic) -> Result<Simulator> {
        self.simulate_run("crash", side, traffic)
    }

    /// Starts a simulator of one side under the name of a run: another name gives other events.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn simulate_run(&mut self, run: &str, side: Side, traffic: Traffic) -> Result<Simulator> {
        let name = match side {
            Side::Lake => "lake",
            Side::Warehouse => "warehouse",
        };
        let expected = self.folder.path().join(format!("expected-{}.json", self.started));
        let (events, rate) = (traffic.events.to_string(), traffic.rate.to_string());
        let file = expected.display().to_string();
        let arguments = [
            ["simulate", name],
            ["--events", &events],
            ["--rate", &rate],
            ["--format", traffic.format],
            ["--expected", &file],
            ["--seed", "7"],
            ["--run-id", run],
            ["--start-time", "2025-11-03T12:00:00Z"],
            ["--daily-peak-over-trough", "1"],
            // Enough of both to be met on each side of a kill.
            ["--late-share", "0.02"],
            ["--duplicate-share", "0.02"],
        ];
        let process = self.process(arguments.as_flattened(), &[], free_port()?)?;
        Ok(Simulator { process, expected })
    }

    /// Runs a tool to its end, with the settings of the services and this address of the archive.
    ///
    /// # Errors
    ///
    /// It can't be started, or wrote something that is no text.
    pub fn tool<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
        database_url: &str,
    ) -> Result<Ended> {
        let mut command = Command::new(lakegauge()?);
        command
            .args(arguments)
            .env_clear()
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            // Services of the crash matrix wait briefly; what is asked of a whole archive takes longer.
            .env("DATABASE_STATEMENT_TIMEOUT_MS", "60000")
            .env("DATABASE_URL", database_url);
        finish(command, b"")
    }

    /// Starts a tool, with the settings of the services and the rights of a reader.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn spawn_tool(&mut self, arguments: &[&str]) -> Result<Process> {
        let url = self.database.reader_url();
        self.spawn_at(arguments, &url)
    }

    /// Starts a tool or a service with the settings of the services and this address of the archive.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn spawn_at(&mut self, arguments: &[&str], database_url: &str) -> Result<Process> {
        let metrics = format!("127.0.0.1:{}", free_port()?);
        let own = [("DATABASE_URL", database_url), ("METRICS_ADDR", &metrics)];
        self.process(arguments, &own, free_port()?)
    }

    /// Starts an aggregator that counts a replay run beside the live one.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn count_replay(&mut self, run: &ReplayRun) -> Result<Counter> {
        let metrics = free_port()?;
        let address = format!("127.0.0.1:{metrics}");
        let words = ["aggregate", "--replay", run.name()];
        let own = [("METRICS_ADDR", address.as_str())];
        Ok(Counter { process: self.process(&words, &own, free_port()?)?, metrics })
    }

    /// Gives a service that is started from now on the address of the archive in a file.
    pub fn database_url_in(&mut self, part: Part, file: &Path) {
        self.database_files.insert(part, file.to_owned());
    }

    /// Changes a setting of every service that is started from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    fn process(
        &mut self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        admin: u16,
    ) -> Result<Process> {
        self.started += 1;
        let log = self.folder.path().join(format!("log-{}", self.started));
        let mut command = Command::new(lakegauge()?);
        command
            .args(arguments)
            .env_clear()
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .envs(environment.iter().copied())
            .env("ADMIN_ADDR", format!("127.0.0.1:{admin}"));
        Process::start_with(command, log, admin)
    }

    /// The four metrics; none while they are refused (503) or nobody listens.
    ///
    /// # Errors
    ///
    /// Anything in between: a page without one of them, or with one twice.
    pub fn four(&self) -> Result<Option<Four>> {
        four(self.metrics_port)
    }

    /// The four metrics, as soon as they are shown: a pause of the disk can cost the aggregator its
    /// lease for a moment.
    ///
    /// # Errors
    ///
    /// They are not shown.
    pub async fn shown(&self) -> Result<Four> {
        let mut shown = None;
        until("the four metrics", async || {
            shown = self.four()?;
            Ok(shown.is_some())
        })
        .await?;
        shown.context("they are not shown")
    }

    /// Where the services write their logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the four metrics are.
    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// A connection of the test's own.
    ///
    /// # Errors
    ///
    /// What the broker said.
    pub async fn bus(&self) -> Result<Bus> {
        self.nats.bus("test").await
    }

    /// Waits until both services have read everything, the samples too.
    ///
    /// # Errors
    ///
    /// They don't get there; their logs are in the text.
    pub async fn rest(&self) -> Result<()> {
        let bus = self.bus().await?;
        let rested = until("rest", async || {
            for name in STREAMS {
                let last = bus.stream(name).await?.last_sequence;
                let label = format!("{{stream=\"{name}\"}}");
                let series = format!("lakegauge_aggregator_counted_sequence{label}");
                if self.part(Part::Aggregator)?.metric(&series) != Some(to_f64(last)) {
                    return Ok(false);
                }
            }
            for name in STREAMS.into_iter().chain([SAMPLES]) {
                let last = bus.stream(name).await?.last_sequence;
                let mark = read_checkpoint(&self.database.archiver(), name).await?;
                if mark.map_or(0, |mark| mark.sequence) != last {
                    return Ok(false);
                }
            }
            Ok(self.four()?.is_some())
        })
        .await;
        rested.with_context(|| {
            let logs: Vec<String> = self.parts.values().map(Process::log_end).collect();
            logs.join("\n---\n")
        })
    }
}

/// An aggregator that counts a replay run.
#[derive(Debug)]
pub struct Counter {
    /// The process.
    pub process: Process,
    /// The port of its four metrics.
    pub metrics: u16,
}

/// A simulator that runs, or ran.
#[derive(Debug)]
pub struct Simulator {
    /// The process.
    pub process: Process,
    expected: PathBuf,
}

impl Simulator {
    /// Waits until everything is acknowledged, and gives what it expects.
    ///
    /// # Errors
    ///
    /// It does not end, or not with status 0.
    pub async fn finish(mut self) -> Result<Value> {
        let status = self.process.ended().await?;
        ensure!(status.success(), "it ended with {status}:\n{}", self.process.log());
        Ok(serde_json::from_slice(&fs::read(&self.expected)?)?)
    }
}

/// The four metrics at a port; none while they are refused (503), another shows them, or nobody
/// listens.
///
/// # Errors
///
/// Anything in between.
pub fn four(port: u16) -> Result<Option<Four>> {
    let Ok((status, page)) = http::get(port, "/metrics") else { return Ok(None) };
    if status == 503 || page.starts_with("# Standing by") {
        return Ok(None);
    }
    ensure!(status == 200, "status {status}");
    let mut four = Four::default();
    for (value, name) in four.iter_mut().zip(FOUR) {
        let mut series = page.lines().filter(|line| line.starts_with(name));
        let line = series.next().with_context(|| format!("no {name}:\n{page}"))?;
        ensure!(series.next().is_none(), "{name} more than once");
        *value = line.strip_prefix(name).context("its name")?.trim().parse()?;
    }
    Ok(Some(four))
}

/// A sequence as metrics show it; exact far beyond what a test reaches.
pub fn to_f64(sequence: u64) -> f64 {
    f64::from(u32::try_from(sequence).unwrap_or(u32::MAX))
}
