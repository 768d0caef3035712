//! A mergeable sketch of a distribution, in integers.
//!
//! Values up to 127 have a bucket each. Above that, each power of two is divided into 64 buckets of
//! equal width, so that the middle of a bucket is within 1/128 (0.79 %) of every value in it. This
//! is the layout of an HDR histogram with six sub-bucket bits. Counts can be added in SQL as well
//! as in Rust. No sketch from a library allows that, and the archive has to add the same buckets
//! without this program.

use std::collections::BTreeMap;

const SUB_BUCKETS: u64 = 64;

/// The number of values in each bucket, without those of none. A number is negative while more is
/// taken back than was added: a part of the events may be another's to add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch(BTreeMap<u32, i64>);

/// The bucket of a value.
pub fn bucket_of(value: u64) -> u32 {
    let bits = u64::BITS - value.leading_zeros();
    let shift = bits.saturating_sub(7);
    let index = u64::from(shift) * SUB_BUCKETS + (value >> shift);
    u32::try_from(index).expect("58 powers of two times 64 and 127 fit into 32 bits")
}

/// The middle of a bucket, which is within 1 % of every value in it.
pub fn bucket_value(bucket: u32) -> u64 {
    let index = u64::from(bucket);
    let shift = (index / SUB_BUCKETS).saturating_sub(1);
    let low = (index - shift * SUB_BUCKETS) << shift;
    low + (1 << shift) / 2
}

impl Sketch {
    /// Counts a value `times`: −1 takes it back.
    pub fn record(&mut self, value: u64, times: i64) {
        self.add(bucket_of(value), times);
    }

    fn add(&mut self, bucket: u32, times: i64) {
        let count = self.0.entry(bucket).or_default();
        *count += times;
        if *count == 0 {
            self.0.remove(&bucket);
        }
    }

    /// Adds the counts of another sketch.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.add(*bucket, *count);
        }
    }

    /// The buckets that are not empty, with their counts, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, i64)> + '_ {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// The value below which `thousandths` (0 to 1,000) of the counts lie, within 1 %; `None` if
    /// the sketch is empty.
    pub fn quantile(&self, thousandths: u64) -> Option<u64> {
        let total: i128 = self.0.values().copied().map(i128::from).sum();
        let rank = (total * i128::from(thousandths) + 999).div_euclid(1_000).max(1);
        let mut passed = 0;
        self.iter().find_map(|(bucket, count)| {
            passed += i128::from(count);
            (passed >= rank).then(|| bucket_value(bucket))
        })
    }
}

impl FromIterator<(u32, i64)> for Sketch {
    fn from_iter<T: IntoIterator<Item = (u32, i64)>>(counts: T) -> Self {
        let mut sketch = Self::default();
        for (bucket, count) in counts {
            sketch.add(bucket, count);
        }
        sketch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_middle_of_a_bucket_is_within_one_percent(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let middle = bucket_value(bucket_of(value));
            prop_assert!(middle.abs_diff(value) <= value / 100, "{value} became {middle}");
        }

        #[test]
        fn buckets_ascend_with_their_values(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            prop_assert!(bucket_of(value) <= bucket_of(value.saturating_add(1)));
        }
    }

    #[test]
    fn small_values_are_exact_and_buckets_have_no_gaps() {
        let mut last = None;
        for value in 0..100_000 {
            let bucket = bucket_of(value);
            if value < 128 {
                assert_eq!(bucket_value(bucket), value);
            }
            let step = last.map_or(0, |last| bucket - last);
            assert!(step <= 1, "a gap below {value}");
            last = Some(bucket);
        }
    }

    #[test]
    fn a_value_that_is_taken_back_leaves_nothing() {
        let mut sketch: Sketch = [(7, 1)].into_iter().collect();
        sketch.record(5, 1);
        sketch.record(5, -1);
        assert_eq!(sketch, [(7, 1)].into_iter().collect());
        let mut less = Sketch::default();
        less.record(7, -1);
        less.merge(&sketch);
        assert_eq!(less, Sketch::default());
    }

    #[test]
    fn quantiles_hold_for_any_count() {
        let sketch: Sketch = [(1, i64::MAX), (2, i64::MAX)].into_iter().collect();
        assert_eq!([500, 501, 1_000].map(|share| sketch.quantile(share)), [1, 2, 2].map(Some));
    }

    #[test]
    fn quantiles_of_a_uniform_sample_are_within_one_percent() {
        let mut sketch = Sketch::default();
        (1..=100_000).for_each(|value| sketch.record(value, 1));
        for thousandths in [1, 10, 500, 950, 990, 1_000] {
            let exact = thousandths * 100;
            let said = sketch.quantile(thousandths).unwrap();
            assert!(said.abs_diff(exact) * 100 <= exact, "{thousandths}: {said}");
        }
        assert_eq!(Sketch::default().quantile(500), None);
    }
}
