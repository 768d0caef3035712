//! One stream: the fold of its rows, compared with its snapshot and its samples.

use std::collections::VecDeque;

use anyhow::Context as _;
use domain::{Applied, Mark, Rules, Sample, StreamState};
use event_store::{ArchiveView, Counted, MessageRange};

use super::{
    difference::difference,
    reference::Snapshot,
    report::StreamReport,
    samples::{MessagePosition, SampleCheck, place},
};
use crate::ReplayProgress;

/// Folds the stream of the view to its end.
pub(super) async fn verify(
    view: &mut ArchiveView,
    rules: &Rules,
    snapshot: Option<&Snapshot>,
    progress: &ReplayProgress,
) -> anyhow::Result<StreamReport> {
    let stream = view.stream();
    progress.begin(format!("folding {stream}"), view.archived_events((0, 0)).await?);
    let end = view.checkpoint().map(|checkpoint| checkpoint.mark);
    let end = end.context("it has no checkpoint")?;
    let mut fold = Fold {
        state: view.origin(rules)?,
        closed: view.closed_epochs().await?,
        base: view.base().await?,
        snapshot,
        differences: Vec::new(),
        declared: Vec::new(),
        unexpected: 0,
        pending: VecDeque::new(),
        read_to: (0, 0),
        samples: SampleCheck::default(),
    };
    let mut events = 0_u64;
    fold.read_samples(view).await?;
    while let Some(page) = view.next_page().await? {
        for counted in &page {
            fold.pass(view, (counted.position.epoch, counted.position.sequence)).await?;
            fold.count(counted);
        }
        let read = u64::try_from(page.len()).unwrap_or(u64::MAX);
        events += read;
        progress.add(read);
    }
    // The last event may be before the checkpoint: this passes the positions in between.
    fold.pass(view, (end.epoch, end.sequence.saturating_add(1))).await?;
    fold.count_ahead(view).await?;
    let losses = view.losses().await?;
    Ok(report(fold, snapshot, &end, events, &losses))
}

fn report(
    fold: Fold<'_>,
    snapshot: Option<&Snapshot>,
    end: &Mark,
    events: u64,
    losses: &[MessageRange],
) -> StreamReport {
    let encoded = wire::snapshot::encode_state(&fold.state, end);
    let stream = fold.state.stream();
    let mut declared = fold.declared;
    declared.extend(losses.iter().map(|loss| {
        format!(
            "{stream}: messages {} to {} of epoch {} were deleted before they were archived",
            loss.first, loss.last, loss.epoch
        )
    }));
    declared.extend(fold.closed.iter().map(|mark| {
        format!("{stream}: epoch {} ended; archived up to {}", mark.epoch, mark.sequence)
    }));
    if let Some((epoch, sequence)) = fold.base {
        let before = fold.samples.before_base;
        declared.push(format!(
            "{stream}: old days were dropped; folded from the base at epoch {epoch}, sequence \
             {sequence}, which {before} samples are older than"
        ));
    }
    if fold.samples.lost > 0 {
        let lost = fold.samples.lost;
        declared.push(format!("{stream}: {lost} samples are of what an ended epoch lost"));
    }
    StreamReport {
        stream: stream.to_string(),
        epoch: end.epoch,
        sequence: end.sequence,
        events,
        unexpected: fold.unexpected,
        digest: blake3::hash(&encoded).to_hex().to_string(),
        snapshot: snapshot.map(|snapshot| place_of(&snapshot.mark)),
        samples: fold.samples.compared,
        samples_differing: fold.samples.differing,
        samples_ahead: fold.samples.ahead,
        declared,
        differences: fold.differences.into_iter().chain(fold.samples.first).collect(),
    }
}

/// A fold in progress, and what it is compared with.
struct Fold<'a> {
    state: StreamState,
    closed: Vec<Mark>,
    /// The position at which the fold begins, if it begins at a base.
    base: Option<MessagePosition>,
    /// The snapshot; taken once the fold has reached it.
    snapshot: Option<&'a Snapshot>,
    differences: Vec<String>,
    declared: Vec<String>,
    /// Events that the live aggregator cannot have counted.
    unexpected: u64,
    /// Samples that were read and not compared yet, ascending.
    pending: VecDeque<Sample>,
    read_to: MessagePosition,
    samples: SampleCheck,
}

impl Fold<'_> {
    /// Compares everything that lies before a position, because the fold is about to pass it.
    async fn pass(&mut self, view: &mut ArchiveView, next: MessagePosition) -> anyhow::Result<()> {
        if let Some(snapshot) = self.snapshot.take_if(|snapshot| place_of(&snapshot.mark) < next) {
            self.compare(snapshot);
        }
        if self.pending.front().is_none_or(|sample| place(sample) >= next) {
            return Ok(());
        }
        let folded = self.state.sample();
        while self.pending.front().is_some_and(|sample| place(sample) < next) {
            if let Some(sample) = self.pending.pop_front() {
                self.samples.compare(&sample, &folded, self.base, &self.closed);
            }
            if self.pending.is_empty() {
                self.read_samples(view).await?;
            }
        }
        Ok(())
    }

    fn count(&mut self, counted: &Counted) {
        let not_counted = match self.state.recount(&counted.event, counted.verdict) {
            Applied::Counted(_) => return,
            Applied::Duplicate => "its identity is known already",
            Applied::TooOld => "only a verdict could count it",
        };
        self.unexpected += 1;
        if self.unexpected == 1 {
            let (id, position) = (counted.event.id, counted.position);
            self.differences.push(format!("event {id} of {position:?}: {not_counted}"));
        }
    }

    fn compare(&mut self, snapshot: &Snapshot) {
        let (stream, mark) = (self.state.stream(), &snapshot.mark);
        let at = format!("{stream} at epoch {}, sequence {}", mark.epoch, mark.sequence);
        let end = self.closed.iter().find(|end| end.epoch == mark.epoch);
        if end.is_some_and(|end| mark.sequence > end.sequence) {
            self.declared.push(format!("snapshot of {at}: its epoch ended before it was archived"));
            return;
        }
        if self.base.is_some_and(|base| place_of(mark) < base) {
            self.declared.push(format!("snapshot of {at}: it is older than the archive's base"));
            return;
        }
        if wire::snapshot::encode_state(&self.state, mark) == snapshot.bytes {
            return;
        }
        let key = difference(&snapshot.state, &self.state);
        let key = key.unwrap_or_else(|| "equal states with different bytes".to_owned());
        self.differences.push(format!("state of {at}: {key}"));
    }

    async fn read_samples(&mut self, view: &mut ArchiveView) -> anyhow::Result<()> {
        let samples = view.samples_after(self.read_to).await?;
        if let Some(last) = samples.last() {
            self.read_to = place(last);
        }
        self.pending.extend(samples);
        Ok(())
    }

    /// The remaining samples are of messages that the view does not hold yet.
    async fn count_ahead(&mut self, view: &mut ArchiveView) -> anyhow::Result<()> {
        while !self.pending.is_empty() {
            self.samples.ahead += u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
            self.pending.clear();
            self.read_samples(view).await?;
        }
        Ok(())
    }
}

const fn place_of(mark: &Mark) -> MessagePosition {
    (mark.epoch, mark.sequence)
}
