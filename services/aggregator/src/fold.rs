//! Folds one stream's messages into its state, its samples and its counts. Pure.

use domain::{
    AppliedVerdict, Event, Mark, Position, Reason, Sample, StreamState, Timestamp, Verdict,
    lake::LakeEffect, state::Applied,
};
use wire::{Item, Message};

/// What became of the events of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Counted for the first time.
    pub(crate) counted: u64,
    /// Counted before.
    pub(crate) duplicates: u64,
    /// Too old to judge; the archive decides.
    pub(crate) too_old: u64,
    /// Counted by a verdict of the archive.
    pub(crate) verdicts: u64,
    /// Verdicts that were counted before.
    pub(crate) verdicts_passed: u64,
    /// Verdicts out of turn, which are ignored; they raise an alarm.
    pub(crate) verdicts_ahead: u64,
    /// Reasons of the dead letters, in order.
    pub(crate) refused: Vec<Reason>,
    /// Unknown fields that were ignored.
    pub(crate) fields_ignored: u64,
    /// Effects that are counted separately.
    pub(crate) effects: Vec<LakeEffect>,
}

/// The state of one stream and how far it has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamFold {
    state: StreamState,
    mark: Mark,
    source: Source,
}

/// The kind of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// New events, to be accepted and judged.
    Live,
    /// Events of a replay run, with the position of the last event that was counted.
    Replay(Option<Position>),
}

impl StreamFold {
    /// A state after the message at `mark`.
    pub(crate) const fn new(state: StreamState, mark: Mark) -> Self {
        Self { state, mark, source: Source::Live }
    }

    /// The state of a replay run after the message at `mark` of the run's own stream. `passed` is
    /// the live position of the last event in that message.
    pub(crate) const fn of_replay(
        state: StreamState,
        mark: Mark,
        passed: Option<Position>,
    ) -> Self {
        Self { state, mark, source: Source::Replay(passed) }
    }

    /// The state.
    pub(crate) const fn state(&self) -> &StreamState {
        &self.state
    }

    /// The last message that was counted.
    pub(crate) const fn mark(&self) -> Mark {
        self.mark
    }

    /// The sample that is due before a message with this broker timestamp: the metrics after the
    /// last message, if that message lies in another interval.
    ///
    /// The sample depends only on the stream, not on when the stream is read, so the same position
    /// always gives the same values.
    pub(crate) fn sample_before(&self, broker_ns: i64) -> Option<Sample> {
        if self.mark.is_before_first() {
            return None;
        }
        let interval_s = i64::from(self.state.rules().sample_interval_s);
        let slot = |ns| Timestamp::from_nanos(ns).slot(interval_s);
        (slot(self.mark.broker_ns) != slot(broker_ns)).then(|| Sample {
            stream: self.state.stream(),
            epoch: self.mark.epoch,
            sequence: self.mark.sequence,
            broker_ns: self.mark.broker_ns,
            values: self.state.sample(),
        })
    }

    /// Counts a message and moves the mark to it. A sequence that was counted before changes
    /// nothing.
    pub(crate) fn message(&mut self, message: &Message<'_>) -> Counts {
        let mut counts = Counts::default();
        if message.sequence <= self.mark.sequence {
            return counts;
        }
        if let Source::Replay(passed) = self.source {
            let passed = self.replayed(message, passed, &mut counts);
            self.source = Source::Replay(passed);
            return counts;
        }
        let reading = wire::read(self.state.stream(), message, self.state.rules());
        counts.fields_ignored = reading.fields_ignored;
        for item in reading.items {
            match item {
                Item::Event(event) => self.event(&event, &mut counts),
                Item::Verdict(verdict) => self.verdict(&verdict, &mut counts),
                Item::Refused(refused) => counts.refused.push(refused.refusal.reason),
            }
        }
        self.mark = Mark { sequence: message.sequence, broker_ns: message.broker_ns, ..self.mark };
        counts
    }

