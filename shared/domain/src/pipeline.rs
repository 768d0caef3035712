//! Which pipeline a broker carries and an archive keeps, and what must be done when the two meet.
//!
//! A program cannot distinguish a broker whose disk was lost from the broker of a second pipeline.
//! Two sides that differ are therefore refused, and only a person can join them (`lakegauge
//! adopt`).

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::rules::Rules;

/// The key under which a stream's metadata names its pipeline.
pub const PIPELINE_KEY: &str = "lakegauge.pipeline";
/// Prefix of the names of rules in metadata.
const KEY_PREFIX: &str = "lakegauge.";
/// Length of a name as text: sixteen bytes in hexadecimal.
const DIGITS: usize = 32;
/// What a person can do about two sides that differ.
const ADOPT: &str = "if they belong together all the same, `lakegauge adopt` says what joining them \
                     means, and does it";

/// The name of a pipeline: sixteen random bytes, made once in its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineId(pub [u8; 16]);

/// The name of an archive: sixteen random bytes, made with its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveId(pub [u8; 16]);

/// Formats the name as 32 hexadecimal digits.
impl fmt::Display for PipelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_digits(&self.0, f)
    }
}

/// Formats the name as 32 hexadecimal digits.
impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_digits(&self.0, f)
    }
}

impl FromStr for PipelineId {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_digits(text).map(Self)
    }
}

impl FromStr for ArchiveId {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_digits(text).map(Self)
    }
}

/// A text that is not the name of a pipeline or of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoName;

impl fmt::Display for NoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name is 32 hexadecimal digits")
    }
}

impl std::error::Error for NoName {}

fn write_digits(name: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    name.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn from_digits(text: &str) -> Result<[u8; 16], NoName> {
    let is_name = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_name);
    number.map(u128::to_be_bytes).ok_or(NoName)
}

/// A pipeline, and what is fixed for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// The name of the pipeline.
    pub id: PipelineId,
    /// How many partitions each side has.
    pub partitions: u16,
    /// What judgement and fold depend on.
    pub rules: Rules,
}

/// What a broker's entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSide {
    /// The pipeline whose events it carries.
    pub pipeline: Pipeline,
    /// The archive that keeps these events; `None` until the broker has met an archive.
    pub archive: Option<ArchiveId>,
}

/// What an archive's entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSide {
    /// The name of the archive.
    pub id: ArchiveId,
    /// The pipeline whose events the archive keeps; `None` until the archive has met a broker.
    pub pipeline: Option<Pipeline>,
}

/// What must be done for two sides that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Nothing: each side names the other.
    Agreed,
    /// The archive must name the broker's pipeline; then the two meet again.
    NamePipeline,
    /// The broker must name the archive; then the two meet again.
    NameArchive,
}

/// Two values of something that is fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs: the name of a rule, or `partitions`.
    pub name: String,
    /// The value in force.
    pub in_force: String,
    /// The other one.
    pub other: String,
}

