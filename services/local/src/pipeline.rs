//! Starts the parts in order, and stops them in reverse order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use service_kit::{Clock, http_client, terminal};

use crate::config::Config;
use crate::console::Console;
use crate::datadir::{self, DataDir};
use crate::nats::ASK_AGAIN;
use crate::parts::{Executable, OwnParts, SIMULATORS};
use crate::postgres::Postgres;
use crate::process::{PartEnd, Spec, SupervisedPart};
use crate::{addresses, grafana, nats, prometheus, readings};

/// How long NATS, PostgreSQL and Prometheus may take to start, including recovery after a crash.
const SERVER_START_MAX: Duration = Duration::from_secs(120);
/// How often to check whether the parts of a killed `up` are gone, [`ASK_AGAIN`] apart: five
/// seconds.
const PREDECESSOR_LOOKS: u32 = 50;
/// Lines of a log that are shown if its part can't run.
const LOG_LINES_SHOWN: usize = 5;
/// Size of the log's end in which these lines are searched, in bytes.
const LOG_BYTES_SHOWN: u64 = 16 * 1024;

/// The running parts.
pub(crate) struct RunningParts {
    pub(crate) config: Config,
    pub(crate) console: Console,
    pub(crate) clock: Clock,
    pub(crate) dir: DataDir,
    executable: Executable,
    tools: Tools,
    parts: Vec<SupervisedPart>,
    /// Parts that did not end well, and how they ended.
    problems: Vec<String>,
    restarts: BTreeMap<&'static str, u32>,
}

/// The programs that must be installed.
struct Tools {
    nats: PathBuf,
    postgres: Postgres,
    prometheus: Option<PathBuf>,
    grafana: Option<grafana::Installed>,
}

