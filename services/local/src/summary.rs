//! The result of a run, and whether the sums agree.

use std::collections::{BTreeMap, BTreeSet};

use aggregator::api::KeyMetrics;
use event_store::SourceTally;
use serde::Serialize;
use service_kit::metrics::float;
use service_kit::terminal::grouped;

use crate::beside::PublishedBeside;
use crate::parts::SIMULATORS;
use crate::readings::{ACCESSES, RECORDS, RESPONSE_MS, USED_GB};

/// The allowed relative difference of two response times: both are quotients of the same sums, but
/// may be written with fewer digits.
const RESPONSE_TOLERANCE: f64 = 1e-9;

/// What a simulator expects of the metrics; it writes this after draining.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub(crate) struct SimulatorReport {
    /// The source name of its events.
    pub(crate) source: String,
    /// Distinct events that were acknowledged.
    pub(crate) published: u64,
    /// What the metrics must be, by the simulator's model.
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// The contents of the archive, or their growth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ArchivedTotals {
    pub(crate) events: u64,
    pub(crate) dead_letters: u64,
    /// Rows beyond the first of each identity.
    pub(crate) duplicates: u64,
    /// Messages in a stream that are above its checkpoint.
    pub(crate) lag: u64,
    /// The part of each source.
    pub(crate) sources: BTreeMap<String, SourceTally>,
}

impl ArchivedTotals {
    /// The growth since an earlier count; duplicates and lag are not changed.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            events: self.events.saturating_sub(earlier.events),
            dead_letters: self.dead_letters.saturating_sub(earlier.dead_letters),
            duplicates: self.duplicates,
            lag: self.lag,
            sources: grown(&self.sources, &earlier.sources),
        }
    }

    /// The totals without what other programs published.
    fn without(self, beside: &PublishedBeside) -> Self {
        Self {
            events: self.events.saturating_sub(beside.events()),
            dead_letters: self.dead_letters.saturating_sub(beside.sum.dead_letters),
            ..self
        }
    }
}

/// The growth of each source that has grown.
fn grown(
    now: &BTreeMap<String, SourceTally>,
    earlier: &BTreeMap<String, SourceTally>,
) -> BTreeMap<String, SourceTally> {
    let of = |(name, now): (&String, &SourceTally)| {
        let earlier = earlier.get(name).copied().unwrap_or_default();
        let growth = SourceTally {
            lake: now.lake.saturating_sub(earlier.lake),
            warehouse: now.warehouse.saturating_sub(earlier.warehouse),
            dead_letters: now.dead_letters.saturating_sub(earlier.dead_letters),
        };
        (growth != SourceTally::default()).then(|| (name.clone(), growth))
    };
    now.iter().filter_map(of).collect()
}

/// All results by which a run is judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunOutcome {
    /// One report for each simulator; empty if none ran.
    pub(crate) reports: Vec<SimulatorReport>,
    /// Whether simulators should run.
    pub(crate) simulators: bool,
    /// Growth since the start; `None` if the archive could not be counted.
    pub(crate) archive: Option<ArchivedTotals>,
    /// Growth since the start; `None` if the metrics could not be read.
    pub(crate) four: Option<KeyMetrics>,
    /// Whether the response time can be compared; it can't with an earlier run's queries in its
    /// minute.
    pub(crate) response_comparable: bool,
    pub(crate) seconds: f64,
    pub(crate) restarts: BTreeMap<&'static str, u32>,
    /// Problems of the parts themselves.
    pub(crate) problems: Vec<String>,
}

