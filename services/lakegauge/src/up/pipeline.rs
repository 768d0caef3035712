//! Starting the parts in order, and stopping them in the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use service_kit::Clock;

use super::config::Config;
use super::console::Console;
use super::datadir::DataDir;
use super::nats::ASK_AGAIN;
use super::postgres::Postgres;
use super::process::{Ended, Part, Spec};
use super::{grafana, nats, parts, probe, prometheus};

/// How long NATS, PostgreSQL and Prometheus may take to start; a recovery after a crash is in it.
const SERVER_START_MAX: Duration = Duration::from_secs(120);
/// How often to look whether a killed `up`'s parts are gone, [`ASK_AGAIN`] apart: five seconds.
const PREDECESSOR_LOOKS: u32 = 50;
/// Lines of a log that are shown when its part can't run.
const LOG_LINES_SHOWN: usize = 5;

/// The parts that run.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) console: Console,
    pub(crate) clock: Clock,
    pub(crate) dir: DataDir,
    tools: Tools,
    parts: Vec<Part>,
    /// Parts that did not end well, with how.
    problems: Vec<String>,
    restarts: BTreeMap<&'static str, u32>,
}

/// What must be installed.
struct Tools {
    nats: PathBuf,
    postgres: Postgres,
    prometheus: Option<PathBuf>,
    grafana: Option<grafana::Installed>,
}

impl Pipeline {
    /// Takes the data directory and finds everything that is needed, before anything is started.
    ///
    /// # Errors
    ///
    /// The directory is in use, ports are taken, or a server is not installed: all of them at once.
    pub(crate) async fn prepare(
        mut config: Config,
        console: Console,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let dir = DataDir::open(&config.data_dir)?;
        // Parts of an `up` that was killed may still be ending.
        let looks = if dir.at("addresses.json").exists() { PREDECESSOR_LOOKS } else { 1 };
        let grafana = grafana::find(&config);
        // A Grafana of the machine's own may listen at the usual port: not taken where none is ours.
        let is_grafana = matches!(grafana, Ok(Some(_)));
        settle_ports(&mut config, looks, is_grafana).await?;
        let nats = nats::find(&config);
        let prometheus = prometheus::find(&config);
        if !dir.at("postgres/PG_VERSION").exists() {
            console.say("  making a PostgreSQL cluster");
        }
        let postgres = Postgres::prepare(&config, &dir).await;
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
        Ok(Self { config, console, clock, dir, tools, parts, problems, restarts })
    }

