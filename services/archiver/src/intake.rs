//! Messages to a batch: decoded, accepted, judged. Pure.

use std::collections::BTreeMap;

use anyhow::Context as _;
use domain::{ArchivedStream, Judgement, Ladder, Mark, Position, Reason, Rules, Seen, Stream};
use event_store::{Batch, BatchBuilder, Letter, Placed, Sources, StreamId};
use wire::{Item, Message, RefusedItem, Subjects};

/// What a stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Events of this stream, by these rules.
    Events(Stream, Rules),
    /// Samples.
    Samples,
}

impl Carries {
    /// What a stream carries, by the rules in its metadata.
    ///
    /// # Errors
    ///
    /// Rules that this program does not know.
    pub(crate) fn of(
        stream: ArchivedStream,
        metadata: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let ArchivedStream::Events(stream) = stream else { return Ok(Self::Samples) };
        let rules = Rules::from_metadata(metadata)
            .with_context(|| format!("the rules of stream {stream}"))?;
        Ok(Self::Events(stream, rules))
    }

    /// How many days are kept; 0: all.
    pub(crate) const fn retention_days(&self) -> u32 {
        match self {
            Self::Events(_, rules) => rules.retention_days,
            Self::Samples => 0,
        }
    }

    pub(crate) fn ladder(&self) -> Ladder {
        match self {
            Self::Events(_, rules) => rules.windows.clone(),
            Self::Samples => Ladder::none(),
        }
    }
}

/// What became of the events of a message, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) refused: Vec<Reason>,
}

/// Judges messages in order and collects them into batches.
#[derive(Debug)]
pub(crate) struct Intake {
    stream: StreamId,
    carries: Carries,
    seen: Seen,
    sources: Sources,
    /// The last message that was added.
    mark: Mark,
    builder: BatchBuilder,
}

impl Intake {
    /// Goes on after a checkpoint with the sets and sources as they were there.
    pub(crate) fn new(
        stream: StreamId,
        carries: Carries,
        seen: Seen,
        sources: Sources,
        mark: Mark,
    ) -> Self {
        let builder = BatchBuilder::new(stream, &carries.ladder(), Some(mark));
        Self { stream, carries, seen, sources, mark, builder }
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, message: &Message<'_>) -> Counts {
        let counts = match &self.carries {
            Carries::Events(stream, rules) => {
                let reading = wire::read(*stream, message, rules);
                self.events(message, reading.items)
            }
            Carries::Samples => self.sample(message),
        };
        self.mark = Mark { sequence: message.sequence, broker_ns: message.broker_ns, ..self.mark };
        counts
    }

    fn events(&mut self, message: &Message<'_>, items: Vec<Item>) -> Counts {
        let mut counts = Counts::default();
        let broker_ns = message.broker_ns;
        let source = Subjects::source(message.subject).and_then(|name| self.sources.number(&name));
        for (index, item) in (0..).zip(items) {
            let position = Position { epoch: self.mark.epoch, sequence: message.sequence, index };
            counts.events += 1;
            match item {
                Item::Event(event) => {
                    let judgement: Judgement = self.seen.judge(event.identity());
                    self.builder.event(Placed { position, broker_ns, source, event }, judgement);
                }
                Item::Verdict(verdict) => self.builder.verdict(position, &verdict),
                Item::Refused(refused) => {
                    counts.refused.push(refused.refusal.reason);
                    self.builder.letter(letter(position, broker_ns, refused, source));
                }
            }
        }
        counts
    }

    fn sample(&mut self, message: &Message<'_>) -> Counts {
        match wire::read_sample(message.headers, message.payload) {
            Ok(sample) => {
                self.builder.sample(sample);
                Counts { events: 1, refused: Vec::new() }
            }
            Err(refusal) => {
                let position =
                    Position { epoch: self.mark.epoch, sequence: message.sequence, index: 0 };
                let refused = vec![refusal.reason];
                let whole = wire::whole(refusal, message.headers, message.payload);
                self.builder.letter(letter(position, message.broker_ns, whole, None));
                Counts { events: 1, refused }
            }
        }
    }

    /// Declares messages lost that the broker deleted. They go with the next message.
    pub(crate) fn lost(&mut self, first: u64, last: u64) {
        self.builder.lost(first, last);
    }

    /// Ends the batch and begins the next one behind it.
    pub(crate) fn seal(&mut self) -> Batch {
        self.builder.sources(self.sources.take_new());
        let next = BatchBuilder::new(self.stream, &self.carries.ladder(), Some(self.mark));
        std::mem::replace(&mut self.builder, next).seal(self.mark, &self.seen)
    }
}

fn letter(position: Position, broker_ns: i64, refused: RefusedItem, source: Option<i16>) -> Letter {
    let RefusedItem { refusal, bytes, header_bytes, identity } = refused;
    Letter { position, broker_ns, refusal, bytes, header_bytes, identity, source }
}
