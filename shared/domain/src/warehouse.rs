//! What the warehouse's metrics are derived from.

use std::collections::BTreeMap;

use crate::{
    event::{Event, Fact, Outcome, Statement, WarehouseQuery},
    labels::{Labels, OTHER, OTHER_NAME},
    rules::Rules,
    sample::SampleValues,
    time::Timestamp,
};

/// Length of the window over which the response time is averaged, in whole seconds. The window ends
/// with the second of the newest query.
pub const RESPONSE_WINDOW_S: i64 = 60;

/// Upper boundaries of the response-time histogram, in microseconds: 5 ms to 10 h. In a published
/// fleet, the 0.95 % of the queries that take more than a minute have 77 % of the run time (van
/// Renen et al., PVLDB 17(11), 2024), so the boundaries extend beyond interactive queries.
pub const RESPONSE_BOUNDS_US: [u64; 20] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
    7_200_000_000,
    18_000_000_000,
    36_000_000_000,
];

/// Queries of one warehouse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarehouseSums {
    /// Queries by kind of statement and outcome.
    pub queries: BTreeMap<(Statement, Outcome), u64>,
    /// Queries by the first boundary that is not below their response time; the last bucket has no
    /// upper boundary.
    pub responses: [u64; RESPONSE_BOUNDS_US.len() + 1],
    /// Sum of response times, in microseconds.
    pub response_us: u128,
    /// Sum of the times waited in a queue, in microseconds.
    pub queued_us: u128,
    /// Rows read or written.
    pub records: u128,
    /// Bytes read from storage.
    pub scanned: u128,
    /// Queries answered from a cache.
    pub cache_hits: u64,
    /// Queries that were withdrawn; all other sums include them.
    pub withdrawn: u64,
    /// Rows of the queries that were withdrawn.
    pub withdrawn_records: u128,
}

/// The response times of the last seconds. A sum and a count are kept per second, so that the order
/// of arrival does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentResponses {
    /// Count and sum in microseconds, by second since 1970. Only seconds inside the window are
    /// kept.
    pub seconds: BTreeMap<i64, (u64, u128)>,
}

impl RecentResponses {
    fn add(&mut self, at: Timestamp, response_us: u64) {
        let (count, sum) = self.seconds.entry(at.second()).or_default();
        *count += 1;
        *sum += u128::from(response_us);
        // This removes the new query itself if its second is already outside of the window.
        let newest = self.seconds.last_key_value().map_or(0, |(newest, _)| *newest);
        while self
            .seconds
            .first_key_value()
            .is_some_and(|(at, _)| *at <= newest - RESPONSE_WINDOW_S)
        {
            self.seconds.pop_first();
        }
    }

    /// Takes a query out, if its second is still inside the window. The window itself stays where
    /// it is.
    fn remove(&mut self, at: Timestamp, response_us: u64) {
        if let Some((count, sum)) = self.seconds.get_mut(&at.second()) {
            *count = count.saturating_sub(1);
            *sum = sum.saturating_sub(u128::from(response_us));
        }
    }

    /// Count and sum, in microseconds, over the window.
    pub fn totals(&self) -> (u64, u128) {
        self.seconds.values().fold((0, 0), |(count, sum), (c, s)| (count + c, sum + s))
    }
}

/// The state of a warehouse stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarehouseState {
    /// Rows read or written by finished queries since the first event.
    pub records: u128,
    /// The time of the newest query.
    pub newest: Timestamp,
    /// Response times of the last minute.
    pub responses: RecentResponses,
    /// Labels of warehouses.
    pub labels: Labels,
    /// Sums of the warehouses by label.
    pub warehouses: BTreeMap<u16, WarehouseSums>,
}

impl WarehouseState {
    /// The state before the first event.
    pub const fn new(rules: &Rules) -> Self {
        Self {
            records: 0,
            newest: Timestamp(0),
            responses: RecentResponses { seconds: BTreeMap::new() },
            labels: Labels::new(rules.labels_max),
            warehouses: BTreeMap::new(),
        }
    }

    /// Counts an event. The function is total: a fact of the lake changes nothing.
    pub fn apply(&mut self, event: &Event) {
        match &event.fact {
            Fact::WarehouseQuery(query) => self.query(event.occurred_at, query),
            Fact::WarehouseQueryWithdrawn(withdrawn) => {
                self.withdraw(event.occurred_at, &withdrawn.query);
            }
            Fact::LakeAccess(_)
            | Fact::LakeInventory(_)
            | Fact::LakeAccessWithdrawn(_)
            | Fact::LakeAccessRestored(_) => {}
        }
    }

    /// Takes a query back. Counters keep it, because a counter never goes back, and count it once
    /// more as withdrawn.
    fn withdraw(&mut self, at: Timestamp, query: &WarehouseQuery) {
        self.responses.remove(at, query.response_us());
        let label = self.labels.label(&query.warehouse);
        let sums = self.warehouses.entry(label).or_default();
        sums.withdrawn += 1;
        sums.withdrawn_records += u128::from(query.rows_processed);
    }

