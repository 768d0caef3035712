//! `lakegauge replay --verify`.

use std::io::Write as _;
use std::path::PathBuf;

use ::replay::ReplayProgress;
use ::replay::verify::{Against, Snapshot, Verify};
use anyhow::Context as _;
use bus::Bus;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Config, bar::Bar};

pub(super) fn arguments(command: Command) -> Command {
    command
        .arg(Arg::new("verify").long("verify").action(ArgAction::SetTrue).help(
            "Compare the archive with the aggregator's snapshot, with its samples and windows",
        ))
        .arg(
            Arg::new("snapshot")
                .long("snapshot")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .action(ArgAction::Append)
                .conflicts_with("no-snapshot")
                .requires("verify")
                .help("Compare with a snapshot in a file, not with the bus; one file per stream"),
        )
        .arg(
            Arg::new("no-snapshot")
                .long("no-snapshot")
                .action(ArgAction::SetTrue)
                .requires("verify")
                .help("Read only the archive, without NATS"),
        )
}

/// Verifies, and prints the result. Returns whether everything agrees.
pub(super) async fn run(config: Config, matches: &ArgMatches) -> anyhow::Result<bool> {
    let against = against(&config, matches).await?;
    let what = Verify {
        store: config.store,
        against,
        rules: config.rules,
        reach_timeout: config.reach_timeout,
    };
    let progress = ReplayProgress::default();
    let bar = Bar::new(&progress);
    let report = ::replay::verify::verify(&what, &progress).await;
    drop(bar);
    let report = report?;
    let text = if matches.get_flag("json") {
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        report.to_string()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(report.identical)
}

async fn against(config: &Config, matches: &ArgMatches) -> anyhow::Result<Against> {
    if matches.get_flag("no-snapshot") {
        return Ok(Against::Nothing("--no-snapshot was given".to_owned()));
    }
    if let Some(files) = matches.get_many::<PathBuf>("snapshot") {
        let read = |file: &PathBuf| {
            let bytes = std::fs::read(file);
            bytes
                .map_err(anyhow::Error::from)
                .and_then(Snapshot::read)
                .with_context(|| format!("the snapshot in {}", file.display()))
        };
        return Ok(Against::Snapshots(files.map(read).collect::<anyhow::Result<_>>()?));
    }
    match Bus::connect(&config.bus).await {
        Ok(bus) => Ok(Against::Bus(Box::new(bus))),
        Err(error) if error.recovery() == bus::Recovery::Retry => {
            Ok(Against::Nothing(format!("NATS can't be reached: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}
