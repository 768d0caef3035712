//! From a model to sealed messages, each with its time of publishing.

use std::collections::VecDeque;

use domain::{Run, Timestamp};
use wire::{Packer, Sealed};

use crate::{
    arrivals::{Arrival, Arrivals},
    emission::{Disorder, Emission, Emitted},
    model::{Draft, Model, OraclePage},
    rng::SeededRng,
};

/// How many events are spread evenly over the time between two readings of the clock.
const CLOCK_STEPS: i64 = 100;

/// The source of the events' times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// From the arrivals: the same in every run.
    Modelled,
    /// From the clock, which is read once per message: an event happens when it is needed.
    Clock,
}

/// The parts of a feed besides its model.
#[derive(Debug)]
pub struct FeedParts {
    /// The source of the events' times.
    pub pace: Pace,
    /// When events happen.
    pub arrivals: Arrivals,
    /// Randomness that decides which events are late and which are sent twice.
    pub rng: SeededRng,
    /// The shares of such events.
    pub disorder: Disorder,
    /// The run that gives the ids.
    pub run: Run,
    /// Number of distinct events; `None` means without end.
    pub events: Option<u64>,
    /// Encodes messages. Their age counts in event time, so that messages are the same in every
    /// run.
    pub packer: Packer,
}

/// A sealed message.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedMessage<N> {
    /// When the message is published.
    pub due: Timestamp,
    /// The message.
    pub sealed: Sealed,
    /// What the oracle enters when the message is acknowledged.
    pub page: OraclePage<N>,
}

/// The next step of a feed.
#[derive(Clone, Debug, PartialEq)]
pub enum Pulled<N> {
    /// Publish this message.
    Message(SealedMessage<N>),
    /// There is nothing to publish before this time.
    Wait(Timestamp),
    /// The feed has ended.
    End,
}

/// The messages of a model, one after another. Pure: the time is an argument, and with
/// [`Pace::Modelled`] the time decides only how far the feed has come, not what the messages
/// contain.
#[derive(Debug)]
pub struct MessageSource<M: Model> {
    model: M,
    pace: Pace,
    arrivals: Arrivals,
    emission: Emission<M::Note>,
    packer: Packer,
    /// The next event, which happens no earlier than its time.
    ahead: Option<Draft<M::Note>>,
    /// How many distinct events are still to happen; `None` means without end.
    left: Option<u64>,
    /// The time of the last event that was packed.
    reached: Timestamp,
    /// When the clock was read last, and the number of events since.
    clock: (Timestamp, i64),
    /// What the oracle needs to know about the events in the packer.
    waiting: VecDeque<(bool, Option<M::Note>)>,
}

impl<M: Model> MessageSource<M> {
    /// A feed of a run that starts at `start`.
    pub fn new(model: M, parts: FeedParts, start: Timestamp) -> Self {
        Self {
            model,
            pace: parts.pace,
            arrivals: parts.arrivals,
            emission: Emission::new(parts.rng, parts.disorder, parts.run),
            packer: parts.packer,
            ahead: None,
            left: parts.events,
            reached: start,
            clock: (start, 0),
            waiting: VecDeque::new(),
        }
    }

    /// The next step at time `now`.
    pub fn pull(&mut self, now: Timestamp) -> Pulled<M::Note> {
        let read_before = std::mem::replace(&mut self.clock, (now, 0)).0;
        loop {
            let Some(due) = self.next_due(read_before, now) else {
                return match self.packer.flush() {
                    Some(sealed) => Pulled::Message(self.message(self.reached, sealed)),
                    None => Pulled::End,
                };
            };
            let full_at = self.packer.poll_timeout().map(from_millis);
            if let Some(full_at) = full_at.filter(|full_at| *full_at <= due.min(now))
                && let Some(sealed) = self.packer.handle_timeout(millis(full_at))
            {
                return Pulled::Message(self.message(full_at, sealed));
            }
            if due > now {
                return Pulled::Wait(full_at.map_or(due, |full_at| due.min(full_at)));
            }
            if let Some(emitted) = self.emit(due)
                && let Some(sealed) = self.pack(emitted)
            {
                return Pulled::Message(self.message(due, sealed));
            }
        }
    }

    /// Sets how many bytes the broker accepts as one message, from the next event on.
    pub fn bound(&mut self, message_bytes_max: usize) {
        self.packer.bound(message_bytes_max);
    }

    /// Ends the model. Events that are held back are released at once, so that everything that has
    /// happened is published.
    pub fn drain(&mut self) {
        self.ahead = None;
        self.left = Some(0);
    }

    /// How many events are held back.
    pub fn held(&self) -> usize {
        self.emission.held()
    }

    /// The time of the next event.
    fn next_due(&mut self, read_before: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if self.ahead.is_none() && self.left != Some(0) {
            let arrival = match self.pace {
                Pace::Modelled => self.arrivals.advance(),
                Pace::Clock => self.at_the_clock(read_before, now),
            };
            self.left = self.left.map(|left| left - 1);
            self.ahead = Some(self.model.happen(arrival));
        }
        let release = self.emission.next_release();
        match &self.ahead {
            Some(draft) => Some(release.map_or(draft.at, |release| release.min(draft.at))),
            // After the end of the model, events that are held back are released without delay.
            None => release.map(|_| self.reached),
        }
    }

    fn at_the_clock(&mut self, read_before: Timestamp, now: Timestamp) -> Arrival {
        let step = self.clock.1.min(CLOCK_STEPS);
        self.clock.1 += 1;
        let since = (now.0 - read_before.0).max(0);
        let at = Timestamp(read_before.0 + since * step / CLOCK_STEPS).max(self.reached).min(now);
        self.arrivals.at(at)
    }

    fn emit(&mut self, due: Timestamp) -> Option<Emitted<M::Note>> {
        self.reached = self.reached.max(due);
        match self.ahead.take() {
            Some(draft) if self.emission.next_release().is_none_or(|at| at > draft.at) => {
                self.emission.admit(draft)
            }
            ahead => {
                self.ahead = ahead;
                self.emission.release(due)
            }
        }
    }

    fn pack(&mut self, emitted: Emitted<M::Note>) -> Option<Sealed> {
        self.waiting.push_back((emitted.again, emitted.note));
        self.packer.push(millis(emitted.due), &emitted.event)
    }

    fn message(&mut self, due: Timestamp, sealed: Sealed) -> SealedMessage<M::Note> {
        let mut page = OraclePage::default();
        for (again, note) in self.waiting.drain(..sealed.events) {
            if again {
                page.duplicates += 1;
            } else {
                page.distinct += 1;
                page.notes.extend(note);
            }
        }
        SealedMessage { due, sealed, page }
    }
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.0.div_euclid(1_000)).unwrap_or(0)
}

fn from_millis(millis: u64) -> Timestamp {
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX / 1_000).saturating_mul(1_000))
}