    fn query(&mut self, at: Timestamp, query: &WarehouseQuery) {
        let response_us = query.response_us();
        self.newest = self.newest.max(at);
        self.records += u128::from(query.rows_processed);
        self.responses.add(at, response_us);
        let label = self.labels.label(&query.warehouse);
        let sums = self.warehouses.entry(label).or_default();
        *sums.queries.entry((query.statement, query.outcome)).or_default() += 1;
        let bound = RESPONSE_BOUNDS_US.partition_point(|bound| *bound < response_us);
        sums.responses[bound] += 1;
        sums.response_us += u128::from(response_us);
        sums.queued_us += u128::from(query.queued_us);
        sums.records += u128::from(query.rows_processed);
        sums.scanned += u128::from(query.bytes_scanned);
        sums.cache_hits += u64::from(query.cache_hit);
    }

    /// The warehouses with their names; warehouses without a label of their own are summed up as
    /// `other`.
    pub fn warehouses(&self) -> impl Iterator<Item = (&str, &WarehouseSums)> {
        let other = self.warehouses.get(&OTHER).map(|sums| (OTHER_NAME, sums));
        let named = self.labels.by_name().iter();
        named
            .filter_map(|(name, label)| Some((name.as_str(), self.warehouses.get(label)?)))
            .chain(other)
    }

    /// The metrics as integers.
    pub fn sample(&self) -> SampleValues {
        let (queries_in_window, response_us_in_window) = self.responses.totals();
        SampleValues::Warehouse { queries_in_window, response_us_in_window, records: self.records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{at, query, withdrawn};

    #[test]
    fn a_withdrawn_query_leaves_the_response_time_and_is_counted_as_withdrawn() {
        let mut state = WarehouseState::new(&Rules::default());
        let (right, wrong) = (query(1, at(150), 10, 3), query(2, at(159), 1_000, 7));
        let gone = query(3, at(90), 5, 2);
        for event in [&gone, &right, &wrong, &withdrawn(&wrong), &withdrawn(&gone)] {
            state.apply(event);
        }
        assert_eq!((state.responses.totals(), state.records), ((1, 10), 12));
        let sums = state.warehouses().next().unwrap().1;
        assert_eq!((sums.withdrawn, sums.withdrawn_records, sums.records), (2, 9, 12));
        state.apply(&query(4, at(210), 1, 1));
        assert_eq!(state.responses.totals(), (1, 1), "the window is where it was");
    }

    fn totals(queries: &[(i64, u64)]) -> (u64, u128) {
        let mut state = WarehouseState::new(&Rules::default());
        for (number, (second, us)) in (0..).zip(queries) {
            state.apply(&query(number, at(*second), *us, 1));
        }
        state.responses.totals()
    }

    #[test]
    fn the_response_time_is_that_of_the_sixty_seconds_that_end_with_the_newest_query() {
        assert_eq!(totals(&[]), (0, 0));
        assert_eq!(totals(&[(100, 5), (159, 7)]), (2, 12));
        assert_eq!(totals(&[(100, 5), (160, 7)]), (1, 7));
        assert_eq!(totals(&[(160, 7), (100, 5), (101, 3)]), (2, 10), "late ones, any order");
    }

    #[test]
    fn every_sum_of_a_warehouse_adds_up() {
        let mut state = WarehouseState::new(&Rules::default());
        for (number, second) in [(3, 30), (5, 50), (4, 40)] {
            let mut event = query(number, at(second), 1_000 * number, 10 * number);
            let Fact::WarehouseQuery(query) = &mut event.fact else { unreachable!() };
            (query.queued_us, query.bytes_scanned) = (number, 100 * number);
            query.cache_hit = number > 3;
            state.apply(&event);
        }
        assert_eq!((state.records, state.newest), (120, at(50)));
        let (name, sums) = state.warehouses().next().unwrap();
        assert_eq!((name, sums.response_us, sums.queued_us), ("etl", 12_012, 12));
        assert_eq!((sums.records, sums.scanned, sums.cache_hits), (120, 1_200, 2));
        assert_eq!(sums.queries, BTreeMap::from([((Statement::Select, Outcome::Ok), 3)]));
        assert_eq!(sums.responses.iter().sum::<u64>(), 3);
        let SampleValues::Warehouse { queries_in_window, response_us_in_window, records } =
            state.sample()
        else {
            unreachable!()
        };
        assert_eq!((queries_in_window, response_us_in_window, records), (3, 12_012, 120));
    }

    #[test]
    fn warehouses_beyond_the_labels_are_shown_together() {
        let mut state = WarehouseState::new(&Rules { labels_max: 1, ..Rules::default() });
        for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let mut event = query(number, at(1), 1, number);
            let Fact::WarehouseQuery(query) = &mut event.fact else { unreachable!() };
            query.warehouse = name.to_owned();
            state.apply(&event);
        }
        let shown: Vec<_> = state.warehouses().map(|(name, sums)| (name, sums.records)).collect();
        assert_eq!(shown, [("a", 1), (OTHER_NAME, 5)]);
    }

    #[test]
    fn a_response_stands_under_the_first_boundary_that_holds_it() {
        let mut state = WarehouseState::new(&Rules::default());
        for (number, us) in [(0, 5_000), (1, 5_001), (2, 36_000_000_001)] {
            state.apply(&query(number, at(1), us, 1));
        }
        let responses = state.warehouses().next().unwrap().1.responses;
        assert_eq!((responses[0], responses[1], responses[20]), (1, 1, 1));
    }
}
