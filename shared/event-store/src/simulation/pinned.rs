//! A recorded sequence of deliveries whose result is the same in every release.
//!
//! Positions, the state's bytes and the verdicts depend on the order of arrival, so no run against
//! servers can pin them.

use std::fmt::Write as _;

use super::*;

/// A hash of the result. Change it only if the stored form changes on purpose, and mention that in
/// the changelog, because this release must read snapshots and archives of the previous one.
const LEFT: &str = "ef67929742e38b3557127dcfd5a98362";

/// Numbers that are the same on every machine: a linear congruential generator with Knuth's
/// constants for 64 bits (The Art of Computer Programming, volume 2, 3.3.4).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

fn step(numbers: &mut Numbers) -> Step {
    match numbers.below(34) {
        0..=5 => Step::Publish(numbers.below(30), 1 + numbers.below(4)),
        6..=13 => Step::AggregatorReads,
        14 => Step::AggregatorStores,
        15 => Step::AggregatorDies,
        16..=23 => Step::ArchiverReads,
        24..=27 => Step::ArchiverCommits,
        28..=30 => Step::ArchiverSends,
        31 => Step::ArchiverSendsAndDies,
        32 => Step::ArchiverDies,
        _ => Step::Epoch(numbers.below(40)),
    }
}

#[test]
fn a_recorded_course_of_deliveries_leaves_the_same_bytes_in_every_release() {
    let mut numbers = Numbers(11);
    let event = |number| {
        let second = i64::try_from(numbers.below(60)).unwrap();
        event(number, second, numbers.below(2) == 0)
    };
    let events: Vec<Event> = (0..30).map(event).collect();
    let rules = Rules { derived_ids_max: 3, runs_max: 2, holes_per_run_max: 2, ..Rules::default() };
    let mut world = World::new(rules, events);
    for _ in 0..1_000 {
        world.take(step(&mut numbers));
    }
    world.rest();
    world.hold();
    let mut left = format!("{:?}\n{:?}\n", world.bytes(), world.archive.mark);
    for (identity, row) in &world.archive.rows {
        writeln!(left, "{identity:?} {:?} {:?} {:?}", row.position, row.verdict, row.noted)
            .unwrap();
    }
    for message in world.log.iter().flatten() {
        writeln!(left, "{} {}", message.subject, message.message_id).unwrap();
    }
    assert!(world.epoch > 2 && world.archive.progress.given > 2, "the course meets everything");
    let hash = Sealed::new("left".to_owned(), "text/plain", left, 1).message_id;
    assert_eq!(hash, LEFT);
}
