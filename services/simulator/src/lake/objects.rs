//! The objects of the simulated lake: which exist, how large they are, which are read.

use crate::rng::{Choice, SeededRng};

const NOWHERE: u32 = u32::MAX;
/// Popularity falls with the rank as `1 / rank + FLOOR`. Together with the reads by size, the
/// objects that are read once and the objects that are written, this gives the measured shares of
/// the most popular objects.
const FLOOR: f64 = 0.009_5;
/// Share of new objects that become popular, each replacing another one: the favourites change from
/// hour to hour.
const ADOPTED_SHARE: f64 = 0.1;

/// A key of the run. Objects are named by the number of their slot.
pub(crate) type KeySlot = u32;

/// The state of all objects: 24 bytes per key, whether its object exists or was deleted.
#[derive(Clone, Debug)]
pub(crate) struct ObjectTable {
    slots: Vec<ObjectEntry>,
    /// Slots of existing objects, in no order, so that one can be chosen at random.
    live: Vec<KeySlot>,
    /// Slots of deleted objects. They are written again when no new key may be made.
    dead: Vec<KeySlot>,
    slots_max: usize,
    /// The objects that are read repeatedly, by rank.
    favourites: Vec<KeySlot>,
    popularity: Choice,
    /// The favourites by size, so that a read can be of an object that is as large as the read.
    by_size: Vec<(u64, KeySlot)>,
}

#[derive(Clone, Copy, Debug)]
struct ObjectEntry {
    bytes: u64,
    /// Place in `live`, or [`NOWHERE`].
    live_place: u32,
    /// Rank among the favourites, or [`NOWHERE`].
    rank: u32,
}

impl ObjectTable {
    /// Objects at the start of a run; the first of them are favourites. At most `slots_max` keys
    /// are ever made.
    pub(crate) fn new(
        sizes: impl Iterator<Item = u64>,
        favourites: usize,
        slots_max: usize,
    ) -> Self {
        let mut objects = Self {
            slots: Vec::new(),
            live: Vec::new(),
            dead: Vec::new(),
            slots_max,
            favourites: Vec::new(),
            popularity: Choice::new(&[1.0]),
            by_size: Vec::new(),
        };
        for bytes in sizes {
            let slot = objects.make(bytes);
            if objects.favourites.len() < favourites {
                objects.favour(slot, objects.favourites.len());
            }
        }
        let weights: Vec<f64> = (0..objects.favourites.len())
            .map(|rank| 1.0 / (f64::from(place(rank)) + 1.0) + FLOOR)
            .collect();
        objects.popularity = Choice::new(&weights);
        objects
    }

    /// Size of an object, in bytes.
    pub(crate) fn bytes(&self, slot: KeySlot) -> u64 {
        self.slots[index(slot)].bytes
    }

    /// A random object, chosen by popularity.
    pub(crate) fn popular(&self, rng: &mut SeededRng) -> KeySlot {
        self.favourites[self.popularity.pick(rng)]
    }

    /// A random object, popular or not.
    pub(crate) fn any(&self, rng: &mut SeededRng) -> KeySlot {
        self.live[rng.index(self.live.len())]
    }

    /// The favourite whose size is nearest to `bytes`.
    pub(crate) fn nearest(&self, bytes: u64) -> KeySlot {
        let above = self.by_size.partition_point(|&(size, _)| size < bytes);
        let below = above.saturating_sub(1);
        let above = above.min(self.by_size.len() - 1);
        let distance = |at: usize| self.by_size[at].0.abs_diff(bytes);
        self.by_size[if distance(below) < distance(above) { below } else { above }].1
    }

    /// A favourite of at least `bytes`, or the largest.
    pub(crate) fn at_least(&self, bytes: u64, rng: &mut SeededRng) -> KeySlot {
        let first = self.by_size.partition_point(|&(size, _)| size < bytes);
        let first = first.min(self.by_size.len() - 1);
        self.by_size[first + rng.index(self.by_size.len() - first)].1
    }

    /// Stores an object under a new key or, if no more keys may be made, under the key of a deleted
    /// object.
    pub(crate) fn store_new(&mut self, bytes: u64, rng: &mut SeededRng) -> KeySlot {
        if self.slots.len() < self.slots_max {
            let slot = self.make(bytes);
            if rng.chance(ADOPTED_SHARE) {
                let rank = rng.index(self.favourites.len());
                self.favour(slot, rank);
            }
            return slot;
        }
        if let Some(slot) = self.dead.pop() {
            self.revive(slot, bytes);
            return slot;
        }
        let slot = self.any(rng);
        self.overwrite(slot, bytes);
        slot
    }

    /// Replaces an existing object.
    pub(crate) fn overwrite(&mut self, slot: KeySlot, bytes: u64) {
        let entry = self.slots[index(slot)];
        if entry.rank != NOWHERE {
            self.forget_size(entry.bytes, slot);
            self.note_size(bytes, slot);
        }
        self.slots[index(slot)].bytes = bytes;
    }

