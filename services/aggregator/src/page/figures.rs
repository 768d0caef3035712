//! Sums for the numbers of the page, copied out of the states. Pure.
//!
//! The fold waits only while they are copied; their size is bounded by the labels of the states.

use std::collections::{BTreeMap, VecDeque};

use domain::{
    Outcome,
    lake::LakeState,
    warehouse::{RESPONSE_BOUNDS_US, WarehouseState},
};

/// Time between two figures that are kept, in milliseconds.
const KEPT_EVERY_MS: u64 = 5_000;
/// How long figures are kept: percentiles cover the last five minutes.
pub(crate) const KEPT_MS: u64 = 300_000;

/// Sums of both sides at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) lake: LakeFigures,
    pub(crate) warehouse: WarehouseFigures,
}

/// Sums of the lake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LakeFigures {
    pub(crate) used_bytes: i128,
    pub(crate) accesses: u64,
    pub(crate) is_estimate: bool,
    pub(crate) newest_us: i64,
    pub(crate) buckets: BTreeMap<String, BucketFigures>,
}

/// Sums of a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BucketFigures {
    pub(crate) used_bytes: i128,
    pub(crate) accesses: u64,
    pub(crate) failed: u64,
    pub(crate) transferred: u128,
}

/// Sums of the warehouse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WarehouseFigures {
    /// Queries in the window of the response time, and their response times in microseconds.
    pub(crate) window: (u64, u128),
    pub(crate) records: u128,
    pub(crate) newest_us: i64,
    pub(crate) warehouses: BTreeMap<String, QueryFigures>,
}

/// Sums of one warehouse, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueryFigures {
    pub(crate) queries: u64,
    pub(crate) failed: u64,
    pub(crate) records: u128,
    pub(crate) cache_hits: u64,
    pub(crate) queued_us: u128,
    pub(crate) response_us: u128,
    pub(crate) responses: [u64; RESPONSE_BOUNDS_US.len() + 1],
}

impl LakeFigures {
    /// The sums of a state.
    pub(crate) fn of(lake: &LakeState) -> Self {
        let buckets = lake.buckets().map(|(name, sums)| {
            let failed = sums.accesses.iter().filter(|((_, outcome), _)| *outcome != Outcome::Ok);
            let figures = BucketFigures {
                used_bytes: sums.space.used(),
                accesses: sums.accesses.values().sum(),
                failed: failed.map(|(_, count)| count).sum(),
                transferred: sums.transferred.values().sum(),
            };
            (name.to_owned(), figures)
        });
        let buckets: BTreeMap<String, BucketFigures> = buckets.collect();
        Self {
            used_bytes: lake.used_bytes(),
            accesses: lake.accesses,
            is_estimate: lake.objects.forgotten_objects() > 0,
            newest_us: lake.newest.0,
            buckets,
        }
    }
}

impl WarehouseFigures {
    /// The sums of a state.
    pub(crate) fn of(warehouse: &WarehouseState) -> Self {
        let warehouses = warehouse.warehouses().map(|(name, sums)| {
            let failed = sums.queries.iter().filter(|((_, outcome), _)| *outcome != Outcome::Ok);
            let figures = QueryFigures {
                queries: sums.queries.values().sum(),
                failed: failed.map(|(_, count)| count).sum(),
                records: sums.records,
                cache_hits: sums.cache_hits,
                queued_us: sums.queued_us,
                response_us: sums.response_us,
                responses: sums.responses,
            };
            (name.to_owned(), figures)
        });
        Self {
            window: warehouse.responses.totals(),
            records: warehouse.records,
            newest_us: warehouse.newest.0,
            warehouses: warehouses.collect(),
        }
    }

    /// The sums over all warehouses.
    pub(crate) fn all(&self) -> QueryFigures {
        self.warehouses.values().fold(QueryFigures::default(), |all, one| all.with(one))
    }
}

impl QueryFigures {
    fn with(mut self, other: &Self) -> Self {
        self.queries += other.queries;
        self.failed += other.failed;
        self.records += other.records;
        self.cache_hits += other.cache_hits;
        self.queued_us += other.queued_us;
        self.response_us += other.response_us;
        for (mine, theirs) in self.responses.iter_mut().zip(other.responses) {
            *mine += theirs;
        }
        self
    }

