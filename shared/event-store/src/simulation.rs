//! Simulates aggregator, archiver and broker in memory, with kills at any point. Every event must
//! be counted exactly once.
//!
//! All decisions are made by the real code (reading, sets, batches, turns, the next verdict to
//! publish, the fold); only the broker and the tables are replaced by maps.
//!
//! The simulation belongs to this crate, because it applies batches like the transaction does, and
//! their fields are private to the crate.

mod pinned;

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Event, EventId, EventIdentity, Fact, Judgement, LakeAccess, Mark, Operation, Position, Rules,
    Run, Seen, SideMetrics, Stream, StreamState, Timestamp, Verdict,
    seen::Derived,
    state::Applied,
    verdict::{Outbox, VerdictProgress},
};
use proptest::{collection::vec, prelude::*};
use wire::{
    Format, Item, MESSAGE_BYTES_MAX, Message, Sealed, Subjects, seal, seal_verdicts,
    snapshot::{decode_state, encode_state},
};

use crate::{
    rows::kind::Placed,
    stream_id::StreamId,
    write::{
        batch::{Batch, BatchBuilder},
        verdicts::in_turn,
    },
};

const STREAM: Stream = Stream::lake(0);
const START_NS: i64 = 1_795_416_180_000_000_000;

/// One step. A step of a process that is not running does nothing.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The producer publishes some of its events, perhaps again.
    Publish(usize, usize),
    AggregatorReads,
    AggregatorStores,
    AggregatorDies,
    ArchiverReads,
    ArchiverCommits,
    /// The archiver publishes, and receives the acknowledgement.
    ArchiverSends,
    /// The archiver is killed after its message was stored and before the acknowledgement arrives.
    ArchiverSendsAndDies,
    /// The archiver is killed while its message is on the way; [`Step::Arrives`] stores the message
    /// later.
    ArchiverIsCutOff,
    Arrives,
    ArchiverDies,
    /// Somebody deletes a message that nobody has read.
    Deleted,
    /// The stream is created again: empty, or as an older copy of itself.
    Epoch(usize),
}

#[derive(Clone, Copy, Debug)]
struct Row {
    place: usize,
    position: Position,
    verdict: Option<u64>,
    noted: Option<Position>,
}

struct Archive {
    rows: BTreeMap<EventIdentity, Row>,
    mark: Mark,
    runs: domain::runs::Runs,
    floor: Option<EventIdentity>,
    progress: VerdictProgress,
}

struct Archiver {
    seen: Seen,
    mark: Mark,
    builder: BatchBuilder,
    outbox: Outbox,
}

struct World {
    rules: Rules,
    events: Vec<Event>,
    epoch: u32,
    /// The stream: message `n` has sequence `n + 1`; `None` marks a deleted message.
    log: Vec<Option<Sealed>>,
    on_the_way: Vec<Sealed>,
    archive: Archive,
    archiver: Archiver,
    aggregator: (StreamState, Mark),
    /// The snapshot, as stored bytes.
    snapshot: Option<Vec<u8>>,
    /// What the aggregator had counted after each message, by epoch and sequence.
    shown: BTreeMap<(u32, u64), u64>,
    published: BTreeSet<EventIdentity>,
    lost: bool,
}

const fn at(epoch: u32, sequence: u64) -> Mark {
    let broker_ns = START_NS + sequence.cast_signed() * 1_000_000;
    Mark { epoch, sequence, broker_ns, created_ns: 1 }
}

