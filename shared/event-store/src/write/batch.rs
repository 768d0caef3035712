//! What one transaction archives: collected while the previous one is being committed.

use std::collections::BTreeSet;

use domain::{
    EventIdentity, Judgement, Ladder, Mark, Position, Refusal, Sample, Seen, Timestamp, Verdict,
    Windows,
};

use wire::snapshot::encode_runs;

use crate::{
    numbers::count,
    rows::{
        copy_buffer::CopyBuffer,
        event::{self, statements},
        kind::{EventTable, Placed},
    },
    stream_id::StreamId,
    write::{verdicts::ReadBack, windows::WindowRows},
};

/// Something that could not be archived as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetter {
    /// Its position.
    pub position: Position,
    /// The broker's timestamp of its message, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// Why it was refused.
    pub refusal: Refusal,
    /// Its bytes, or those of the whole message.
    pub bytes: Vec<u8>,
    /// How many bytes at the beginning are a header block that can't be read.
    pub header_bytes: usize,
    /// Its identity, if it could be read.
    pub identity: Option<EventIdentity>,
    /// The number of its source in [`crate::Sources`]; `None` if the source is not kept.
    pub source: Option<i16>,
}

/// Collects what one transaction archives. The rows are encoded here, before the commit.
#[derive(Debug)]
pub struct BatchBuilder {
    window_lengths_s: Vec<u32>,
    batch: Batch,
    windows: Windows,
}

/// What one transaction archives: everything between two marks of a stream.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) stream: StreamId,
    pub(crate) before: Option<Mark>,
    pub(crate) after: Mark,
    /// The windows to which its events are added.
    pub(crate) ladder: Ladder,
    /// Rows of events that are new by the sets, per [`EventTable::ALL`].
    pub(crate) copies: [CopyBuffer; 3],
    /// The same events again, in case the key knows one of them or the server refuses one.
    pub(crate) fresh: Vec<Placed>,
    /// Events that only the key can judge.
    pub(crate) doubtful: Vec<Placed>,
    /// The window aggregates of `fresh`.
    pub(crate) windows: WindowRows,
    pub(crate) duplicates: u64,
    /// Verdicts that were read, in the order of their positions.
    pub(crate) verdicts: Vec<ReadBack>,
    pub(crate) letters: Vec<NewDeadLetter>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) lost: Vec<(u64, u64)>,
    /// Names of sources that the archive does not know yet.
    pub(crate) sources: Vec<(i16, String)>,
    pub(crate) seen: Vec<u8>,
    pub(crate) derived_floor: Option<EventIdentity>,
    /// Kinds and days that need a partition.
    pub(crate) days: BTreeSet<(EventTable, i64)>,
    /// Earliest and latest time of its events.
    pub(crate) occurred: Option<(Timestamp, Timestamp)>,
}

impl BatchBuilder {
    /// An empty batch that continues at `before`; `None` if nothing of the stream was archived yet.
    pub fn new(stream: StreamId, ladder: &Ladder, before: Option<Mark>) -> Self {
        let nowhere = Mark { epoch: 0, sequence: 0, broker_ns: 0, created_ns: 0 };
        let batch = Batch {
            stream,
            before,
            after: before.unwrap_or(nowhere),
            ladder: ladder.clone(),
            copies: Default::default(),
            fresh: Vec::new(),
            doubtful: Vec::new(),
            windows: WindowRows::default(),
            duplicates: 0,
            verdicts: Vec::new(),
            letters: Vec::new(),
            samples: Vec::new(),
            lost: Vec::new(),
            sources: Vec::new(),
            seen: Vec::new(),
            derived_floor: None,
            days: BTreeSet::new(),
            occurred: None,
        };
        Self { window_lengths_s: ladder.lengths_s(), batch, windows: Windows::default() }
    }

    /// Adds an accepted event with its judgement.
    pub fn event(&mut self, placed: Placed, judgement: Judgement) {
        if judgement == Judgement::Duplicate {
            self.batch.duplicates += 1;
            return;
        }
        let kind = EventTable::of(&placed.event.fact);
        let at = placed.event.occurred_at;
        self.batch.days.insert((kind, at.day()));
        self.batch.occurred = Some(
            self.batch.occurred.map_or((at, at), |(first, last)| (first.min(at), last.max(at))),
        );
        match judgement {
            // Its columns are not those of a COPY.
            Judgement::New if !placed.event.fact.is_correction() => {
                let buffer = &mut self.batch.copies[kind.place()];
                event::copy(buffer, self.batch.stream.id, &placed);
                self.windows.add(&self.window_lengths_s, &placed.event);
                self.batch.fresh.push(placed);
            }
            Judgement::New | Judgement::TooOld => self.batch.doubtful.push(placed),
            Judgement::Duplicate => {}
        }
    }

    /// Adds a verdict that was read back; it is a duplicate of its row.
    pub fn verdict(&mut self, position: Position, verdict: &Verdict) {
        self.batch.duplicates += 1;
        self.batch.verdicts.push(ReadBack::new(position, verdict));
    }

    /// Adds a dead letter.
    pub fn letter(&mut self, letter: NewDeadLetter) {
        self.batch.letters.push(letter);
    }

    /// Adds a sample.
    pub fn sample(&mut self, sample: Sample) {
        self.batch.samples.push(sample);
    }

    /// Declares messages lost that were deleted in the broker, except by trimming.
    pub fn lost(&mut self, first: u64, last: u64) {
        self.batch.lost.push((first, last));
    }

    /// Adds new names of [`crate::Sources`], which are stored together with the rows that use them.
    pub fn sources(&mut self, new: Vec<(i16, String)>) {
        self.batch.sources.extend(new);
    }

    /// Number of events, dead letters and samples, duplicates included.
    pub fn events(&self) -> u64 {
        self.batch.events()
    }

    /// The mark at which the batch begins.
    pub const fn before(&self) -> Option<Mark> {
        self.batch.before
    }

    /// Ends the batch at the last message whose events were all added; `seen` are the sets after
    /// it.
    pub fn seal(mut self, after: Mark, seen: &Seen) -> Batch {
        self.batch.after = after;
        self.batch.seen = encode_runs(seen.runs());
        self.batch.derived_floor = seen.derived().floor();
        self.batch.windows = WindowRows::new(self.windows);
        self.batch
    }
}

impl Batch {
    /// Number of events, dead letters and samples, duplicates included.
    pub fn events(&self) -> u64 {
        let kept = self.fresh.len() + self.doubtful.len() + self.letters.len() + self.samples.len();
        self.duplicates + count(kept)
    }

    /// The data to copy: each statement with its data.
    pub fn copies(&self) -> Vec<(&'static str, Vec<u8>)> {
        EventTable::ALL
            .into_iter()
            .zip(&self.copies)
            .filter(|(_, buffer)| buffer.rows() > 0)
            .map(|(kind, buffer)| {
                (
                    statements(kind).copy.as_str(),
                    [buffer.bytes(), CopyBuffer::TRAILER.as_slice()].concat(),
                )
            })
            .collect()
    }

    /// The last message of the batch.
    pub const fn after(&self) -> Mark {
        self.after
    }
}
