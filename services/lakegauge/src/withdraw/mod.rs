//! `lakegauge withdraw`: takes back what a source reported wrongly.

mod run;

use std::process::ExitCode;

use bus::BusSettings;
use clap::{Arg, ArgAction, ArgMatches, Command};
use domain::Timestamp;
use event_store::SourceRange;
use service_kit::Setting;
use wire::source_name;

use crate::{addresses::DatabaseLogin, command};

const SOURCE: &str = "source";
const REASON: &str = "reason";
const CONFIRM: &str = "confirm";

fn settings() -> Vec<Setting> {
    [BusSettings::table(), event_store::service::table()].concat()
}

pub(crate) fn command() -> Command {
    let command = Command::new("withdraw")
        .about("Take back what a source reported wrongly")
        .long_about(
            "For a file that was published under the wrong bucket, or twice under two names. For \
             each request or query of the source that is archived and counted, the command \
             publishes an event that withdraws it; nothing is deleted. Used space, windows, days \
             and the mean response time are then as if the source had reported nothing; counters \
             never decrease, so they keep the events and count them as …_withdrawn_total too. \
             Without --confirm the command only shows what it would withdraw. After a crash the \
             same command continues.",
        )
        .after_help(
            "Stop the source first: events that it sends meanwhile stay. Inventories are not \
             withdrawn: a later one replaces a wrong one.\n\
             Addresses that are not set are those of the `lakegauge up` that runs in --data-dir. It \
             logs in to PostgreSQL as the archiver.\n\
             Exit status: 0 if all of it is withdrawn or --confirm would withdraw it, 1 if there is \
             nothing to withdraw,\nif something failed or a part could not be withdrawn, 64 for wrong \
             arguments or settings.\n\
             Example: lakegauge withdraw import-1 --confirm --reason 'the wrong bucket'",
        )
        .arg(
            Arg::new(SOURCE)
                .value_name("SOURCE")
                .required(true)
                .value_parser(|text: &str| source_name(text))
                .help("The source, as `lakegauge publish --source` named it"),
        )
        .arg(time("since", "Only events of this time (RFC 3339) or later"))
        .arg(time("until", "Only events before this time (RFC 3339)"))
        .arg(
            Arg::new(REASON)
                .long(REASON)
                .value_name("TEXT")
                .required_if_eq(CONFIRM, "true")
                .help("The reason, which the archive keeps"),
        )
        .arg(
            Arg::new(CONFIRM)
                .long(CONFIRM)
                .action(ArgAction::SetTrue)
                .help("Withdraw the events; without this flag nothing is changed"),
        );
    command::of_tool(command, &settings())
}

fn time(name: &'static str, help: &'static str) -> Arg {
    let parse = |text: &str| wire::json::parse_time(text).ok_or("is no time of RFC 3339");
    Arg::new(name).long(name).value_name("TIME").value_parser(parse).help(help)
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Archiver);
    let loaded = given.load(|settings| {
        let bus = BusSettings::load_named("lakegauge withdraw", settings);
        let store = event_store::service::load("lakegauge-withdraw", settings);
        Ok((bus?, store?))
    });
    let (bus, store) = match loaded {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::say_raised_tls(&store);
    let range = SourceRange {
        source: matches.get_one::<String>(SOURCE).cloned().unwrap_or_default(),
        since: matches.get_one::<Timestamp>("since").copied(),
        until: matches.get_one::<Timestamp>("until").copied(),
    };
    let reason = matches.get_one::<String>(REASON).filter(|_| matches.get_flag(CONFIRM));
    command::report_status(command::block_on(run::withdraw(
        &bus,
        &store,
        &range,
        reason.map(String::as_str),
    )))
}
