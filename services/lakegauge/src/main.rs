//! The command line of Lakegauge: a subcommand for each service, `up`, and the tools for people.

#![expect(clippy::print_stderr, reason = "this is the command line")]

mod addresses;
mod adopt;
mod audit;
mod command;
mod completions;
mod dead_letters;
mod decode;
mod doctor;
mod env_example;
mod healthcheck;
mod identity;
mod migrate;
mod publish;
mod readable;
mod replay;
mod rest_key;
mod said;
mod schema;
mod services;
mod stop;
mod streams;
mod tail;
mod tools;
mod top;
mod up;
mod waiting;
mod withdraw;

use std::process::ExitCode;

use clap::Command;

/// Exit status for wrong arguments and wrong settings (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = service_kit::EXIT_USAGE;

fn main() -> ExitCode {
    let matches = match root().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    if let Some(ended) = services::run(&matches) {
        return ended;
    }
    tools::run(&matches)
}

/// The whole command line.
fn root() -> Command {
    let root = Command::new("lakegauge")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Metrics of a data lake and a data warehouse that can be trusted")
        .after_help(
            "Settings are read from flags, then the environment, then defaults.\n\
             Exit status: 0 done, 1 failed, 64 wrong arguments or settings, 78 broker and archive \
             (or their rules) don't belong together.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .infer_subcommands(false);
    command::offer(services::choices(), tools::add_to(services::add_to(root)))
}

/// Help and version are normal results; everything else is a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody reads the help any more if it can't be written.
    error.print().unwrap_or_default();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        root().debug_assert();
    }
}
