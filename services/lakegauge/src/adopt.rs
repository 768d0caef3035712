//! `lakegauge adopt`: joins a broker and an archive that don't name each other, if a person asks
//! for it.

use std::process::ExitCode;

use anyhow::Context as _;
use bus::{Bus, Topology, service::BusConfig};
use clap::{Arg, ArgAction, ArgMatches, Command};
use domain::{
    ArchiveSide, Pipeline, SAMPLES,
    adoption::{Adoption, BrokerFacts, adoption},
};
use event_store::{Adopting, StoreSettings, archive_side};
use service_kit::Setting;
use service_kit::logs::LogConfig;

use crate::{addresses::DatabaseLogin, command};

const CONFIRM: &str = "confirm";

/// Every setting of the tool.
pub(crate) fn settings() -> Vec<Setting> {
    [bus::service::table(), event_store::service::table()].concat()
}

pub(crate) fn command() -> Command {
    let command = Command::new("adopt")
        .about("Join a broker and an archive that the services refuse")
        .long_about(
            "The services refuse a broker and an archive that don't name each other: otherwise the \
             events of a second broker would be added for ever. A program can't distinguish this \
             from a broker or a database that lost its disk. The command shows what exists and \
             what joining the two means, and with --confirm it joins them. Stop archiver and \
             aggregator first. After a crash the same command continues.",
        )
        .after_help(
            "It needs a NATS login that may create streams; in PostgreSQL it is the archiver.\n\
             Addresses that are not set are those of the `lakegauge up` that runs in --data-dir.\n\
             Exit status: 0 if they are joined or --confirm would join them, 1 if something \
             failed, 64 for wrong\narguments or settings, 78 if they can't be joined.",
        )
        .arg(
            Arg::new(CONFIRM)
                .long(CONFIRM)
                .action(ArgAction::SetTrue)
                .help("Join them; without this flag nothing is changed"),
        );
    command::of_tool(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Archiver);
    let loaded = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        let bus = bus::service::load("lakegauge adopt", settings);
        let store = event_store::service::load("lakegauge-adopt", settings);
        Ok((bus?, store?))
    });
    let (bus, store) = match loaded {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::say_raised_tls(&store);
    let confirmed = matches.get_flag(CONFIRM);
    command::report(command::block_on(adopt(&bus, &store, confirmed)))
}

/// Joins them, or shows what that would mean.
///
/// In this order: the streams, so that nothing in them belongs to another archive; the archive,
/// which gets the broker's pipeline; the broker, which names the archive. Before the last step the
/// services refuse the two as before.
async fn adopt(config: &BusConfig, store: &StoreSettings, confirmed: bool) -> anyhow::Result<()> {
    let bus = Bus::connect(&config.settings).await?;
    let (streams, partitions) = (Topology::event_streams(), Topology::partitions());
    let mut shown = bus.shown(&streams).await?;
    // Before the archive is locked, because while services run, it may only be read.
    if are_one(&shown, &archive_side(store).await?) {
        eprintln!("broker and archive belong together, or are both new: nothing to adopt");
        return Ok(());
    }
    let mut adopting = Adopting::begin(store).await?;
    let archive = adopting.side().clone();
    let mut needed = adoption(&shown, &archive, partitions)?;
    let holdings = adopting.holdings().await?;
    let messages = messages(&bus, &shown).await?;
    for line in meaning(&shown, &archive, needed.as_ref(), holdings.events, messages) {
        eprintln!("{line}");
    }
    if !confirmed {
        eprintln!("nothing was changed; --confirm joins them");
        return Ok(());
    }
    if needed.is_none() {
        let rules = archive.pipeline.as_ref().map_or(&config.rules, |kept| &kept.rules);
        bus.apply_topology(&config.begun_with(rules)).await?;
        shown = bus.shown(&streams).await?;
        needed = adoption(&shown, &archive, partitions)?;
    }
    let needed = needed.context("the broker has no streams, although they were created")?;
    bus.make_buckets(&config.topology).await?;
    let pipeline = Pipeline { id: bus.adopted_id(&needed)?, partitions, rules: needed.rules };
    if needed.is_strange {
        // The stream of samples has no events, but an epoch of its own.
        let samples = SAMPLES.to_owned();
        for name in shown.streams.keys().chain([&samples]) {
            let above = holdings.epochs.get(name).copied().unwrap_or(0);
            let epoch = bus.prepare_for_adoption(name, above).await?;
            eprintln!("{name}: epoch {epoch} begins");
        }
    }
    bus.name_streams(&shown, pipeline.id).await?;
    adopting.adopt(&pipeline).await?;
    bus.adopt(&shown, &pipeline, archive.id).await?;
    // Creates the streams that were lost besides the entry.
    bus.apply_topology(&config.begun_with(&pipeline.rules)).await?;
    eprintln!("joined: pipeline {}, archive {}", pipeline.id, archive.id);
    Ok(())
}