impl Archiver {
    /// The archiver after a start: from its checkpoint, and the derived ids of the rows.
    fn open(archive: &Archive, rules: &Rules) -> Self {
        let above = |identity: &EventIdentity| archive.floor.is_none_or(|floor| *identity > floor);
        let is_derived = |identity: &EventIdentity| match identity.1.kind() {
            domain::IdKind::Derived => true,
            domain::IdKind::Sequenced { .. } => false,
        };
        let of_set = |(identity, row): (&EventIdentity, &Row)| {
            (row.verdict.is_none() && is_derived(identity) && above(identity)).then_some(*identity)
        };
        let kept = archive.rows.iter().filter_map(of_set).collect();
        let derived = Derived::restore(rules.derived_ids_max, kept, archive.floor);
        Self {
            seen: Seen::restore(archive.runs.clone(), derived),
            mark: archive.mark,
            builder: builder(archive.mark),
            outbox: Outbox::new(archive.progress),
        }
    }
}

fn builder(mark: Mark) -> BatchBuilder {
    BatchBuilder::new(
        StreamId { id: 1, side: Some(STREAM.side) },
        &"10s".parse().expect("a ladder"),
        Some(mark),
    )
}

impl World {
    fn new(rules: Rules, events: Vec<Event>) -> Self {
        let mark = at(1, 0);
        let seen = Seen::new(&rules);
        let archive = Archive {
            rows: BTreeMap::new(),
            mark,
            runs: seen.runs().clone(),
            floor: None,
            progress: VerdictProgress { sequence: 0, given: 0, noted: 0 },
        };
        Self {
            archiver: Archiver::open(&archive, &rules),
            aggregator: (StreamState::new(STREAM, rules.clone()), mark),
            snapshot: None,
            shown: BTreeMap::new(),
            rules,
            events,
            epoch: 1,
            log: Vec::new(),
            on_the_way: Vec::new(),
            archive,
            published: BTreeSet::new(),
            lost: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish(from, count) => {
                let events: Vec<Event> =
                    self.events.iter().cycle().skip(from).take(count).cloned().collect();
                self.published.extend(events.iter().map(Event::identity));
                self.log.push(Some(seal("lake.access.0.s", Format::Json, &events)));
            }
            Step::AggregatorReads => self.aggregator_reads(),
            Step::AggregatorStores => self.snapshot = Some(self.bytes()),
            Step::AggregatorDies => self.aggregator_starts(),
            Step::ArchiverReads => self.archiver_reads(),
            Step::ArchiverCommits => self.archiver_commits(),
            Step::ArchiverSends => {
                if let Some((sealed, last)) = self.due() {
                    let sequence = self.store(sealed);
                    self.archiver.outbox.stored(last, sequence);
                }
            }
            Step::ArchiverSendsAndDies => {
                if let Some((sealed, _)) = self.due() {
                    self.store(sealed);
                }
                self.archiver_starts();
            }
            Step::ArchiverIsCutOff => {
                let due = self.due();
                self.on_the_way.extend(due.map(|(sealed, _)| sealed));
                self.archiver_starts();
            }
            Step::Arrives => {
                if let Some(sealed) = self.on_the_way.pop() {
                    self.store(sealed);
                }
            }
            Step::ArchiverDies => self.archiver_starts(),
            Step::Deleted => self.delete_newest(),
            Step::Epoch(kept) => self.begin_epoch(kept),
        }
    }

    /// The broker stores a message unless it knows the id.
    fn store(&mut self, sealed: Sealed) -> u64 {
        let is_it = |message: &Option<Sealed>| {
            message.as_ref().is_some_and(|known| known.message_id == sealed.message_id)
        };
        let place = self.log.iter().position(is_it).unwrap_or_else(|| {
            self.log.push(Some(sealed.clone()));
            self.log.len() - 1
        });
        u64::try_from(place).unwrap() + 1
    }

    fn read(&self, sequence: u64) -> Option<Vec<Item>> {
        let sealed = self.log.get(usize::try_from(sequence - 1).unwrap())?;
        let Some(sealed) = sealed else { return Some(Vec::new()) };
        let broker_ns = at(self.epoch, sequence).broker_ns;
        let message = Message {
            sequence,
            broker_ns,
            subject: &sealed.subject,
            headers: &wire::Headers::of(&sealed.content_type),
            payload: &sealed.payload,
        };
        Some(wire::read(STREAM, &message, &self.rules).items)
    }

