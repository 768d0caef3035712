//! Used space of a bucket: what its changes add up to, corrected by its inventories.

use std::collections::BTreeMap;

use crate::{event::Identity, time::Timestamp};

/// How long the tracked bytes of the past are kept, in seconds of event time. An inventory that
/// speaks of an older time cannot be compared and is ignored.
pub const TRACKED_S: i64 = 86_400;

/// What became of an inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inventoried {
    /// Used space follows it.
    Applied,
    /// One with a later time is in force.
    Outdated,
    /// It is older than what is kept.
    TooOld,
}

/// The bytes of one bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The sum of all changes.
    pub tracked: i64,
    /// What the inventory in force adds to it.
    pub offset: i64,
    /// The inventory in force: its identity, and the start of the slot that it is compared at, in
    /// seconds since 1970.
    pub inventory: Option<(Identity, i64)>,
    /// Changes per slot of event time, by the slot's start in seconds since 1970.
    pub slots: BTreeMap<i64, i64>,
}

impl Space {
    /// Bytes stored now.
    pub const fn used(&self) -> i64 {
        self.tracked.saturating_add(self.offset)
    }

    /// Adds a change of the bytes stored.
    ///
    /// One dated before the time of the inventory in force is in that inventory already: it moves
    /// the tracked sums from its time on and takes the same off the offset.
    pub fn add(&mut self, at: Timestamp, bytes: i64, slot_s: u32, oldest_slot: i64) {
        let slot = at.slot(i64::from(slot_s));
        self.tracked = self.tracked.saturating_add(bytes);
        if slot >= oldest_slot {
            let sum = self.slots.entry(slot).or_default();
            *sum = sum.saturating_add(bytes);
        }
        if self.inventory.is_some_and(|(_, compared_at)| slot < compared_at) {
            self.offset = self.offset.saturating_sub(bytes);
        }
    }

    /// Puts an inventory in force, unless a later one is.
    ///
    /// It is compared at the start of the slot that holds its time: changes of that slot count as
    /// made after it, which is wrong by at most what changed within one slot.
    pub fn inventory(
        &mut self,
        identity: Identity,
        bytes: i64,
        slot_s: u32,
        oldest_slot: i64,
    ) -> Inventoried {
        let compared_at = identity.0.slot(i64::from(slot_s));
        if compared_at < oldest_slot {
            return Inventoried::TooOld;
        }
        if self.inventory.is_some_and(|(in_force, _)| in_force >= identity) {
            return Inventoried::Outdated;
        }
        let since: i64 = self.slots.range(compared_at..).map(|(_, bytes)| *bytes).sum();
        self.offset = bytes.saturating_sub(self.tracked.saturating_sub(since));
        self.inventory = Some((identity, compared_at));
        Inventoried::Applied
    }

    /// Lets go of slots before `oldest_slot`.
    pub fn forget_before(&mut self, oldest_slot: i64) {
        while self.slots.first_key_value().is_some_and(|(slot, _)| *slot < oldest_slot) {
            self.slots.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{at, derived};

    const KEPT: i64 = 0;

    fn inventory(space: &mut Space, second: i64, bytes: i64) -> Inventoried {
        space.inventory((at(second), derived(1)), bytes, 10, KEPT)
    }

    #[test]
    fn an_inventory_corrects_the_drift_at_its_time_and_keeps_what_came_after() {
        let mut space = Space::default();
        space.add(at(5), 100, 10, KEPT);
        space.add(at(25), 7, 10, KEPT);
        assert_eq!(inventory(&mut space, 20, 1_000), Inventoried::Applied);
        assert_eq!(space.used(), 1_007);
    }

    #[test]
    fn a_late_change_before_the_inventory_is_in_it_already() {
        let mut space = Space::default();
        inventory(&mut space, 20, 1_000);
        space.add(at(15), 50, 10, KEPT);
        assert_eq!(space.used(), 1_000);
        space.add(at(21), 3, 10, KEPT);
        assert_eq!(space.used(), 1_003);
        // A later inventory is compared with sums that hold the late change.
        inventory(&mut space, 40, 2_000);
        assert_eq!(space.used(), 2_000);
    }

    #[test]
    fn the_latest_time_wins_whatever_the_order_of_arrival() {
        let mut space = Space::default();
        inventory(&mut space, 40, 2_000);
        assert_eq!(inventory(&mut space, 20, 1_000), Inventoried::Outdated);
        assert_eq!(space.used(), 2_000);
    }

    #[test]
    fn an_inventory_older_than_what_is_kept_is_ignored() {
        let mut space = Space::default();
        space.add(at(500), 1, 10, 400);
        assert_eq!(space.inventory((at(399), derived(1)), 9, 10, 400), Inventoried::TooOld);
        space.forget_before(501);
        assert!(space.slots.is_empty());
        assert_eq!(space.used(), 1);
    }
}
