//! What was done and seen in all rounds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::matrix::ledger::Counts;

/// The sum of rounds. Printed for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The seeds of the rounds, in their order.
    pub seeds: Vec<u64>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Distinct events that were archived.
    pub events: u64,
    /// Deliveries that were duplicates, by the ledger.
    pub duplicates: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Scrapes that were answered.
    pub scrapes: u64,
    /// What the producers did on purpose.
    pub produced: Counts,
    /// Acknowledged events that are neither archived nor dead-lettered.
    pub lost: u64,
    /// Identities that stand in the archive more than once.
    pub doubled: u64,
    /// Windows that are not the sum of their rows.
    pub windows_differing: u64,
    /// All rounds together.
    pub took: Duration,
}

impl Summary {
    /// Adds a round.
    pub fn add(&mut self, round: &Self) {
        self.seeds.extend(&round.seeds);
        for (kind, count) in &round.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.events += round.events;
        self.duplicates += round.duplicates;
        self.dead_letters += round.dead_letters;
        self.scrapes += round.scrapes;
        self.produced.add(&round.produced);
        self.lost += round.lost;
        self.doubled += round.doubled;
        self.windows_differing += round.windows_differing;
        self.took += round.took;
    }

    /// All faults.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disorder = &self.produced.disorder;
        writeln!(f, "{} rounds in {} s", self.seeds.len(), self.took.as_secs())?;
        writeln!(f, "  seeds              {:?}", self.seeds)?;
        writeln!(f, "  events             {}", self.events)?;
        writeln!(f, "  duplicates met     {}", self.duplicates)?;
        writeln!(f, "  dead letters       {}", self.dead_letters)?;
        writeln!(f, "  answered scrapes   {}", self.scrapes)?;
        writeln!(
            f,
            "  sent on purpose    {} twice, {} late, {} reordered, {} poison",
            disorder.duplicates, disorder.late, disorder.reordered, disorder.poison
        )?;
        writeln!(f, "  faults             {} of {} kinds", self.faults(), self.faults.len())?;
        for (kind, count) in &self.faults {
            writeln!(f, "    {count:>5}  {kind}")?;
        }
        writeln!(f, "  lost               {}", self.lost)?;
        writeln!(f, "  doubled            {}", self.doubled)?;
        write!(f, "  windows differing  {}", self.windows_differing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_added_up_and_every_kind_is_named() {
        let round = Summary {
            seeds: vec![7],
            faults: BTreeMap::from([("aggregator killed", 2), ("snapshots lost", 1)]),
            events: 10,
            ..Summary::default()
        };
        let mut sum = round.clone();
        sum.add(&round);
        assert_eq!((sum.faults(), sum.events, sum.seeds.len()), (6, 20, 2));
        let text = sum.to_string();
        assert!(text.contains("6 of 2 kinds") && text.contains("4  aggregator killed"), "{text}");
    }
}