    fn aggregator_reads(&mut self) {
        let sequence = self.aggregator.1.sequence + 1;
        let Some(items) = self.read(sequence) else { return };
        for item in items {
            match item {
                Item::Event(event) => drop(self.aggregator.0.apply(&event)),
                Item::Verdict(verdict) => {
                    self.aggregator.0.apply_verdict(verdict.number, &verdict.event);
                }
                Item::Refused(refused) => panic!("{refused:?}"),
            }
        }
        self.aggregator.1 = at(self.epoch, sequence);
        let counted = counted(&self.aggregator.0);
        let shown = *self.shown.entry((self.epoch, sequence)).or_insert(counted);
        assert_eq!(shown, counted, "the same position always shows the same");
    }

    fn aggregator_starts(&mut self) {
        let stored = self.snapshot.as_ref().map(|bytes| decode_state(bytes).unwrap());
        let usable = stored.filter(|(_, mark)| mark.epoch == self.epoch);
        self.aggregator = usable.unwrap_or_else(|| (self.fold_archive(), self.archive.mark));
    }

    /// The snapshot that the aggregator would store now.
    fn bytes(&self) -> Vec<u8> {
        encode_state(&self.aggregator.0, &self.aggregator.1)
    }

    fn archiver_reads(&mut self) {
        let sequence = self.archiver.mark.sequence + 1;
        let Some(items) = self.read(sequence) else { return };
        let broker_ns = at(self.epoch, sequence).broker_ns;
        for (index, item) in (0..).zip(items) {
            let position = Position { epoch: self.epoch, sequence, index };
            match item {
                Item::Event(event) => {
                    let judgement: Judgement = self.archiver.seen.judge(&event);
                    let placed = Placed { position, broker_ns, source: None, event };
                    self.archiver.builder.event(placed, judgement);
                }
                Item::Verdict(verdict) => self.archiver.builder.verdict(position, &verdict),
                Item::Refused(refused) => panic!("{refused:?}"),
            }
        }
        self.archiver.mark = at(self.epoch, sequence);
    }

    /// Applies a batch like the transaction does.
    fn archiver_commits(&mut self) {
        let mark = self.archiver.mark;
        let builder = std::mem::replace(&mut self.archiver.builder, builder(mark));
        let batch: Batch = builder.seal(mark, &self.archiver.seen);
        let archive = &mut self.archive;
        let place_of = |event: &Event| self.events.iter().position(|known| known == event).unwrap();
        for placed in &batch.fresh {
            let (place, position) = (place_of(&placed.event), placed.position);
            let row = Row { place, position, verdict: None, noted: None };
            let known = archive.rows.insert(placed.event.identity(), row);
            assert!(known.is_none(), "the sets called {placed:?} new, the key knows it");
        }
        for placed in &batch.doubtful {
            if let std::collections::btree_map::Entry::Vacant(vacant) =
                archive.rows.entry(placed.event.identity())
            {
                archive.progress.given += 1;
                vacant.insert(Row {
                    place: place_of(&placed.event),
                    position: placed.position,
                    verdict: Some(archive.progress.given),
                    noted: None,
                });
            }
        }
        let numbered = |(identity, row): (&EventIdentity, &Row)| Some((row.verdict?, *identity));
        let known = archive.rows.iter().filter_map(numbered).collect();
        let (taken, _) = in_turn(&batch.verdicts, archive.progress.noted, &known);
        for verdict in taken {
            let row = archive.rows.get_mut(&verdict.identity).unwrap();
            assert_eq!(row.noted, None, "noted twice");
            row.noted = Some(verdict.position);
            archive.progress.noted = verdict.number;
        }
        archive.mark = mark;
        archive.progress.sequence = mark.sequence;
        archive.runs = self.archiver.seen.runs().clone();
        archive.floor = self.archiver.seen.derived().floor();
        self.archiver.outbox.commit(archive.progress);
    }