    /// Starts everything but the simulators, and waits until each part does its job.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let spec = nats::spec(&self.config, &self.dir, self.tools.nats.clone())?;
        self.launch(spec)?;
        // Waited for shortly only: a process of another kind may have got its number.
        for _ in 0..PREDECESSOR_LOOKS {
            if !self.tools.postgres.has_predecessor() {
                break;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let spec = self.tools.postgres.spec(&self.config, &self.dir);
        self.launch(spec)?;
        self.wait("nats", async |this| nats::is_up(&this.config).await).await?;
        self.wait("postgres", async |this| this.tools.postgres.is_up()).await?;

        self.tools.postgres.make_database(&self.dir).await?;
        self.migrate().await?;
        self.tools.postgres.make_logins(&self.dir).await?;
        let reader = self.database_url("reader")?;
        self.dir.write_private("database-url", &reader)?;

        let spec = parts::archiver(&self.config, &self.dir, self.database_url("archiver")?)?;
        self.launch(spec)?;
        let spec = parts::aggregator(&self.config, &self.dir, self.database_url("aggregator")?)?;
        self.launch(spec)?;
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
        self.wait_ready("aggregator", ports.aggregator_admin).await
    }

    /// Starts the simulators; the answer is where they will write their books.
    pub(crate) fn start_simulators(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        let mut books = Vec::new();
        for (spec, file) in parts::simulators(&self.config, &self.dir)? {
            self.launch(spec)?;
            books.push(file);
        }
        Ok(books)
    }

    /// Stops parts of these names side by side, and notes how they ended.
    pub(crate) async fn stop(&mut self, names: &[&str]) {
        let (stopping, staying): (Vec<Part>, Vec<Part>) =
            self.parts.drain(..).partition(|part| names.contains(&part.name));
        self.parts = staying;
        let ended = futures_util::future::join_all(stopping.iter().map(Part::stop)).await;
        for (part, ended) in stopping.iter().zip(ended) {
            self.restarts.insert(part.name, part.restarts());
            match ended {
                Ended::Well => {}
                Ended::Badly | Ended::Killed | Ended::Unusable => {
                    self.problems.push(part.last_words());
                }
            }
        }
    }

    /// Stops what still runs, in the order in which nobody loses what it needs.
    pub(crate) async fn stop_all(&mut self) {
        self.stop(&["lake-simulator", "warehouse-simulator"]).await;
        self.stop(&["aggregator", "archiver"]).await;
        self.stop(&["grafana", "prometheus"]).await;
        self.stop(&["postgres", "nats"]).await;
    }

    /// Completes when a part can't run at all; the error says which and why.
    pub(crate) async fn unusable(&self) -> anyhow::Error {
        loop {
            for part in &self.parts {
                if part.ended() == Some(Ended::Unusable) {
                    return self.why_unusable(part);
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Whether every simulator has ended by itself.
    pub(crate) fn simulators_finished(&self) -> bool {
        let mut simulators = self.parts.iter().filter(|part| part.name.ends_with("-simulator"));
        simulators.all(|part| part.ended().is_some())
    }

    /// How often each part was started again, and what else went wrong, until now.
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
        format!("nats://{}", self.config.reach(self.config.ports.nats))
    }

    /// Whether Prometheus is one of the parts.
    pub(crate) fn has_prometheus(&self) -> bool {
        self.tools.prometheus.is_some()
    }

    /// Whether Grafana is one of the parts.
    pub(crate) fn has_grafana(&self) -> bool {
        self.tools.grafana.is_some()
    }

    fn launch(&mut self, spec: Spec) -> anyhow::Result<()> {
        self.parts.push(Part::start(spec, &self.console, &self.clock)?);
        Ok(())
    }

    async fn migrate(&self) -> anyhow::Result<()> {
        let output = tokio::process::Command::new(parts::this_executable()?)
            .arg("migrate")
            .envs(parts::OF_OTHER_SERVERS.iter().map(|key| (key, "")))
            .env("DATABASE_URL", self.database_url("owner")?)
            .env("LOG_FORMAT", "human")
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .context("migrate can't be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "migrate failed: {}", said.trim());
        Ok(())
    }

    async fn wait(
        &self,
        name: &'static str,
        is_up: impl AsyncFn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let started = self.clock.monotonic();
        while !is_up(self).await {
            self.fail_if_unusable(name)?;
            let waited = self.clock.monotonic().saturating_sub(started);
            anyhow::ensure!(
                waited < SERVER_START_MAX,
                "{name} did not start in {} s (log: {})",
                SERVER_START_MAX.as_secs(),
                self.dir.log(name).display()
            );
            self.tell_waiting(name, waited, "");
            tokio::time::sleep(ASK_AGAIN).await;
        }
        self.console.settle();
        Ok(())
    }

    /// A service may have much to catch up with: it is waited for as long as it says why.
    async fn wait_ready(&self, name: &'static str, port: u16) -> anyhow::Result<()> {
        let started = self.clock.monotonic();
        loop {
            self.fail_if_unusable(name)?;
            let why = match probe::get(self.config.reach(port), "/readyz").await {
                Ok((200, _)) => break,
                Ok((_, why)) => why.lines().next().unwrap_or_default().to_owned(),
                Err(error) => error.to_string(),
            };
            let waited = self.clock.monotonic().saturating_sub(started);
            self.tell_waiting(name, waited, &why);
            tokio::time::sleep(ASK_AGAIN).await;
        }
        self.console.settle();
        Ok(())
    }

    fn tell_waiting(&self, name: &str, waited: Duration, why: &str) {
        // Once a second, and not for what takes less.
        let tick = waited.as_millis() % 1_000 < ASK_AGAIN.as_millis();
        if waited.as_secs() >= 1 && (self.console.is_terminal() || tick) {
            self.console.live(&format!("  waiting for {name}, {} s {why}", waited.as_secs()));
        }
    }

    fn fail_if_unusable(&self, name: &str) -> anyhow::Result<()> {
        match self.parts.iter().find(|part| part.name == name) {
            Some(part) if part.ended() == Some(Ended::Unusable) => Err(self.why_unusable(part)),
            Some(_) | None => Ok(()),
        }
    }

    fn why_unusable(&self, part: &Part) -> anyhow::Error {
        let log = std::fs::read_to_string(self.dir.log(part.name)).unwrap_or_default();
        let mut last: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
        last.reverse();
        anyhow::anyhow!("{}\n       {}", part.last_words(), last.join("\n       "))
    }
}

/// Checks every port, and finds a free one for each that is 0. One that is taken is looked at so
/// many times.
async fn settle_ports(config: &mut Config, looks: u32, is_grafana: bool) -> anyhow::Result<()> {
    let mut looks_left = looks;
    let mut taken = Vec::new();
    // Held until all are settled, so that no port is chosen twice.
    let mut held = Vec::new();
    for (setting, bind, port) in config.ports_mut() {
        if setting.flag == "grafana-port" && !is_grafana {
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
        "can't listen on {}: stop what does, or choose others; 0 is any free port",
        taken.join(", ")
    );
    Ok(())
}
