//! `lakegauge completions`: the shell completes commands and flags.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

pub(crate) fn command() -> Command {
    Command::new("completions")
        .about("Print the completions for a shell")
        .after_help("For bash: source <(lakegauge completions bash)")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .value_parser(value_parser!(Shell))
                .required(true)
                .help("For which shell"),
        )
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let Some(shell) = matches.get_one::<Shell>("shell").copied() else {
        return ExitCode::from(crate::EXIT_USAGE);
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::root(), "lakegauge", &mut script);
    crate::command::print(script)
}
