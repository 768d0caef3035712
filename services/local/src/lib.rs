//! `lakegauge up`: the whole pipeline on this machine, each part as a process of its own.
//!
//! It starts the installed servers, and its own executable once for each service. It restarts parts
//! that die, stops them in order, and reports whether the sums agree.

#![expect(clippy::print_stderr, reason = "people start it in a terminal")]

pub mod addresses;
mod archive;
mod beside;
mod config;
mod console;
mod datadir;
mod environment;
mod grafana;
mod line;
mod nats;
mod parts;
mod pipeline;
mod postgres;
mod process;
mod prometheus;
mod readings;
mod session;
mod summary;
mod troubles;

use std::path::PathBuf;

use anyhow::Context as _;
use service_kit::{Environment, Setting, Settings, Strings as _, settings::Recorded};

use config::Config;
pub use config::DATA_DIR;
pub use environment::OF_OTHER_SERVERS;
use parts::Executable;
pub use parts::SettingsOf;

/// Runs the pipeline until it is asked to end. Returns whether every part was healthy and the sums
/// agree.
///
/// The executable of this process must have every service as a subcommand.
///
/// # Errors
///
/// The settings are wrong, the pipeline can't be started, or a part can't run.
pub fn run(mut settings: Settings<'_>, settings_of: SettingsOf) -> anyhow::Result<bool> {
    let config = Config::load(&mut settings);
    settings.finish()?;
    let config = config.map_err(|Recorded| anyhow::anyhow!("the settings could not be loaded"))?;
    let executable = Executable::find(settings_of)?;
    environment::without_others(&executable.path)?;
    // Files that are created here, or by the parts, are accessible only to the owner, whatever the
    // user's umask.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // One thread, because the system ties each part's life to the thread that started it.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be built")?
        .block_on(session::run(config, executable))
}

/// Every setting of `up`.
pub fn settings() -> Vec<Setting> {
    Config::table()
}

/// Reads the settings only for their problems.
pub fn load(settings: &mut Settings<'_>) {
    drop(Config::load(settings));
}

/// The servers that `up` would start, or why it can't.
pub fn servers() -> Vec<Result<String, String>> {
    let flags = service_kit::Flags::default();
    let mut settings = Settings::new(&flags, &Environment);
    let Ok(config) = Config::load(&mut settings) else { return Vec::new() };
    let told = |name: &str, found: anyhow::Result<PathBuf>| match found {
        Ok(path) => Ok(format!("{name} for `up`: {}", path.display())),
        Err(error) => Err(format!("{error:#}")),
    };
    let prometheus = prometheus::find(&config)
        .and_then(|found| found.ok_or_else(|| anyhow::anyhow!("no Prometheus is installed")));
    vec![
        told("nats-server", nats::find(&config)),
        told("PostgreSQL", postgres::find(&config, None)),
        told("Prometheus", prometheus),
    ]
}

/// The executable of this name on PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = Environment.get("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|found| found.is_file())
}
