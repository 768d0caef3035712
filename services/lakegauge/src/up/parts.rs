//! The services as `up` starts them: this executable with a subcommand.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::Signal;
use service_kit::{Environment, Strings as _};

use super::config::Config;
use super::datadir::DataDir;
use super::process::{Orphaned, Spec};

/// A service to start.
struct Service {
    name: &'static str,
    words: &'static [&'static str],
    admin_port: u16,
    may_finish: bool,
}

/// The archiver.
pub(crate) fn archiver(config: &Config, dir: &DataDir, database: String) -> anyhow::Result<Spec> {
    let service = Service {
        name: "archiver",
        words: &["archive"],
        admin_port: config.ports.archiver_admin,
        may_finish: false,
    };
    let mut spec = spec(config, dir, &service)?;
    spec.environment.push(("DATABASE_URL", database));
    Ok(spec)
}

/// The aggregator; it reads the archive when it must rebuild.
pub(crate) fn aggregator(config: &Config, dir: &DataDir, database: String) -> anyhow::Result<Spec> {
    let service = Service {
        name: "aggregator",
        words: &["aggregate"],
        admin_port: config.ports.aggregator_admin,
        may_finish: false,
    };
    let mut spec = spec(config, dir, &service)?;
    spec.environment.push(("DATABASE_URL", database));
    let metrics = std::net::SocketAddr::new(config.bind, config.ports.metrics);
    spec.environment.push(("METRICS_ADDR", metrics.to_string()));
    // Its page links to where these are here, unless somebody says otherwise.
    let (grafana, prometheus) = (config.ports.grafana, config.ports.prometheus);
    for (key, port) in [("PAGE_GRAFANA_URL", grafana), ("PAGE_PROMETHEUS_URL", prometheus)] {
        if Environment.get(key).is_none_or(|given| given.is_empty()) {
            spec.environment.push((key, format!(":{port}")));
        }
    }
    Ok(spec)
}

/// Both simulators, with where they write their books.
pub(crate) fn simulators(config: &Config, dir: &DataDir) -> anyhow::Result<[(Spec, PathBuf); 2]> {
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
        simulator(config, dir, &lake, config.lake_rate())?,
        simulator(config, dir, &warehouse, config.warehouse_rate())?,
    ])
}

fn simulator(
    config: &Config,
    dir: &DataDir,
    service: &Service,
    rate: u64,
) -> anyhow::Result<(Spec, PathBuf)> {
    let books = dir.at("books").join(format!("{}.json", service.name));
    // Books of an earlier run would be taken for this one's.
    std::fs::remove_file(&books).unwrap_or_default();
    let mut spec = spec(config, dir, service)?;
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
    if let Some(scenario) = &config.scenario {
        flag("--scenario", scenario.into());
    }
    Ok((spec, books))
}

/// Settings for servers that are not ours: they are emptied for our
/// services, which makes them unset.
pub(crate) const OF_OTHER_SERVERS: &[&str] = &[
    "NATS_CREDS",
    "NATS_NKEY_SEED_FILE",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_PASSWORD_FILE",
    "NATS_CA_FILE",
    "NATS_SUBJECT_PREFIX",
    "NATS_REPLICAS",
    "SUPABASE_DB_URL",
    "SUPABASE_DB_URL_FILE",
    "MIGRATION_DATABASE_URL",
    "MIGRATION_DATABASE_URL_FILE",
];

fn spec(config: &Config, dir: &DataDir, service: &Service) -> anyhow::Result<Spec> {
    let admin = std::net::SocketAddr::new(config.bind, service.admin_port);
    let nats = format!("nats://{}", config.reach(config.ports.nats));
    Ok(Spec {
        name: service.name,
        program: this_executable()?,
        arguments: service.words.iter().map(Into::into).collect(),
        // Addresses that carry passwords go by the environment: arguments are seen by everybody.
        environment: OF_OTHER_SERVERS
            .iter()
            .map(|key| (*key, String::new()))
            .chain([("NATS_URL", nats), ("ADMIN_ADDR", admin.to_string())])
            .collect(),
        user: None,
        log: dir.log(service.name),
        stop: Signal::TERM,
        orphaned: Orphaned::Killed,
        grace: config.grace,
        may_finish: service.may_finish,
    })
}

/// The executable that `up` itself runs from.
pub(crate) fn this_executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this executable can't be found")
}