    fn archiver_starts(&mut self) {
        self.archiver = Archiver::open(&self.archive, &self.rules);
    }

    /// The next message of verdicts, from the rows.
    fn due(&mut self) -> Option<(Sealed, u64)> {
        self.archiver.outbox.commit(self.archive.progress);
        let (after, last) = self.archiver.outbox.due()?;
        let mut verdicts: Vec<Verdict> = self
            .archive
            .rows
            .values()
            .filter_map(|row| {
                let number = row.verdict.filter(|number| (after + 1..=last).contains(number))?;
                Some(Verdict { number, event: self.events[row.place].clone() })
            })
            .collect();
        verdicts.sort_unstable_by_key(|verdict| verdict.number);
        // Small messages, so that there are several.
        verdicts.truncate(2);
        let attempt = self.archiver.outbox.attempt();
        let sealed =
            seal_verdicts(&Subjects::default(), STREAM, &verdicts, attempt, MESSAGE_BYTES_MAX)?;
        Some((sealed, verdicts.last()?.number))
    }

    fn delete_newest(&mut self) {
        let newest = u64::try_from(self.log.len()).unwrap();
        let is_unread =
            newest > self.archiver.mark.sequence && !self.shown.contains_key(&(self.epoch, newest));
        let Some(newest) = self.log.last_mut().filter(|_| is_unread) else { return };
        let events = newest.take().is_some_and(|sealed| sealed.subject.contains("access"));
        self.lost |= events;
    }

    /// The archive closes the epoch at its checkpoint, and the aggregator rebuilds its state. Both
    /// read the stream from its first message.
    fn begin_epoch(&mut self, kept: usize) {
        let archived = (self.epoch, self.archive.mark.sequence);
        self.shown.retain(|position, _| *position <= archived);
        self.epoch += 1;
        let kept = kept.min(self.log.len());
        self.lost |= kept < self.log.len();
        self.log.truncate(kept);
        self.archive.mark = at(self.epoch, 0);
        self.archive.progress.sequence = 0;
        self.archiver_starts();
        self.aggregator_starts();
    }

    fn fold_archive(&self) -> StreamState {
        let mut state = StreamState::new(STREAM, self.rules.clone());
        for (_, row) in self.in_counting_order() {
            let applied = state.recount(&self.events[row.place], row.verdict);
            assert!(matches!(applied, Applied::Counted(_)), "{applied:?}: {row:?}");
        }
        state
    }

    fn in_counting_order(&self) -> BTreeMap<Position, &Row> {
        let place = |row: &Row| if row.verdict.is_some() { row.noted } else { Some(row.position) };
        self.archive.rows.values().filter_map(|row| Some((place(row)?, row))).collect()
    }

    /// Runs without further kills until nothing is left to do.
    fn rest(&mut self) {
        loop {
            let before = self.log.len();
            while self.log.len() > usize::try_from(self.archiver.mark.sequence).unwrap() {
                self.archiver_reads();
            }
            self.archiver_commits();
            self.take(Step::ArchiverSends);
            if self.log.len() == before && self.due().is_none() {
                break;
            }
        }
        while self.log.len() > usize::try_from(self.aggregator.1.sequence).unwrap() {
            self.aggregator_reads();
        }
    }

    fn hold(&self) {
        let numbers: BTreeSet<u64> =
            self.archive.rows.values().filter_map(|row| row.verdict).collect();
        assert!(numbers.iter().copied().eq(1..=self.archive.progress.given), "{numbers:?}");
        assert_eq!(self.archive.progress.waiting(), 0, "every verdict was read back");
        let (live, _) = &self.aggregator;
        assert_eq!(*live, self.fold_archive(), "fold(archive) = live");
        let rows = self.in_counting_order();
        let until = |(epoch, sequence): (u32, u64)| {
            let passed =
                |position: &&Position| (position.epoch, position.sequence) <= (epoch, sequence);
            u64::try_from(rows.keys().filter(passed).count()).unwrap()
        };
        assert_eq!(rows.len(), self.archive.rows.len(), "each row counts at one position");
        assert_eq!(counted(live), u64::try_from(rows.len()).unwrap(), "each identity counts once");
        for (position, shown) in &self.shown {
            assert_eq!(*shown, until(*position), "fold(archive) = live at {position:?}");
        }
        if !self.lost {
            let archived: BTreeSet<EventIdentity> = self.archive.rows.keys().copied().collect();
            assert_eq!(archived, self.published, "nothing is lost");
        }
    }
}