    /// Counts a message of a replay run. Acceptance and sets do not apply, and a position that was
    /// counted before changes nothing. Returns the position of the last event that was counted.
    fn replayed(
        &mut self,
        message: &Message<'_>,
        mut passed: Option<Position>,
        counts: &mut Counts,
    ) -> Option<Position> {
        match wire::replay::read_replay(message.headers, message.payload) {
            Err(refusal) => counts.refused.push(refusal.reason),
            Ok(events) => {
                for (position, event) in events {
                    if passed.is_some_and(|passed| position <= passed) {
                        counts.duplicates += 1;
                        continue;
                    }
                    passed = Some(position);
                    counts.counted += 1;
                    let effect = self.state.count(&event);
                    counts.effect(effect);
                }
            }
        }
        self.mark = Mark { sequence: message.sequence, broker_ns: message.broker_ns, ..self.mark };
        passed
    }

    fn event(&mut self, event: &Event, counts: &mut Counts) {
        match self.state.apply(event) {
            Applied::Counted(effect) => {
                counts.counted += 1;
                counts.effect(effect);
            }
            Applied::Duplicate => counts.duplicates += 1,
            Applied::TooOld => counts.too_old += 1,
        }
    }

    fn verdict(&mut self, verdict: &Verdict, counts: &mut Counts) {
        match self.state.apply_verdict(verdict.number, &verdict.event) {
            AppliedVerdict::Counted(effect) => {
                counts.verdicts += 1;
                counts.effect(effect);
            }
            AppliedVerdict::Passed => counts.verdicts_passed += 1,
            AppliedVerdict::Ahead => counts.verdicts_ahead += 1,
        }
    }
}

impl Counts {
    fn effect(&mut self, effect: LakeEffect) {
        if effect != LakeEffect::Plain {
            self.effects.push(effect);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use domain::{
        Event, EventId, Fact, LakeAccess, LakeInventory, Operation, Rules, Run, SampleValues,
        Stream,
    };
    use wire::{Format, Headers, Sealed};

    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;
    const START_NS: i64 = 1_700_000_000 * SECOND_NS;

    static JSON: LazyLock<Headers> = LazyLock::new(|| Headers::of(Format::Json.content_type()));
    static BINCODE: LazyLock<Headers> =
        LazyLock::new(|| Headers::of(Format::Bincode.content_type()));
    static REPLAY: LazyLock<Headers> = LazyLock::new(|| Headers::of(wire::replay::CONTENT_TYPE));

    fn write(number: u64) -> Event {
        let fact = Fact::LakeAccess(LakeAccess {
            key: format!("key-{}", number % 3),
            operation: Operation::Write,
            bytes: number + 1,
            ..test_support::lake_access()
        });
        let micros = START_NS / 1_000 + i64::try_from(number).unwrap();
        Event {
            id: EventId::sequenced(Run::new(1, 1), number),
            occurred_at: Timestamp(micros),
            fact,
        }
    }

    fn sealed(numbers: std::ops::Range<u64>, format: Format) -> Sealed {
        let events: Vec<_> = numbers.map(write).collect();
        wire::seal("lake.access.0.test", format, &events)
    }

    fn fold() -> StreamFold {
        let state = StreamState::new(Stream::lake(0), Rules::default());
        StreamFold::new(state, Mark { epoch: 1, sequence: 0, broker_ns: 0, created_ns: 5 })
    }

    fn message<'a>(sealed: &'a Sealed, sequence: u64, second: i64) -> Message<'a> {
        Message {
            sequence,
            broker_ns: START_NS + second * SECOND_NS,
            subject: &sealed.subject,
            headers: match sealed.content_type.as_ref() {
                "application/json" => &JSON,
                wire::replay::CONTENT_TYPE => &REPLAY,
                _ => &BINCODE,
            },
            payload: &sealed.payload,
        }
    }

