//! What the lake's metrics are derived from.

use std::collections::BTreeMap;

use crate::{
    event::{
        Event, EventIdentity, Fact, LakeAccess, LakeAccessWithdrawn, LakeInventory, Operation,
        Outcome,
    },
    labels::{Labels, OTHER, OTHER_NAME},
    objects::{Changed, Object, Objects, Version, object_key},
    rules::Rules,
    sample::SampleValues,
    space::{Inventoried, Space, TRACKED_S},
    time::Timestamp,
};

/// Upper boundaries of the histogram of request durations, in microseconds: 1 ms to 2 min. Small
/// requests to S3 take 10 to 100 ms, and those to a store in the same rack 1 ms or less. Durations
/// above a few seconds are transfers of large objects, or a sign of trouble.
pub const DURATION_BOUNDS_US: [u64; 15] = [
    1_000,
    2_500,
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
    120_000_000,
];

/// Requests and bytes of one bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketSums {
    /// Requests by operation and outcome, withdrawn ones included.
    pub accesses: BTreeMap<(Operation, Outcome), u64>,
    /// Requests that were withdrawn.
    pub withdrawn: u64,
    /// Requests whose duration is known, by the first boundary that holds it; the last is without
    /// bound.
    pub durations: [u64; DURATION_BOUNDS_US.len() + 1],
    /// Sum of the durations, in microseconds.
    pub duration_us: u128,
    /// Bytes transferred by operation.
    pub transferred: BTreeMap<Operation, u128>,
    /// Bytes stored.
    pub space: Space,
}

/// What an event changed besides the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LakeEffect {
    /// Nothing besides the counts.
    Plain,
    /// The event changed an unknown object, and is not newer than the changes that were forgotten:
    /// used space stays as it was.
    Unordered,
    /// An inventory that is older than the one in force.
    InventoryOutdated,
    /// An inventory of a time whose tracked bytes are no longer kept.
    InventoryTooOld,
    /// An inventory of a bucket that has no label of its own.
    InventoryWithoutLabel,
}

/// The state of a lake stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeState {
    slot_s: u32,
    /// Requests since the first event, successful or not.
    pub accesses: u64,
    /// The time of the newest event.
    pub newest: Timestamp,
    /// Labels of buckets.
    pub labels: Labels,
    /// Sums of the buckets by label.
    pub buckets: BTreeMap<u16, BucketSums>,
    /// Sizes of objects.
    pub objects: Objects,
}

impl LakeState {
    /// The state before the first event.
    pub const fn new(rules: &Rules) -> Self {
        Self {
            slot_s: rules.sample_interval_s,
            accesses: 0,
            newest: Timestamp(0),
            labels: Labels::new(rules.labels_max),
            buckets: BTreeMap::new(),
            objects: Objects::new(rules.objects_max),
        }
    }

    /// Counts an event. The function is total: a fact of the warehouse changes nothing.
    pub fn apply(&mut self, event: &Event) -> LakeEffect {
        match &event.fact {
            Fact::LakeAccess(access) => self.access(event.identity(), access),
            Fact::LakeInventory(inventory) => self.inventory(event.identity(), inventory),
            Fact::LakeAccessWithdrawn(withdrawn) => self.withdraw(event.occurred_at, withdrawn),
            Fact::LakeAccessRestored(restored) => {
                let label = self.labels.label(&restored.access.bucket);
                self.change(event.occurred_at, restored.of, &restored.access, label)
            }
            Fact::WarehouseQuery(_) | Fact::WarehouseQueryWithdrawn(_) => LakeEffect::Plain,
        }
    }

    fn access(&mut self, identity: EventIdentity, access: &LakeAccess) -> LakeEffect {
        self.advance(identity.0);
        self.accesses += 1;
        let label = self.labels.label(&access.bucket);
        let bucket = self.buckets.entry(label).or_default();
        *bucket.accesses.entry((access.operation, access.outcome)).or_default() += 1;
        // 0 is "not known": no request takes no time.
        if access.duration_us > 0 {
            let bound = DURATION_BOUNDS_US.partition_point(|bound| *bound < access.duration_us);
            bucket.durations[bound] += 1;
            bucket.duration_us += u128::from(access.duration_us);
        }
        *bucket.transferred.entry(access.operation).or_default() += u128::from(access.bytes);
        self.change(identity.0, identity, access, label)
    }

