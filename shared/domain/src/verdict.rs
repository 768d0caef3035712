//! Verdicts: the archive's decisions on events that were too old to judge. Each is counted once, by
//! its number.

use std::collections::VecDeque;

use crate::{event::Event, lake::LakeEffect};

/// How many messages of verdicts may be stored by the broker but not yet noted by the archive. If
/// the first of them is lost, the others are read again for nothing; the bound limits that, and the
/// memory for them.
const STORED_MAX: usize = 64;

/// The archive's decision that an event is new although it was too old to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The number: gap-free from 1, per stream and across epochs.
    pub number: u64,
    /// The event.
    pub event: Event,
}

/// How the number of a verdict relates to the numbers that were already passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The number is the next one.
    Next,
    /// The number was passed before: this verdict is a repetition.
    Passed,
    /// Numbers before this one are missing. Only the archiver publishes verdicts, and in order, so
    /// either messages in between were deleted or another program wrote this one.
    Ahead,
}

impl Turn {
    /// The turn of a number, when `last` is the highest that was passed; 0 means none was.
    pub const fn of(number: u64, last: u64) -> Self {
        if number <= last {
            Self::Passed
        } else if number - last == 1 {
            Self::Next
        } else {
            Self::Ahead
        }
    }
}

/// What became of a verdict. Only `Counted` changes the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppliedVerdict {
    /// The event counts. As any other event, it may have an effect that has a counter of its own.
    Counted(LakeEffect),
    /// The verdict was counted before.
    Passed,
    /// Verdicts before this one are missing, which raises an alert.
    Ahead,
}

/// How far the verdicts of a stream have progressed at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictProgress {
    /// The sequence of the last message that is archived.
    pub sequence: u64,
    /// The highest number given; 0 before the first.
    pub given: u64,
    /// The highest number noted; 0 before the first.
    pub noted: u64,
}

impl VerdictProgress {
    /// Verdicts that were given but are not noted yet: they are on their way.
    pub const fn waiting(&self) -> u64 {
        self.given.saturating_sub(self.noted)
    }
}

/// Which verdicts must be published next: every number that is not yet noted, in order, from the
/// committed rows.
///
/// If the archive passes a message without noting its numbers, the message was deleted, and
/// everything from there on is published again. After a crash, everything that is not noted is
/// published again. The numbers ensure that nothing counts twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    progress: VerdictProgress,
    /// The highest number that the broker has stored.
    sent: u64,
    /// Last number and sequence of each message that the broker has stored and the archive has not
    /// noted yet.
    stored: VecDeque<(u64, u64)>,
    attempt: u32,
}

impl Outbox {
    /// Starts with the first verdict that is not noted.
    pub const fn new(progress: VerdictProgress) -> Self {
        Self { progress, sent: progress.noted, stored: VecDeque::new(), attempt: 0 }
    }

    /// A batch was committed. Returns whether something must be published again.
    pub fn commit(&mut self, progress: VerdictProgress) -> bool {
        self.progress = progress;
        self.sent = self.sent.max(progress.noted);
        while self.stored.front().is_some_and(|(last, _)| *last <= progress.noted) {
            self.stored.pop_front();
        }
        let lost = self.stored.front().is_some_and(|(_, at)| *at <= progress.sequence);
        if lost {
            self.sent = progress.noted;
            self.stored.clear();
            self.attempt += 1;
        }
        lost
    }

    /// The numbers that may be published now, as (the one before the first, the last); `None` if
    /// nothing is due.
    pub fn due(&self) -> Option<(u64, u64)> {
        let due = self.sent < self.progress.given && self.stored.len() < STORED_MAX;
        due.then_some((self.sent, self.progress.given))
    }

    /// The number of the attempt at publishing these verdicts, from 0.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The broker has stored the verdicts up to a number, at a sequence.
    pub fn stored(&mut self, last: u64, sequence: u64) {
        self.sent = self.sent.max(last);
        self.stored.push_back((last, sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(sequence: u64, given: u64, noted: u64) -> VerdictProgress {
        VerdictProgress { sequence, given, noted }
    }

    #[test]
    fn only_what_was_committed_is_due_and_what_is_stored_is_not_due_again() {
        let mut outbox = Outbox::new(at(10, 0, 0));
        assert_eq!(outbox.due(), None);
        assert!(!outbox.commit(at(20, 3, 0)));
        assert_eq!(outbox.due(), Some((0, 3)));
        outbox.stored(2, 21);
        assert_eq!(outbox.due(), Some((2, 3)));
        outbox.stored(3, 22);
        assert_eq!(outbox.due(), None);
        assert!(!outbox.commit(at(22, 3, 3)));
        assert_eq!((outbox.due(), outbox.attempt()), (None, 0));
    }

    #[test]
    fn what_was_given_and_is_not_noted_waits() {
        assert_eq!([at(10, 7, 5), at(10, 7, 7)].map(|progress| progress.waiting()), [2, 0]);
    }

    #[test]
    fn after_a_restart_what_is_not_noted_is_due() {
        assert_eq!(Outbox::new(at(10, 7, 5)).due(), Some((5, 7)));
    }

    #[test]
    fn what_was_deleted_before_it_was_noted_is_due_again_as_another_attempt() {
        let mut outbox = Outbox::new(at(10, 9, 0));
        outbox.stored(4, 11);
        outbox.stored(9, 12);
        assert!(!outbox.commit(at(11, 9, 4)));
        assert!(outbox.commit(at(15, 9, 4)));
        assert_eq!((outbox.due(), outbox.attempt()), (Some((4, 9)), 1));
        outbox.stored(9, 16);
        assert!(!outbox.commit(at(16, 9, 9)));
        assert_eq!(outbox.due(), None);
    }

    #[test]
    fn no_more_is_stored_ahead_than_is_remembered() {
        let mut outbox = Outbox::new(at(0, 1_000, 0));
        let mut stored = 0;
        while outbox.due().is_some() {
            stored += 1;
            assert!(stored <= 1_000, "no end");
            outbox.stored(stored, stored);
        }
        assert_eq!(stored, 64);
        outbox.commit(at(1, 1_000, 1));
        assert_eq!(outbox.due(), Some((64, 1_000)));
    }

    #[test]
    fn only_the_next_number_has_its_turn() {
        assert_eq!(Turn::of(0, 0), Turn::Passed, "no verdict has the number 0");
        assert_eq!(Turn::of(1, 0), Turn::Next);
        assert_eq!(Turn::of(2, 0), Turn::Ahead);
        assert_eq!(Turn::of(7, 7), Turn::Passed);
        assert_eq!(Turn::of(8, 7), Turn::Next);
        assert_eq!(Turn::of(u64::MAX, 7), Turn::Ahead);
        assert_eq!(Turn::of(u64::MAX, u64::MAX), Turn::Passed);
    }
}
