//! Everything that judgement and fold depend on besides the events.
//!
//! The rules are stored in the stream's metadata, so that the aggregator, the archiver and a later
//! replay use the same ones. They are fixed for the life of a pipeline.

use std::collections::BTreeMap;

use crate::ladder::Ladder;

/// Version of decoding, acceptance, judgement and fold. It is raised when any of them gives another
/// result for the same bytes.
pub const RULES_VERSION: u32 = 1;

/// What judgement and fold depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// See [`RULES_VERSION`].
    pub version: u32,
    /// Derived ids kept per stream. Each takes 24 bytes in a snapshot and about 50 in memory.
    pub derived_ids_max: usize,
    /// Runs of sequenced ids kept per stream.
    pub runs_max: usize,
    /// Holes kept per run: numbers that were passed over and may still arrive.
    pub holes_per_run_max: usize,
    /// Objects and tombstones kept for used space. Each takes about 100 bytes in memory.
    pub objects_max: usize,
    /// Buckets or warehouses that have series of their own; the others share the label `other`.
    pub labels_max: usize,
    /// How far an event may be dated ahead of the broker's timestamp, in seconds.
    pub future_skew_s: u32,
    /// How far an event may be dated behind the broker's timestamp, in days; 0 means without limit.
    pub retention_days: u32,
    /// Lengths of the window aggregates, and how long each is kept.
    pub windows: Ladder,
    /// Event time between two kept points of a bucket's tracked bytes, and broker time between two
    /// samples. In seconds.
    pub sample_interval_s: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            version: RULES_VERSION,
            derived_ids_max: 250_000,
            runs_max: 256,
            holes_per_run_max: 4_096,
            objects_max: 500_000,
            labels_max: 50,
            future_skew_s: 300,
            retention_days: 0,
            windows: Ladder::default(),
            sample_interval_s: 10,
        }
    }
}

/// Why metadata is not a set of rules that this program can follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownRules {
    /// The key is missing.
    Missing(&'static str),
    /// The value of the key is malformed or out of range.
    Invalid(&'static str, String),
    /// The rules have another version.
    Version(u32),
}

impl std::fmt::Display for UnknownRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "the stream metadata lacks {key}"),
            Self::Invalid(key, value) => {
                write!(f, "the stream metadata {key} has the invalid value {value:?}")
            }
            Self::Version(version) => write!(
                f,
                "the stream follows version {version} of the rules, but this program knows version \
                 {RULES_VERSION}: run a release that knows it"
            ),
        }
    }
}

impl std::error::Error for UnknownRules {}

impl Rules {
    /// The rules as stream metadata.
    pub fn to_metadata(&self) -> BTreeMap<String, String> {
        [
            (VERSION, self.version.to_string()),
            (DERIVED, self.derived_ids_max.to_string()),
            (RUNS, self.runs_max.to_string()),
            (HOLES, self.holes_per_run_max.to_string()),
            (OBJECTS, self.objects_max.to_string()),
            (LABELS, self.labels_max.to_string()),
            (SKEW, self.future_skew_s.to_string()),
            (RETENTION, self.retention_days.to_string()),
            (WINDOWS, self.windows.to_string()),
            (SAMPLES, self.sample_interval_s.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// The rules that are stored in a stream's metadata; other keys are ignored.
    ///
    /// # Errors
    ///
    /// A missing key, a value out of range, or a version that this program does not know.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, UnknownRules> {
        let version = number(metadata, VERSION)?;
        if version != RULES_VERSION {
            return Err(UnknownRules::Version(version));
        }
        let windows = text(metadata, WINDOWS)?;
        let windows = windows
            .parse()
            .map_err(|why| UnknownRules::Invalid(WINDOWS, format!("{windows}: {why}")))?;
        Ok(Self {
            version,
            derived_ids_max: positive(metadata, DERIVED)?,
            runs_max: positive(metadata, RUNS)?,
            holes_per_run_max: positive(metadata, HOLES)?,
            objects_max: positive(metadata, OBJECTS)?,
            labels_max: positive(metadata, LABELS)?,
            future_skew_s: number(metadata, SKEW)?,
            retention_days: number(metadata, RETENTION)?,
            windows,
            sample_interval_s: positive(metadata, SAMPLES)?,
        })
    }
}

const VERSION: &str = "lakegauge.rules_version";
const DERIVED: &str = "lakegauge.derived_ids_max";
const RUNS: &str = "lakegauge.runs_max";
const HOLES: &str = "lakegauge.holes_per_run_max";
const OBJECTS: &str = "lakegauge.objects_max";
const LABELS: &str = "lakegauge.labels_max";
const SKEW: &str = "lakegauge.future_skew_s";
const RETENTION: &str = "lakegauge.retention_days";
const WINDOWS: &str = "lakegauge.windows";
const SAMPLES: &str = "lakegauge.sample_interval_s";

fn text<'a>(
    metadata: &'a BTreeMap<String, String>,
    key: &'static str,
) -> Result<&'a String, UnknownRules> {
    metadata.get(key).ok_or(UnknownRules::Missing(key))
}

fn number<T: std::str::FromStr>(
    metadata: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<T, UnknownRules> {
    let value = text(metadata, key)?;
    value.parse().map_err(|_| UnknownRules::Invalid(key, value.clone()))
}

fn positive<T: std::str::FromStr + Default + PartialEq>(
    metadata: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<T, UnknownRules> {
    let value = number::<T>(metadata, key)?;
    if value == T::default() {
        return Err(UnknownRules::Invalid(key, "0".to_owned()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_the_metadata() {
        let rules =
            Rules { derived_ids_max: 7, windows: "1s,60s".parse().unwrap(), ..Rules::default() };
        assert_eq!(Rules::from_metadata(&rules.to_metadata()), Ok(rules));
    }

    #[test]
    fn rules_of_another_version_are_refused() {
        let rules = Rules { version: RULES_VERSION + 1, ..Rules::default() };
        assert_eq!(
            Rules::from_metadata(&rules.to_metadata()),
            Err(UnknownRules::Version(RULES_VERSION + 1))
        );
    }

    #[test]
    fn what_is_wrong_with_rules_is_said_with_key_value_and_versions() {
        for (unknown, words) in [
            (UnknownRules::Missing(DERIVED), ["lacks", DERIVED]),
            (UnknownRules::Invalid(RUNS, "many".to_owned()), [RUNS, "\"many\""]),
            (UnknownRules::Version(77), ["version 77", "run a release that knows it"]),
        ] {
            let said = unknown.to_string();
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }

    #[test]
    fn a_missing_or_zero_bound_is_refused() {
        for key in Rules::default().to_metadata().keys() {
            let mut metadata = Rules::default().to_metadata();
            metadata.remove(key);
            assert!(matches!(Rules::from_metadata(&metadata), Err(UnknownRules::Missing(_))));
        }
        for key in [DERIVED, RUNS, HOLES, OBJECTS, LABELS, WINDOWS, SAMPLES] {
            let mut metadata = Rules::default().to_metadata();
            metadata.insert(key.to_owned(), "0".to_owned());
            assert!(matches!(Rules::from_metadata(&metadata), Err(UnknownRules::Invalid(_, _))));
        }
    }
}
