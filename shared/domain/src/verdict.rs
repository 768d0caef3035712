//! Verdicts: the archive's decisions on events that were too old to judge, counted once by number.

use crate::lake::LakeEffect;

/// Where a verdict's number stands among those that were passed. Numbers are gap-free from 1, per
/// stream and across epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the next one.
    Next,
    /// It was passed: the verdict came again.
    Passed,
    /// Some before it are missing. Only the archiver publishes verdicts, in order: what was between
    /// was deleted, or somebody else wrote this one.
    Ahead,
}

impl Turn {
    /// Where a number stands when `last` is the highest that was passed; 0 is none.
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

/// What became of a verdict. Every value but `Counted` leaves the state as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppliedVerdict {
    /// The event counts; as with any other, it may have had an effect worth a count of its own.
    Counted(LakeEffect),
    /// It was counted before.
    Passed,
    /// It is not its turn: an alarm.
    Ahead,
}

#[cfg(test)]
mod tests {
    use super::*;

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