/// Why two sides must not work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The broker has event streams, but no entry that says which pipeline they belong to.
    NoEntry {
        /// One of the streams.
        stream: String,
    },
    /// A stream names another pipeline than the broker does, or no pipeline.
    OtherStream {
        /// The stream.
        stream: String,
        /// The pipeline that the stream names.
        named: Option<String>,
        /// The broker's pipeline.
        pipeline: PipelineId,
    },
    /// The broker is not the one that the process started with.
    OtherBroker {
        /// The pipeline that the process started with.
        first: PipelineId,
        /// The pipeline that the broker carries now; `None` if it names no pipeline.
        now: Option<PipelineId>,
    },
    /// The archive keeps another pipeline than the broker carries.
    OtherPipeline {
        /// The broker's pipeline.
        broker: PipelineId,
        /// The archive.
        archive: ArchiveId,
        /// The pipeline whose events the archive keeps.
        kept: PipelineId,
    },
    /// The broker's events are kept by another archive.
    OtherArchive {
        /// The broker's pipeline.
        broker: PipelineId,
        /// The archive that the broker names.
        named: ArchiveId,
        /// The archive that was found.
        archive: ArchiveId,
        /// The pipeline whose events that archive keeps; `None` if it is empty.
        kept: Option<PipelineId>,
    },
    /// Something that is fixed for the life of a pipeline differs.
    Fixed {
        /// The side that has the other value.
        by: String,
        /// The two values.
        difference: Difference,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEntry { stream } => write!(
                f,
                "the broker has stream {stream}, and nothing in it says which pipeline it belongs \
                 to: its key `pipeline` is gone, as with a bucket that was lost; {ADOPT}"
            ),
            Self::OtherStream { stream, named, pipeline } => {
                write!(f, "the broker carries pipeline {pipeline}, its stream {stream} names ")?;
                match named {
                    Some(named) => write!(f, "pipeline {named}")?,
                    None => write!(f, "none")?,
                }
                write!(f, ": the stream was created by hand, or belongs to another broker; {ADOPT}")
            }
            Self::OtherBroker { first, now } => {
                write!(f, "this process began with pipeline {first}, but the broker ")?;
                match now {
                    Some(now) => write!(f, "carries pipeline {now} now")?,
                    None => write!(f, "names none now: its key `pipeline` is gone")?,
                }
                write!(f, "; it is another broker, or lost its bucket or its disk; {ADOPT}")
            }
            Self::OtherPipeline { broker, archive, kept } => write!(
                f,
                "the broker carries pipeline {broker}, archive {archive} keeps the events of \
                 pipeline {kept}: NATS_URL or DATABASE_URL is another pipeline's, or the broker \
                 lost its disk; {ADOPT}"
            ),
            Self::OtherArchive { broker, named, archive, kept } => {
                write!(
                    f,
                    "the events of the broker, pipeline {broker}, are kept by archive {named}, \
                     archive {archive} "
                )?;
                match kept {
                    Some(kept) => write!(f, "keeps those of pipeline {kept}")?,
                    None => write!(f, "is empty")?,
                }
                write!(
                    f,
                    ": DATABASE_URL or NATS_URL is another pipeline's, or the database was lost; \
                     {ADOPT}"
                )
            }
            Self::Fixed { by, difference: Difference { name, in_force, other } } => write!(
                f,
                "{by}: {name} is {other}, the pipeline's is {in_force}, and that holds for as \
                 long as the pipeline lives: set it back, or begin another pipeline with a fresh \
                 broker (or another NATS_SUBJECT_PREFIX) and a fresh database"
            ),
        }
    }
}

impl std::error::Error for Mismatch {}

impl Mismatch {
    /// Whether a person may join the two sides all the same.
    pub const fn is_adoptable(&self) -> bool {
        match self {
            Self::NoEntry { .. }
            | Self::OtherStream { .. }
            | Self::OtherBroker { .. }
            | Self::OtherPipeline { .. }
            | Self::OtherArchive { .. } => true,
            Self::Fixed { .. } => false,
        }
    }
}

impl Pipeline {
    /// The first difference, in alphabetical order, between this pipeline and another.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        self.difference_of_partitions(other.partitions)
            .or_else(|| difference(&self.rules, &other.rules.to_metadata()))
    }

    /// The difference between this number of partitions and the one that is fixed here, if any.
    pub fn difference_of_partitions(&self, other: u16) -> Option<Difference> {
        (self.partitions != other).then(|| Difference {
            name: "partitions".to_owned(),
            in_force: self.partitions.to_string(),
            other: other.to_string(),
        })
    }
}

/// The first rule, by its metadata key, that is not the one in force. Keys that are not rules are
/// ignored.
pub fn difference(in_force: &Rules, named: &BTreeMap<String, String>) -> Option<Difference> {
    in_force.to_metadata().into_iter().find_map(|(key, value)| {
        let other = named.get(&key).filter(|other| **other != value)?;
        Some(Difference {
            name: key.strip_prefix(KEY_PREFIX).unwrap_or(&key).to_owned(),
            in_force: value,
            other: other.clone(),
        })
    })
}

