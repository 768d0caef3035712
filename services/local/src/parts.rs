//! The services as `up` starts them: its own executable with a subcommand.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::Signal;
use service_kit::Setting;

use crate::config::Config;
use crate::datadir::DataDir;
use crate::environment::{self, Variables};
use crate::process::{Orphaned, Spec};

/// Every setting of a subcommand, such as `["simulate", "lake"]`: what of them is set is passed on.
pub type SettingsOf = fn(&[&str]) -> Vec<Setting>;

/// The executable that `up` itself runs from.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    settings_of: SettingsOf,
}

/// A service to start.
struct Service {
    name: &'static str,
    words: &'static [&'static str],
    admin_port: u16,
    may_finish: bool,
}

impl Executable {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// The operating system does not tell where it is.
    pub(crate) fn find(settings_of: SettingsOf) -> anyhow::Result<Self> {
        let path = std::env::current_exe().context("this executable can't be found")?;
        Ok(Self { path, settings_of })
    }

    /// The archiver.
    pub(crate) fn archiver(
        &self,
        config: &Config,
        dir: &DataDir,
        database: String,
    ) -> anyhow::Result<Spec> {
        let service = Service {
            name: "archiver",
            words: &["archive"],
            admin_port: config.ports.archiver_admin,
            may_finish: false,
        };
        let mut spec = self.spec(config, dir, &service)?;
        set(&mut spec, "DATABASE_URL", database);
        Ok(spec)
    }

    /// The aggregator; it reads the archive when it must rebuild.
    pub(crate) fn aggregator(
        &self,
        config: &Config,
        dir: &DataDir,
        database: String,
    ) -> anyhow::Result<Spec> {
        let service = Service {
            name: "aggregator",
            words: &["aggregate"],
            admin_port: config.ports.aggregator_admin,
            may_finish: false,
        };
        let mut spec = self.spec(config, dir, &service)?;
        set(&mut spec, "DATABASE_URL", database);
        let metrics = std::net::SocketAddr::new(config.bind, config.ports.metrics);
        set(&mut spec, "METRICS_ADDR", metrics.to_string());
        // Its page links to where these are here, unless somebody says otherwise.
        let (grafana, prometheus) = (config.ports.grafana, config.ports.prometheus);
        for (key, port) in [("PAGE_GRAFANA_URL", grafana), ("PAGE_PROMETHEUS_URL", prometheus)] {
            spec.environment.entry(key.to_owned()).or_insert_with(|| format!(":{port}").into());
        }
        Ok(spec)
    }

    /// Both simulators, with where they write their books.
    pub(crate) fn simulators(
        &self,
        config: &Config,
        dir: &DataDir,
    ) -> anyhow::Result<[(Spec, PathBuf); 2]> {
        let lake = Service {
            name: "lake-simulator",
            words: &["simulate", "lake"],
            admin_port: config.ports.lake_admin,
            may_finish: true,
        };
        let warehouse = Service {
            name: "warehouse-simulator",
            words: &["simulate", "warehouse"],
            admin_port: config.ports.warehouse_admin,
            may_finish: true,
        };
        Ok([
            self.simulator(config, dir, &lake, config.lake_rate())?,
            self.simulator(config, dir, &warehouse, config.warehouse_rate())?,
        ])
    }

    fn simulator(
        &self,
        config: &Config,
        dir: &DataDir,
        service: &Service,
        rate: u64,
    ) -> anyhow::Result<(Spec, PathBuf)> {
        let books = dir.at("books").join(format!("{}.json", service.name));
        // Books of an earlier run would be taken for this one's.
        std::fs::remove_file(&books).unwrap_or_default();
        let mut spec = self.spec(config, dir, service)?;
        let mut flag = |name: &str, value: OsString| {
            spec.arguments.push(name.into());
            spec.arguments.push(value);
        };
        flag("--rate", rate.to_string().into());
        flag("--books", books.clone().into());
        if config.run_for.is_some() {
            // A run that is over soon has no day: what is asked for is what comes.
            flag("--daily-peak-over-trough", "1".into());
        }
        if let Some(seed) = config.seed {
            flag("--seed", seed.to_string().into());
        }
        flag("--scenario", config.scenario.into());
        Ok((spec, books))
    }

    fn spec(&self, config: &Config, dir: &DataDir, service: &Service) -> anyhow::Result<Spec> {
        let admin = std::net::SocketAddr::new(config.bind, service.admin_port);
        let mut spec = Spec {
            name: service.name,
            program: self.path.clone(),
            arguments: service.words.iter().map(Into::into).collect(),
            environment: self.environment(dir, service.words),
            directory: None,
            user: None,
            log: dir.log(service.name),
            stop: Signal::TERM,
            orphaned: Orphaned::Killed,
            grace: config.grace,
            may_finish: service.may_finish,
        };
        set(&mut spec, "NATS_URL", format!("nats://{}", config.reach(config.ports.nats)));
        set(&mut spec, "ADMIN_ADDR", admin.to_string());
        Ok(spec)
    }

    /// The command that brings the database to the shape that this release needs.
    pub(crate) fn migration(
        &self,
        dir: &DataDir,
        owner: String,
    ) -> anyhow::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(&self.path);
        command
            .arg("migrate")
            .env_clear()
            .envs(self.environment(dir, &["migrate"]))
            .env("DATABASE_URL", owner)
            .env("LOG_FORMAT", "human")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// The command that joins broker and archive where they would be refused to each other.
    pub(crate) fn adoption(
        &self,
        config: &Config,
        dir: &DataDir,
        archiver: String,
    ) -> anyhow::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(&self.path);
        command
            .args(["adopt", "--confirm"])
            .env_clear()
            .envs(self.environment(dir, &["adopt"]))
            .env("NATS_URL", format!("nats://{}", config.reach(config.ports.nats)))
            .env("DATABASE_URL", archiver)
            .env("LOG_FORMAT", "human")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    fn environment(&self, dir: &DataDir, words: &[&str]) -> Variables {
        environment::of_ours(dir, &(self.settings_of)(words))
    }
}

/// Sets a variable of a part. Addresses that carry passwords go this way: arguments are seen by
/// everybody.
fn set(spec: &mut Spec, key: &str, value: String) {
    spec.environment.insert(key.to_owned(), value.into());
}
