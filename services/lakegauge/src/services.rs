//! The services: long-running, each with the frame of service-kit.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Arg, ArgAction, ArgMatches, Command};
use service_kit::bootstrap::{ADMIN_ADDR, SHUTDOWN_GRACE_MS};
use service_kit::logs::{LOG_FORMAT, LOG_LEVEL, LogConfig};
use service_kit::settings::Recorded;
use service_kit::{Environment, Flags, InvalidSettings, Service, Setting, Settings};

use crate::{
    addresses::{DatabaseLogin, Surroundings},
    command::{self, Choices},
    migrate, publish, replay, top,
};

type Describe = fn(&mut Settings<'_>) -> Result<String, Recorded>;

/// A subcommand that is a service.
pub(crate) struct ServiceCommand {
    /// Words of the subcommand: `["simulate", "lake"]`.
    path: &'static [&'static str],
    about: &'static str,
    service: Service,
    /// Every setting except those of the frame.
    settings: fn() -> Vec<Setting>,
    run: fn(&Service, &Flags) -> ExitCode,
    /// Reads the settings only for their problems.
    load: fn(&mut Settings<'_>),
    /// Describes the generated events beside published figures, for services that generate events.
    describe: Option<Describe>,
    /// Further text at the end of the help.
    more_help: Option<&'static str>,
}

/// In the order of the help.
pub(crate) const SERVICES: &[ServiceCommand] = &[
    ServiceCommand {
        path: &["simulate", "lake"],
        about: "Generate object store requests, and write what the metrics must be",
        service: Service { name: "lake-simulator", version: VERSION, admin_addr: "127.0.0.1:8011" },
        settings: simulator::lake::Config::table,
        load: |settings| drop(simulator::lake::Config::load(settings)),
        describe: Some(|settings| {
            use simulator::lake::{Config, describe};
            Ok(simulator::describe::render(&describe(&Config::load(settings)?)))
        }),
        more_help: None,
        run: |service, flags| {
            use simulator::lake::{Config, run};
            service_kit::main(service, flags, Config::load, run, command::status)
        },
    },
    ServiceCommand {
        path: &["simulate", "warehouse"],
        about: "Generate queries, and write what the metrics must be",
        service: Service {
            name: "warehouse-simulator",
            version: VERSION,
            admin_addr: "127.0.0.1:8012",
        },
        settings: simulator::warehouse::Config::table,
        load: |settings| drop(simulator::warehouse::Config::load(settings)),
        describe: Some(|settings| {
            use simulator::warehouse::{Config, describe};
            Ok(simulator::describe::render(&describe(&Config::load(settings)?)))
        }),
        more_help: None,
        run: |service, flags| {
            use simulator::warehouse::{Config, run};
            service_kit::main(service, flags, Config::load, run, command::status)
        },
    },
    ServiceCommand {
        path: &["aggregate"],
        about: "Count the events and serve the four metrics",
        service: Service { name: "aggregator", version: VERSION, admin_addr: "127.0.0.1:8013" },
        settings: aggregator::Config::table,
        load: |settings| drop(aggregator::Config::load(settings)),
        describe: None,
        more_help: None,
        run: |service, flags| {
            use aggregator::{Config, run};
            service_kit::main(service, flags, Config::load, run, command::status)
        },
    },
    ServiceCommand {
        path: &["archive"],
        about: "Write every event into the archive, exactly once",
        service: Service { name: "archiver", version: VERSION, admin_addr: "127.0.0.1:8014" },
        settings: archiver::Config::table,
        load: |settings| drop(archiver::Config::load(settings)),
        describe: None,
        more_help: None,
        run: |service, flags| {
            use archiver::{Config, run};
            service_kit::main(service, flags, Config::load, run, command::status)
        },
    },
    ServiceCommand {
        path: &["collect", "http"],
        about: "Receive over HTTP what lakes and warehouses report: S3 events, audit records, \
                queries of Trino",
        service: Service { name: "collector", version: VERSION, admin_addr: "127.0.0.1:8015" },
        settings: collector::http::Config::table,
        load: |settings| drop(collector::http::Config::load(settings)),
        describe: None,
        more_help: Some(collector::http::LINES),
        run: |service, flags| {
            use collector::http::{Config, run};
            service_kit::main(service, flags, Config::load, run, command::status)
        },
    },
    ServiceCommand {
        path: &["collect", "folder"],
        about: "Count the files of a folder that is a lake, again and again, so that its used \
                space is exact",
        service: Service { name: "collector", version: VERSION, admin_addr: "127.0.0.1:8016" },
        settings: collector::folder::Config::table,
        load: |settings| drop(collector::folder::Config::load(settings)),
        describe: None,
        more_help: Some(
            "Each regular file below the folder counts once with its length. A folder that can't \
             be read makes /readyz fail, and no inventory is published until it can. More in \
             docs/sources/folder.md.",
        ),
        run: |service, flags| {
            use collector::folder::{Config, run};
            service_kit::main(service, flags, Config::load, run, command::status)
        },
    },
    ServiceCommand {
        path: &["collect", "postgres-log"],
        about: "Follow the JSON log of a PostgreSQL: each statement is a query",
        service: Service { name: "collector", version: VERSION, admin_addr: "127.0.0.1:8017" },
        settings: collector::postgres_log::Config::table,
        load: |settings| drop(collector::postgres_log::Config::load(settings)),
        describe: None,
        more_help: Some(collector::postgres_log::LINES),
        run: |service, flags| {
            use collector::postgres_log::{Config, run};
            service_kit::main(service, flags, Config::load, run, command::status)
        },
    },
];

/// The release, in `--version`, in the logs and in the metrics.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Flag of the simulators.
const DESCRIBE: &str = "describe";

/// Words that only group services.
const GROUPS: &[(&str, &str)] = &[
    ("simulate", "Generate events like a real data lake or data warehouse"),
    ("collect", "Collect events of real lakes and warehouses"),
];

impl ServiceCommand {
    /// Every setting that the service reads.
    pub(crate) fn all_settings(&self) -> Vec<Setting> {
        (self.settings)().into_iter().chain(self.service.settings()).collect()
    }

    fn command(&self) -> Command {
        let name = self.path.last().copied().unwrap_or_default();
        let mut help =
            "SIGTERM and SIGINT drain: work in progress is finished. A second signal ends at once."
                .to_owned();
        if let Some(more) = self.more_help {
            help.push_str("\n\n");
            help.push_str(more);
        }
        let command = Command::new(name).about(self.about).after_help(help);
        let command = command::with_settings(command, &self.all_settings());
        if self.describe.is_none() {
            return command;
        }
        command.arg(Arg::new(DESCRIBE).long(DESCRIBE).action(ArgAction::SetTrue).help(
            "Print what is generated with these settings (percentiles, shares) beside the \
             published figures and their sources, and end",
        ))
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
    let single = SERVICES.iter().filter(|entry| entry.path.len() == 1).map(ServiceCommand::command);
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
    let mut flags = command::flags(matches, &entry.all_settings());
    if let Err(problems) = beside_up(entry, &mut flags) {
        return Some(command::report(Err(problems.into())));
    }
    if let Some(describe) = entry.describe.filter(|_| matches.get_flag(DESCRIBE)) {
        // This takes a while, because many values are drawn.
        return Some(command::report(command::block_on_blocking(move || {
            print_description(describe, &flags)
        })));
    }
    Some((entry.run)(&entry.service, &flags))
}

/// The aggregator of a replay run is started by hand beside `up`, and finds its NATS as the tools
/// do. `up` passes all addresses to its own services.
fn beside_up(entry: &ServiceCommand, flags: &mut Flags) -> Result<(), InvalidSettings> {
    const NATS: &str = "NATS_URL";
    if entry.path != ["aggregate"] || flags.get("AGGREGATOR_REPLAY").is_none() {
        return Ok(());
    }
    let found = Surroundings::of(flags, &bus::service::table(), DatabaseLogin::Reader)?;
    if let Some(url) = found.of_up(NATS) {
        flags.set(NATS, url);
    }
    Ok(())
}

fn print_description(
    describe: fn(&mut Settings<'_>) -> Result<String, Recorded>,
    flags: &Flags,
) -> anyhow::Result<()> {
    let mut settings = Settings::new(flags, &Environment);
    let description = describe(&mut settings);
    settings.finish()?;
    let text =
        description.map_err(|Recorded| anyhow::anyhow!("the settings could not be loaded"))?;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Every setting of the service with these words; empty if there is no such service.
pub(crate) fn settings_of(path: &[&str]) -> Vec<Setting> {
    let entry = SERVICES.iter().find(|entry| entry.path == path);
    entry.map(ServiceCommand::all_settings).unwrap_or_default()
}

/// Every setting under the title of its part, for `.env.example`.
pub(crate) fn sections() -> Vec<(String, Vec<Setting>)> {
    let frame = [ADMIN_ADDR, LOG_FORMAT, LOG_LEVEL, SHUTDOWN_GRACE_MS];
    let mut sections = vec![
        ("Every service".to_owned(), frame.to_vec()),
        ("NATS".to_owned(), bus::service::table()),
        ("The archive".to_owned(), event_store::service::table()),
        ("lakegauge migrate".to_owned(), migrate::settings()),
    ];
    for entry in SERVICES {
        sections.push((format!("lakegauge {}", entry.path.join(" ")), (entry.settings)()));
    }
    sections.push(("lakegauge up".to_owned(), local::settings()));
    sections.push(("lakegauge publish".to_owned(), publish::Config::table()));
    sections.push(("lakegauge replay".to_owned(), replay::Config::table()));
    sections.push(("lakegauge top".to_owned(), top::Config::table()));
    sections
}

/// The allowed words of every setting that is a choice, from the code that reads it.
pub(crate) fn choices() -> &'static Choices {
    static CHOICES: OnceLock<Choices> = OnceLock::new();
    CHOICES.get_or_init(|| {
        let (flags, environment) = (Flags::default(), BTreeMap::<String, String>::new());
        let mut settings = Settings::new(&flags, &environment);
        load_everything(&mut settings);
        settings.choices().clone()
    })
}

/// Reads every setting of every part, to record their problems.
pub(crate) fn load_everything(settings: &mut Settings<'_>) {
    LogConfig::load(settings);
    let any = Service { name: "any", version: "", admin_addr: "127.0.0.1:0" };
    drop(any.load(settings));
    drop(bus::service::load("any", settings));
    for entry in SERVICES {
        (entry.load)(settings);
    }
    drop(migrate::load(settings));
    local::load(settings);
    drop(publish::Config::load(settings));
    drop(replay::Config::load(settings));
    drop(top::Config::load(settings));
}