    /// The difference from earlier sums.
    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        self.queries = self.queries.saturating_sub(earlier.queries);
        self.failed = self.failed.saturating_sub(earlier.failed);
        self.records = self.records.saturating_sub(earlier.records);
        self.cache_hits = self.cache_hits.saturating_sub(earlier.cache_hits);
        self.queued_us = self.queued_us.saturating_sub(earlier.queued_us);
        self.response_us = self.response_us.saturating_sub(earlier.response_us);
        for (mine, theirs) in self.responses.iter_mut().zip(earlier.responses) {
            *mine = mine.saturating_sub(theirs);
        }
        self
    }

    /// A quantile of the response times in microseconds, computed like `histogram_quantile`: linear
    /// within a bucket, and the last boundary for values above it. `None` without queries.
    pub(crate) fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let float = |count: u64| crate::exposition::float(i128::from(count));
        let total: u64 = self.responses.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = quantile * float(total);
        let (mut passed, mut lower_us) = (0.0, 0.0);
        for (bound_us, count) in RESPONSE_BOUNDS_US.iter().zip(self.responses) {
            let (bound_us, count) = (float(*bound_us), float(count));
            if count > 0.0 && passed + count >= rank {
                return Some(lower_us + (bound_us - lower_us) * (rank - passed) / count);
            }
            passed += count;
            lower_us = bound_us;
        }
        Some(lower_us)
    }
}

/// The figures of the last minutes, for rates and percentiles. Bounded by time and labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(VecDeque<(u64, Figures)>);

