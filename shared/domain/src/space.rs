//! Used space of a bucket: the sum of its changes, corrected by its inventories.
//!
//! A change has at most 64 bits and a stream has fewer than 2^63 events, so the sum of any changes
//! fits 128 bits: nothing here overflows, saturates or wraps.

use std::collections::BTreeMap;

use crate::{event::EventIdentity, time::Timestamp};

/// How long tracked bytes of the past are kept, in seconds of event time. An inventory of an older
/// time has nothing to be compared with and is ignored.
pub const TRACKED_S: i64 = 86_400;

/// What became of an inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inventoried {
    /// The inventory is now in force, and used space follows it.
    Applied,
    /// An inventory of a later time is in force.
    Outdated,
    /// The inventory is older than the tracked bytes that are kept.
    TooOld,
}

/// The bytes of one bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The sum of all changes, in bytes.
    pub tracked: i128,
    /// The bytes that the inventory in force adds to the sum.
    pub offset: i128,
    /// The inventory in force: its identity, and the start of the slot at which it is compared with
    /// the sum, in seconds since 1970.
    pub inventory: Option<(EventIdentity, i64)>,
    /// Changes per slot of event time, by the slot's start in seconds since 1970.
    pub slots: BTreeMap<i64, i128>,
}

impl Space {
    /// Bytes stored now.
    pub const fn used(&self) -> i128 {
        self.tracked + self.offset
    }

    /// Adds a change of the bytes stored.
    ///
    /// The inventory in force already includes a change that is dated before it. Such a change
    /// therefore moves the tracked sums from its own time on, and the offset is reduced by the same
    /// amount.
    pub fn add(&mut self, at: Timestamp, bytes: i128, slot_s: u32, oldest_slot: i64) {
        let slot = at.slot(i64::from(slot_s));
        self.tracked += bytes;
        if slot >= oldest_slot {
            *self.slots.entry(slot).or_default() += bytes;
        }
        if self.inventory.is_some_and(|(_, compared_at)| slot < compared_at) {
            self.offset -= bytes;
        }
    }

    /// Puts an inventory in force, unless a later one is in force already.
    ///
    /// The inventory is compared with the sum at the start of the slot that holds its time. Changes
    /// of that slot count as made after the inventory; the error is at most what changed within one
    /// slot.
    pub fn inventory(
        &mut self,
        identity: EventIdentity,
        bytes: i128,
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
        let since: i128 = self.slots.range(compared_at..).map(|(_, bytes)| *bytes).sum();
        self.offset = bytes - (self.tracked - since);
        self.inventory = Some((identity, compared_at));
        Inventoried::Applied
    }

    /// Forgets slots before `oldest_slot`.
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

    fn inventory(space: &mut Space, second: i64, bytes: i128) -> Inventoried {
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
    fn a_late_change_in_the_oldest_kept_slot_is_kept_and_one_before_it_is_not() {
        let mut space = Space::default();
        space.add(at(400), 5, 10, 400);
        space.add(at(409), 6, 10, 400);
        space.add(at(399), 7, 10, 400);
        assert_eq!(space.slots, BTreeMap::from([(400, 11)]));
        assert_eq!(space.inventory((at(400), derived(1)), 100, 10, 400), Inventoried::Applied);
        assert_eq!(space.used(), 111, "changes of the slot count as made after the inventory");
        space.forget_before(400);
        assert_eq!(space.slots.len(), 1, "the oldest slot that is to be kept");
    }

    #[test]
    fn the_same_inventory_again_and_an_equal_time_change_nothing() {
        let mut space = Space::default();
        assert_eq!(inventory(&mut space, 20, 1_000), Inventoried::Applied);
        assert_eq!(inventory(&mut space, 20, 2_000), Inventoried::Outdated);
        space.add(at(20), 5, 10, KEPT);
        assert_eq!(space.used(), 1_005, "the slot of the inventory's own time");
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