    /// Applies a change of an object, whose bytes count from `at` on.
    fn change(
        &mut self,
        at: Timestamp,
        identity: EventIdentity,
        access: &LakeAccess,
        label: u16,
    ) -> LakeEffect {
        let ObjectAfter::Changed(bytes) = ObjectAfter::of(access) else {
            return LakeEffect::Plain;
        };
        let object = Object { version: version(identity, access), bytes, label };
        let changed = self.objects.change(object_key(&access.bucket, &access.key), object);
        self.moved(at, label, changed)
    }

    /// Takes a request back. Counters keep it, because a counter never goes back, and count it once
    /// more as withdrawn.
    fn withdraw(&mut self, at: Timestamp, withdrawn: &LakeAccessWithdrawn) -> LakeEffect {
        let access = &withdrawn.access;
        let label = self.labels.label(&access.bucket);
        self.buckets.entry(label).or_default().withdrawn += 1;
        if matches!(ObjectAfter::of(access), ObjectAfter::Unchanged) {
            return LakeEffect::Plain;
        }
        let version = version((at, withdrawn.of), access);
        let changed = self.objects.withdraw(&object_key(&access.bucket, &access.key), &version);
        self.moved(at, label, changed)
    }

    fn moved(&mut self, at: Timestamp, label: u16, changed: Changed) -> LakeEffect {
        match changed {
            Changed::By(0) | Changed::Outdated => LakeEffect::Plain,
            Changed::By(delta) => {
                let oldest = self.oldest_slot();
                let space = &mut self.buckets.entry(label).or_default().space;
                space.add(at, delta, self.slot_s, oldest);
                LakeEffect::Plain
            }
            Changed::Unordered => LakeEffect::Unordered,
        }
    }

    fn inventory(&mut self, identity: EventIdentity, inventory: &LakeInventory) -> LakeEffect {
        self.advance(identity.0);
        let label = self.labels.label(&inventory.bucket);
        if label == OTHER {
            return LakeEffect::InventoryWithoutLabel;
        }
        let oldest = self.oldest_slot();
        let bytes = i128::from(inventory.bytes);
        let space = &mut self.buckets.entry(label).or_default().space;
        match space.inventory(identity, bytes, self.slot_s, oldest) {
            Inventoried::Applied => LakeEffect::Plain,
            Inventoried::Outdated => LakeEffect::InventoryOutdated,
            Inventoried::TooOld => LakeEffect::InventoryTooOld,
        }
    }

    fn oldest_slot(&self) -> i64 {
        self.newest.slot(i64::from(self.slot_s)) - TRACKED_S
    }

    fn advance(&mut self, at: Timestamp) {
        if at <= self.newest {
            return;
        }
        let before = self.oldest_slot();
        self.newest = at;
        let oldest = self.oldest_slot();
        if oldest > before {
            self.buckets.values_mut().for_each(|bucket| bucket.space.forget_before(oldest));
        }
    }

    /// Bytes stored now, over all buckets.
    pub fn used_bytes(&self) -> i128 {
        self.buckets.values().map(|bucket| bucket.space.used()).sum()
    }

    /// The buckets with their names; buckets without a label of their own are summed up as `other`.
    pub fn buckets(&self) -> impl Iterator<Item = (&str, &BucketSums)> {
        let other = self.buckets.get(&OTHER).map(|sums| (OTHER_NAME, sums));
        let named = self.labels.by_name().iter();
        named
            .filter_map(|(name, label)| Some((name.as_str(), self.buckets.get(label)?)))
            .chain(other)
    }

    /// The metrics as integers.
    pub fn sample(&self) -> SampleValues {
        SampleValues::Lake {
            used_bytes: self.used_bytes(),
            accesses: self.accesses,
            buckets: self
                .buckets()
                .map(|(name, sums)| (name.to_owned(), sums.space.used()))
                .collect(),
        }
    }
}

