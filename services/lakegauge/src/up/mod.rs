//! `lakegauge up`: the whole pipeline on this machine, each part a process of its own.

mod archive;
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
pub(crate) mod probe;
mod process;
mod prometheus;
mod readings;
mod session;
mod summary;
mod troubles;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use service_kit::{Environment, Settings, Strings as _};

use crate::command as flags;
use config::Config;
pub(crate) use config::{DATA_DIR, SETTINGS};
pub(crate) use postgres::DATABASE;

pub(crate) fn command() -> Command {
    let command = Command::new("up")
        .about("Run the whole pipeline on this machine")
        .long_about(
            "Starts NATS, PostgreSQL, Prometheus and Grafana where they are installed, and every service, each as \
             a process of its own; prints where they are and how they do. A part that dies is \
             started again. Ctrl-C stops in order: the simulators first, the rest when everything \
             is archived and counted. A second Ctrl-C does not wait for that.",
        )
        .after_help(
            "Exit status: 0 if every part was healthy and the sums agree, 1 otherwise, 64 for wrong \
             arguments or settings.\n\
             The settings of the services are passed on from the environment (see .env.example); \
             nothing else of\nit reaches a part: no PG…, NATS_…, GF_…, LC_… or proxy. What is made \
             is its owner's alone, whatever the umask.\n\
             A part that dies at once five times in a row ends the run with its last lines.",
        );
    flags::with_settings(command, SETTINGS)
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = flags::flags(matches, SETTINGS);
    let mut settings = Settings::new(&given, &Environment);
    let config = Config::load(&mut settings);
    if let Err(problems) = settings.finish() {
        return flags::report(Err(problems.into()));
    }
    let Some(config) = config else { return ExitCode::from(crate::EXIT_USAGE) };
    if let Err(error) = environment::without_others() {
        return flags::report(Err(error));
    }
    // What is made here is its owner's alone, and so is what the parts make, whatever the umask of
    // the one who starts us.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // One thread: the system ties each part's life to the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map_err(|error| anyhow::anyhow!("the runtime can't be built: {error}"))
        .and_then(|runtime| runtime.block_on(session::run(config)));
    flags::report_status(ended)
}

/// Reads the settings of `up` for their problems only.
pub(crate) fn load(settings: &mut Settings<'_>) {
    Config::load(settings);
}

/// The servers that `up` would start, or why it can't.
pub(crate) fn tools() -> Vec<Result<String, String>> {
    let flags = service_kit::Flags::default();
    let mut settings = Settings::new(&flags, &Environment);
    let Some(config) = Config::load(&mut settings) else { return Vec::new() };
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
