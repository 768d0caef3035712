//! The named fail points, and what passes them often enough to be killed there.

use crate::pipeline::Part;

/// A fail point of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name in the code.
    pub name: &'static str,
    /// Which service passes it.
    pub part: Part,
    /// The highest passing at which a seed kills: within a second under load.
    pub passings_max: u64,
    /// Whether it is passed only by an aggregator that has lost its snapshot, or by a service that
    /// finds no epoch.
    pub needs: Needs,
}

/// What must be so for a point to be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Load.
    Load,
    /// That the pointers to the snapshots are gone.
    NoSnapshot,
    /// That nobody has begun an epoch: the very first start.
    FirstStart,
}

const fn point(name: &'static str, part: Part, passings_max: u64, needs: Needs) -> Point {
    Point { name, part, passings_max, needs }
}

/// Every fail point of the services. Those of the publisher are passed by the aggregator's samples.
pub const POINTS: &[Point] = &[
    point("store.pipeline_named", Part::Archiver, 1, Needs::FirstStart),
    point("bus.archive_named", Part::Archiver, 1, Needs::FirstStart),
    point("bus.epoch_raised", Part::Archiver, 1, Needs::FirstStart),
    point("store.epoch_closed", Part::Archiver, 1, Needs::FirstStart),
    point("archiver.epoch_begun", Part::Archiver, 1, Needs::FirstStart),
    point("archiver.received", Part::Archiver, 200, Needs::Load),
    point("archiver.judged", Part::Archiver, 200, Needs::Load),
    point("archiver.sealed", Part::Archiver, 8, Needs::Load),
    point("store.copied", Part::Archiver, 8, Needs::Load),
    point("store.windows_added", Part::Archiver, 8, Needs::Load),
    point("store.ledger_written", Part::Archiver, 8, Needs::Load),
    point("store.checkpoint_set", Part::Archiver, 8, Needs::Load),
    point("store.committed", Part::Archiver, 8, Needs::Load),
    point("archiver.committed", Part::Archiver, 8, Needs::Load),
    point("archiver.acknowledged", Part::Archiver, 8, Needs::Load),
    point("archiver.trim_compared", Part::Archiver, 3, Needs::Load),
    point("archiver.trimmed", Part::Archiver, 3, Needs::Load),
    point("archiver.verdicts_due", Part::Archiver, 3, Needs::Load),
    point("archiver.verdicts_published", Part::Archiver, 3, Needs::Load),
    point("aggregator.received", Part::Aggregator, 200, Needs::Load),
    point("aggregator.applied", Part::Aggregator, 200, Needs::Load),
    point("aggregator.sampled", Part::Aggregator, 2, Needs::Load),
    point("bus.sent", Part::Aggregator, 2, Needs::Load),
    point("bus.acknowledged", Part::Aggregator, 2, Needs::Load),
    point("aggregator.snapshot_taken", Part::Aggregator, 3, Needs::Load),
    point("aggregator.samples_flushed", Part::Aggregator, 3, Needs::Load),
    point("bus.snapshot_uploaded", Part::Aggregator, 3, Needs::Load),
    point("bus.snapshot_pointed", Part::Aggregator, 3, Needs::Load),
    point("aggregator.snapshot_stored", Part::Aggregator, 3, Needs::Load),
    point("aggregator.rebuilt", Part::Aggregator, 1, Needs::NoSnapshot),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::nats::repository;

    fn declared(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                declared(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let mut parts = text.split("FailPoint::new(\"");
                parts.next();
                names.extend(parts.filter_map(|part| Some(part.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn every_fail_point_of_the_code_is_in_the_matrix() {
        let mut names = BTreeSet::new();
        for folder in ["shared", "services"] {
            declared(&repository().join(folder), &mut names);
        }
        // The unit test of fail points has one of its own.
        names.retain(|name| !name.starts_with("test."));
        let known: BTreeSet<String> = POINTS.iter().map(|point| point.name.to_owned()).collect();
        assert_eq!(names, known);
    }
}
