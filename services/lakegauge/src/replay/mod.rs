//! `lakegauge replay`: the archive read again, as a proof or as events.

mod bar;
mod run;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use bus::{Run, service::BusConfig};
use clap::{Arg, ArgAction, ArgMatches, Command};
use event_store::StoreSettings;
use service_kit::logs::LogConfig;
use service_kit::{Setting, Settings};

use crate::{addresses::Login, command as flags, stop::Stopped};

const REACH_TIMEOUT_MS: Setting = Setting {
    key: "REPLAY_REACH_TIMEOUT_MS",
    flag: "reach-timeout-ms",
    default: Some("60000"),
    help: "How long `replay --verify` waits for the archive to reach the aggregator's snapshot.",
    secret: false,
};

const STREAM_MAX_BYTES: Setting = Setting {
    key: "REPLAY_STREAM_MAX_BYTES",
    flag: "stream-max-bytes",
    default: Some("1073741824"),
    help: "Bytes that each event stream of a replay run may hold, about 100 an event; a full one makes \
           the replay wait for the aggregator that counts the run.",
    secret: false,
};

/// The settings of the tool itself; those of NATS and of the archive come on top.
pub(crate) const SETTINGS: &[Setting] = &[STREAM_MAX_BYTES, REACH_TIMEOUT_MS];

#[derive(Debug)]
struct Config {
    bus: BusConfig,
    store: StoreSettings,
    reach_timeout: Duration,
    stream_max_bytes: u64,
}

impl Config {
    fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let bus = bus::service::load("lakegauge replay", settings);
        let store = event_store::service::load("lakegauge-replay", settings);
        let reach_timeout = settings.duration_ms(&REACH_TIMEOUT_MS);
        let stream_max_bytes = settings.in_range(&STREAM_MAX_BYTES, 1..=u64::MAX);
        Some(Self {
            bus: bus?,
            store: store?,
            reach_timeout: reach_timeout?,
            stream_max_bytes: stream_max_bytes?,
        })
    }
}

/// Reads the settings of the tool itself, of NATS and of the archive.
pub(crate) fn load(settings: &mut Settings<'_>) {
    // The problems are in the settings.
    drop(Config::load(settings));
}

fn all_settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().chain(bus::service::SETTINGS).chain(event_store::service::SETTINGS)
}

pub(crate) fn command() -> Command {
    let command = Command::new("replay")
        .about("Read the archive again: as a proof that it gives what was shown, or as events")
        .after_help(
            "Replays archived events, in the order in which live counted them, to\n\
             replay.<run>.lake.<partition> and replay.<run>.warehouse.<partition>, in streams of\n\
             their own; `lakegauge aggregate --replay <run>` counts them beside live. A run that was\n\
             stopped goes on where it was; --remove takes it away.\n\
             --verify folds the archive and compares the result with the aggregator's snapshot,\n\
             with every sample and with every window. It only reads, beside live traffic too.\n\
             Exit status: 0 done and identical, 1 failed or something differs, 64 wrong arguments.",
        );
    let command = verify::arguments(run::arguments(command)).arg(
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print the result as one JSON object"),
    );
    flags::of_tool(command, all_settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = flags::Given::of(matches, all_settings(), Login::Reader);
    let config = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        Config::load(settings)
    });
    let config = match config {
        Ok(config) => config,
        Err(problems) => return flags::report(Err(problems.into())),
    };
    let Some(config) = config else { return ExitCode::from(crate::EXIT_USAGE) };
    flags::say_raised_tls(&config.store);
    let done = flags::block_on(async {
        if matches.get_flag("verify") {
            return verify::run(config, matches).await;
        }
        match matches.get_one::<Run>("remove") {
            Some(run) => run::remove(config, run).await,
            None => run::run(config, matches).await,
        }
    });
    // What was published has a message id of its own: the same command sends the rest.
    let goes_on = matches.contains_id("run") && matches.get_one::<Run>("run").is_some();
    flags::report_status(done.map_err(|error| match error.downcast::<Stopped>() {
        Ok(stopped) if goes_on => {
            anyhow::anyhow!("{stopped}; the same command goes on where it stopped")
        }
        Ok(stopped) => stopped.into(),
        Err(error) => error,
    }))
}
