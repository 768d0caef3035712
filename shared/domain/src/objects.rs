//! The current size of every object, compactly and within a bound.

use std::collections::BTreeMap;

use crate::{id::EventId, time::Timestamp};

/// Names an object: the first half of the BLAKE3 hash of bucket and key, which nobody can make
/// collide.
pub type ObjectKey = [u8; 16];

/// The name of an object.
pub fn object_key(bucket: &str, key: &str) -> ObjectKey {
    let mut hasher = blake3::Hasher::new();
    // The length keeps ("a", "bc") and ("ab", "c") apart.
    hasher.update(&bucket.len().to_be_bytes());
    hasher.update(bucket.as_bytes());
    hasher.update(key.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// Which change of an object is the latest: by time, then sequencer as bytes, then id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The store's own order of changes of one key, where it gives one.
    pub sequencer: Option<Box<str>>,
    /// Decides when all else is equal.
    pub id: EventId,
}

/// An object, or the tombstone of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The change that decided its size.
    pub version: Version,
    /// Its size in bytes; none: it was deleted.
    pub bytes: Option<u64>,
    /// The label of its bucket.
    pub label: u16,
}

/// What a change did to the bytes stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It decided the object's size; the bytes stored changed by so much.
    By(i64),
    /// A later change of the object came before it.
    Outdated,
    /// The object is not known, and the change lies at or below what was forgotten.
    Unordered,
}

/// The objects and tombstones of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    objects_max: usize,
    kept: BTreeMap<ObjectKey, Object>,
    floor: Option<Version>,
    forgotten_objects: u64,
}

impl Objects {
    /// No object yet.
    pub const fn new(objects_max: usize) -> Self {
        Self { objects_max, kept: BTreeMap::new(), floor: None, forgotten_objects: 0 }
    }

    /// What was stored of an earlier one with the same bound.
    pub const fn restore(
        objects_max: usize,
        kept: BTreeMap<ObjectKey, Object>,
        floor: Option<Version>,
        forgotten_objects: u64,
    ) -> Self {
        Self { objects_max, kept, floor, forgotten_objects }
    }

    /// The objects and tombstones that are kept.
    pub const fn kept(&self) -> &BTreeMap<ObjectKey, Object> {
        &self.kept
    }

    /// The latest change ever forgotten.
    pub const fn floor(&self) -> Option<&Version> {
        self.floor.as_ref()
    }

    /// Objects, not tombstones, that were forgotten. From 1 on, used space is an estimate: their
    /// bytes stay counted, and an overwrite counts twice.
    pub const fn forgotten_objects(&self) -> u64 {
        self.forgotten_objects
    }

    /// Applies a change: a new size, or none for a delete. The latest version decides, not the
    /// latest to arrive.
    pub fn change(&mut self, key: ObjectKey, new: Object) -> Changed {
        let after = signed(new.bytes);
        if let Some(known) = self.kept.get_mut(&key) {
            if new.version <= known.version {
                return Changed::Outdated;
            }
            let before = signed(known.bytes);
            *known = new;
            return Changed::By(after - before);
        }
        if self.floor.as_ref().is_some_and(|floor| new.version <= *floor) {
            return Changed::Unordered;
        }
        self.kept.insert(key, new);
        if self.kept.len() > self.objects_max {
            self.forget();
        }
        Changed::By(after)
    }

    /// Forgets the oldest eighth, tombstones first: a lost tombstone costs nothing but the
    /// judgement of changes that are older still. In bulk, because no index by time is kept.
    fn forget(&mut self) {
        let wanted = (self.objects_max / 8).max(1);
        let mut oldest: Vec<(bool, Timestamp, ObjectKey)> = self
            .kept
            .iter()
            .map(|(key, object)| (object.bytes.is_some(), object.version.occurred_at, *key))
            .collect();
        if wanted < oldest.len() {
            oldest.select_nth_unstable(wanted);
            oldest.truncate(wanted);
        }
        for (is_object, _, key) in oldest {
            let version = self.kept.remove(&key).map(|object| object.version);
            self.floor = self.floor.take().max(version);
            self.forgotten_objects += u64::from(is_object);
        }
    }
}

fn signed(bytes: Option<u64>) -> i64 {
    // Acceptance holds sizes to 2^53.
    i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{at, derived};

    fn object(second: i64, bytes: Option<u64>) -> Object {
        let version = Version { occurred_at: at(second), sequencer: None, id: derived(0) };
        Object { version, bytes, label: 0 }
    }

    fn key(name: &str) -> ObjectKey {
        object_key("b", name)
    }

    #[test]
    fn an_overwrite_replaces_and_a_delete_takes_what_is_there() {
        let mut objects = Objects::new(10);
        assert_eq!(objects.change(key("a"), object(1, Some(10))), Changed::By(10));
        assert_eq!(objects.change(key("a"), object(2, Some(4))), Changed::By(-6));
        assert_eq!(objects.change(key("a"), object(3, None)), Changed::By(-4));
        assert_eq!(objects.change(key("a"), object(4, None)), Changed::By(0));
        assert_eq!(objects.change(key("b"), object(4, None)), Changed::By(0));
    }

    #[test]
    fn the_latest_by_time_then_sequencer_then_id_decides_not_the_latest_to_arrive() {
        let mut objects = Objects::new(10);
        assert_eq!(objects.change(key("a"), object(2, Some(10))), Changed::By(10));
        assert_eq!(objects.change(key("a"), object(1, Some(99))), Changed::Outdated);
        let mut later = object(2, Some(20));
        later.version.sequencer = Some("00".into());
        assert_eq!(objects.change(key("a"), later.clone()), Changed::By(10));
        later.version.id = derived(9);
        later.bytes = Some(5);
        assert_eq!(objects.change(key("a"), later), Changed::By(-15));
    }

    #[test]
    fn a_late_write_to_a_deleted_object_stays_deleted() {
        let mut objects = Objects::new(10);
        assert_eq!(objects.change(key("a"), object(5, None)), Changed::By(0));
        assert_eq!(objects.change(key("a"), object(4, Some(7))), Changed::Outdated);
    }

    #[test]
    fn beyond_the_bound_tombstones_go_first_and_leave_a_floor() {
        let mut objects = Objects::new(2);
        objects.change(key("old"), object(1, Some(10)));
        objects.change(key("gone"), object(5, None));
        objects.change(key("new"), object(9, Some(1)));
        assert_eq!(objects.forgotten_objects(), 0);
        assert_eq!(objects.change(key("gone"), object(5, Some(3))), Changed::Unordered);
        assert_eq!(objects.change(key("old"), object(6, Some(12))), Changed::By(2));
    }

    #[test]
    fn a_forgotten_object_makes_used_space_an_estimate_and_says_so() {
        let mut objects = Objects::new(2);
        for (second, name) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(objects.change(key(name), object(second, Some(10))), Changed::By(10));
        }
        assert_eq!(objects.forgotten_objects(), 1);
        assert_eq!(objects.change(key("a"), object(1, Some(10))), Changed::Unordered);
    }

    #[test]
    fn bucket_and_key_do_not_run_together() {
        assert_ne!(object_key("a", "bc"), object_key("ab", "c"));
    }
}
