//! From events that happen to events that are published: identity, lateness, repetition.

use std::{cmp::Ordering, collections::BinaryHeap};

use domain::{Event, EventId, Run, Timestamp, time::MICROS_PER_SECOND};

use crate::{
    model::Draft,
    rng::{SeededRng, to_u64},
};

/// Most events that are held back, about 500 bytes each. At 100,000 events/s and the default shares
/// some 10,000 are held back. If the bound is reached, an event is neither late nor sent twice.
pub const HELD_EVENTS_MAX: usize = 50_000;
/// How long an event is held back, in seconds: log-uniform between these bounds.
const HELD_S_MIN: f64 = 0.2;
const HELD_S_MAX: f64 = 60.0;

/// The shares of events that are late and that are sent twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disorder {
    /// Share of the events that are published some time after they happened, dated when they
    /// happened.
    pub late_share: f64,
    /// Share of the events that are published again, with the same identity and bytes.
    pub duplicate_share: f64,
}

/// An event that is about to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted<N> {
    /// When the event is published.
    pub due: Timestamp,
    /// The event.
    pub event: Event,
    /// What the oracle needs to know about the event.
    pub note: Option<N>,
    /// Whether the event was published before.
    pub again: bool,
}

/// Assigns identities, holds some events back and repeats some.
#[derive(Debug)]
pub struct Emission<N> {
    rng: SeededRng,
    disorder: Disorder,
    run: Run,
    next_number: u64,
    held: BinaryHeap<Held<N>>,
    held_so_far: u64,
}

impl<N> Emission<N> {
    /// Emission of a run.
    pub const fn new(rng: SeededRng, disorder: Disorder, run: Run) -> Self {
        Self { rng, disorder, run, next_number: 0, held: BinaryHeap::new(), held_so_far: 0 }
    }

    /// Gives an identity to what happens now, and returns the event unless it is held back.
    pub fn admit(&mut self, draft: Draft<N>) -> Option<Emitted<N>> {
        let fate = self.rng.unit();
        let room = self.held.len() < HELD_EVENTS_MAX;
        let Disorder { late_share, duplicate_share } = self.disorder;
        if room && fate < late_share {
            self.hold(draft.at, What::Late(draft));
            return None;
        }
        let due = draft.at;
        let emitted = self.identify(draft, due);
        if room && fate < late_share + duplicate_share {
            self.hold(due, What::Again(emitted.event.clone()));
        }
        Some(emitted)
    }

    /// When the next event that is held back is due.
    pub fn next_release(&self) -> Option<Timestamp> {
        self.held.peek().map(|held| held.release)
    }

    /// Releases the event that is due first, no later than `latest`.
    pub fn release(&mut self, latest: Timestamp) -> Option<Emitted<N>> {
        let held = self.held.pop()?;
        let due = held.release.min(latest);
        Some(match held.what {
            What::Late(draft) => self.identify(draft, due),
            What::Again(event) => Emitted { due, event, note: None, again: true },
        })
    }

    /// How many events are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn identify(&mut self, draft: Draft<N>, due: Timestamp) -> Emitted<N> {
        let id = EventId::sequenced(self.run, self.next_number);
        self.next_number += 1;
        let event = Event { id, occurred_at: draft.at, fact: draft.fact };
        Emitted { due, event, note: draft.note, again: false }
    }

    fn hold(&mut self, since: Timestamp, what: What<N>) {
        let held_us = self.rng.log_uniform(HELD_S_MIN, HELD_S_MAX) * 1e6;
        let longest = 61 * MICROS_PER_SECOND;
        let held_us = i64::try_from(to_u64(held_us)).unwrap_or(longest).min(longest);
        let release = Timestamp(since.0.saturating_add(held_us));
        self.held.push(Held { release, order: self.held_so_far, what });
        self.held_so_far += 1;
    }
}

#[derive(Debug)]
enum What<N> {
    Late(Draft<N>),
    Again(Event),
}

/// Ordered so that the top of the heap is due first; among equal times, the one that was held back
/// first.
#[derive(Debug)]
struct Held<N> {
    release: Timestamp,
    order: u64,
    what: What<N>,
}

impl<N> Ord for Held<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.release, other.order).cmp(&(self.release, self.order))
    }
}

impl<N> PartialOrd for Held<N> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<N> PartialEq for Held<N> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<N> Eq for Held<N> {}