/// Whether the next start joins them by itself, or nothing is left to join.
fn are_one(shown: &BrokerFacts, archive: &ArchiveSide) -> bool {
    let Some(entry) = &shown.entry else {
        return shown.streams.is_empty() && archive.pipeline.is_none();
    };
    domain::meet(entry, archive).is_ok()
        && shown.streams.iter().all(|(stream, metadata)| {
            domain::pipeline::is_of(&entry.pipeline, stream, metadata).is_ok()
        })
}

async fn messages(bus: &Bus, shown: &BrokerFacts) -> anyhow::Result<u64> {
    let mut messages = 0;
    for stream in shown.streams.keys() {
        messages += bus.stream(stream).await?.messages;
    }
    Ok(messages)
}

/// What exists, and what joining the two means.
fn meaning(
    shown: &BrokerFacts,
    archive: &ArchiveSide,
    needed: Option<&Adoption>,
    events: u64,
    messages: u64,
) -> Vec<String> {
    let kept = archive.pipeline.as_ref().map(|kept| kept.id);
    let mut lines = Vec::new();
    lines.push(match kept {
        Some(kept) => format!("archive {}: {events} events of pipeline {kept}", archive.id),
        None => format!("archive {}: it keeps no pipeline's events yet", archive.id),
    });
    let id = needed.and_then(|needed| needed.id);
    lines.push(match (needed, id) {
        (None, _) => "the broker is empty: it gets a pipeline by the archive's rules".to_owned(),
        (Some(_), Some(id)) => {
            let entry = if shown.entry.is_some() { "" } else { ", and has lost its entry" };
            format!("the broker carries pipeline {id}{entry}: {messages} messages of events")
        }
        (Some(_), None) => format!(
            "the broker has lost its entry, and its streams don't name one pipeline: it gets a new \
             name; {messages} messages of events"
        ),
    });
    lines.push(
        "from then on the broker's events are added to this archive; events that the archive \
         already has are recognised by their identity"
            .to_owned(),
    );
    if needed.is_none_or(|needed| needed.is_strange) {
        lines.push(
            "each stream begins a new epoch; verdicts and samples that the broker still holds are \
             deleted, because they belong to another archive"
                .to_owned(),
        );
    }
    if let Some(kept) = kept.filter(|kept| id != Some(*kept)) {
        lines.push(format!("from then on this archive refuses the broker of pipeline {kept}"));
    }
    let named = shown.entry.as_ref().and_then(|entry| entry.archive);
    if let Some(named) = named.filter(|named| *named != archive.id) {
        lines.push(format!("from then on this broker refuses archive {named}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::{ArchiveId, BrokerSide, PipelineId, Rules};

    use super::*;

    #[test]
    fn what_is_left_behind_is_named() {
        let pipeline =
            |id| Pipeline { id: PipelineId([id; 16]), partitions: 1, rules: Rules::default() };
        let archive = ArchiveSide { id: ArchiveId([3; 16]), pipeline: Some(pipeline(1)) };
        let entry = BrokerSide { pipeline: pipeline(2), archive: Some(ArchiveId([4; 16])) };
        let shown = BrokerFacts { entry: Some(entry), streams: BTreeMap::new() };
        let needed = adoption(&shown, &archive, 1).unwrap().unwrap();
        let said = meaning(&shown, &archive, Some(&needed), 12, 34).join("\n");
        for expected in [
            format!("12 events of pipeline {}", PipelineId([1; 16])),
            format!("carries pipeline {}: 34 messages", PipelineId([2; 16])),
            format!("refuses the broker of pipeline {}", PipelineId([1; 16])),
            format!("this broker refuses archive {}", ArchiveId([4; 16])),
        ] {
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
}
