//! `lakegauge top`: the pipeline on one screen of a terminal.

mod banner;
mod gauges;
mod human;
mod readings;
mod screen;
mod session;
mod source;
mod spark;
mod style;
mod table;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use event_store::StoreSettings;
use service_kit::http_client::HostPort;

use crate::{addresses::DatabaseLogin, command};
use source::Probe;

/// Time between the two readings of `--once`, which are needed for rates.
const ONCE_APART: Duration = Duration::from_secs(1);

service_kit::settings! {
    /// Settings of the tool.
    #[derive(Clone, Debug)]
    pub(crate) struct Config {
        /// Address at which the aggregator serves the metrics and the page.
        #[setting(TOP_METRICS_ADDR, "metrics-addr", default = "127.0.0.1:8000")]
        metrics: HostPort,
        /// Admin port of the archiver.
        #[setting(TOP_ARCHIVER_ADDR, "archiver-addr", default = "127.0.0.1:8014")]
        archiver: HostPort,
        /// Time between two readings; the keys s and d change it.
        #[setting(TOP_INTERVAL_MS, "interval-ms", default = "2000")]
        interval: Duration = duration_ms,
        /// The archive, whose last dead letters are shown.
        #[settings(event_store::service::table())]
        store: Option<StoreSettings> = event_store::service::load_optional("lakegauge-top"),
    }
}

pub(crate) fn command() -> Command {
    let command = Command::new("top")
        .about("Show the pipeline on one screen: rates, lag, the four metrics, the busiest buckets")
        .after_help(
            "Keys: q quits, h shows help, s or d sets the seconds between readings, space reads\n\
             now, arrows scroll a list, tab chooses the list.\n\
             Addresses that are not set are those of the `lakegauge up` that runs in --data-dir.\n\
             Without DATABASE_URL the last dead letters are not shown.",
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Print a plain table of name and value, for scripts, and end"),
        );
    command::of_tool(command, &Config::table())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &Config::table(), DatabaseLogin::Reader);
    let config = match given.load(Config::load) {
        Ok(config) => config,
        Err(status) => return status,
    };
    if !matches.get_flag("once") {
        return command::report(command::block_on_until_stopped(|stop| session::run(config, stop)));
    }
    command::report_status(command::block_on(async {
        let mut source = Probe::new(&config);
        source.look().await;
        tokio::time::sleep(ONCE_APART).await;
        let readings = source.look().await;
        std::io::stdout().write_all(table::render(&readings).as_bytes())?;
        Ok(readings.now.is_ok_and(|now| now.ready))
    }))
}
