//! Decodes, accepts and judges messages, and collects them into a batch. Pure.

use std::collections::BTreeMap;

use anyhow::Context as _;
use domain::{ArchivedStream, Judgement, Ladder, Mark, Position, Reason, Rules, Seen, Stream};
use event_store::{Batch, BatchBuilder, NewDeadLetter, Placed, Sources, StreamId};
use wire::{Item, Message, RefusedItem, Subjects};

/// The contents of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Events of this stream, judged by these rules.
    Events(Stream, Rules),
    /// Samples.
    Samples,
}

impl Carries {
    /// The contents of a stream, by the rules in its metadata.
    ///
    /// # Errors
    ///
    /// The rules are not known to this program.
    pub(crate) fn of(
        stream: ArchivedStream,
        metadata: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let ArchivedStream::Events(stream) = stream else { return Ok(Self::Samples) };
        let rules = Rules::from_metadata(metadata)
            .with_context(|| format!("the rules of stream {stream}"))?;
        Ok(Self::Events(stream, rules))
    }

    /// For how many days rows are kept; 0 means for ever.
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
    /// Continues after a checkpoint, with the sets and sources that it stored.
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
                    let judgement: Judgement = self.seen.judge(&event);
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

    /// Declares messages lost that the broker deleted. The declaration is committed with the next
    /// message.
    pub(crate) fn lost(&mut self, first: u64, last: u64) {
        self.builder.lost(first, last);
    }

    /// Ends the batch and begins the next one after it.
    pub(crate) fn seal(&mut self) -> Batch {
        self.builder.sources(self.sources.take_new());
        let next = BatchBuilder::new(self.stream, &self.carries.ladder(), Some(self.mark));
        std::mem::replace(&mut self.builder, next).seal(self.mark, &self.seen)
    }
}

fn letter(
    position: Position,
    broker_ns: i64,
    refused: RefusedItem,
    source: Option<i16>,
) -> NewDeadLetter {
    let RefusedItem { refusal, bytes, header_bytes, identity } = refused;
    NewDeadLetter { position, broker_ns, refusal, bytes, header_bytes, identity, source }
}

#[cfg(test)]
mod tests {
    use domain::{
        Event, EventId, Fact, LakeAccess, Operation, Outcome, Run, Sample, SampleValues, Timestamp,
    };
    use wire::{Format, Headers, Sealed};

    use super::*;

    const START_NS: i64 = 1_700_000_000_000_000_000;
    const BEFORE: Mark = Mark { epoch: 3, sequence: 10, broker_ns: START_NS, created_ns: 5 };

    fn write(number: u64) -> Event {
        let fact = Fact::LakeAccess(LakeAccess {
            bucket: "raw".to_owned(),
            key: "key".to_owned(),
            operation: Operation::Write,
            bytes: number,
            object_bytes: None,
            sequencer: None,
            duration_us: 1,
            outcome: Outcome::Ok,
            principal: String::new(),
        });
        let id = EventId::sequenced(Run::new(1, 1), number);
        Event { id, occurred_at: Timestamp(START_NS / 1_000), fact }
    }

    fn intake(stream: &str, carries: Carries) -> Intake {
        let seen = Seen::new(&Rules::default());
        Intake::new(StreamId::new(1, stream), carries, seen, Sources::default(), BEFORE)
    }

    fn of_events() -> Intake {
        intake("LAKE_0", Carries::Events(Stream::lake(0), Rules::default()))
    }

    /// Adds a message whose broker timestamp is `second` seconds after the mark.
    fn add(intake: &mut Intake, sequence: u64, second: i64, sealed: &Sealed) -> Counts {
        intake.message(&Message {
            sequence,
            broker_ns: START_NS + second * 1_000_000_000,
            subject: &sealed.subject,
            headers: &Headers::of(&sealed.content_type),
            payload: &sealed.payload,
        })
    }

    fn rows(batch: &Batch) -> usize {
        batch.copies().iter().map(|(_, bytes)| bytes.len()).sum()
    }

    #[test]
    fn every_event_of_a_message_goes_into_the_batch_that_ends_with_it() {
        let mut intake = of_events();
        let events: Vec<_> = (0..3).map(write).collect();
        let sealed = wire::seal("lake.access.0.test", Format::Json, &events);
        let counts = add(&mut intake, 12, 2, &sealed);
        assert_eq!(counts, Counts { events: 3, refused: Vec::new() });
        let batch = intake.seal();
        assert_eq!(batch.events(), 3);
        assert!(rows(&batch) > 0, "they are new");
        let after = Mark { sequence: 12, broker_ns: START_NS + 2_000_000_000, ..BEFORE };
        assert_eq!(batch.after(), after);
        assert_eq!(intake.builder.before(), Some(after), "where the next batch begins");
    }

    #[test]
    fn an_event_that_was_in_an_earlier_batch_is_a_duplicate_in_the_next() {
        let mut intake = of_events();
        let sealed = wire::seal("lake.access.0.test", Format::Bincode, &[write(1), write(2)]);
        add(&mut intake, 11, 0, &sealed);
        intake.seal();
        assert_eq!(add(&mut intake, 12, 0, &sealed).events, 2);
        let batch = intake.seal();
        assert_eq!((batch.events(), rows(&batch)), (2, 0));
    }

    #[test]
    fn an_event_that_is_refused_goes_in_as_a_letter_beside_the_others() {
        let mut intake = of_events();
        let mut sealed = wire::seal("lake.access.0.test", Format::Json, &[write(1)]);
        sealed.payload = [&sealed.payload, b"\n{}".as_slice()].concat().into();
        let counts = add(&mut intake, 11, 0, &sealed);
        assert_eq!((counts.events, counts.refused.len()), (2, 1));
        assert_eq!(intake.seal().events(), 2);
    }

    #[test]
    fn a_sample_is_one_event_of_its_batch_and_so_is_one_that_is_refused() {
        let mut intake = intake("SAMPLES", Carries::Samples);
        let values =
            SampleValues::Warehouse { queries_in_window: 1, response_us_in_window: 2, records: 3 };
        let sample =
            Sample { stream: Stream::warehouse(0), epoch: 1, sequence: 9, broker_ns: 0, values };
        let sealed = wire::encode_sample("sample.0".to_owned(), &sample);
        let counts = add(&mut intake, 11, 0, &sealed);
        assert_eq!(counts, Counts { events: 1, refused: Vec::new() });
        let garbage = Sealed { payload: b"garbage".as_slice().into(), ..sealed };
        let counts = add(&mut intake, 12, 1, &garbage);
        assert_eq!(counts, Counts { events: 1, refused: vec![Reason::Undecodable] });
        let batch = intake.seal();
        assert_eq!((batch.events(), batch.after().sequence), (2, 12));
    }

    #[test]
    fn events_are_kept_as_their_rules_say_and_samples_for_ever_without_windows() {
        let rules = Rules { retention_days: 30, ..Rules::default() };
        let windows = rules.windows.clone();
        let stream = ArchivedStream::Events(Stream::lake(0));
        let events = Carries::of(stream, &rules.to_metadata()).unwrap();
        assert_eq!((events.retention_days(), events.ladder()), (30, windows));
        assert_eq!(events, Carries::Events(Stream::lake(0), rules));
        let samples = Carries::of(ArchivedStream::Samples, &BTreeMap::new()).unwrap();
        assert_eq!((samples.retention_days(), samples.ladder()), (0, Ladder::none()));
        assert!(Carries::of(stream, &BTreeMap::new()).is_err(), "no rules are known");
    }
}