/// The summary for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    published: Option<u64>,
    /// Events and dead letters of the simulators' sources; of all sources if no simulator ran.
    archived: Option<u64>,
    dead_lettered: Option<u64>,
    /// Events of other sources, which are not checked.
    published_beside: u64,
    duplicates_in_archive: Option<u64>,
    lag: Option<u64>,
    events_per_second: Option<f64>,
    seconds: f64,
    #[serde(serialize_with = "whole_where_whole")]
    metrics: Option<BTreeMap<&'static str, f64>>,
    #[serde(serialize_with = "whole_where_whole")]
    model: Option<BTreeMap<&'static str, f64>>,
    healthy: bool,
    sums_agree: bool,
    restarts: BTreeMap<&'static str, u32>,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Summary {
    /// Judges a run.
    pub(crate) fn of(outcome: RunOutcome) -> Self {
        let mut healthy = outcome.problems;
        for (part, restarts) in outcome.restarts.iter().filter(|(_, restarts)| **restarts > 0) {
            healthy.push(format!("{part} died and was started again {restarts} times"));
        }
        let mut sums = Vec::new();
        // A report is of a simulator's last start: what came before is in the archive, and unknown here.
        let began_anew: Vec<&str> =
            SIMULATORS.into_iter().filter(|part| outcome.restarts.get(part) > Some(&0)).collect();
        let comparable = outcome.simulators && began_anew.is_empty();
        let reports = if comparable { outcome.reports } else { Vec::new() };
        if comparable && reports.len() < 2 {
            sums.push("a simulator did not write what it expects".to_owned());
        }
        let published =
            (!reports.is_empty()).then(|| reports.iter().map(|report| report.published).sum());
        let beside = published_beside(&reports, outcome.archive.as_ref());
        let archive = outcome.archive.map(|archive| archive.without(&beside));
        match &archive {
            None => sums.push("the archive could not be counted".to_owned()),
            Some(archive) => sums.extend(archive_problems(archive, published)),
        }
        let metrics = outcome.four.map(|four| named(&four));
        let model = (!reports.is_empty()).then(|| model(&reports));
        let compared = Compared::beside(&beside, outcome.response_comparable);
        match (&metrics, &model) {
            (None, _) => sums.push("the four metrics could not be read".to_owned()),
            (Some(metrics), Some(model)) => sums.extend(compared.problems(metrics, model)),
            (Some(_), None) => {}
        }
        let mut notes: Vec<String> = beside.note().into_iter().collect();
        if !began_anew.is_empty() {
            notes.push(format!(
                "the sums are not compared with the simulators': {} was started again, and knows \
                 only what it published since; `lakegauge audit` compares without it",
                began_anew.join(" and ")
            ));
        }
        if comparable && !outcome.response_comparable {
            notes.push(format!(
                "{RESPONSE_MS} is not compared: queries of the previous run may be in its minute"
            ));
        }
        let archived = archive.as_ref().map(|archive| archive.events);
        Self {
            published,
            archived,
            dead_lettered: archive.as_ref().map(|archive| archive.dead_letters),
            published_beside: beside.events(),
            duplicates_in_archive: archive.as_ref().map(|archive| archive.duplicates),
            lag: archive.as_ref().map(|archive| archive.lag),
            events_per_second: archived
                .filter(|_| outcome.seconds > 0.0)
                .map(|archived| (float(archived) / outcome.seconds * 10.0).round() / 10.0),
            seconds: (outcome.seconds * 1000.0).round() / 1000.0,
            metrics,
            model,
            healthy: healthy.is_empty(),
            sums_agree: sums.is_empty(),
            restarts: outcome.restarts,
            problems: healthy.into_iter().chain(sums).collect(),
            notes,
        }
    }

    /// Whether every part was healthy and the sums agree.
    pub(crate) fn is_good(&self) -> bool {
        self.healthy && self.sums_agree
    }

    /// The text for people.
    pub(crate) fn describe(&self) -> String {
        let count = |count: Option<u64>| {
            count.map_or_else(|| "?".to_owned(), |count| grouped(float(count)))
        };
        let mut text = format!(
            "Summary of {:.0} s\n  published {} = archived {} + dead-lettered {}; duplicates in the \
             archive {}; lag {}\n",
            self.seconds,
            count(self.published),
            count(self.archived),
            count(self.dead_lettered),
            count(self.duplicates_in_archive),
            count(self.lag),
        );
        if let Some(rate) = self.events_per_second {
            text.push_str(&format!("  {} events a second\n", grouped(rate)));
        }
        for name in [USED_GB, ACCESSES, RESPONSE_MS, RECORDS] {
            let value = |of: &Option<BTreeMap<&'static str, f64>>| {
                of.as_ref().and_then(|of| of.get(name)).map(f64::to_string)
            };
            if let Some(shown) = value(&self.metrics) {
                let by_simulators = value(&self.model)
                    .map_or_else(String::new, |model| format!("  (the simulators expect {model})"));
                text.push_str(&format!("  {name:<38} {shown}{by_simulators}\n"));
            }
        }
        for problem in &self.problems {
            text.push_str(&format!("  ! {problem}\n"));
        }
        for note in &self.notes {
            text.push_str(&format!("  {note}\n"));
        }
        text.push_str(if self.is_good() {
            "  every part was healthy and the sums agree"
        } else if self.healthy {
            "  the sums do not agree"
        } else {
            "  not every part was healthy"
        });
        text
    }
}

fn archive_problems(archive: &ArchivedTotals, published: Option<u64>) -> Vec<String> {
    let mut problems = Vec::new();
    let kept = archive.events.saturating_add(archive.dead_letters);
    if let Some(published) = published.filter(|published| *published != kept) {
        problems.push(format!(
            "published {published}, but archived and dead-lettered are {kept} together"
        ));
    }
    if archive.duplicates > 0 {
        problems.push(format!("{} rows are duplicates", archive.duplicates));
    }
    if archive.lag > 0 {
        problems.push(format!("{} messages are not archived", archive.lag));
    }
    problems
}

