//! What the crash matrix does to a pipeline: proxies before the servers, services that are stopped,
//! watched for their end, or have a second beside them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bus::{Bus, BusSettings};
use domain::{EventId, Run, Side, Stream, Timestamp, id::NUMBER_MAX};
use rustix::process::Signal;
use serde_json::Value;
use simulator::RunSeed;

use crate::pipeline::{Part, Pipeline, Simulator};
use crate::ports::free_port;
use crate::process::Process;
use crate::proxy::Proxy;

/// 2025-11-03T12:00:00Z, in microseconds since 1970: when the first simulated run begins.
const SIMULATED_FROM_US: i64 = 1_762_171_200_000_000;
/// Between the beginnings of two simulated runs, in event time: each on a day of its own, so that
/// no two share their object keys.
const SIMULATED_APART_US: i64 = 60_000_000;

/// The networks between the services and the servers.
#[derive(Debug)]
pub struct Networks {
    /// Before the broker.
    pub nats: Proxy,
    /// Before the database server.
    pub postgres: Proxy,
}

/// A simulator of the matrix: which run it is.
#[derive(Debug)]
pub struct SimulatedRun {
    /// The process.
    pub simulator: Simulator,
    /// Lake or warehouse.
    pub side: Side,
    run: Run,
}

impl SimulatedRun {
    /// The first and the last id that the run can give.
    pub fn ids(&self) -> (EventId, EventId) {
        (EventId::sequenced(self.run, 0), EventId::sequenced(self.run, NUMBER_MAX))
    }

    /// Asks it to end, waits until everything is acknowledged, and gives what it expects.
    ///
    /// # Errors
    ///
    /// It does not end, or not with status 0.
    pub async fn finish(self) -> Result<Value> {
        self.simulator.process.terminate()?;
        self.simulator.finish().await
    }
}

impl Pipeline {
    /// Puts proxies between the services that are started from now on and the servers.
    ///
    /// # Errors
    ///
    /// No port is left.
    pub async fn behind_networks(&mut self) -> Result<Networks> {
        let networks = Networks {
            nats: Proxy::start(self.nats.port()).await?,
            postgres: Proxy::start(self.postgres.port()?).await?,
        };
        let url = format!("nats://127.0.0.1:{}", networks.nats.port());
        self.set("NATS_URL", &url);
        self.database_port = Some(networks.postgres.port());
        Ok(networks)
    }

    /// A connection of the test's own through another port, for a network that loses answers.
    ///
    /// # Errors
    ///
    /// What the broker said.
    pub async fn bus_at(&self, port: u16) -> Result<Bus> {
        let settings = BusSettings {
            url: format!("nats://127.0.0.1:{port}").into(),
            request_timeout: Duration::from_secs(2),
            ..self.nats.settings("matrix")
        };
        Ok(Bus::connect(&settings).await?)
    }

    /// Starts a service that is not running, with fail points.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn run_with(&mut self, part: Part, fail_points: &str) -> Result<()> {
        let process = self.service(part, false, fail_points)?;
        ensure!(self.parts.insert(part, process).is_none(), "{part:?} runs already");
        Ok(())
    }

    /// Starts a second one beside a service, at ports of its own.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn second(&mut self, part: Part) -> Result<Process> {
        self.service(part, true, "")
    }

    /// `kill -STOP`: its connections stand, and it does nothing.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn pause(&self, part: Part) -> Result<()> {
        self.part(part)?.signal(Signal::STOP)
    }

    /// `kill -CONT`.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn resume(&self, part: Part) -> Result<()> {
        self.part(part)?.signal(Signal::CONT)
    }

    /// Takes a service that was started, to look at its end.
    ///
    /// # Errors
    ///
    /// It was not started.
    pub fn take(&mut self, part: Part) -> Result<Process> {
        self.parts.remove(&part).context("it is not running")
    }

    /// Takes away a service that has ended by itself, and gives what it said last.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn take_ended(&mut self, part: Part) -> Result<Option<String>> {
        let process = self.parts.get_mut(&part).context("it is not running")?;
        let Some(status) = process.exit_status()? else { return Ok(None) };
        let said = format!("{part:?} ended by itself with {status}:\n{}", process.log_end());
        self.parts.remove(&part);
        Ok(Some(said))
    }

    /// What each service that runs said last.
    pub fn said(&self) -> String {
        let said = |(part, process): (&Part, &Process)| format!("{part:?}:\n{}", process.log_end());
        self.parts.iter().map(said).collect::<Vec<_>>().join("\n")
    }

    /// Starts the simulator of another run: its seed, its name and its time follow from the number.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn simulate_numbered(
        &mut self,
        side: Side,
        number: u32,
        rate: u64,
    ) -> Result<SimulatedRun> {
        let (word, stream) = match side {
            Side::Lake => ("lake", Stream::lake(0)),
            Side::Warehouse => ("warehouse", Stream::warehouse(0)),
        };
        let start = Timestamp(SIMULATED_FROM_US + SIMULATED_APART_US * i64::from(number));
        let (minutes, seed) = (number % 60, number.to_string());
        let start_time = format!("2025-11-03T{:02}:{minutes:02}:00Z", 12 + number / 60);
        let name = format!("matrix-{number}");
        let run = RunSeed::new(u64::from(number), start, Ok(&name), stream).run;
        let expected = self.folder.path().join(format!("expected-{}.json", self.started));
        let (file, rate) = (expected.display().to_string(), rate.to_string());
        let arguments = [
            ["simulate", word],
            ["--rate", &rate],
            ["--format", "bincode"],
            ["--expected", &file],
            ["--seed", &seed],
            ["--run-id", &name],
            ["--start-time", &start_time],
            ["--daily-peak-over-trough", "1"],
            ["--late-share", "0.02"],
            ["--duplicate-share", "0.02"],
        ];
        let process = self.process(arguments.as_flattened(), &[], free_port()?)?;
        Ok(SimulatedRun { simulator: Simulator { process, expected }, side, run })
    }
}
