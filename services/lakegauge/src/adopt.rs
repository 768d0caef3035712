//! `lakegauge adopt`: joins a broker and an archive that don't name each other, if a person says so.

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

/// Every setting that is read here.
pub(crate) fn settings() -> Vec<Setting> {
    [bus::service::table(), event_store::service::table()].concat()
}

pub(crate) fn command() -> Command {
    let command = Command::new("adopt")
        .about("Join a broker and an archive that were refused to each other")
        .long_about(
            "A broker and an archive that don't name each other are refused: a second broker would \
             be counted among the first one's events for good. A broker whose disk was lost, or a \
             database that was lost, can't be told from that by a program. This says what is there \
             and what joining the two means, and with --confirm does it. Stop archiver and \
             aggregator first. After a crash the same command goes on.",
        )
        .after_help(
            "It logs in to NATS as who may make streams, and to PostgreSQL as the archiver.\n\
             Addresses that are not set are those of the `lakegauge up` that runs in --data-dir.\n\
             Exit status: 0 if they are joined or --confirm would join them, 1 if something \
             failed, 64 for wrong\narguments or settings, 78 if they can't be joined.",
        )
        .arg(
            Arg::new(CONFIRM)
                .long(CONFIRM)
                .action(ArgAction::SetTrue)
                .help("Join them; without it nothing is changed"),
        );
    command::of_tool(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Archiver);
    let loaded = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        let bus = bus::service::load("lakegauge adopt", settings);
        bus.zip(event_store::service::load("lakegauge-adopt", settings))
    });
    let (bus, store) = match loaded {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::say_raised_tls(&store);
    let confirmed = matches.get_flag(CONFIRM);
    command::report(command::block_on(adopt(&bus, &store, confirmed)))
}

/// Joins them, or says what that would mean.
///
/// In this order: the streams, so that nothing in them speaks of another archive; the archive, which
/// gets the broker's pipeline; the broker, which names the archive. Before the last step the two are
/// refused as before.
async fn adopt(config: &BusConfig, store: &StoreSettings, confirmed: bool) -> anyhow::Result<()> {
    let bus = Bus::connect(&config.settings).await?;
    let (streams, partitions) = (Topology::event_streams(), Topology::partitions());
    let mut shown = bus.shown(&streams).await?;
    // Before the archive is taken for this one: beside services that run, it may only be asked.
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
    let needed = needed.context("the broker shows nothing, although its streams were made")?;
    bus.make_buckets(&config.topology).await?;
    let pipeline = Pipeline { id: bus.adopted_id(&needed)?, partitions, rules: needed.rules };
    if needed.is_strange {
        // It has no events, and an epoch of its own.
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
    // Those that were lost besides the entry.
    bus.apply_topology(&config.begun_with(&pipeline.rules)).await?;
    eprintln!("joined: pipeline {}, archive {}", pipeline.id, archive.id);
    Ok(())
}

/// Whether the next start joins them by itself, or nothing is left to be joined.
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

/// What is there, and what joining the two means.
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
            "the broker has lost its entry, and its streams name no one pipeline: it gets a new \
             name; {messages} messages of events"
        ),
    });
    lines.push(
        "from then on events that the broker holds and takes are added to this archive; those that \
         it has already are known by their identity"
            .to_owned(),
    );
    if needed.is_none_or(|needed| needed.is_strange) {
        lines.push(
            "each stream begins an epoch; verdicts and samples that the broker still holds are \
             deleted, since they speak of another archive"
                .to_owned(),
        );
    }
    if let Some(kept) = kept.filter(|kept| id != Some(*kept)) {
        lines
            .push(format!("the broker of pipeline {kept} is refused at this archive from then on"));
    }
    let named = shown.entry.as_ref().and_then(|entry| entry.archive);
    if let Some(named) = named.filter(|named| *named != archive.id) {
        lines.push(format!("archive {named} is refused at this broker from then on"));
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
            format!("the broker of pipeline {} is refused", PipelineId([1; 16])),
            format!("archive {} is refused", ArchiveId([4; 16])),
        ] {
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
}