impl RunningParts {
    /// Locks the data directory and finds all programs, before anything is started.
    ///
    /// # Errors
    ///
    /// The directory is in use, ports are in use, or a server is not installed; all problems at
    /// once.
    pub(crate) async fn prepare(
        mut config: Config,
        executable: Executable,
        console: Console,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let grafana = grafana::find(&config);
        if let Ok(Some(_)) = grafana {
            grafana::check_path(&datadir::real_path(&config.data_dir)?)?;
        }
        let dir = DataDir::open(&config.data_dir)?;
        // Parts of an `up` that was killed may still be ending.
        let looks = if dir.at(addresses::FILE).exists() { PREDECESSOR_LOOKS } else { 1 };
        let prometheus = prometheus::find(&config);
        let starts = [
            ("grafana-port", matches!(grafana, Ok(Some(_)))),
            ("prometheus-port", matches!(prometheus, Ok(Some(_)))),
            ("lake-admin-port", config.simulators),
            ("warehouse-admin-port", config.simulators),
        ];
        let idle = starts.into_iter().filter(|(_, starts)| !starts).map(|(flag, _)| flag);
        settle_ports(&mut config, looks, &idle.collect::<Vec<_>>()).await?;
        let nats = nats::find(&config);
        if !dir.at("postgres/PG_VERSION").exists() {
            console.say("  creating a PostgreSQL cluster");
        }
        let preparing = Postgres::prepare(&config, &dir);
        let postgres = console.waiting("initdb", String::new, preparing).await;
        let problems: Vec<String> = [nats.as_ref().err(), prometheus.as_ref().err()]
            .into_iter()
            .chain([postgres.as_ref().err(), grafana.as_ref().err()])
            .flatten()
            .map(|problem| format!("{problem:#}"))
            .collect();
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n       "));
        let tools =
            Tools { nats: nats?, postgres: postgres?, prometheus: prometheus?, grafana: grafana? };
        let (parts, problems, restarts) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self { config, console, clock, dir, executable, tools, parts, problems, restarts })
    }

    /// The executable of the parts, without links in its path.
    pub(crate) fn executable(&self) -> PathBuf {
        self.executable.path.canonicalize().unwrap_or_else(|_| self.executable.path.clone())
    }

    /// Starts everything except the simulators, and waits until each part is ready.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let spec = nats::spec(&self.config, &self.dir, self.tools.nats.clone())?;
        self.launch(spec)?;
        // This waits only for a short time, because another process may have the same number.
        for _ in 0..PREDECESSOR_LOOKS {
            if !self.tools.postgres.has_predecessor() {
                break;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let spec = self.tools.postgres.spec(&self.config, &self.dir);
        self.launch(spec)?;
        self.wait("nats", async |this| nats::is_up(&this.config).await).await?;
        self.wait("postgres", async |this| this.tools.postgres.is_up().await).await?;
        self.furnish().await?;
        self.dir.write("database-url", &self.database_url("reader")?)?;
        if self.config.adopt {
            self.adopt().await?;
        }

        self.launch(self.own_parts().archiver(self.database_url("archiver")?))?;
        self.launch(self.own_parts().aggregator(self.database_url("aggregator")?))?;
        if let Some(program) = self.tools.prometheus.clone() {
            let spec = prometheus::spec(&self.config, &self.dir, program)?;
            self.launch(spec)?;
            self.wait("prometheus", async |this| prometheus::is_up(&this.config).await).await?;
        }
        if let Some(installed) = self.tools.grafana.clone() {
            let spec = grafana::spec(&self.config, &self.dir, installed)?;
            self.launch(spec)?;
            self.wait("grafana", async |this| grafana::is_up(&this.config).await).await?;
        }
        let ports = self.config.ports;
        self.wait_ready("archiver", ports.archiver_admin).await?;
        self.wait_ready("aggregator", ports.aggregator_admin).await?;
        // The page shows the numbers up to a second later.
        self.wait("aggregator", async |this| readings::has_numbers(&this.config).await).await
    }

    /// Starts the simulators; returns the files to which they will write their expectations.
    pub(crate) fn start_simulators(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        let mut reports = Vec::new();
        for (spec, file) in self.own_parts().simulators() {
            self.launch(spec)?;
            reports.push(file);
        }
        Ok(reports)
    }

    /// Stops the parts with these names at the same time, and records how they ended.
    pub(crate) async fn stop(&mut self, names: &[&str]) {
        let (stopping, staying): (Vec<SupervisedPart>, Vec<SupervisedPart>) =
            self.parts.drain(..).partition(|part| names.contains(&part.name));
        self.parts = staying;
        let still_running = || {
            let running = stopping.iter().filter(|part| part.ended().is_none());
            running.map(|part| part.name).collect::<Vec<_>>().join(", ")
        };
        let ending = futures_util::future::join_all(stopping.iter().map(SupervisedPart::stop));
        let ended = self.console.waiting("parts to stop", still_running, ending).await;
        for (part, ended) in stopping.iter().zip(ended) {
            self.restarts.insert(part.name, part.restarts());
            match ended {
                PartEnd::Well => {}
                PartEnd::Badly | PartEnd::Killed | PartEnd::Unusable => {
                    self.problems.push(part.last_words());
                }
            }
        }
    }

    /// Stops the remaining parts in an order in which no part loses what it needs.
    pub(crate) async fn stop_all(&mut self) {
        self.stop(&SIMULATORS).await;
        self.stop(&["aggregator", "archiver"]).await;
        self.stop(&["grafana", "prometheus"]).await;
        self.stop(&["postgres", "nats"]).await;
    }

    /// Completes when a part can't run at all; the error contains which one and why.
    pub(crate) async fn unusable(&self) -> anyhow::Error {
        loop {
            for part in &self.parts {
                if part.ended() == Some(PartEnd::Unusable) {
                    return self.why_unusable(part);
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Whether every simulator has ended by itself.
    pub(crate) fn simulators_finished(&self) -> bool {
        let mut simulators = self.parts.iter().filter(|part| SIMULATORS.contains(&part.name));
        simulators.all(|part| part.ended().is_some())
    }

    /// How often each part was restarted, and what else went wrong so far.
    pub(crate) fn account(&mut self) -> (BTreeMap<&'static str, u32>, Vec<String>) {
        for part in &self.parts {
            self.restarts.insert(part.name, part.restarts());
        }
        (self.restarts.clone(), std::mem::take(&mut self.problems))
    }

    /// The address of the archive for one of the roles; a secret.
    pub(crate) fn database_url(&self, role: &str) -> anyhow::Result<String> {
        self.tools.postgres.url(&self.dir, role)
    }

    /// The address of NATS.
    pub(crate) fn nats_url(&self) -> String {
        self.own_parts().nats_url()
    }

    /// Whether Prometheus is one of the parts.
    pub(crate) fn has_prometheus(&self) -> bool {
        self.tools.prometheus.is_some()
    }

    /// Whether Grafana is one of the parts.
    pub(crate) fn has_grafana(&self) -> bool {
        self.tools.grafana.is_some()
    }

    fn own_parts(&self) -> OwnParts<'_> {
        OwnParts {
            executable: &self.executable,
            config: &self.config,
            dir: &self.dir,
            has_grafana: self.has_grafana(),
            has_prometheus: self.has_prometheus(),
        }
    }

    fn launch(&mut self, spec: Spec) -> anyhow::Result<()> {
        self.parts.push(SupervisedPart::start(spec, &self.console, &self.clock)?);
        Ok(())
    }

    /// Prepares the database before the services start.
    async fn furnish(&self) -> anyhow::Result<()> {
        let postgres = &self.tools.postgres;
        let log = self.dir.log("postgres");
        let why = || last_lines(&log, 1).pop().unwrap_or_default();
        let making = postgres.make_database(&self.dir);
        self.console.waiting("psql (the database and its owner)", why, making).await?;
        let mut migration = self.own_parts().migration(self.database_url("owner")?);
        let output = self.console.waiting("migrate", why, migration.output()).await;
        let output = output.context("migrate can't be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "migrate failed: {}", said.trim());
        let logins = postgres.make_logins(&self.dir);
        self.console.waiting("psql (a login for each service)", why, logins).await
    }

    /// Joins broker and archive, and shows the result.
    async fn adopt(&self) -> anyhow::Result<()> {
        let mut adopting = self.own_parts().adoption(self.database_url("archiver")?);
        let output = self.console.waiting("adopt", String::new, adopting.output()).await;
        let output = output.context("adopt can't be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "adopt failed: {}", said.trim());
        for line in said.lines() {
            self.console.say(&format!("  adopt: {line}"));
        }
        Ok(())
    }

    async fn wait(
        &self,
        name: &'static str,
        is_up: impl AsyncFn(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let started = self.clock.monotonic();
        let last_error = RefCell::new(String::new());
        let asking = async {
            loop {
                let Err(error) = is_up(self).await else { return Ok(()) };
                last_error.replace(format!("{error:#}"));
                self.fail_if_unusable()?;
                let waited = self.clock.monotonic().saturating_sub(started);
                anyhow::ensure!(
                    waited < SERVER_START_MAX,
                    "{name} did not start in {} s: {error:#} (log: {})",
                    SERVER_START_MAX.as_secs(),
                    self.dir.log(name).display()
                );
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        self.console.waiting(name, || last_error.borrow().clone(), asking).await
    }

    /// A service may have much to catch up with, so this waits as long as it reports a reason.
    async fn wait_ready(&self, name: &'static str, port: u16) -> anyhow::Result<()> {
        let last_error = RefCell::new(String::new());
        let asking = async {
            loop {
                self.fail_if_unusable()?;
                last_error.replace(
                    match http_client::get(self.config.reach(port), "/readyz").await {
                        Ok((200, _)) => return Ok(()),
                        Ok((_, why)) => why.lines().next().unwrap_or_default().to_owned(),
                        Err(error) => format!("{error:#}"),
                    },
                );
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        self.console.waiting(name, || last_error.borrow().clone(), asking).await
    }

    /// Checks all parts, because the awaited part may depend on another one.
    fn fail_if_unusable(&self) -> anyhow::Result<()> {
        match self.parts.iter().find(|part| part.ended() == Some(PartEnd::Unusable)) {
            Some(part) => Err(self.why_unusable(part)),
            None => Ok(()),
        }
    }

    fn why_unusable(&self, part: &SupervisedPart) -> anyhow::Error {
        let last = last_lines(&self.dir.log(part.name), LOG_LINES_SHOWN);
        anyhow::anyhow!("{}\n       {}", part.last_words(), last.join("\n       "))
    }
}

/// The last lines of a log.
fn last_lines(log: &Path, lines: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_SHOWN)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(end)
    };
    // Without a log there is nothing to show.
    let end = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&end);
    let mut last: Vec<String> = text.lines().rev().take(lines).map(terminal::plain).collect();
    last.reverse();
    last
}

/// Checks every port, and chooses a free one for each that is 0. A used port is checked up to
/// `looks` times. The ports of parts that are not started, by their flags, may be used by others.
async fn settle_ports(config: &mut Config, looks: u32, idle: &[&str]) -> anyhow::Result<()> {
    let mut looks_left = looks;
    let mut taken = Vec::new();
    // The listeners are kept until all ports are settled, so that no port is chosen twice.
    let mut held = Vec::new();
    for (setting, bind, port) in config.ports_mut() {
        if idle.contains(&setting.flag) {
            continue;
        }
        loop {
            match tokio::net::TcpListener::bind((bind, *port)).await {
                Ok(listener) => {
                    *port = listener.local_addr().context("a port has no number")?.port();
                    held.push(listener);
                    break;
                }
                Err(_) if looks_left > 1 => {
                    looks_left -= 1;
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(error) => {
                    taken.push(format!("{bind}:{port} (--{}, {error})", setting.flag));
                    break;
                }
            }
        }
    }
    anyhow::ensure!(
        taken.is_empty(),
        "can't listen on {}: stop the other program, or choose other ports; 0 means any free port",
        taken.join(", ")
    );
    Ok(())
}
