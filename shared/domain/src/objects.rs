//! The current size of every object, in compact form and within a bound.

use std::collections::BTreeMap;

use crate::{id::EventId, time::Timestamp};

/// The name of an object: the first half of the BLAKE3 hash of bucket and key. Nobody can construct
/// two objects with the same name.
pub type ObjectKey = [u8; 16];

/// The name of an object.
pub fn object_key(bucket: &str, key: &str) -> ObjectKey {
    let mut hasher = blake3::Hasher::new();
    // The length distinguishes ("a", "bc") from ("ab", "c").
    hasher.update(&bucket.len().to_be_bytes());
    hasher.update(bucket.as_bytes());
    hasher.update(key.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// The order of an object's changes: by time, then by sequencer as bytes, then by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// When the change happened.
    pub occurred_at: Timestamp,
    /// The store's own order of the changes of one key, if the store gives one.
    pub sequencer: Option<Box<str>>,
    /// Decides if all else is equal.
    pub id: EventId,
}

/// An object, or the tombstone of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The latest change, which decided the size.
    pub version: Version,
    /// The size in bytes; `None` if the object was deleted.
    pub bytes: Option<u64>,
    /// The label of its bucket.
    pub label: u16,
}

/// The effect of a change on the bytes stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The change decided the object's size; the bytes stored changed by this number.
    By(i128),
    /// A later change of the object was applied before.
    Outdated,
    /// The object is not known, and the change is not later than the changes that were forgotten.
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
    /// No objects yet.
    pub const fn new(objects_max: usize) -> Self {
        Self { objects_max, kept: BTreeMap::new(), floor: None, forgotten_objects: 0 }
    }

    /// Objects as they were stored, with the same bound.
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

    /// The latest change that was forgotten.
    pub const fn floor(&self) -> Option<&Version> {
        self.floor.as_ref()
    }

    /// How many objects (not tombstones) were forgotten. If this is not 0, used space is an estimate:
    /// the bytes of forgotten objects stay counted, and an overwrite of one counts its bytes twice.
    pub const fn forgotten_objects(&self) -> u64 {
        self.forgotten_objects
    }

    /// Applies a change: a new size, or `None` for a delete. The change with the latest version
    /// decides, not the last one to arrive.
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

    /// Takes a change back: if it decided the size of its object, nothing is known of that object
    /// any more.
    pub fn withdraw(&mut self, key: &ObjectKey, version: &Version) -> Changed {
        match self.kept.get(key) {
            Some(known) if known.version == *version => {
                let bytes = signed(known.bytes);
                self.kept.remove(key);
                Changed::By(-bytes)
            }
            Some(_) => Changed::Outdated,
            None if self.floor.as_ref().is_some_and(|floor| version <= floor) => Changed::Unordered,
            None => Changed::Outdated,
        }
    }

    /// Forgets an eighth of the entries at a time, because no index by time is kept. Candidates are
    /// the older half of all entries; of these the oldest tombstones are forgotten first, then the
    /// oldest objects.
    ///
    /// Forgetting a tombstone affects only changes that are older still, which can no longer be
    /// judged. Tombstones in the newer half stay for that reason: without them, the floor would
    /// move to about now, and first writes of other objects that arrive a little late would not be
    /// counted.
    fn forget(&mut self) {
        let wanted = (self.objects_max / 8).max(1);
        let by_time =
            self.kept.iter().map(|(key, object)| (object.version.occurred_at, *key)).collect();
        let older_half = smallest(by_time, self.kept.len().div_ceil(2).max(wanted));
        let is_object =
            |key: &ObjectKey| self.kept.get(key).is_some_and(|object| object.bytes.is_some());
        let tombstones_first =
            older_half.into_iter().map(|(at, key)| (is_object(&key), at, key)).collect();
        for (is_object, _, key) in smallest(tombstones_first, wanted) {
            let version = self.kept.remove(&key).map(|object| object.version);
            self.floor = self.floor.take().max(version);
            self.forgotten_objects += u64::from(is_object);
        }
    }
}

/// The `wanted` smallest items, in no order.
fn smallest<T: Ord>(mut all: Vec<T>, wanted: usize) -> Vec<T> {
    if wanted < all.len() {
        all.select_nth_unstable(wanted);
        all.truncate(wanted);
    }
    all
}

fn signed(bytes: Option<u64>) -> i128 {
    i128::from(bytes.unwrap_or(0))
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
    fn a_change_is_taken_back_only_where_it_decides() {
        let mut objects = Objects::new(10);
        let (earlier, later) = (object(1, Some(10)), object(2, Some(4)));
        objects.change(key("a"), earlier.clone());
        objects.change(key("a"), later.clone());
        assert_eq!(objects.withdraw(&key("a"), &earlier.version), Changed::Outdated);
        assert_eq!(objects.withdraw(&key("a"), &later.version), Changed::By(-4));
        assert_eq!(objects.withdraw(&key("a"), &later.version), Changed::Outdated, "again");
        assert_eq!(objects.change(key("a"), earlier), Changed::By(10), "as if it came now");
    }

    #[test]
    fn of_a_forgotten_object_nothing_can_be_taken_back() {
        let mut objects = Objects::new(2);
        for (second, name) in [(1, "a"), (2, "b"), (3, "c")] {
            objects.change(key(name), object(second, Some(10)));
        }
        let forgotten = object(1, Some(10)).version;
        assert_eq!(objects.withdraw(&key("a"), &forgotten), Changed::Unordered);
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

    /// Sixteen at most, of which two are forgotten at a time.
    #[test]
    fn a_recent_tombstone_stays_so_that_a_write_that_is_a_little_late_counts() {
        let mut objects = Objects::new(16);
        for second in 0..14 {
            objects.change(key(&second.to_string()), object(second, Some(10)));
        }
        objects.change(key("gone"), object(1_000, None));
        for second in 1_001..1_004 {
            objects.change(key(&second.to_string()), object(second, Some(10)));
        }
        assert_eq!(objects.kept().len(), 16);
        assert_eq!(objects.floor().unwrap().occurred_at, at(1), "of the two oldest objects");
        assert_eq!(objects.change(key("late"), object(999, Some(3))), Changed::By(3));
        assert_eq!(objects.change(key("gone"), object(999, Some(3))), Changed::Outdated);
    }

    #[test]
    fn where_old_tombstones_make_room_no_object_is_forgotten() {
        let mut objects = Objects::new(16);
        objects.change(key("oldest"), object(0, Some(10)));
        for second in 1..=200 {
            objects.change(key(&second.to_string()), object(second, Some(1)));
            objects.change(key(&second.to_string()), object(second + 1, None));
        }
        assert_eq!(objects.forgotten_objects(), 0);
        assert_eq!(objects.change(key("oldest"), object(500, Some(12))), Changed::By(2));
    }

    #[test]
    fn the_floor_of_forgotten_objects_never_goes_back() {
        let mut objects = Objects::new(4);
        let mut floor = None;
        // The older half is never the same: what is forgotten later may be older than what was
        // forgotten before.
        for (number, second) in (0..60).map(|number| (number, (number * 37) % 101)) {
            let bytes = (number % 3 > 0).then_some(10);
            objects.change(key(&number.to_string()), object(second, bytes));
            let now = objects.floor().cloned();
            assert!(now >= floor, "{now:?} after {floor:?}");
            floor = now;
        }
        let below = floor.unwrap().occurred_at.second();
        assert_eq!(objects.change(key("late"), object(below, Some(3))), Changed::Unordered);
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
