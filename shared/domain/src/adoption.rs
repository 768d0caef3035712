//! Joining a broker and an archive that don't name each other, on the decision of a person.

use std::collections::BTreeMap;

use crate::{
    pipeline::{ArchiveSide, BrokerSide, Mismatch, PIPELINE_KEY, Pipeline, PipelineId, difference},
    rules::{Rules, UnknownRules},
};

/// What a broker shows about itself, consistent or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFacts {
    /// The broker's entry; `None` if it was lost or never written.
    pub entry: Option<BrokerSide>,
    /// The broker's event streams with their metadata.
    pub streams: BTreeMap<String, BTreeMap<String, String>>,
}

/// What joining a broker and an archive needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The broker's name. `None` if its streams do not agree on a name: the broker gets a new one.
    pub id: Option<PipelineId>,
    /// The rules of both sides.
    pub rules: Rules,
    /// Whether the archive knows nothing of the broker's past: the broker's streams are then a new
    /// epoch, and their verdicts and samples belong to another archive.
    pub is_strange: bool,
}

/// Why a broker can't be joined to an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotAdopt {
    /// Something that is fixed for the life of a pipeline differs.
    Fixed(Mismatch),
    /// A stream has no rules that this program knows.
    Rules {
        /// The stream.
        stream: String,
        /// What is wrong with the rules.
        why: UnknownRules,
    },
}

impl std::fmt::Display for CannotAdopt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(mismatch) => mismatch.fmt(f),
            Self::Rules { stream, why } => {
                write!(
                    f,
                    "stream {stream} does not belong to a pipeline ({why}): remove it, then run \
                     the command again"
                )
            }
        }
    }
}

impl std::error::Error for CannotAdopt {}

/// What joining a broker to an archive needs. `None` if the broker shows nothing, so that it can be
/// set up by the archive's rules.
///
/// # Errors
///
/// Rules or partitions differ: the events of one side cannot be judged by the rules of the other.
pub fn adoption(
    shown: &BrokerFacts,
    archive: &ArchiveSide,
    partitions: u16,
) -> Result<Option<Adoption>, CannotAdopt> {
    let mut rules = shown.entry.as_ref().map(|entry| entry.pipeline.rules.clone());
    for (stream, metadata) in &shown.streams {
        let own = Rules::from_metadata(metadata)
            .map_err(|why| CannotAdopt::Rules { stream: stream.clone(), why })?;
        let in_force = rules.get_or_insert(own);
        if let Some(difference) = difference(in_force, metadata) {
            let by = format!("stream {stream}");
            return Err(CannotAdopt::Fixed(Mismatch::Fixed { by, difference }));
        }
    }
    let Some(rules) = rules else { return Ok(None) };
    let id = match &shown.entry {
        Some(entry) => Some(entry.pipeline.id),
        None => agreed(shown),
    };
    if let Some(kept) = &archive.pipeline {
        let partitions = shown.entry.as_ref().map_or(partitions, |entry| entry.pipeline.partitions);
        let broker = Pipeline { id: kept.id, partitions, rules: rules.clone() };
        if let Some(difference) = kept.difference(&broker) {
            let by = "the broker".to_owned();
            return Err(CannotAdopt::Fixed(Mismatch::Fixed { by, difference }));
        }
    }
    let named = shown.entry.as_ref().and_then(|entry| entry.archive);
    let is_kept = id.is_some() && id == archive.pipeline.as_ref().map(|kept| kept.id);
    let is_strange = !is_kept || named.is_some_and(|named| named != archive.id);
    Ok(Some(Adoption { id, rules, is_strange }))
}

/// The pipeline that every stream names; `None` if they differ.
fn agreed(shown: &BrokerFacts) -> Option<PipelineId> {
    let mut names = shown.streams.values().map(|metadata| metadata.get(PIPELINE_KEY)?.parse().ok());
    let first: PipelineId = names.next()??;
    names.all(|name| name == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ArchiveId;

    const OURS: PipelineId = PipelineId([1; 16]);
    const OTHERS: PipelineId = PipelineId([2; 16]);
    const HERE: ArchiveId = ArchiveId([3; 16]);
    const ELSEWHERE: ArchiveId = ArchiveId([4; 16]);

    fn pipeline(id: PipelineId) -> Pipeline {
        Pipeline { id, partitions: 1, rules: Rules::default() }
    }

    fn archive(kept: Option<PipelineId>) -> ArchiveSide {
        ArchiveSide { id: HERE, pipeline: kept.map(pipeline) }
    }

    fn shown(
        entry: Option<(PipelineId, Option<ArchiveId>)>,
        streams: &[PipelineId],
    ) -> BrokerFacts {
        let metadata = |id: &PipelineId| {
            let mut metadata = Rules::default().to_metadata();
            metadata.insert(PIPELINE_KEY.to_owned(), id.to_string());
            metadata
        };
        BrokerFacts {
            entry: entry.map(|(id, archive)| BrokerSide { pipeline: pipeline(id), archive }),
            streams: streams
                .iter()
                .enumerate()
                .map(|(number, id)| (format!("LAKE_{number}"), metadata(id)))
                .collect(),
        }
    }

    fn asked(shown: &BrokerFacts, kept: Option<PipelineId>) -> Option<(Option<PipelineId>, bool)> {
        let needed = adoption(shown, &archive(kept), 1).unwrap();
        needed.map(|needed| (needed.id, needed.is_strange))
    }

    #[test]
    fn a_broker_that_shows_nothing_is_begun() {
        assert_eq!(asked(&shown(None, &[]), Some(OURS)), None);
    }

    #[test]
    fn what_another_archive_kept_is_strange_and_a_lost_entry_is_not() {
        let streams = [OURS, OURS];
        assert_eq!(asked(&shown(None, &streams), Some(OURS)), Some((Some(OURS), false)));
        let lost_disk = shown(Some((OTHERS, None)), &[OTHERS]);
        assert_eq!(asked(&lost_disk, Some(OURS)), Some((Some(OTHERS), true)));
        for kept in [None, Some(OURS)] {
            let elsewhere = shown(Some((OURS, Some(ELSEWHERE))), &streams);
            assert_eq!(asked(&elsewhere, kept), Some((Some(OURS), true)));
        }
        assert_eq!(asked(&shown(None, &[OURS, OTHERS]), Some(OURS)), Some((None, true)));
    }

    #[test]
    fn rules_that_differ_can_not_be_joined() {
        let mut broker = shown(Some((OTHERS, None)), &[OTHERS]);
        let rules = Rules { runs_max: 9, ..Rules::default() };
        let stream = broker.streams.get_mut("LAKE_0").unwrap();
        stream.extend(rules.to_metadata());
        let said = adoption(&broker, &archive(Some(OURS)), 1).unwrap_err().to_string();
        assert!(said.contains("stream LAKE_0: runs_max is 9, the pipeline's is 256"), "{said}");
        broker.entry = None;
        let said = adoption(&broker, &archive(Some(OURS)), 1).unwrap_err().to_string();
        assert!(said.contains("the broker: runs_max is 9, the pipeline's is 256"), "{said}");
        assert!(adoption(&broker, &archive(None), 1).is_ok());
        let said = adoption(&broker, &archive(Some(OURS)), 2).unwrap_err().to_string();
        assert!(said.contains("partitions is 2"), "{said}");
        broker.streams.insert("LAKE_0".to_owned(), BTreeMap::new());
        assert!(matches!(adoption(&broker, &archive(None), 1), Err(CannotAdopt::Rules { .. })));
    }
}
