//! The tools for people. One line here adds a module of this crate as a subcommand.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::{
    adopt, audit, completions, dead_letters, decode, doctor, env_example, healthcheck, migrate,
    publish, replay, rest_key, schema, streams, tail, top, up, withdraw,
};

/// A subcommand that is not a service: it does one thing and ends.
struct Tool {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> ExitCode,
}

/// In the order of the help.
const TOOLS: &[Tool] = &[
    Tool { command: up::command, run: up::run },
    Tool { command: publish::command, run: publish::run },
    Tool { command: replay::command, run: replay::run },
    Tool { command: top::command, run: top::run },
    Tool { command: tail::command, run: tail::run },
    Tool { command: decode::command, run: decode::run },
    Tool { command: schema::command, run: schema::run },
    Tool { command: migrate::command, run: migrate::run },
    Tool { command: streams::command, run: streams::run },
    Tool { command: adopt::command, run: adopt::run },
    Tool { command: audit::command, run: audit::run },
    Tool { command: dead_letters::command, run: dead_letters::run },
    Tool { command: withdraw::command, run: withdraw::run },
    Tool { command: doctor::command, run: doctor::run },
    Tool { command: healthcheck::command, run: healthcheck::run },
    Tool { command: rest_key::command, run: rest_key::run },
    Tool { command: env_example::command, run: env_example::run },
    Tool { command: completions::command, run: completions::run },
];

/// Adds every tool to the command line.
pub(crate) fn add_to(root: Command) -> Command {
    TOOLS.iter().fold(root, |root, tool| root.subcommand((tool.command)()))
}

/// Runs the tool that was asked for.
pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let asked = matches.subcommand().and_then(|(name, matches)| {
        let tool = TOOLS.iter().find(|tool| (tool.command)().get_name() == name)?;
        Some((tool, matches))
    });
    match asked {
        Some((tool, matches)) => (tool.run)(matches),
        None => ExitCode::from(crate::EXIT_USAGE),
    }
}
