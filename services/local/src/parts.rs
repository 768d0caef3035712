//! The services in `up`: its own executable with a subcommand.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use service_kit::Setting;
use tokio::process::Command;

use crate::config::Config;
use crate::datadir::DataDir;
use crate::environment::{self, Variables};
use crate::process::{Orphaned, Spec};

/// The names of the parts that publish, and report what they expect.
pub(crate) const SIMULATORS: [&str; 2] = ["lake-simulator", "warehouse-simulator"];

/// Returns every setting of a subcommand, such as `["simulate", "lake"]`, to pass on those that are
/// set.
pub type SettingsOf = fn(&[&str]) -> Vec<Setting>;

/// The executable of `up` itself.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    settings_of: SettingsOf,
}

impl Executable {
    /// Finds the executable.
    ///
    /// # Errors
    ///
    /// The operating system does not report its path.
    pub(crate) fn find(settings_of: SettingsOf) -> anyhow::Result<Self> {
        let path = std::env::current_exe().context("this executable can't be found")?;
        Ok(Self { path, settings_of })
    }
}

/// Specifications of the parts that are our own executable.
#[derive(Debug)]
pub(crate) struct OwnParts<'a> {
    pub(crate) executable: &'a Executable,
    pub(crate) config: &'a Config,
    pub(crate) dir: &'a DataDir,
    /// Whether Grafana is one of the parts.
    pub(crate) has_grafana: bool,
    /// Whether Prometheus is one of the parts.
    pub(crate) has_prometheus: bool,
}

impl OwnParts<'_> {
    /// The archiver.
    pub(crate) fn archiver(&self, database: String) -> Spec {
        let mut spec = self.spec("archiver", &["archive"], self.config.ports.archiver_admin);
        spec.set([("DATABASE_URL", database)]);
        spec
    }

    /// The aggregator; it reads the archive when it must rebuild its state.
    pub(crate) fn aggregator(&self, database: String) -> Spec {
        let ports = &self.config.ports;
        let mut spec = self.spec("aggregator", &["aggregate"], ports.aggregator_admin);
        spec.set([("DATABASE_URL", database)]);
        let metrics = SocketAddr::new(self.config.bind, ports.metrics);
        spec.set([("METRICS_ADDR", metrics.to_string())]);
        // Its page links to these servers here, if they run and no other links are set.
        let links = [
            ("PAGE_GRAFANA_URL", ports.grafana, self.has_grafana),
            ("PAGE_PROMETHEUS_URL", ports.prometheus, self.has_prometheus),
        ];
        for (key, port, _) in links.into_iter().filter(|(_, _, is_there)| *is_there) {
            spec.environment.entry(key.to_owned()).or_insert_with(|| format!(":{port}").into());
        }
        spec
    }

    /// Both simulators, with the files to which they write their expectations.
    pub(crate) fn simulators(&self) -> [(Spec, PathBuf); 2] {
        let ports = &self.config.ports;
        let [lake, warehouse] = SIMULATORS;
        let lake = self.spec(lake, &["simulate", "lake"], ports.lake_admin);
        let words = &["simulate", "warehouse"];
        let warehouse = self.spec(warehouse, words, ports.warehouse_admin);
        [
            self.simulator(lake, self.config.lake_rate()),
            self.simulator(warehouse, self.config.warehouse_rate()),
        ]
    }

    fn simulator(&self, mut spec: Spec, rate: u64) -> (Spec, PathBuf) {
        let expected = self.dir.at("expected").join(format!("{}.json", spec.name));
        // A report of an earlier run must not be taken for this one's.
        std::fs::remove_file(&expected).unwrap_or_default();
        spec.may_finish = true;
        let mut flag = |name: &str, value: OsString| {
            spec.arguments.push(name.into());
            spec.arguments.push(value);
        };
        flag("--rate", rate.to_string().into());
        flag("--expected", expected.clone().into());
        if self.config.run_for.is_some() {
            // A short run has no daily cycle, so that the actual rate is the requested one.
            flag("--daily-peak-over-trough", "1".into());
        }
        if let Some(seed) = self.config.seed {
            flag("--seed", seed.to_string().into());
        }
        flag("--scenario", self.config.scenario.into());
        (spec, expected)
    }

    fn spec(&self, name: &'static str, words: &[&str], admin_port: u16) -> Spec {
        let admin = SocketAddr::new(self.config.bind, admin_port);
        let mut spec = Spec {
            arguments: words.iter().map(Into::into).collect(),
            environment: self.environment(words),
            directory: None,
            orphaned: Orphaned::Killed,
            ..Spec::server(name, self.executable.path.clone(), self.config, self.dir)
        };
        spec.set([("NATS_URL", self.nats_url()), ("ADMIN_ADDR", admin.to_string())]);
        spec
    }

    /// The command that migrates the database to this release's schema.
    pub(crate) fn migration(&self, owner: String) -> Command {
        self.tool("migrate", owner)
    }

    /// The command that joins broker and archive if they would be refused.
    pub(crate) fn adoption(&self, archiver: String) -> Command {
        let mut command = self.tool("adopt", archiver);
        command.arg("--confirm").env("NATS_URL", self.nats_url());
        command
    }

    fn tool(&self, subcommand: &str, database: String) -> Command {
        let mut command = Command::new(&self.executable.path);
        command
            .arg(subcommand)
            .env_clear()
            .envs(self.environment(&[subcommand]))
            .env("DATABASE_URL", database)
            .env("LOG_FORMAT", "human")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The address of NATS.
    pub(crate) fn nats_url(&self) -> String {
        format!("nats://{}", self.config.reach(self.config.ports.nats))
    }

    fn environment(&self, words: &[&str]) -> Variables {
        environment::of_ours(self.dir, &(self.executable.settings_of)(words))
    }
}
