//! The order of the archiver's effects on one stream: what must come after what.
//!
//! The rule is written once. The archiver checks itself by this rule, and the tests check what they
//! observe from outside.

use std::fmt;

use crate::stream::Mark;

/// How far each effect on a stream has progressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EffectOrder {
    committed: Option<Mark>,
    /// The highest verdict number that is committed.
    given: u64,
}

/// An effect out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfOrder {
    /// A checkpoint moved back, from the first mark to the second.
    CheckpointWentBack(Mark, Mark),
    /// The message with the first sequence was acknowledged, but only messages up to the second
    /// sequence are committed.
    AcknowledgedBeforeCommit(u64, u64),
    /// Messages below the first sequence were deleted, but only messages up to the second are
    /// committed. The message of the checkpoint itself must stay, too.
    TrimmedBeforeCommit(u64, u64),
    /// Verdicts up to the first number were published, but only verdicts up to the second are
    /// committed.
    PublishedBeforeCommit(u64, u64),
}

impl EffectOrder {
    /// The order at the start: without a checkpoint, or with the last one that was committed.
    pub const fn new(committed: Option<Mark>) -> Self {
        Self { committed, given: 0 }
    }

    /// A checkpoint was committed at this mark. Committing the same mark again is in order.
    ///
    /// # Errors
    ///
    /// The mark is before the last one: an earlier sequence in the same epoch, or an earlier epoch.
    pub fn commit(&mut self, mark: Mark) -> Result<(), OutOfOrder> {
        if let Some(before) = self.committed
            && (mark.epoch, mark.sequence) < (before.epoch, before.sequence)
        {
            return Err(OutOfOrder::CheckpointWentBack(before, mark));
        }
        self.committed = Some(mark);
        Ok(())
    }

    /// All messages up to a sequence are acknowledged to the broker.
    ///
    /// # Errors
    ///
    /// Not all of these messages are committed.
    pub fn acknowledge(&self, sequence: u64) -> Result<(), OutOfOrder> {
        let committed = self.committed();
        if sequence > committed {
            return Err(OutOfOrder::AcknowledgedBeforeCommit(sequence, committed));
        }
        Ok(())
    }

    /// All messages below a sequence are deleted at the broker.
    ///
    /// # Errors
    ///
    /// Not all of these messages are committed, or the message of the checkpoint itself is one of
    /// them.
    pub fn trim(&self, below: u64) -> Result<(), OutOfOrder> {
        let committed = self.committed();
        // There is no message below sequence 1.
        if below > committed.max(1) {
            return Err(OutOfOrder::TrimmedBeforeCommit(below, committed));
        }
        Ok(())
    }

    /// Verdicts up to a number are committed.
    pub fn give(&mut self, number: u64) {
        self.given = self.given.max(number);
    }

    /// Verdicts up to a number are published.
    ///
    /// # Errors
    ///
    /// Not all of these verdicts are committed.
    pub const fn publish(&self, number: u64) -> Result<(), OutOfOrder> {
        if number > self.given {
            return Err(OutOfOrder::PublishedBeforeCommit(number, self.given));
        }
        Ok(())
    }

    fn committed(&self) -> u64 {
        self.committed.map_or(0, |mark| mark.sequence)
    }
}

impl fmt::Display for OutOfOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckpointWentBack(before, now) => write!(
                f,
                "the checkpoint moved back from epoch {}, sequence {} to epoch {}, sequence {}",
                before.epoch, before.sequence, now.epoch, now.sequence
            ),
            Self::AcknowledgedBeforeCommit(sequence, committed) => {
                write!(f, "acknowledged up to {sequence}, but committed only up to {committed}")
            }
            Self::TrimmedBeforeCommit(below, committed) => {
                write!(f, "trimmed below {below}, but committed only up to {committed}")
            }
            Self::PublishedBeforeCommit(number, given) => {
                write!(f, "published verdicts up to {number}, but committed only up to {given}")
            }
        }
    }
}

impl std::error::Error for OutOfOrder {}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(epoch: u32, sequence: u64) -> Mark {
        Mark { epoch, sequence, broker_ns: 0, created_ns: 0 }
    }

    #[test]
    fn a_checkpoint_goes_forward_and_in_a_new_epoch_it_begins_again() {
        let mut order = EffectOrder::default();
        for next in [mark(1, 0), mark(1, 5), mark(1, 5), mark(2, 0), mark(2, 1)] {
            assert_eq!(order.commit(next), Ok(()));
        }
        for back in [mark(2, 0), mark(1, 9)] {
            let broken = OutOfOrder::CheckpointWentBack(mark(2, 1), back);
            assert_eq!(order.commit(back), Err(broken));
        }
    }

    #[test]
    fn no_verdict_is_published_before_it_is_committed() {
        let mut order = EffectOrder::default();
        assert_eq!(order.publish(0), Ok(()));
        assert_eq!(order.publish(1), Err(OutOfOrder::PublishedBeforeCommit(1, 0)));
        order.give(3);
        assert_eq!(order.publish(3), Ok(()));
        assert_eq!(order.publish(4), Err(OutOfOrder::PublishedBeforeCommit(4, 3)));
    }

    #[test]
    fn nothing_is_acknowledged_or_trimmed_before_it_is_committed() {
        let mut order = EffectOrder::default();
        assert_eq!(order.acknowledge(1), Err(OutOfOrder::AcknowledgedBeforeCommit(1, 0)));
        assert_eq!(order.trim(2), Err(OutOfOrder::TrimmedBeforeCommit(2, 0)));
        order.commit(mark(1, 7)).unwrap();
        assert_eq!(order.acknowledge(7), Ok(()));
        assert_eq!(order.acknowledge(8), Err(OutOfOrder::AcknowledgedBeforeCommit(8, 7)));
    }

    #[test]
    fn what_is_out_of_order_is_said_with_both_places() {
        for (broken, places) in [
            (
                OutOfOrder::CheckpointWentBack(mark(2, 71), mark(1, 93)),
                ["epoch 2, sequence 71", "epoch 1, sequence 93"],
            ),
            (OutOfOrder::AcknowledgedBeforeCommit(82, 71), ["up to 82", "up to 71"]),
            (OutOfOrder::TrimmedBeforeCommit(82, 71), ["below 82", "up to 71"]),
            (OutOfOrder::PublishedBeforeCommit(82, 71), ["up to 82", "up to 71"]),
        ] {
            let said = broken.to_string();
            assert!(places.iter().all(|place| said.contains(place)), "{said}");
        }
    }

    #[test]
    fn the_message_of_the_checkpoint_itself_stays() {
        let order = EffectOrder::new(Some(mark(1, 7)));
        assert_eq!(order.trim(7), Ok(()), "below it nothing is needed any more");
        assert_eq!(order.trim(8), Err(OutOfOrder::TrimmedBeforeCommit(8, 7)));
        assert_eq!(EffectOrder::default().trim(1), Ok(()), "nothing was deleted");
    }
}
