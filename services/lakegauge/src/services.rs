//! The services: long-running, each with the frame of service-kit.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use service_kit::{Flags, Service, Setting};

use crate::command;

/// A subcommand that is a service.
pub(crate) struct Entry {
    /// Words of the subcommand: `["simulate", "lake"]`.
    path: &'static [&'static str],
    about: &'static str,
    service: Service,
    /// The service's own settings; those of the frame come on top.
    settings: &'static [Setting],
    run: fn(&Service, &Flags) -> ExitCode,
}

/// In the order of the help.
pub(crate) const SERVICES: &[Entry] = &[];

/// Words that only group services.
const GROUPS: &[(&str, &str)] =
    &[("simulate", "Make events as a real data lake or data warehouse would")];

impl Entry {
    /// Every setting that the service reads.
    pub(crate) fn all_settings(&self) -> Vec<Setting> {
        self.settings.iter().copied().chain(self.service.settings()).collect()
    }

    fn command(&self) -> Command {
        let name = self.path.last().copied().unwrap_or_default();
        let command = Command::new(name).about(self.about).after_help(
            "SIGTERM and SIGINT drain: what was taken is finished. A second signal gives up.",
        );
        command::with_settings(command, &self.all_settings())
    }
}

/// Adds every service to the command line.
pub(crate) fn add_to(root: Command) -> Command {
    let groups = GROUPS.iter().map(|(name, about)| {
        let group = Command::new(*name)
            .about(*about)
            .subcommand_required(true)
            .arg_required_else_help(true);
        SERVICES
            .iter()
            .filter(|entry| entry.path.len() == 2 && entry.path[0] == *name)
            .fold(group, |group, entry| group.subcommand(entry.command()))
    });
    let single = SERVICES.iter().filter(|entry| entry.path.len() == 1).map(Entry::command);
    root.subcommands(groups).subcommands(single)
}

/// Runs the service that was asked for, if one was.
pub(crate) fn run(matches: &ArgMatches) -> Option<ExitCode> {
    let entry = SERVICES.iter().find_map(|entry| {
        let mut at = matches;
        for word in entry.path {
            at = at.subcommand_matches(word)?;
        }
        Some((entry, at))
    });
    let (entry, matches) = entry?;
    let flags = command::flags(matches, &entry.all_settings());
    Some((entry.run)(&entry.service, &flags))
}
