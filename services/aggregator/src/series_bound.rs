//! The largest number of series among the four metrics, whatever events arrive.

use domain::{
    Event, EventId, Fact, LakeAccess, Operation, Outcome, Rules, Run, Statement, Timestamp,
    WarehouseQuery,
    lake::{DURATION_BOUNDS_US, LakeState},
    warehouse::{RESPONSE_BOUNDS_US, WarehouseState},
};

use crate::exposition;

/// Number of names that an attacker invents.
const HOSTILE_NAMES: u64 = 100_000;
/// Series without a label: ten families minus the five per bucket, and thirteen minus the eight per
/// warehouse.
const WITHOUT_LABEL: usize = 5 + 5;
/// The bound in docs/existing-prometheus.md for the default of 50 labels per side.
const STATED: usize = 10_210;

/// The bound: names with labels of their own and `other`, times the series of each.
fn bound(labels_max: usize) -> usize {
    let outcomes = Outcome::ALL.len();
    // Buckets, +Inf, sum and count.
    let histogram = |boundaries: usize| boundaries + 1 + 2;
    // Used space and what was withdrawn are two more series.
    let bucket = histogram(DURATION_BOUNDS_US.len()) + Operation::ALL.len() * (outcomes + 1) + 2;
    // A warehouse has six plain counters too.
    let warehouse = histogram(RESPONSE_BOUNDS_US.len()) + Statement::ALL.len() * outcomes + 6;
    WITHOUT_LABEL + (labels_max + 1) * (bucket + warehouse)
}

/// A name that would end a label or a line if it were not escaped.
fn hostile(number: u64) -> String {
    format!("b{number}\"}} 1\n# TYPE up\\\u{202e}é\\n{{le=\"")
}

fn of_lake(number: u64, bucket: &str) -> Event {
    let pick = |length: usize, by: u64| usize::try_from(number / by).unwrap() % length;
    let fact = Fact::LakeAccess(LakeAccess {
        bucket: bucket.to_owned(),
        key: format!("k{number}"),
        operation: Operation::ALL[pick(Operation::ALL.len(), 1)],
        outcome: Outcome::ALL[pick(Outcome::ALL.len(), 7)],
        principal: hostile(number),
        ..test_support::lake_access()
    });
    event(number, fact)
}

fn of_warehouse(number: u64, warehouse: &str) -> Event {
    let pick = |length: usize, by: u64| usize::try_from(number / by).unwrap() % length;
    let fact = Fact::WarehouseQuery(WarehouseQuery {
        warehouse: warehouse.to_owned(),
        database: hostile(number),
        statement: Statement::ALL[pick(Statement::ALL.len(), 1)],
        executed_us: number,
        outcome: Outcome::ALL[pick(Outcome::ALL.len(), 11)],
        principal: hostile(number),
        fingerprint: hostile(number),
        ..test_support::warehouse_query()
    });
    event(number, fact)
}

fn event(number: u64, fact: Fact) -> Event {
    let occurred_at = Timestamp(i64::try_from(number).unwrap() + 1);
    Event { id: EventId::sequenced(Run::new(1, 1), number), occurred_at, fact }
}

#[test]
fn a_hundred_thousand_hostile_names_stay_within_the_stated_bound() {
    let rules = Rules::default();
    let (mut lake, mut warehouse) = (LakeState::new(&rules), WarehouseState::new(&rules));
    // Hostile names between real ones: 200 buckets and 50 warehouses.
    for number in 0..HOSTILE_NAMES {
        lake.apply(&of_lake(number, &hostile(number)));
        warehouse.apply(&of_warehouse(number, &hostile(number)));
        lake.apply(&of_lake(number, &format!("bucket-{}", number % 200)));
        warehouse.apply(&of_warehouse(number, &format!("warehouse-{}", number % 50)));
    }
    let page = exposition::page(&lake, &warehouse);
    for line in page.lines() {
        assert!(line.starts_with("data_") || line.starts_with("# "), "{line:?}");
    }
    let series = page.lines().filter(|line| line.starts_with("data_")).count();
    assert!(series <= bound(rules.labels_max), "{series} series");
    // The bound is not far above what can be reached.
    assert!(series > bound(rules.labels_max) / 4, "{series} series");
}

#[test]
fn the_stated_bound_is_the_one_that_holds() {
    assert_eq!(bound(Rules::default().labels_max), STATED);
    let stated = include_str!("../../../docs/existing-prometheus.md");
    assert!(stated.contains("10,210 series"), "docs/existing-prometheus.md states another");
}