/// What was published by other sources than the simulators; nothing if no simulator reported.
fn published_beside(
    reports: &[SimulatorReport],
    archive: Option<&ArchivedTotals>,
) -> PublishedBeside {
    let simulators: BTreeSet<&str> = reports.iter().map(|report| report.source.as_str()).collect();
    match archive {
        Some(archive) if !simulators.is_empty() => {
            PublishedBeside::of(&archive.sources, &simulators)
        }
        Some(_) | None => PublishedBeside::default(),
    }
}

/// Which of the four metrics can be compared with the simulators' expectations.
struct Compared {
    /// Whether only the simulator published to the lake.
    lake_alone: bool,
    /// Whether only the simulator published to the warehouse.
    warehouse_alone: bool,
    response_comparable: bool,
}

impl Compared {
    const fn beside(beside: &PublishedBeside, response_comparable: bool) -> Self {
        let (lake_alone, warehouse_alone) = (beside.sum.lake == 0, beside.sum.warehouse == 0);
        Self { lake_alone, warehouse_alone, response_comparable }
    }

    fn problems(
        &self,
        metrics: &BTreeMap<&'static str, f64>,
        model: &BTreeMap<&'static str, f64>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, expected) in model {
            let Some(shown) = metrics.get(name) else { continue };
            if !self.agree(name, *shown, *expected) {
                problems.push(format!("{name} is {shown}, but the simulators expect {expected}"));
            }
        }
        problems
    }

    /// Others' events are added to a counter; space and response time can't be split by source.
    fn agree(&self, name: &str, shown: f64, expected: f64) -> bool {
        match name {
            USED_GB => !self.lake_alone || (shown * 1e9).round() == (expected * 1e9).round(),
            ACCESSES if !self.lake_alone => shown >= expected,
            RECORDS if !self.warehouse_alone => shown >= expected,
            RESPONSE_MS => {
                !self.warehouse_alone
                    || !self.response_comparable
                    || (shown - expected).abs() <= expected.abs() * RESPONSE_TOLERANCE
            }
            _ => shown == expected,
        }
    }
}

fn named(four: &KeyMetrics) -> BTreeMap<&'static str, f64> {
    BTreeMap::from([
        (USED_GB, four.used_gb),
        (ACCESSES, four.accesses),
        (RESPONSE_MS, four.response_ms),
        (RECORDS, four.records),
    ])
}

/// The four metrics by the reports: each simulator reports its own two.
fn model(reports: &[SimulatorReport]) -> BTreeMap<&'static str, f64> {
    [USED_GB, ACCESSES, RESPONSE_MS, RECORDS]
        .into_iter()
        .map(|name| (name, reports.iter().filter_map(|report| report.metrics.get(name)).sum()))
        .collect()
}

