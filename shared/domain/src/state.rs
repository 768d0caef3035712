//! The one fold: what a stream's events add up to.
//!
//! Each stream is folded alone, in its order; nothing in its state crosses streams. Below its
//! bounds the fold is commutative, inventories in their place.

use crate::{
    event::{Event, Side},
    lake::{LakeEffect, LakeState},
    rules::Rules,
    runs::Judgement,
    sample::SampleValues,
    seen::Seen,
    stream::Stream,
    verdict::{AppliedVerdict, Turn},
    warehouse::WarehouseState,
};

/// What became of an event. Every value but `Counted` leaves the metrics as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It counts; a lake event may have had an effect worth a count of its own.
    Counted(LakeEffect),
    /// It was counted before.
    Duplicate,
    /// Too old to judge: the archive's unique key decides, and its verdict is counted later.
    TooOld,
}

/// The metrics of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SideMetrics {
    /// Of the lake.
    Lake(LakeState),
    /// Of the warehouse.
    Warehouse(WarehouseState),
}

/// All that is derived from one stream: the key metrics and the same by labels, objects, sets and sums; not
/// counts of duplicates seen, which depend on how often the broker delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    stream: Stream,
    rules: Rules,
    seen: Seen,
    /// The number of the last verdict counted; 0 before the first.
    verdicts: u64,
    metrics: SideMetrics,
}

impl StreamState {
    /// Nothing happened yet.
    pub fn new(stream: Stream, rules: Rules) -> Self {
        let seen = Seen::new(&rules);
        let metrics = match stream.side {
            Side::Lake => SideMetrics::Lake(LakeState::new(&rules)),
            Side::Warehouse => SideMetrics::Warehouse(WarehouseState::new(&rules)),
        };
        Self { stream, rules, seen, verdicts: 0, metrics }
    }

    /// What was stored of an earlier one with the same rules.
    pub const fn restore(
        stream: Stream,
        rules: Rules,
        seen: Seen,
        verdicts: u64,
        metrics: SideMetrics,
    ) -> Self {
        Self { stream, rules, seen, verdicts, metrics }
    }

    /// The stream.
    pub const fn stream(&self) -> Stream {
        self.stream
    }

    /// The rules that it is judged and folded by.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The identities seen.
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The number of the last verdict counted; 0 before the first.
    pub const fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// The metrics.
    pub const fn metrics(&self) -> &SideMetrics {
        &self.metrics
    }

    /// Judges an accepted event and, if it is new, counts it. Total: a fact cannot be refused.
    pub fn apply(&mut self, event: &Event) -> Applied {
        match self.seen.judge(event.identity()) {
            Judgement::New => Applied::Counted(self.count(event)),
            Judgement::Duplicate => Applied::Duplicate,
            Judgement::TooOld => Applied::TooOld,
        }
    }

    /// Counts an event by the archive's verdict, if its number is the next one: neither a verdict
    /// that comes again nor one out of its turn changes anything. Total.
    pub fn apply_verdict(&mut self, number: u64, event: &Event) -> AppliedVerdict {
        match Turn::of(number, self.verdicts) {
            Turn::Next => {
                self.verdicts = number;
                AppliedVerdict::Counted(self.count(event))
            }
            Turn::Passed => AppliedVerdict::Passed,
            Turn::Ahead => AppliedVerdict::Ahead,
        }
    }

    /// Folds what the archive holds, in counting order, to what was live: an event without a verdict
    /// is judged and counted; one with a verdict counts without a look at the sets, which could not
    /// judge it then either.
    ///
    /// Every row of an archive was counted once, so anything but [`Applied::Counted`] says that rows
    /// are missing, doubled or out of order.
    pub fn recount(&mut self, event: &Event, verdict: Option<u64>) -> Applied {
        match verdict {
            None => self.apply(event),
            Some(number) => match self.apply_verdict(number, event) {
                AppliedVerdict::Counted(effect) => Applied::Counted(effect),
                AppliedVerdict::Passed => Applied::Duplicate,
                AppliedVerdict::Ahead => Applied::TooOld,
            },
        }
    }

    /// Counts an event whose place in the count was decided elsewhere: by a verdict of the archive,
    /// or in a replay, where neither acceptance nor sets apply.
    pub fn count(&mut self, event: &Event) -> LakeEffect {
        match &mut self.metrics {
            SideMetrics::Lake(lake) => lake.apply(event),
            SideMetrics::Warehouse(warehouse) => {
                warehouse.apply(event);
                LakeEffect::Plain
            }
        }
    }

    /// The metrics as integers.
    pub fn sample(&self) -> SampleValues {
        match &self.metrics {
            SideMetrics::Lake(lake) => lake.sample(),
            SideMetrics::Warehouse(warehouse) => warehouse.sample(),
        }
    }
}