impl Recent {
    /// Keeps the figures if the last kept ones are old enough. `now_ms` must never decrease.
    pub(crate) fn push(&mut self, now_ms: u64, figures: &Figures) {
        let is_due = |(at, _): &(u64, Figures)| now_ms.saturating_sub(*at) >= KEPT_EVERY_MS;
        if self.0.back().is_none_or(is_due) {
            self.0.push_back((now_ms, figures.clone()));
        }
        // Keeps one entry that is as old as the limit or older.
        while self.0.get(1).is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= KEPT_MS) {
            self.0.pop_front();
        }
    }

    /// Forgets all figures, because another state will be shown.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The newest figures that are at least `age_ms` old, otherwise the oldest, with their age in
    /// milliseconds.
    pub(crate) fn ago(&self, now_ms: u64, age_ms: u64) -> Option<(u64, &Figures)> {
        let age = |at: u64| now_ms.saturating_sub(at);
        let old = self.0.iter().rev().find(|(at, _)| age(*at) >= age_ms);
        old.or_else(|| self.0.front()).map(|(at, figures)| (age(*at), figures))
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        Operation, Rules, Statement, Timestamp, lake::BucketSums, objects::Objects, space::Space,
        warehouse::WarehouseSums,
    };

    use super::*;

    fn responses(counts: &[(usize, u64)]) -> QueryFigures {
        let mut figures = QueryFigures::default();
        counts.iter().for_each(|(bucket, count)| figures.responses[*bucket] = *count);
        figures
    }

    #[test]
    fn the_figures_of_the_lake_are_the_sums_of_its_state() {
        let mut lake = LakeState::new(&Rules::default());
        (lake.accesses, lake.newest) = (9, Timestamp(7));
        let sums = BucketSums {
            accesses: [
                ((Operation::Write, Outcome::Ok), 4),
                ((Operation::Read, Outcome::Denied), 2),
                ((Operation::Read, Outcome::NotFound), 1),
            ]
            .into(),
            transferred: [(Operation::Write, 10), (Operation::Read, 20)].into(),
            space: Space { tracked: 40, offset: -5, ..Space::default() },
            ..BucketSums::default()
        };
        let label = lake.labels.label("raw");
        lake.buckets.insert(label, sums);
        let bucket = BucketFigures { used_bytes: 35, accesses: 7, failed: 3, transferred: 30 };
        let figures = LakeFigures {
            used_bytes: 35,
            accesses: 9,
            is_estimate: false,
            newest_us: 7,
            buckets: [("raw".to_owned(), bucket)].into(),
        };
        assert_eq!(LakeFigures::of(&lake), figures);
        lake.objects = Objects::restore(1, [].into(), None, 1);
        assert!(LakeFigures::of(&lake).is_estimate, "an object was forgotten");
    }

    #[test]
    fn the_figures_of_the_warehouses_are_the_sums_of_their_state() {
        let mut state = WarehouseState::new(&Rules::default());
        (state.records, state.newest) = (9, Timestamp(7));
        state.responses.seconds = [(3, (1, 20)), (4, (2, 30))].into();
        let sums = WarehouseSums {
            queries: [
                ((Statement::Select, Outcome::Ok), 4),
                ((Statement::Select, Outcome::Timeout), 2),
                ((Statement::Insert, Outcome::Denied), 1),
            ]
            .into(),
            responses: [6; RESPONSE_BOUNDS_US.len() + 1],
            response_us: 5,
            queued_us: 4,
            records: 3,
            scanned: 2,
            cache_hits: 1,
            ..WarehouseSums::default()
        };
        let label = state.labels.label("etl");
        state.warehouses.insert(label, sums);
        let queries = QueryFigures {
            queries: 7,
            failed: 3,
            records: 3,
            cache_hits: 1,
            queued_us: 4,
            response_us: 5,
            responses: [6; RESPONSE_BOUNDS_US.len() + 1],
        };
        let figures = WarehouseFigures {
            window: (3, 50),
            records: 9,
            newest_us: 7,
            warehouses: [("etl".to_owned(), queries)].into(),
        };
        assert_eq!(WarehouseFigures::of(&state), figures);
    }

    #[test]
    fn sums_of_all_warehouses_add_up_and_those_since_earlier_ones_are_the_rest() {
        let times = |times: u64| QueryFigures {
            queries: times,
            failed: 2 * times,
            records: 3 * u128::from(times),
            cache_hits: 4 * times,
            queued_us: 5 * u128::from(times),
            response_us: 6 * u128::from(times),
            responses: std::array::from_fn(|_| 7 * times),
        };
        let warehouses = [("one".to_owned(), times(10)), ("two".to_owned(), times(4))].into();
        let all = WarehouseFigures { warehouses, ..WarehouseFigures::default() }.all();
        assert_eq!(all, times(14));
        assert_eq!(all.since(&times(3)), times(11));
        assert_eq!(times(3).since(&all), QueryFigures::default(), "of a state that was reset");
    }

    #[test]
    fn the_least_quantile_is_the_lower_boundary_of_the_first_bucket_with_queries() {
        assert_eq!(responses(&[(3, 100)]).quantile_us(0.0), Some(25_000.0));
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        assert_eq!(QueryFigures::default().quantile_us(0.5), None);
        // 100 values between 25 and 50 ms give the middle.
        assert_eq!(responses(&[(3, 100)]).quantile_us(0.5), Some(37_500.0));
        let figures = responses(&[(0, 90), (7, 10)]);
        assert_eq!(figures.quantile_us(0.45), Some(2_500.0));
        assert_eq!(figures.quantile_us(0.95), Some(750_000.0));
        // Above the last boundary only the boundary is known.
        assert_eq!(responses(&[(20, 1)]).quantile_us(0.5), Some(36_000_000_000.0));
    }

    #[test]
    fn recent_figures_are_bounded_and_the_nearest_age_is_given() {
        let mut recent = Recent::default();
        for second in 0..1_000_u64 {
            let lake = LakeFigures { accesses: second, ..LakeFigures::default() };
            recent.push(second * 1_000, &Figures { lake, ..Figures::default() });
        }
        assert!(recent.0.len() <= 62, "{}", recent.0.len());
        let ago = |age| recent.ago(999_000, age).map(|(age, f)| (age, f.lake.accesses)).unwrap();
        assert_eq!(ago(10_000), (14_000, 985));
        assert_eq!(ago(KEPT_MS), (304_000, 695));
        assert_eq!(ago(KEPT_MS * 2), (304_000, 695), "the oldest");
        recent.clear();
        assert_eq!(recent.ago(999_000, 1), None);
    }
}
