//! `lakegauge top`: the pipeline on one screen of a terminal.

mod human;
mod picture;
mod readings;
mod screen;
mod session;
mod source;
mod spark;
mod table;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use event_store::StoreSettings;

use crate::{addresses::Login, command};
use source::Source;

/// Columns and rows of a picture.
const PICTURE_SIZE: (u16, u16) = (110, 36);
/// Two looks of `--once` and of a picture are this far apart, so that there are rates.
const ONCE_APART: Duration = Duration::from_secs(1);

service_kit::settings! {
    /// What the tool is told.
    #[derive(Clone, Debug)]
    pub(crate) struct Config {
        /// Where the aggregator serves the metrics and the page.
        #[setting(TOP_METRICS_ADDR, "metrics-addr", default = "127.0.0.1:8000")]
        metrics: SocketAddr,
        /// Admin port of the archiver.
        #[setting(TOP_ARCHIVER_ADDR, "archiver-addr", default = "127.0.0.1:8014")]
        archiver: SocketAddr,
        /// Time between two looks; the keys s and d change it.
        #[setting(TOP_INTERVAL_MS, "interval-ms", default = "2000")]
        interval: Duration = duration_ms,
        /// The archive, whose last dead letters are shown.
        #[settings(event_store::service::table())]
        store: Option<StoreSettings> = event_store::service::load_optional("lakegauge-top"),
    }
}

pub(crate) fn command() -> Command {
    let command = Command::new("top")
        .about("Show the pipeline on one screen: rates, lag, the four metrics, what is busiest")
        .after_help(
            "Keys: q quits, h helps, s or d sets the seconds between two looks, space looks now,\n\
             arrows scroll what is listed, tab chooses the list.\n\
             Addresses that are not set are those of the `lakegauge up` that runs in --data-dir.\n\
             Without DATABASE_URL the last dead letters are not shown.",
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Print a plain table of name and value, for scripts, and end"),
        )
        .arg(
            Arg::new("picture")
                .long("picture")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("once")
                .help("Write what the screen shows as an SVG picture, and end"),
        );
    command::of_tool(command, &Config::table())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::Given::of(matches, &Config::table(), Login::Reader);
    let config = match given.load(Config::load) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let picture = matches.get_one::<PathBuf>("picture");
    if !matches.get_flag("once") && picture.is_none() {
        return command::report(command::block_on_until_stopped(|stop| session::run(config, stop)));
    }
    command::report_status(command::block_on(async {
        let mut source = Source::new(&config);
        source.look().await;
        tokio::time::sleep(ONCE_APART).await;
        let readings = source.look().await;
        if let Some(file) = picture {
            let svg = picture::draw(&readings, config.interval, PICTURE_SIZE)?;
            std::fs::write(file, svg).with_context(|| format!("writing {}", file.display()))?;
        } else {
            std::io::stdout().write_all(table::render(&readings).as_bytes())?;
        }
        Ok(readings.now.is_ok_and(|now| now.ready))
    }))
}
