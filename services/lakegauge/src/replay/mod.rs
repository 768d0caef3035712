//! `lakegauge replay`: reads the archive again, as a proof or as events.

mod bar;
mod run;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use bus::{BusSettings, ReplayRun};
use clap::{Arg, ArgAction, ArgMatches, Command};
use domain::Rules;
use event_store::StoreSettings;
use service_kit::logs::LogConfig;

use crate::{addresses::DatabaseLogin, command as flags, stop::Stopped};

service_kit::settings! {
    /// Settings of the tool.
    #[derive(Debug)]
    pub(crate) struct Config {
        /// NATS.
        #[settings(BusSettings::table())]
        bus: BusSettings = BusSettings::load_named("lakegauge replay"),
        /// Rules of a new pipeline, with which an archive without a pipeline is verified.
        #[settings(bus::service::rules_table())]
        rules: Rules = bus::service::load_rules(),
        /// PostgreSQL.
        #[settings(event_store::service::table())]
        store: StoreSettings = event_store::service::load("lakegauge-replay"),
        /// Bytes that each event stream of a replay run may hold, about 100 per event; if it is
        /// full, the replay waits for the aggregator that counts the run.
        #[setting(REPLAY_STREAM_MAX_BYTES, "stream-max-bytes", default = "1073741824")]
        stream_max_bytes: u64 = in_range(1..=u64::MAX),
        /// How long `replay --verify` waits for the archive to reach the aggregator's snapshot.
        #[setting(REPLAY_REACH_TIMEOUT_MS, "reach-timeout-ms", default = "60000")]
        reach_timeout: Duration = duration_ms,
    }
}

pub(crate) fn command() -> Command {
    let command = Command::new("replay")
        .about("Read the archive again: to prove that it gives the shown metrics, or as events")
        .after_help(
            "Replays archived events, in the order in which live counted them, to\n\
             replay.<run>.lake.<partition> and replay.<run>.warehouse.<partition>, in streams of\n\
             their own; `lakegauge aggregate --replay <run>` counts them beside the live ones. A\n\
             stopped run continues where it was; --remove deletes it.\n\
             --verify folds the archive and compares the result with the aggregator's snapshot,\n\
             with every sample and with every window. It only reads, also during live traffic.\n\
             Exit status: 0 done and identical, 1 failed or something differs, 64 wrong arguments.",
        );
    let command = verify::arguments(run::arguments(command)).arg(
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print the result as one JSON object"),
    );
    flags::of_tool(command, &Config::table())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = flags::ToolArguments::of(matches, &Config::table(), DatabaseLogin::Reader);
    let config = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        Config::load(settings)
    });
    let config = match config {
        Ok(config) => config,
        Err(status) => return status,
    };
    flags::say_raised_tls(&config.store);
    let done = flags::block_on(async {
        if matches.get_flag("verify") {
            return verify::run(config, matches).await;
        }
        match matches.get_one::<ReplayRun>("remove") {
            Some(run) => run::remove(config, run).await,
            None => run::run(config, matches).await,
        }
    });
    // Messages that were published have the same message id, so the same command sends the rest.
    let goes_on = matches.contains_id("run") && matches.get_one::<ReplayRun>("run").is_some();
    flags::report_status(done.map_err(|error| match error.downcast::<Stopped>() {
        Ok(stopped) if goes_on => {
            anyhow::anyhow!("{stopped}; the same command continues where it stopped")
        }
        Ok(stopped) => stopped.into(),
        Err(error) => error,
    }))
}