    /// Removes a random object and returns its slot; `None` if only favourites and their
    /// replacements would be left.
    pub(crate) fn delete(&mut self, rng: &mut SeededRng) -> Option<KeySlot> {
        if self.live.len() <= self.favourites.len() + 1 {
            return None;
        }
        let slot = self.any(rng);
        let entry = self.slots[index(slot)];
        self.live.swap_remove(index(entry.live_place));
        if let Some(moved) = self.live.get(index(entry.live_place)) {
            self.slots[index(*moved)].live_place = entry.live_place;
        }
        self.slots[index(slot)].live_place = NOWHERE;
        self.dead.push(slot);
        if entry.rank != NOWHERE {
            let heir = self.plain(rng);
            self.favour(heir, index(entry.rank));
        }
        Some(slot)
    }

    /// A random existing object that is not a favourite; there must be one.
    fn plain(&self, rng: &mut SeededRng) -> KeySlot {
        loop {
            let slot = self.any(rng);
            if self.slots[index(slot)].rank == NOWHERE {
                return slot;
            }
        }
    }

    fn make(&mut self, bytes: u64) -> KeySlot {
        let slot = place(self.slots.len());
        self.slots.push(ObjectEntry { bytes, live_place: place(self.live.len()), rank: NOWHERE });
        self.live.push(slot);
        slot
    }

    fn revive(&mut self, slot: KeySlot, bytes: u64) {
        let live_place = place(self.live.len());
        self.slots[index(slot)] = ObjectEntry { bytes, live_place, rank: NOWHERE };
        self.live.push(slot);
    }

    /// Makes an object the favourite of this rank, replacing the previous one.
    fn favour(&mut self, slot: KeySlot, rank: usize) {
        match self.favourites.get_mut(rank) {
            Some(holder) => {
                let before = std::mem::replace(holder, slot);
                self.slots[index(before)].rank = NOWHERE;
                self.forget_size(self.slots[index(before)].bytes, before);
            }
            None => self.favourites.push(slot),
        }
        self.slots[index(slot)].rank = place(rank);
        self.note_size(self.slots[index(slot)].bytes, slot);
    }

    fn note_size(&mut self, bytes: u64, slot: KeySlot) {
        let at = self.by_size.partition_point(|entry| *entry < (bytes, slot));
        self.by_size.insert(at, (bytes, slot));
    }

    fn forget_size(&mut self, bytes: u64, slot: KeySlot) {
        if let Ok(at) = self.by_size.binary_search(&(bytes, slot)) {
            self.by_size.remove(at);
        }
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

/// An index as the number of a slot; the settings limit the number of slots far below 2^32.
fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NOWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(objects: &ObjectTable) {
        assert_eq!(objects.live.len() + objects.dead.len(), objects.slots.len());
        for (at, slot) in objects.live.iter().enumerate() {
            assert_eq!(index(objects.slots[index(*slot)].live_place), at);
        }
        assert_eq!(objects.by_size.len(), objects.favourites.len());
        assert!(objects.by_size.is_sorted());
        for (rank, slot) in objects.favourites.iter().enumerate() {
            let entry = objects.slots[index(*slot)];
            assert_eq!(index(entry.rank), rank);
            assert_ne!(entry.live_place, NOWHERE, "favourites exist");
            assert!(objects.by_size.binary_search(&(entry.bytes, *slot)).is_ok());
        }
    }

    #[test]
    fn every_index_over_the_objects_stays_right() {
        let mut rng = SeededRng::new(5, 0);
        let mut objects = ObjectTable::new((1..=20).map(|n| n * 100), 12, 60);
        let mut deleted = 0;
        for step in 0..5_000 {
            let bytes = rng.below(5_000);
            match rng.below(4) {
                0 => deleted += u32::from(objects.delete(&mut rng).is_some()),
                1 => {
                    let slot = objects.popular(&mut rng);
                    objects.overwrite(slot, bytes);
                }
                _ => drop(objects.store_new(bytes, &mut rng)),
            }
            check(&objects);
            assert!(objects.slots.len() <= 60, "step {step}");
        }
        assert!(deleted > 100);
    }

    #[test]
    fn a_read_finds_an_object_of_its_size() {
        let mut rng = SeededRng::new(6, 0);
        let objects = ObjectTable::new([10, 20, 30, 1_000].into_iter(), 4, 10);
        for (asked, found) in [(1, 10), (14, 10), (16, 20), (500, 30), (9_999, 1_000)] {
            assert_eq!(objects.bytes(objects.nearest(asked)), found);
        }
        assert_eq!(objects.bytes(objects.at_least(31, &mut rng)), 1_000);
        assert_eq!(objects.bytes(objects.at_least(5_000, &mut rng)), 1_000);
    }
}