/// What a request made of its object.
enum ObjectAfter {
    /// The request changed nothing.
    Unchanged,
    /// The object has this size in bytes; `None`: it is gone.
    Changed(Option<u64>),
}

impl ObjectAfter {
    fn of(access: &LakeAccess) -> Self {
        if access.outcome != Outcome::Ok {
            return Self::Unchanged;
        }
        match access.operation {
            Operation::Write | Operation::Copy => {
                Self::Changed(Some(access.object_bytes.unwrap_or(access.bytes)))
            }
            Operation::Delete => Self::Changed(None),
            Operation::Read | Operation::Head | Operation::List | Operation::Other => {
                Self::Unchanged
            }
        }
    }
}

fn version(identity: EventIdentity, access: &LakeAccess) -> Version {
    Version {
        occurred_at: identity.0,
        sequencer: access.sequencer.as_deref().map(Box::from),
        id: identity.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::LakeAccessRestored,
        test_util::{access, at, change, inventory, withdrawn},
    };

    const NOW: i64 = 10 * TRACKED_S;

    fn slots(state: &LakeState) -> Vec<i64> {
        state.buckets().flat_map(|(_, sums)| sums.space.slots.keys().copied()).collect()
    }

    #[test]
    fn the_changes_of_a_day_are_kept_and_older_ones_let_go_when_time_moves_on() {
        let mut state = LakeState::new(&Rules::default());
        for (number, second) in [(1, NOW), (2, NOW + 10), (3, NOW + TRACKED_S)] {
            let key = number.to_string();
            state.apply(&change(number, at(second), Operation::Write, &key, Some(5)));
        }
        assert_eq!(slots(&state), [NOW, NOW + 10, NOW + TRACKED_S], "a day, both ends included");
        state.apply(&access(4, at(NOW + TRACKED_S + 9)));
        assert_eq!(slots(&state).first(), Some(&NOW), "in the same slot as before");
        state.apply(&access(5, at(NOW + TRACKED_S + 10)));
        assert_eq!(slots(&state), [NOW + 10, NOW + TRACKED_S]);
        state.apply(&access(6, at(NOW)));
        assert_eq!(state.newest, at(NOW + TRACKED_S + 10), "a late event moves no time back");
        assert_eq!(state.apply(&inventory(7, at(NOW + 9), 9)), LakeEffect::InventoryTooOld);
        assert_eq!(state.apply(&inventory(8, at(NOW + 10), 9)), LakeEffect::Plain);
        assert_eq!(state.apply(&inventory(7, at(NOW + 10), 9)), LakeEffect::InventoryOutdated);
        assert_eq!(state.used_bytes(), 19, "of the inventory, and two writes after it");
    }

    fn restored(by: &Event, change: &Event) -> Event {
        let Fact::LakeAccess(access) = change.fact.clone() else { unreachable!() };
        let fact = Fact::LakeAccessRestored(LakeAccessRestored { of: change.identity(), access });
        Event { id: crate::test_util::derived(99), occurred_at: by.occurred_at, fact }
    }

    #[test]
    fn a_withdrawn_overwrite_gives_the_object_its_size_before_and_counters_never_go_back() {
        let (right, wrong) = (
            change(1, at(NOW), Operation::Write, "a", Some(10)),
            change(2, at(NOW + 20), Operation::Write, "a", Some(1_000)),
        );
        let mut state = LakeState::new(&Rules::default());
        state.apply(&right);
        let before = state.clone();
        state.apply(&wrong);
        state.apply(&withdrawn(&wrong));
        assert_eq!(state.used_bytes(), 0, "nothing is known of the object");
        state.apply(&restored(&wrong, &right));
        assert_eq!((state.used_bytes(), state.accesses), (10, 2));
        let sums = state.buckets().next().unwrap().1;
        assert_eq!(sums.withdrawn, 1);
        assert_eq!(sums.space.slots, BTreeMap::from([(NOW, 10), (NOW + 20, 0)]), "as it was");
        assert_eq!(state.objects, before.objects);
    }

    /// Whatever was counted of an object between its first change and the withdrawn one, inventories
    /// included, stays in force.
    #[test]
    fn a_withdrawal_moves_used_space_from_the_time_of_the_withdrawn_change_on() {
        let right = change(1, at(NOW), Operation::Write, "a", Some(10));
        let wrong = change(2, at(NOW + 40), Operation::Write, "a", Some(1_000));
        let stock = inventory(3, at(NOW + 20), 500);
        for wrong_first in [false, true] {
            let mut state = LakeState::new(&Rules::default());
            state.apply(&right);
            let order = if wrong_first { [&wrong, &stock] } else { [&stock, &wrong] };
            for event in order {
                state.apply(event);
            }
            assert_eq!(state.used_bytes(), 1_490);
            state.apply(&withdrawn(&wrong));
            state.apply(&restored(&wrong, &right));
            assert_eq!(state.used_bytes(), 500);
        }
    }

    #[test]
    fn what_a_newer_change_decided_stays_and_a_withdrawn_delete_brings_the_object_back() {
        let mut state = LakeState::new(&Rules::default());
        let write = change(1, at(NOW), Operation::Write, "a", Some(10));
        let delete = change(2, at(NOW + 10), Operation::Delete, "a", None);
        let newer = change(3, at(NOW + 20), Operation::Write, "a", Some(3));
        state.apply(&write);
        state.apply(&delete);
        state.apply(&withdrawn(&delete));
        state.apply(&restored(&delete, &write));
        assert_eq!(state.used_bytes(), 10);
        state.apply(&newer);
        state.apply(&withdrawn(&write));
        assert_eq!(state.used_bytes(), 3);
        let read = access(4, at(NOW));
        state.apply(&read);
        state.apply(&withdrawn(&read));
        assert_eq!(state.used_bytes(), 3, "a read changes no object");
        assert_eq!(state.buckets().next().unwrap().1.withdrawn, 3);
    }

    #[test]
    fn requests_and_bytes_add_up_by_bucket_operation_and_outcome() {
        let mut state = LakeState::new(&Rules { labels_max: 1, ..Rules::default() });
        for (number, bucket, outcome) in [
            (1, "raw", Outcome::Ok),
            (2, "raw", Outcome::Ok),
            (3, "raw", Outcome::Denied),
            (4, "b", Outcome::Ok),
            (5, "c", Outcome::Ok),
        ] {
            let mut event = change(number, at(1), Operation::Write, bucket, Some(10 * number));
            let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
            (access.bucket, access.outcome) = (bucket.to_owned(), outcome);
            assert_eq!(state.apply(&event), LakeEffect::Plain);
        }
        assert_eq!(state.accesses, 5);
        let shown: Vec<_> = state
            .buckets()
            .map(|(name, sums)| {
                let count = |outcome| sums.accesses.get(&(Operation::Write, outcome)).copied();
                let moved = sums.transferred[&Operation::Write];
                (name, count(Outcome::Ok), count(Outcome::Denied), moved, sums.space.used())
            })
            .collect();
        assert_eq!(shown, [("raw", Some(2), Some(1), 3, 20), (OTHER_NAME, Some(2), None, 2, 90)]);
        assert_eq!(state.used_bytes(), 110);
        let mut other = inventory(6, at(2), 7);
        let Fact::LakeInventory(fact) = &mut other.fact else { unreachable!() };
        fact.bucket = "b".to_owned();
        assert_eq!(state.apply(&other), LakeEffect::InventoryWithoutLabel);
        assert_eq!(state.used_bytes(), 110);
    }

    #[test]
    fn a_change_below_what_was_forgotten_is_said_to_be_unordered() {
        let mut state = LakeState::new(&Rules { objects_max: 1, ..Rules::default() });
        for (number, second) in [(1, 10), (2, 20)] {
            let key = number.to_string();
            let written = change(number, at(second), Operation::Write, &key, Some(5));
            assert_eq!(state.apply(&written), LakeEffect::Plain);
        }
        let late = change(3, at(5), Operation::Write, "3", Some(5));
        assert_eq!(state.apply(&late), LakeEffect::Unordered);
        assert_eq!(state.used_bytes(), 10);
    }
}
