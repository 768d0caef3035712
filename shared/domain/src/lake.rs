//! What the lake's metrics are derived from.

use std::collections::BTreeMap;

use crate::{
    event::{Event, Fact, Identity, LakeAccess, LakeInventory, Operation, Outcome},
    labels::{Labels, OTHER, OTHER_NAME},
    objects::{Changed, Object, Objects, Version, object_key},
    rules::Rules,
    sample::SampleValues,
    space::{Inventoried, Space, TRACKED_S},
    time::Timestamp,
};

/// Requests and bytes of one bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketSums {
    /// Requests by operation and outcome.
    pub accesses: BTreeMap<(Operation, Outcome), u64>,
    /// Bytes transferred by operation.
    pub transferred: BTreeMap<Operation, u128>,
    /// Bytes stored.
    pub space: Space,
}

/// What an event did besides being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LakeEffect {
    /// Nothing more to say.
    Plain,
    /// A change of an unknown object that lies at or below what was forgotten: used space kept.
    Unordered,
    /// An inventory that lost against a later one.
    InventoryOutdated,
    /// An inventory of a time that is no longer kept.
    InventoryTooOld,
    /// An inventory of a bucket that has no label of its own.
    InventoryWithoutLabel,
}

/// The state of the lake's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeState {
    slot_s: u32,
    /// Requests since the first event, whatever their outcome.
    pub accesses: u64,
    /// The time of the newest event.
    pub newest: Timestamp,
    /// Labels of buckets.
    pub labels: Labels,
    /// By label.
    pub buckets: BTreeMap<u16, BucketSums>,
    /// Sizes of objects.
    pub objects: Objects,
}

impl LakeState {
    /// Nothing happened yet.
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

    /// Counts an event. Total: a fact of the warehouse changes nothing.
    pub fn apply(&mut self, event: &Event) -> LakeEffect {
        match &event.fact {
            Fact::LakeAccess(access) => self.access(event.identity(), access),
            Fact::LakeInventory(inventory) => self.inventory(event.identity(), inventory),
            Fact::WarehouseQuery(_) => LakeEffect::Plain,
        }
    }

    fn access(&mut self, identity: Identity, access: &LakeAccess) -> LakeEffect {
        self.advance(identity.0);
        self.accesses += 1;
        let label = self.labels.label(&access.bucket);
        let bucket = self.buckets.entry(label).or_default();
        *bucket.accesses.entry((access.operation, access.outcome)).or_default() += 1;
        *bucket.transferred.entry(access.operation).or_default() += u128::from(access.bytes);
        if access.outcome != Outcome::Ok {
            return LakeEffect::Plain;
        }
        let bytes = match access.operation {
            Operation::Write | Operation::Copy => Some(access.object_bytes.unwrap_or(access.bytes)),
            Operation::Delete => None,
            Operation::Read | Operation::Head | Operation::List | Operation::Other => {
                return LakeEffect::Plain;
            }
        };
        self.change(identity, access, label, bytes)
    }

    fn change(
        &mut self,
        identity: Identity,
        access: &LakeAccess,
        label: u16,
        bytes: Option<u64>,
    ) -> LakeEffect {
        let version = Version {
            occurred_at: identity.0,
            sequencer: access.sequencer.as_deref().map(Box::from),
            id: identity.1,
        };
        let key = object_key(&access.bucket, &access.key);
        match self.objects.change(key, Object { version, bytes, label }) {
            Changed::By(0) | Changed::Outdated => LakeEffect::Plain,
            Changed::By(delta) => {
                let oldest = self.oldest_slot();
                let space = &mut self.buckets.entry(label).or_default().space;
                space.add(identity.0, delta, self.slot_s, oldest);
                LakeEffect::Plain
            }
            Changed::Unordered => LakeEffect::Unordered,
        }
    }

    fn inventory(&mut self, identity: Identity, inventory: &LakeInventory) -> LakeEffect {
        self.advance(identity.0);
        let label = self.labels.label(&inventory.bucket);
        if label == OTHER {
            return LakeEffect::InventoryWithoutLabel;
        }
        let oldest = self.oldest_slot();
        let bytes = i64::try_from(inventory.bytes).unwrap_or(i64::MAX);
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
    pub fn used_bytes(&self) -> i64 {
        self.buckets.values().map(|bucket| bucket.space.used()).sum()
    }

    /// The buckets with their names; those without a label of their own together as `other`.
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
