//! Samples and the fold: each sample is compared when the fold is at its position. Pure.

use domain::{Mark, Sample, SampleValues};

/// Position of a message: epoch and sequence.
pub(super) type MessagePosition = (u32, u64);

/// The samples so far, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SampleCheck {
    /// Samples that were compared with the fold.
    pub(super) compared: u64,
    /// Of these, samples that differ from the fold.
    pub(super) differing: u64,
    /// Samples of messages that were lost with an ended epoch: there is nothing to compare.
    pub(super) lost: u64,
    /// Samples of positions before the base from which the archive is folded.
    pub(super) before_base: u64,
    /// Samples of messages that are not archived yet.
    pub(super) ahead: u64,
    /// The first difference.
    pub(super) first: Option<String>,
}

impl SampleCheck {
    /// Compares a sample with the fold at its position, if the fold was there and the position is
    /// within its epoch.
    pub(super) fn compare(
        &mut self,
        sample: &Sample,
        folded: &SampleValues,
        base: Option<MessagePosition>,
        closed: &[Mark],
    ) {
        if base.is_some_and(|base| place(sample) < base) {
            self.before_base += 1;
            return;
        }
        let end = closed.iter().find(|mark| mark.epoch == sample.epoch);
        if end.is_some_and(|end| sample.sequence > end.sequence) {
            self.lost += 1;
            return;
        }
        self.compared += 1;
        if sample.values != *folded {
            self.differing += 1;
            self.first.get_or_insert_with(|| {
                format!(
                    "sample of {} at epoch {}, sequence {}: {}",
                    sample.stream,
                    sample.epoch,
                    sample.sequence,
                    differing(&sample.values, folded)
                )
            });
        }
    }
}

fn differing(kept: &SampleValues, folded: &SampleValues) -> String {
    format!("sample {kept:?}, archive {folded:?}")
}

/// The position of a sample.
pub(super) const fn place(sample: &Sample) -> MessagePosition {
    (sample.epoch, sample.sequence)
}

#[cfg(test)]
mod tests {
    use domain::Stream;

    use super::*;

    fn sample(epoch: u32, sequence: u64, records: u128) -> Sample {
        let values =
            SampleValues::Warehouse { queries_in_window: 1, response_us_in_window: 2, records };
        Sample { stream: Stream::warehouse(0), epoch, sequence, broker_ns: 0, values }
    }

    #[test]
    fn a_sample_from_before_the_base_or_of_what_an_epoch_lost_is_not_compared() {
        let closed = [Mark { epoch: 1, sequence: 10, broker_ns: 0, created_ns: 0 }];
        let folded = sample(1, 1, 5).values;
        let mut check = SampleCheck::default();
        let base = Some((1, 9));
        for (epoch, sequence, records) in
            [(1, 8, 3), (1, 9, 5), (1, 10, 5), (1, 11, 9), (2, 11, 6), (2, 12, 7)]
        {
            check.compare(&sample(epoch, sequence, records), &folded, base, &closed);
        }
        assert_eq!((check.compared, check.differing), (4, 2));
        assert_eq!((check.lost, check.before_base), (1, 1));
        let first = check.first.unwrap();
        let (place, values) = first.split_once(": ").unwrap();
        assert_eq!(place, "sample of WAREHOUSE_0 at epoch 2, sequence 11");
        let (kept, folded) = values.split_once(", archive ").unwrap();
        assert!(kept.contains("records: 6") && folded.contains("records: 5"), "{first}");
    }
}
