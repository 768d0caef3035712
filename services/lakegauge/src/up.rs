//! `lakegauge up`: the whole pipeline on this machine, each part as a process of its own.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use service_kit::{Environment, Setting, Settings};

use crate::{adopt, command as flags, migrate, services};

pub(crate) fn command() -> Command {
    let command = Command::new("up")
        .about("Run the whole pipeline on this machine")
        .long_about(
            "Starts NATS, PostgreSQL, Prometheus and Grafana if they are installed, and every \
             service, each as a process of its own; prints their addresses and their state. A \
             part that dies is restarted. Ctrl-C stops in order: the simulators first, the rest \
             when everything is archived and counted. A second Ctrl-C does not wait for that.",
        )
        .after_help(
            "Exit status: 0 if every part was healthy and the sums agree, 1 otherwise, 64 for wrong \
             arguments or settings.\n\
             The settings of the services are passed on from the environment (see .env.example); \
             nothing else of\nit reaches a part: no PG…, NATS_…, GF_…, LC_… or proxy. Files belong \
             to the owner only, whatever the umask.\n\
             A part that dies at once five times in a row ends the run with its last lines.",
        );
    flags::with_settings(command, &local::settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = flags::flags(matches, &local::settings());
    flags::report_status(local::run(Settings::new(&given, &Environment), settings_of))
}

/// The settings of a subcommand that `up` starts.
fn settings_of(words: &[&str]) -> Vec<Setting> {
    match words {
        ["migrate"] => migrate::settings(),
        ["adopt"] => adopt::settings(),
        service => services::settings_of(service),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_another_server_is_a_setting_that_exists() {
        let all: Vec<&str> = services::sections()
            .into_iter()
            .flat_map(|(_, settings)| settings.into_iter().map(|setting| setting.key))
            .collect();
        for key in local::OF_OTHER_SERVERS {
            assert!(all.contains(key), "{key}");
        }
    }
}
