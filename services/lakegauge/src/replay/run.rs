//! `lakegauge replay <run>`, `--dry-run` and `--remove`.

use std::collections::BTreeSet;
use std::io::Write as _;

use ::replay::plan::{EventKind, Filter, Speed};
use ::replay::{Replay, ReplayProgress, ReplayReport, Target};
use anyhow::Context as _;
use bus::{Bus, ReplayRun};
use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use domain::{Stream, Timestamp};
use service_kit::Clock;
use wire::{Subjects, source_name};

use super::{Config, bar::Bar};
use crate::streams;

pub(super) fn arguments(command: Command) -> Command {
    let kinds = EventKind::NAMES.map(|(name, _)| name);
    command
        .arg(
            Arg::new("run")
                .value_name("RUN")
                .value_parser(|text: &str| text.parse::<ReplayRun>())
                .required_unless_present_any(["verify", "dry-run", "remove"])
                .conflicts_with_all(["verify", "remove"])
                .help("Name of the run, part of its subjects; an existing run continues"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .conflicts_with("verify")
                .help("Only count what would be replayed"),
        )
        .arg(
            Arg::new("remove")
                .long("remove")
                .value_name("RUN")
                .value_parser(|text: &str| text.parse::<ReplayRun>())
                .conflicts_with("verify")
                .help("Remove a run: its streams, and its aggregator's snapshots"),
        )
        .arg(
            Arg::new("speed")
                .long("speed")
                .value_name("SPEED")
                .value_parser(|text: &str| text.parse::<Speed>())
                .default_value("max")
                .help("1x as it happened, 10x ten times as fast, max as fast as possible"),
        )
        .arg(time("since", "Only events of this time or later (2026-11-24T12:00:00Z)"))
        .arg(time("until", "Only events before this time"))
        .arg(
            filter("kind", "Only events of this kind")
                .value_parser(PossibleValuesParser::new(kinds)),
        )
        .arg(filter("bucket", "Only requests and inventories of this bucket"))
        .arg(filter("warehouse", "Only queries of this warehouse"))
        .arg(
            filter("source", "Only events that were published under this source")
                .value_parser(|text: &str| source_name(text)),
        )
        .arg(
            filter("stream", "Only events of this stream: LAKE_0").value_parser(
                PossibleValuesParser::new(streams::event_streams())
                    .try_map(|text| Stream::from_name(&text).ok_or("is no stream of events")),
            ),
        )
}

fn filter(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("NAME").action(ArgAction::Append).help(help)
}

fn time(name: &'static str, help: &'static str) -> Arg {
    let parse = |text: &str| wire::json::parse_time(text).ok_or("is no time of RFC 3339");
    Arg::new(name).long(name).value_name("TIME").value_parser(parse).help(help)
}

fn filter_of(matches: &ArgMatches) -> Filter {
    let names = |name: &str| -> BTreeSet<String> {
        matches.get_many::<String>(name).unwrap_or_default().cloned().collect()
    };
    let kinds = names("kind");
    Filter {
        since: matches.get_one::<Timestamp>("since").copied(),
        until: matches.get_one::<Timestamp>("until").copied(),
        kinds: EventKind::NAMES
            .into_iter()
            .filter(|(name, _)| kinds.contains(*name))
            .map(|(_, kind)| kind)
            .collect(),
        buckets: names("bucket"),
        warehouses: names("warehouse"),
        sources: names("source"),
        streams: matches.get_many::<Stream>("stream").unwrap_or_default().copied().collect(),
    }
}

/// The requested speed. Events that are only counted are not delayed.
fn speed(matches: &ArgMatches) -> Option<Speed> {
    if matches.get_flag("dry-run") {
        return Some(Speed::Max);
    }
    matches.get_one::<Speed>("speed").copied()
}

/// Replays, and prints what was replayed.
pub(super) async fn run(config: Config, matches: &ArgMatches) -> anyhow::Result<bool> {
    let run = matches.get_one::<ReplayRun>("run").filter(|_| !matches.get_flag("dry-run"));
    let target = match run {
        None => None,
        Some(run) => Some(Target {
            bus: Bus::connect(&config.bus).await?,
            run: run.clone(),
            subjects: Subjects::new(&config.bus.subject_prefix),
            stream_max_bytes: config.stream_max_bytes,
        }),
    };
    let speed = speed(matches).context("no speed")?;
    let what = Replay { store: config.store, filter: filter_of(matches), speed };
    let progress = ReplayProgress::default();
    let bar = Bar::new(&progress);
    let clock = Clock::system();
    let told = ::replay::replay(&what, target.as_ref(), &clock, &progress).await;
    drop(bar);
    tell(&told?, matches.get_flag("json"))?;
    Ok(true)
}

fn tell(told: &ReplayReport, json: bool) -> anyhow::Result<()> {
    let text = if json {
        format!("{}\n", serde_json::to_string(told)?)
    } else {
        format!("{told}{} events in all\n", told.events())
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Removes a run.
pub(super) async fn remove(config: Config, run: &ReplayRun) -> anyhow::Result<bool> {
    let bus = Bus::connect(&config.bus).await?;
    let removed = bus.remove_replay(run).await?;
    let mut stdout = std::io::stdout().lock();
    if removed.is_empty() {
        writeln!(stdout, "there is no run {}", run.name())?;
    }
    for name in removed {
        writeln!(stdout, "removed {name}")?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_counted_waits_for_no_time() {
        let speed = |words: &[&str]| {
            let words = ["replay"].iter().chain(words);
            speed(&super::super::command().try_get_matches_from(words).unwrap())
        };
        assert_eq!(speed(&["friday", "--speed", "10x"]), Some(Speed::Times(10)));
        assert_eq!(speed(&["friday"]), Some(Speed::Max));
        assert_eq!(speed(&["--dry-run", "--speed", "1x"]), Some(Speed::Max));
    }
}