    #[test]
    fn both_formats_count_alike_and_a_passed_sequence_changes_nothing() {
        let json = sealed(0..5, Format::Json);
        let binary = sealed(3..8, Format::Bincode);
        let mut fold = fold();
        assert_eq!(fold.message(&message(&json, 1, 1)).counted, 5);
        let counts = fold.message(&message(&binary, 4, 1));
        assert_eq!((counts.counted, counts.duplicates), (3, 2));
        let before = fold.clone();
        assert_eq!(fold.message(&message(&binary, 4, 1)), Counts::default());
        assert_eq!(fold, before);
    }

    #[test]
    fn a_replayed_position_counts_once_however_often_it_comes() {
        let limits = wire::replay::ReplayLimits { events_max: 4, ..Default::default() };
        let replayed = |numbers: std::ops::Range<u64>| {
            let mut packer = wire::replay::ReplayPacker::new("replay.r.lake.0".to_owned(), limits);
            let messages: Vec<Sealed> = numbers
                .filter_map(|number| {
                    let position = Position { epoch: 1, sequence: number / 3, index: 0 };
                    let index = u32::try_from(number % 3).unwrap();
                    packer.push(Position { index, ..position }, &write(number))
                })
                .collect();
            messages.into_iter().chain(packer.flush()).collect::<Vec<_>>()
        };
        let live = fold();
        let mut fold = StreamFold::of_replay(live.state.clone(), live.mark, None);
        let mut counted = 0;
        // The second run begins anew, the third continues after the existing messages. Neither
        // counts twice.
        let runs = [replayed(0..10), replayed(0..12), replayed(12..15)];
        for (sequence, sealed) in (1..).zip(runs.iter().flatten()) {
            counted += fold.message(&message(sealed, sequence, 1)).counted;
        }
        assert_eq!(counted, 15);
        let mut directly = live.state;
        for number in 0..15 {
            directly.count(&write(number));
        }
        assert_eq!(*fold.state(), directly);
        // Live messages are not taken for replayed events.
        let json = sealed(20..21, Format::Json);
        assert_eq!(fold.message(&message(&json, 99, 1)).refused, [Reason::Undecodable]);
    }

    #[test]
    fn a_verdict_counts_once_and_only_in_its_turn() {
        let verdicts = |numbers: std::ops::Range<u64>| {
            let verdicts: Vec<_> =
                numbers.map(|number| Verdict { number, event: write(number) }).collect();
            wire::seal_verdicts(
                &wire::Subjects::default(),
                Stream::lake(0),
                &verdicts,
                0,
                wire::MESSAGE_BYTES_MAX,
            )
            .unwrap()
        };
        let mut fold = fold();
        let ahead = fold.message(&message(&verdicts(2..4), 1, 1));
        assert_eq!((ahead.verdicts, ahead.verdicts_passed, ahead.verdicts_ahead), (0, 0, 2));
        let first = fold.message(&message(&verdicts(1..3), 2, 1));
        assert_eq!((first.verdicts, first.verdicts_passed, first.verdicts_ahead), (2, 0, 0));
        let again = fold.message(&message(&verdicts(1..4), 3, 1));
        assert_eq!((again.verdicts, again.verdicts_passed, again.verdicts_ahead), (1, 2, 0));
        assert_eq!(fold.state().verdicts(), 3);
        let SampleValues::Lake { accesses, .. } = fold.state().sample() else { unreachable!() };
        assert_eq!(accesses, 3);
    }

    #[test]
    fn a_replay_says_what_it_passed_and_how_far_it_has_read() {
        let limits = wire::replay::ReplayLimits::default();
        let mut packer = wire::replay::ReplayPacker::new("replay.r.lake.0".to_owned(), limits);
        for number in 0..3 {
            packer.push(Position { epoch: 1, sequence: number, index: 0 }, &write(number));
        }
        let sealed = packer.flush().unwrap();
        let live = fold();
        let passed = Position { epoch: 1, sequence: 1, index: 0 };
        let mut fold = StreamFold::of_replay(live.state, live.mark, Some(passed));
        let counts = fold.message(&message(&sealed, 4, 2));
        assert_eq!((counts.counted, counts.duplicates), (1, 2));
        let broker_ns = START_NS + 2 * SECOND_NS;
        assert_eq!(fold.mark(), Mark { sequence: 4, broker_ns, ..live.mark });
        assert_eq!(fold.state().stream(), Stream::lake(0));
    }

