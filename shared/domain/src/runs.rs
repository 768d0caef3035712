//! Which sequenced ids were seen: intervals of numbers per run, in bounded memory.

use std::collections::BTreeMap;

use crate::id::Run;

/// Whether an identity was seen before in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The identity is new; it is remembered from now on.
    New,
    /// The identity was seen before.
    Duplicate,
    /// The identity is not known and not above a floor: only the archive's unique key can decide.
    TooOld,
}

/// The sequenced ids seen in one stream.
///
/// The `runs_max` runs with the largest prefixes are kept, and in each run the `holes_per_run_max`
/// highest holes. What is forgotten raises a floor; nothing at or below a floor can be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    runs_max: usize,
    holes_per_run_max: usize,
    kept: BTreeMap<Run, SequenceSet>,
    floor: Option<Run>,
}

/// The numbers of one run that were seen: those in `floor..next` that are in no hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceSet {
    /// One above the highest number seen.
    pub next: u64,
    /// Numbers below the floor cannot be judged.
    pub floor: u64,
    /// Start and (exclusive) end of each hole: numbers at or above the floor that were not seen
    /// yet.
    pub holes: BTreeMap<u64, u64>,
}

impl Runs {
    /// No ids yet.
    pub const fn new(runs_max: usize, holes_per_run_max: usize) -> Self {
        Self { runs_max, holes_per_run_max, kept: BTreeMap::new(), floor: None }
    }

    /// Runs as they were stored, with the same bounds.
    pub const fn restore(
        runs_max: usize,
        holes_per_run_max: usize,
        kept: BTreeMap<Run, SequenceSet>,
        floor: Option<Run>,
    ) -> Self {
        Self { runs_max, holes_per_run_max, kept, floor }
    }

    /// The runs that are kept.
    pub const fn kept(&self) -> &BTreeMap<Run, SequenceSet> {
        &self.kept
    }

    /// The largest run that was forgotten.
    pub const fn floor(&self) -> Option<Run> {
        self.floor
    }

    /// Judges a number of a run and, if it is new, remembers it.
    pub fn judge(&mut self, run: Run, number: u64) -> Judgement {
        if let Some(numbers) = self.kept.get_mut(&run) {
            return numbers.judge(number, self.holes_per_run_max);
        }
        if self.floor.is_some_and(|floor| run <= floor) {
            return Judgement::TooOld;
        }
        let mut numbers = SequenceSet::default();
        let judgement = numbers.judge(number, self.holes_per_run_max);
        self.kept.insert(run, numbers);
        if self.kept.len() > self.runs_max {
            let given_up = self.kept.pop_first().map(|(run, _)| run);
            self.floor = self.floor.max(given_up);
        }
        judgement
    }
}

impl SequenceSet {
    fn judge(&mut self, number: u64, holes_max: usize) -> Judgement {
        if number < self.floor {
            return Judgement::TooOld;
        }
        if number >= self.next {
            if number > self.next {
                self.holes.insert(self.next, number);
            }
            self.next = number + 1;
            self.give_up_holes(holes_max);
            return Judgement::New;
        }
        let hole = self.holes.range(..=number).next_back().map(|(start, end)| (*start, *end));
        match hole {
            Some((start, end)) if number < end => {
                self.holes.remove(&start);
                if start < number {
                    self.holes.insert(start, number);
                }
                if number + 1 < end {
                    self.holes.insert(number + 1, end);
                }
                self.give_up_holes(holes_max);
                Judgement::New
            }
            Some(_) | None => Judgement::Duplicate,
        }
    }

    fn give_up_holes(&mut self, holes_max: usize) {
        while self.holes.len() > holes_max {
            if let Some((_, end)) = self.holes.pop_first() {
                self.floor = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run::new(5, 5);

    #[test]
    fn numbers_in_order_need_one_interval() {
        let mut runs = Runs::new(2, 2);
        for number in 0..1_000 {
            assert_eq!(runs.judge(RUN, number), Judgement::New);
            assert_eq!(runs.judge(RUN, number), Judgement::Duplicate);
        }
        assert!(runs.kept()[&RUN].holes.is_empty());
    }

    #[test]
    fn a_passed_over_number_is_new_once_when_it_comes() {
        let mut runs = Runs::new(2, 8);
        for number in [5, 2, 0, 4] {
            assert_eq!(runs.judge(RUN, number), Judgement::New, "{number}");
            assert_eq!(runs.judge(RUN, number), Judgement::Duplicate, "{number}");
        }
        assert_eq!(runs.kept()[&RUN].holes, BTreeMap::from([(1, 2), (3, 4)]));
    }

    #[test]
    fn a_hole_that_was_given_up_leaves_a_floor_below_which_nothing_is_judged() {
        let mut runs = Runs::new(2, 1);
        assert_eq!(runs.judge(RUN, 1), Judgement::New);
        assert_eq!(runs.judge(RUN, 3), Judgement::New);
        assert_eq!(runs.judge(RUN, 0), Judgement::TooOld);
        assert_eq!(runs.judge(RUN, 1), Judgement::Duplicate);
        assert_eq!(runs.judge(RUN, 2), Judgement::New);
    }

    #[test]
    fn the_runs_with_the_smallest_prefixes_are_given_up_first() {
        let mut runs = Runs::new(2, 1);
        for start in [10, 30, 20] {
            assert_eq!(runs.judge(Run::new(start, 0), 0), Judgement::New);
        }
        assert_eq!(runs.floor(), Some(Run::new(10, 0)));
        assert_eq!(runs.judge(Run::new(10, 0), 0), Judgement::TooOld);
        assert_eq!(runs.judge(Run::new(20, 0), 0), Judgement::Duplicate);
        assert_eq!(runs.judge(Run::new(15, 0), 0), Judgement::New, "above the floor");
        assert_eq!(runs.judge(Run::new(15, 0), 0), Judgement::TooOld, "and given up at once");
    }
}
