//! The layout of partitions: one per day from the day of installation on, one per calendar year
//! before it. Pure.
//!
//! One date fixes the layout, so that every process computes the same partition, now or years
//! later.

use domain::Timestamp;
use time::Date;

/// Julian day of 1970-01-01.
const JULIAN_1970: i64 = 2_440_588;

/// Computes the partition for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionLayout {
    /// Day of installation, in days since 1970-01-01 (UTC).
    installed_day: i64,
}

/// A partition: whole days, without the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DayPartition {
    from_day: i64,
    to_day: i64,
}

impl PartitionLayout {
    /// The layout of an archive that was installed on this day, in days since 1970-01-01 (UTC).
    pub(crate) const fn new(installed_day: i64) -> Self {
        Self { installed_day }
    }

    /// The partition for a time.
    pub(crate) fn partition_of(self, at: Timestamp) -> DayPartition {
        let day = at.day();
        if day >= self.installed_day {
            return DayPartition { from_day: day, to_day: day + 1 };
        }
        let year = date(day).year();
        let to_day = first_day(year + 1).min(self.installed_day);
        DayPartition { from_day: first_day(year), to_day }
    }
}

impl DayPartition {
    /// The suffix of the table's name: `y2024` or `d20261123`.
    pub(crate) fn suffix(&self) -> String {
        let from = date(self.from_day);
        // This includes the rest of a year with an installation on the second of January.
        if self.to_day - self.from_day == 1 {
            return format!("d{:04}{:02}{:02}", from.year(), u8::from(from.month()), from.day());
        }
        format!("y{:04}", from.year())
    }

    /// The bounds for PostgreSQL: the first included, the second excluded.
    pub(crate) fn bounds(&self) -> (String, String) {
        (bound(self.from_day), bound(self.to_day))
    }
}

fn bound(day: i64) -> String {
    let day = date(day);
    format!("{:04}-{:02}-{:02} 00:00:00+00", day.year(), u8::from(day.month()), day.day())
}

/// Accepted times lie between 1970 and 2200, far within the limits of the calendar.
fn date(day: i64) -> Date {
    i32::try_from(day.saturating_add(JULIAN_1970))
        .ok()
        .and_then(|julian| Date::from_julian_day(julian).ok())
        .unwrap_or(Date::MAX)
}

fn first_day(year: i32) -> i64 {
    let first = Date::from_ordinal_date(year, 1).unwrap_or(Date::MAX);
    i64::from(first.to_julian_day()) - JULIAN_1970
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::time::{MICROS_PER_SECOND, SECONDS_PER_DAY};
    use proptest::prelude::*;

    use super::*;

    impl DayPartition {
        /// Whether a time lies in it.
        const fn holds(&self, at: Timestamp) -> bool {
            self.from_day <= at.day() && at.day() < self.to_day
        }

        /// The beginning of the next partition.
        const fn end(&self) -> Timestamp {
            Timestamp(self.to_day * SECONDS_PER_DAY * MICROS_PER_SECOND)
        }
    }

    fn at(day: i64) -> Timestamp {
        Timestamp(day * SECONDS_PER_DAY * MICROS_PER_SECOND)
    }

    /// 2026-11-23.
    const INSTALLED: i64 = 20_780;

    #[test]
    fn days_from_installation_on_and_calendar_years_before_it() {
        let layout = PartitionLayout::new(INSTALLED);
        let name = |day| {
            let partition = layout.partition_of(at(day));
            (partition.suffix(), partition.bounds())
        };
        let pair =
            |from: &str, to: &str| (format!("{from} 00:00:00+00"), format!("{to} 00:00:00+00"));
        assert_eq!(name(INSTALLED), ("d20261123".to_owned(), pair("2026-11-23", "2026-11-24")));
        assert_eq!(name(INSTALLED - 1), ("y2026".to_owned(), pair("2026-01-01", "2026-11-23")));
        assert_eq!(name(0), ("y1970".to_owned(), pair("1970-01-01", "1971-01-01")));
        assert_eq!(
            name(first_day(2028)),
            ("d20280101".to_owned(), pair("2028-01-01", "2028-01-02"))
        );
    }

    proptest! {
        #[test]
        fn partitions_cover_all_days_without_overlap(installed in 0_i64..80_000, day in 0_i64..80_000) {
            let layout = PartitionLayout::new(installed);
            let partition = layout.partition_of(at(day));
            prop_assert!(partition.holds(at(day)));
            prop_assert!(partition.holds(Timestamp(at(day + 1).0 - 1)));
            for same in partition.from_day..partition.to_day {
                prop_assert_eq!(layout.partition_of(at(same)), partition);
            }
            prop_assert!(layout.partition_of(partition.end()) > partition);
        }
    }

    #[test]
    fn no_two_partitions_share_a_name() {
        for installed in [INSTALLED, first_day(2026), first_day(2026) + 1, first_day(2026) + 2] {
            let layout = PartitionLayout::new(installed);
            let mut names = BTreeMap::new();
            for day in (0..80_000).step_by(1) {
                let partition = layout.partition_of(at(day));
                let known = *names.entry(partition.suffix()).or_insert(partition);
                assert_eq!(known, partition, "{}", partition.suffix());
            }
        }
    }
}
