//! `lakegauge schema`: the JSON Schema of the events.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

pub(crate) fn command() -> Command {
    Command::new("schema").about("Print the JSON Schema of the events").after_help(
        "It describes one event as a JSON object: one line of what `lakegauge publish` reads.",
    )
}

pub(crate) fn run(_: &ArgMatches) -> ExitCode {
    crate::command::print(wire::json::schema())
}