/// Writes whole numbers without a fraction, for programs that compare them with integers.
fn whole_where_whole<S: serde::Serializer>(
    numbers: &Option<BTreeMap<&'static str, f64>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let numbers: Option<BTreeMap<&str, serde_json::Value>> = numbers.as_ref().map(|numbers| {
        let written = |number: f64| match format!("{number}").parse::<i64>() {
            Ok(whole) => serde_json::Value::from(whole),
            Err(_) => serde_json::Value::from(number),
        };
        numbers.iter().map(|(name, number)| (*name, written(*number))).collect()
    });
    numbers.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, growth: SourceTally) -> (String, SourceTally) {
        (name.to_owned(), growth)
    }

    /// The good run, and three events and a dead letter of another source.
    fn with_others() -> RunOutcome {
        let mut outcome = good();
        let archive = outcome.archive.as_mut().unwrap();
        let others = SourceTally { lake: 3, warehouse: 0, dead_letters: 1 };
        archive.sources.extend([of("git", others)]);
        archive.events += 3;
        archive.dead_letters += 1;
        let four = outcome.four.as_mut().unwrap();
        four.accesses += 3.0;
        four.used_gb += 0.5;
        outcome
    }

    fn good() -> RunOutcome {
        let book = |source: &str, published, metrics: &[(&str, f64)]| SimulatorReport {
            source: source.to_owned(),
            published,
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        };
        RunOutcome {
            reports: vec![
                book("lake", 80, &[(USED_GB, 1.5), (ACCESSES, 80.0)]),
                book("warehouse", 20, &[(RESPONSE_MS, 12.5), (RECORDS, 7.0)]),
            ],
            simulators: true,
            archive: Some(ArchivedTotals {
                events: 99,
                dead_letters: 1,
                sources: BTreeMap::from([
                    of("lake", SourceTally { lake: 79, warehouse: 0, dead_letters: 1 }),
                    of("warehouse", SourceTally { lake: 0, warehouse: 20, dead_letters: 0 }),
                ]),
                ..ArchivedTotals::default()
            }),
            four: Some(KeyMetrics {
                used_gb: 1.5,
                accesses: 80.0,
                response_ms: 12.5,
                records: 7.0,
            }),
            response_comparable: true,
            seconds: 10.0,
            ..RunOutcome::default()
        }
    }

    #[test]
    fn sums_that_agree_are_good() {
        let summary = Summary::of(good());
        assert!(summary.is_good(), "{:?}", summary.problems);
        assert_eq!((summary.published, summary.archived), (Some(100), Some(99)));
        assert_eq!(summary.events_per_second, Some(9.9));
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["metrics"], json["model"]);
        assert!(json["metrics"][ACCESSES].is_u64() && json["metrics"][USED_GB].is_f64());
        assert_eq!(json["duplicates_in_archive"], 0);
    }

    #[test]
    fn one_byte_one_event_or_one_duplicate_is_too_much() {
        let spoil: [fn(&mut RunOutcome); 6] = [
            |outcome| outcome.four.as_mut().unwrap().used_gb += 1e-9,
            |outcome| outcome.four.as_mut().unwrap().accesses += 1.0,
            |outcome| outcome.archive.as_mut().unwrap().events -= 1,
            |outcome| outcome.archive.as_mut().unwrap().duplicates = 1,
            |outcome| outcome.archive.as_mut().unwrap().lag = 1,
            |outcome| drop(outcome.reports.pop()),
        ];
        for spoil in spoil {
            let mut outcome = good();
            spoil(&mut outcome);
            let summary = Summary::of(outcome);
            assert!(!summary.sums_agree && summary.healthy, "{summary:?}");
        }
    }

    #[test]
    fn what_others_published_is_said_and_leaves_the_simulators_share_to_be_compared() {
        let summary = Summary::of(with_others());
        assert!(summary.is_good(), "{:?}", summary.problems);
        assert_eq!((summary.archived, summary.published_beside), (Some(99), 3));
        let text = summary.describe();
        assert!(text.contains("3 events and 1 dead letter of another source (git)"), "{text}");
        let spoil: [fn(&mut RunOutcome); 4] = [
            |outcome| outcome.four.as_mut().unwrap().accesses -= 4.0,
            |outcome| outcome.four.as_mut().unwrap().records += 1.0,
            |outcome| outcome.four.as_mut().unwrap().response_ms += 1.0,
            |outcome| outcome.archive.as_mut().unwrap().events -= 1,
        ];
        for spoil in spoil {
            let mut outcome = with_others();
            spoil(&mut outcome);
            assert!(!Summary::of(outcome).sums_agree);
        }
    }

    #[test]
    fn a_source_that_brought_nothing_since_is_not_named() {
        let now = ArchivedTotals {
            sources: BTreeMap::from([of("git", SourceTally { lake: 3, ..SourceTally::default() })]),
            ..ArchivedTotals::default()
        };
        assert_eq!(now.since(&now).sources, BTreeMap::new());
        assert_eq!(now.since(&ArchivedTotals::default()).sources, now.sources);
    }

    #[test]
    fn a_part_that_died_is_not_healthy_although_the_sums_agree() {
        let mut outcome = good();
        outcome.restarts.insert("archiver", 1);
        let summary = Summary::of(outcome);
        assert!(summary.sums_agree && !summary.healthy && !summary.is_good());
    }

    #[test]
    fn what_a_simulator_expects_that_was_started_again_is_not_compared() {
        let mut outcome = good();
        outcome.restarts.insert("lake-simulator", 1);
        outcome.reports[0].published = 1;
        let summary = Summary::of(outcome);
        assert!(!summary.healthy, "{summary:?}");
        assert_eq!((summary.published, &summary.model), (None, &None));
        let text = summary.describe();
        assert!(text.contains("lake-simulator was started again"), "{text}");
        assert!(!text.contains("the simulators expect"), "{text}");
    }

    #[test]
    fn without_simulators_nothing_is_compared_with_simulators() {
        let outcome = RunOutcome { reports: Vec::new(), simulators: false, ..good() };
        let summary = Summary::of(outcome);
        assert!(summary.is_good(), "{:?}", summary.problems);
        assert_eq!((summary.published, summary.model), (None, None));
    }
}
