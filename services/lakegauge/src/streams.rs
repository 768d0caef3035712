//! `lakegauge streams`: makes the streams stand, for operators whose services may not.

use std::process::ExitCode;

use bus::{Bus, Topology, service};
use clap::{ArgMatches, Command};
use service_kit::logs::LogConfig;

use crate::{addresses::DatabaseLogin, command};

pub(crate) fn command() -> Command {
    let command = Command::new("streams")
        .about("Make the streams that NATS lacks, and bring the others up to date")
        .long_about(
            "Makes the streams and buckets of nats/streams.json that NATS lacks, and brings the \
             others up to date; safe to repeat. Services do so themselves where their login may: \
             with logins of least rights only this one needs it.",
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

/// The names of the streams that carry events, as words of an argument.
pub(crate) fn event_streams() -> Vec<&'static str> {
    // Named for the life of the process, which asks for them once or twice.
    Topology::event_streams().iter().map(|it| &*String::leak(it.to_string())).collect()
}

async fn stand(config: &service::BusConfig) -> anyhow::Result<()> {
    let bus = Bus::connect(&config.settings).await?;
    for applied in bus.apply_topology(&config.topology).await? {
        let stream = applied.stream;
        if applied.made {
            eprintln!("made {stream}");
        } else if applied.changed.is_empty() {
            eprintln!("{stream} is up to date");
        } else {
            eprintln!("{stream}: changed {}", applied.changed.join(", "));
        }
    }
    Ok(())
}