/// Whether an event stream is one of the pipeline's, by its metadata.
///
/// # Errors
///
/// The stream names another pipeline or none, or has other rules.
pub fn is_of(
    pipeline: &Pipeline,
    stream: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<(), Mismatch> {
    let named = metadata.get(PIPELINE_KEY);
    if named.is_none_or(|named| *named != pipeline.id.to_string()) {
        return Err(Mismatch::OtherStream {
            stream: stream.to_owned(),
            named: named.cloned(),
            pipeline: pipeline.id,
        });
    }
    let missing = |key: &String| (key.clone(), "missing".to_owned());
    let mut named: BTreeMap<String, String> =
        pipeline.rules.to_metadata().keys().map(missing).collect();
    named.extend(metadata.clone());
    match difference(&pipeline.rules, &named) {
        None => Ok(()),
        Some(difference) => Err(Mismatch::Fixed { by: format!("stream {stream}"), difference }),
    }
}

/// What must be done when a broker and an archive meet.
///
/// In the first pair the archive names the pipeline first, so that of two brokers at one archive
/// the second finds the archive taken. After each step the two meet again.
///
/// # Errors
///
/// Why the two must not work together. Nothing may be written then.
pub fn meet(broker: &BrokerSide, archive: &ArchiveSide) -> Result<Meeting, Mismatch> {
    let id = broker.pipeline.id;
    let kept = archive.pipeline.as_ref().map(|kept| kept.id);
    if let Some(kept) = kept.filter(|kept| *kept != id) {
        return Err(Mismatch::OtherPipeline { broker: id, archive: archive.id, kept });
    }
    if let Some(named) = broker.archive.filter(|named| *named != archive.id) {
        return Err(Mismatch::OtherArchive { broker: id, named, archive: archive.id, kept });
    }
    let difference = archive.pipeline.as_ref().and_then(|kept| kept.difference(&broker.pipeline));
    if let Some(difference) = difference {
        return Err(Mismatch::Fixed { by: "the broker".to_owned(), difference });
    }
    Ok(match (&archive.pipeline, broker.archive) {
        (None, _) => Meeting::NamePipeline,
        (Some(_), None) => Meeting::NameArchive,
        (Some(_), Some(_)) => Meeting::Agreed,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pipeline(id: u8, derived_ids_max: usize, partitions: u16) -> Pipeline {
        let rules = Rules { derived_ids_max, ..Rules::default() };
        Pipeline { id: PipelineId([id; 16]), partitions, rules }
    }

    /// Few values, so that generated sides are often alike.
    fn any_pipeline() -> impl Strategy<Value = Pipeline> {
        (0_u8..3, 1_usize..3, 1_u16..3)
            .prop_map(|(id, derived, partitions)| pipeline(id, derived, partitions))
    }

    fn any_broker() -> impl Strategy<Value = BrokerSide> {
        let archive = prop::option::of((0_u8..3).prop_map(|id| ArchiveId([id; 16])));
        (any_pipeline(), archive).prop_map(|(pipeline, archive)| BrokerSide { pipeline, archive })
    }

    fn any_archive() -> impl Strategy<Value = ArchiveSide> {
        (0_u8..3, prop::option::of(any_pipeline()))
            .prop_map(|(id, pipeline)| ArchiveSide { id: ArchiveId([id; 16]), pipeline })
    }

    /// Does the steps that the meeting asks for, until nothing is left to do.
    fn joined(
        mut broker: BrokerSide,
        mut archive: ArchiveSide,
    ) -> Result<(BrokerSide, ArchiveSide), Mismatch> {
        loop {
            match meet(&broker, &archive)? {
                Meeting::Agreed => return Ok((broker, archive)),
                Meeting::NamePipeline => archive.pipeline = Some(broker.pipeline.clone()),
                Meeting::NameArchive => broker.archive = Some(archive.id),
            }
        }
    }

    proptest! {
        #[test]
        fn two_sides_join_exactly_if_neither_names_another(
            broker in any_broker(),
            archive in any_archive(),
        ) {
            let fits = archive.pipeline.as_ref().is_none_or(|kept| *kept == broker.pipeline)
                && broker.archive.is_none_or(|named| named == archive.id);
            match joined(broker.clone(), archive.clone()) {
                Ok((at_broker, at_archive)) => {
                    prop_assert!(fits);
                    prop_assert_eq!(&at_broker.pipeline, &broker.pipeline);
                    prop_assert_eq!(at_broker.archive, Some(archive.id));
                    prop_assert_eq!(at_archive.id, archive.id);
                    prop_assert_eq!(at_archive.pipeline, Some(broker.pipeline));
                }
                Err(mismatch) => {
                    prop_assert!(!fits);
                    let said = mismatch.to_string();
                    prop_assert!(mismatch.is_adoptable() == said.contains("lakegauge adopt"));
                }
            }
        }

        #[test]
        fn of_two_that_meet_a_fresh_one_only_the_first_is_taken(
            first in any_broker(),
            second in any_broker(),
            archive in any_archive(),
        ) {
            if let Ok((_, taken)) = joined(first.clone(), archive)
                && first.pipeline != second.pipeline
            {
                prop_assert!(joined(second, taken).is_err());
            }
        }

        #[test]
        fn a_crash_between_two_steps_is_mended_by_the_next_meeting(
            broker in any_broker(),
            archive in any_archive(),
        ) {
            // A joining that is interrupted after one step ends in the same state as one that is
            // not.
            let whole = joined(broker.clone(), archive.clone());
            let mut left = (broker, archive);
            match meet(&left.0, &left.1) {
                Ok(Meeting::NamePipeline) => left.1.pipeline = Some(left.0.pipeline.clone()),
                Ok(Meeting::NameArchive) => left.0.archive = Some(left.1.id),
                Ok(Meeting::Agreed) | Err(_) => {}
            }
            prop_assert_eq!(joined(left.0, left.1), whole);
        }

        #[test]
        fn a_name_survives_its_text(name in any::<[u8; 16]>()) {
            prop_assert_eq!(PipelineId(name).to_string().parse(), Ok(PipelineId(name)));
            prop_assert_eq!(ArchiveId(name).to_string().parse(), Ok(ArchiveId(name)));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "0", &"g".repeat(32), &"0".repeat(33), &format!("+{}", "0".repeat(31))] {
            assert_eq!(text.parse::<PipelineId>(), Err(NoName), "{text}");
        }
        assert!(NoName.to_string().contains("32 hexadecimal digits"), "it says what a name is");
    }

    #[test]
    fn every_rule_that_differs_is_named_with_both_values() {
        let in_force = pipeline(1, 50, 1);
        for (key, value) in in_force.rules.to_metadata() {
            let mut metadata = in_force.rules.to_metadata();
            metadata.insert(PIPELINE_KEY.to_owned(), in_force.id.to_string());
            assert_eq!(is_of(&in_force, "LAKE_0", &metadata), Ok(()));
            metadata.insert(key.clone(), "7s:9d".to_owned());
            let said = is_of(&in_force, "LAKE_0", &metadata).unwrap_err().to_string();
            let name = key.strip_prefix(KEY_PREFIX).unwrap();
            assert!(said.contains("LAKE_0") && said.contains(name), "{said}");
            assert!(said.contains("7s:9d") && said.contains(&value), "{said}");
            metadata.remove(&key);
            assert!(matches!(is_of(&in_force, "LAKE_0", &metadata), Err(Mismatch::Fixed { .. })));
        }
    }

    #[test]
    fn a_stream_of_another_pipeline_or_of_none_is_refused() {
        let ours = pipeline(1, 50, 1);
        let mut metadata = ours.rules.to_metadata();
        for named in [None, Some(PipelineId([2; 16]).to_string())] {
            if let Some(named) = &named {
                metadata.insert(PIPELINE_KEY.to_owned(), named.clone());
            }
            let mismatch = is_of(&ours, "LAKE_0", &metadata).unwrap_err();
            let (stream, pipeline) = ("LAKE_0".to_owned(), ours.id);
            assert_eq!(mismatch, Mismatch::OtherStream { stream, named, pipeline });
        }
    }

    #[test]
    fn another_number_of_partitions_is_another_pipeline() {
        let archive = ArchiveSide { id: ArchiveId([1; 16]), pipeline: Some(pipeline(1, 50, 1)) };
        let broker = BrokerSide { pipeline: pipeline(1, 50, 2), archive: None };
        let said = meet(&broker, &archive).unwrap_err().to_string();
        assert!(said.contains("partitions is 2, the pipeline's is 1"), "{said}");
    }
}
