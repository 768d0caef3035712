//! Counting every event once, in bounded memory, without dropping late events.

use std::collections::BTreeSet;

use crate::{
    event::{Event, EventIdentity},
    id::IdKind,
    rules::Rules,
    runs::{Judgement, Runs},
};

/// The derived ids that were seen. Those with the largest (occurred at, id) are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    ids_max: usize,
    kept: BTreeSet<EventIdentity>,
    floor: Option<EventIdentity>,
}

impl Derived {
    /// No identities yet.
    pub const fn new(ids_max: usize) -> Self {
        Self { ids_max, kept: BTreeSet::new(), floor: None }
    }

    /// Derived ids as they were stored, with the same bound.
    pub const fn restore(
        ids_max: usize,
        kept: BTreeSet<EventIdentity>,
        floor: Option<EventIdentity>,
    ) -> Self {
        Self { ids_max, kept, floor }
    }

    /// The identities that are kept.
    pub const fn kept(&self) -> &BTreeSet<EventIdentity> {
        &self.kept
    }

    /// The largest identity that was forgotten. `None` means that every identity can be judged.
    pub const fn floor(&self) -> Option<EventIdentity> {
        self.floor
    }

    /// Judges an identity and, if it is new, remembers it.
    pub fn judge(&mut self, identity: EventIdentity) -> Judgement {
        if self.floor.is_some_and(|floor| identity <= floor) {
            return Judgement::TooOld;
        }
        if !self.kept.insert(identity) {
            return Judgement::Duplicate;
        }
        if self.kept.len() > self.ids_max {
            self.floor = self.kept.pop_first();
        }
        Judgement::New
    }
}

/// The identities that were seen in one stream, as far as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    runs: Runs,
    derived: Derived,
}

impl Seen {
    /// No identities yet.
    pub const fn new(rules: &Rules) -> Self {
        Self {
            runs: Runs::new(rules.runs_max, rules.holes_per_run_max),
            derived: Derived::new(rules.derived_ids_max),
        }
    }

    /// Identities as they were stored, with the same rules.
    pub const fn restore(runs: Runs, derived: Derived) -> Self {
        Self { runs, derived }
    }

    /// The sequenced ids.
    pub const fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The derived ids.
    pub const fn derived(&self) -> &Derived {
        &self.derived
    }

    /// Judges an event and, if it is new, remembers its identity. A correction is left to the
    /// archive, which has what is corrected, and takes no place in the sets.
    pub fn judge(&mut self, event: &Event) -> Judgement {
        if event.fact.is_correction() {
            return Judgement::TooOld;
        }
        let identity = event.identity();
        match identity.1.kind() {
            IdKind::Sequenced { run, number } => self.runs.judge(run, number),
            IdKind::Derived => self.derived.judge(identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{access, at, derived, withdrawn};

    #[test]
    fn a_correction_is_left_to_the_archive_and_takes_no_place() {
        let mut seen = Seen::new(&Rules::default());
        let event = access(1, at(1));
        assert_eq!(seen.judge(&event), Judgement::New);
        let before = seen.clone();
        assert_eq!(seen.judge(&withdrawn(&event)), Judgement::TooOld);
        assert_eq!(seen, before);
    }

    #[test]
    fn a_set_that_never_overflowed_judges_everything() {
        let mut seen = Derived::new(3);
        for second in [30, 10, 20] {
            assert_eq!(seen.judge((at(second), derived(1))), Judgement::New);
            assert_eq!(seen.judge((at(second), derived(1))), Judgement::Duplicate);
        }
        assert_eq!(seen.floor(), None);
    }

    #[test]
    fn the_floor_is_the_largest_identity_ever_given_up() {
        let mut seen = Derived::new(2);
        for second in [10, 20, 30] {
            assert_eq!(seen.judge((at(second), derived(1))), Judgement::New);
        }
        assert_eq!(seen.floor(), Some((at(10), derived(1))));
        assert_eq!(seen.judge((at(10), derived(1))), Judgement::TooOld, "was seen");
        assert_eq!(seen.judge((at(9), derived(1))), Judgement::TooOld, "was not");
        assert_eq!(seen.judge((at(10), derived(2))), Judgement::New, "just above");
        assert_eq!(seen.judge((at(10), derived(2))), Judgement::TooOld, "and given up at once");
        assert_eq!(seen.judge((at(30), derived(1))), Judgement::Duplicate);
    }

    #[test]
    fn the_same_id_at_another_time_is_another_identity() {
        let mut seen = Derived::new(9);
        assert_eq!(seen.judge((at(1), derived(1))), Judgement::New);
        assert_eq!(seen.judge((at(2), derived(1))), Judgement::New);
    }
}
