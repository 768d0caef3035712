//! `lakegauge streams`: creates and updates the streams, for operators whose services may not do
//! so.

use std::process::ExitCode;

use bus::{Bus, Topology, service};
use clap::{ArgMatches, Command};
use service_kit::logs::LogConfig;

use crate::{addresses::DatabaseLogin, command};

pub(crate) fn command() -> Command {
    let command = Command::new("streams")
        .about("Create missing streams in NATS, and update the others")
        .long_about(
            "Creates the missing streams and buckets of nats/streams.json, and updates the \
             others; can be repeated. Services do this themselves if their login may: with \
             restricted logins only this command needs the permission.",
        );
    command::of_tool(command, &service::table())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &service::table(), DatabaseLogin::Reader);
    let config = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        service::load("streams", settings)
    });
    let config = match config {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::report(command::block_on(stand(&config)))
}

/// The names of the streams with events, for arguments.
pub(crate) fn event_streams() -> Vec<&'static str> {
    // The leak is small: the names are needed once or twice.
    Topology::event_streams().iter().map(|it| &*String::leak(it.to_string())).collect()
}

async fn stand(config: &service::BusConfig) -> anyhow::Result<()> {
    let bus = Bus::connect(&config.settings).await?;
    for applied in bus.apply_topology(&config.topology).await? {
        let stream = applied.stream;
        if applied.made {
            eprintln!("created {stream}");
        } else if applied.changed.is_empty() {
            eprintln!("{stream} is up to date");
        } else {
            eprintln!("{stream}: changed {}", applied.changed.join(", "));
        }
    }
    Ok(())
}