fn counted(state: &StreamState) -> u64 {
    let SideMetrics::Lake(lake) = state.metrics() else { unreachable!() };
    lake.accesses + lake.buckets().map(|(_, sums)| sums.withdrawn).sum::<u64>()
}

fn event(number: u8, second: i64, derived: bool) -> Event {
    let id = if derived {
        EventId::from_bytes([number; 16])
    } else {
        EventId::sequenced(Run::new(u64::from(number % 3), 0), u64::from(number))
    };
    let fact = Fact::LakeAccess(LakeAccess {
        key: format!("key-{}", number % 4),
        operation: Operation::Write,
        bytes: u64::from(number),
        duration_us: 1,
        ..test_support::lake_access()
    });
    let occurred_at = Timestamp(START_NS / 1_000 - 1_000_000_000 + second * 1_000_000);
    Event { id, occurred_at, fact }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    vec((0_i64..60, any::<bool>()), 12..30).prop_map(|parts| {
        let events =
            (0..).zip(parts).map(|(number, (second, derived))| event(number, second, derived));
        corrected(events.collect())
    })
}

/// The same with a withdrawal in the place of every fifth event, of the one before it. In this world it
/// may come before that one, which the archive would refuse: the laws hold all the same.
fn corrected(mut events: Vec<Event>) -> Vec<Event> {
    for place in (4..events.len()).step_by(5) {
        let (occurred_at, fact) =
            (events[place - 1].occurred_at, test_support::withdrawn(&events[place - 1]));
        let id = wire::derived::of_correction(occurred_at, &fact).unwrap();
        events[place] = Event { id, occurred_at, fact };
    }
    events
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..30, 1_usize..5).prop_map(|(from, count)| Step::Publish(from, count)),
        8 => Just(Step::AggregatorReads),
        1 => Just(Step::AggregatorStores),
        1 => Just(Step::AggregatorDies),
        8 => Just(Step::ArchiverReads),
        4 => Just(Step::ArchiverCommits),
        3 => Just(Step::ArchiverSends),
        1 => Just(Step::ArchiverSendsAndDies),
        1 => Just(Step::ArchiverIsCutOff),
        1 => Just(Step::Arrives),
        1 => Just(Step::ArchiverDies),
        1 => Just(Step::Deleted),
        1 => (0_usize..40).prop_map(Step::Epoch),
    ];
    vec(step, 0..250)
}

proptest! {
    #[test]
    fn whatever_dies_every_identity_counts_once_and_the_archive_folds_to_live(
        events in events(),
        steps in steps(),
        derived_ids_max in 1_usize..5,
        runs_max in 1_usize..3,
        holes_per_run_max in 1_usize..3,
    ) {
        let rules = Rules { derived_ids_max, runs_max, holes_per_run_max, ..Rules::default() };
        let run = || {
            let mut world = World::new(rules.clone(), events.clone());
            steps.iter().for_each(|step| world.take(*step));
            world.rest();
            world
        };
        let mut world = run();
        world.hold();
        let again = run();
        prop_assert_eq!(world.bytes(), again.bytes(), "the same steps give the same bytes");
        prop_assert_eq!(&world.log, &again.log, "and the same stream");
        world.archiver_starts();
        world.aggregator_starts();
        world.rest();
        world.hold();
    }
}