    fn derived(second: i64, fact: Fact) -> Event {
        let occurred_at = Timestamp(START_NS / 1_000 + second * 1_000_000);
        let id = EventId::from_bytes([u8::try_from(second).unwrap(); 16]);
        Event { id, occurred_at, fact }
    }

    #[test]
    fn an_event_that_is_too_old_to_judge_is_said_and_not_counted() {
        let rules = Rules { derived_ids_max: 1, ..Rules::default() };
        let state = StreamState::new(Stream::lake(0), rules);
        let mut fold = StreamFold::new(state, fold().mark);
        let events = [3, 4, 2, 1].map(|second| derived(second, write(0).fact));
        let sealed = wire::seal("lake.access.0.test", Format::Json, &events);
        let counts = fold.message(&message(&sealed, 1, 9));
        assert_eq!((counts.counted, counts.too_old, counts.duplicates), (2, 2, 0));
    }

    #[test]
    fn an_inventory_that_lost_is_an_effect_and_what_was_only_counted_is_none() {
        let mut fold = fold();
        let inventory = |second: i64| {
            let fact = LakeInventory { bucket: "raw".to_owned(), objects: 1, bytes: 100 };
            derived(second, Fact::LakeInventory(fact))
        };
        let events = [inventory(60), inventory(30), inventory(90)];
        let sealed = wire::seal("lake.inventory.0.test", Format::Json, &events);
        let counts = fold.message(&message(&sealed, 1, 100));
        assert_eq!(counts.counted, 3);
        assert_eq!(counts.effects, [LakeEffect::InventoryOutdated]);
    }

    #[test]
    fn garbage_is_one_refusal_and_moves_the_mark() {
        let mut fold = fold();
        let garbage = Message {
            sequence: 9,
            broker_ns: START_NS,
            subject: "lake.access.0.x",
            headers: &Headers::default(),
            payload: b"\xff\x00 no json",
        };
        let counts = fold.message(&garbage);
        assert_eq!(counts.refused, [Reason::Undecodable]);
        assert_eq!((counts.counted, fold.mark().sequence), (0, 9));
    }

    #[test]
    fn a_message_whose_headers_cannot_be_read_is_one_refusal_and_moves_the_mark() {
        let mut fold = fold();
        let whole = sealed(0..2, Format::Json);
        let headers = Headers::read(&whole.subject, b"NATS/1.0\r\nno colon\r\n\r\n");
        let counts = fold.message(&Message { headers: &headers, ..message(&whole, 3, 1) });
        assert_eq!(counts.refused, [Reason::UnreadableHeaders]);
        assert_eq!((counts.counted, fold.mark().sequence), (0, 3));
    }

    #[test]
    fn a_sample_is_due_when_the_brokers_time_enters_another_interval() {
        let mut fold = fold();
        assert_eq!(fold.sample_before(START_NS), None, "nothing was counted yet");
        fold.message(&message(&sealed(0..2, Format::Json), 1, 3));
        assert_eq!(fold.sample_before(START_NS + 9 * SECOND_NS), None);
        let sample = fold.sample_before(START_NS + 10 * SECOND_NS).unwrap();
        assert_eq!((sample.epoch, sample.sequence), (1, 1));
        assert_eq!(sample.broker_ns, START_NS + 3 * SECOND_NS);
        let buckets = [("raw".to_owned(), 3)].into();
        assert_eq!(sample.values, SampleValues::Lake { used_bytes: 3, accesses: 2, buckets });
    }
}
