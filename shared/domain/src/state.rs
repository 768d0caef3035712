//! The one fold: what a stream's events add up to.
//!
//! Each stream is folded alone, in its order; no state is shared between streams. As long as no
//! bound is reached, the order of the events does not change the result, if inventories keep their
//! place.

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

/// What became of an event. Only `Counted` changes the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The event counts. A lake event may also have an effect that has a counter of its own.
    Counted(LakeEffect),
    /// The event was counted before.
    Duplicate,
    /// The event is too old to judge: the archive's unique key decides, and its verdict is counted
    /// later.
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

/// All that is derived from one stream: key metrics, labelled metrics, objects, sets and sums.
/// Counts of duplicates are not part of it, because they depend on how often the broker delivered.
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
    /// The state before the first event.
    pub fn new(stream: Stream, rules: Rules) -> Self {
        let seen = Seen::new(&rules);
        let metrics = match stream.side {
            Side::Lake => SideMetrics::Lake(LakeState::new(&rules)),
            Side::Warehouse => SideMetrics::Warehouse(WarehouseState::new(&rules)),
        };
        Self { stream, rules, seen, verdicts: 0, metrics }
    }

    /// A state as it was stored, with the same rules.
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

    /// The rules by which the stream is judged and folded.
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

    /// Judges an accepted event and, if it is new, counts it. The function is total: a fact cannot
    /// be refused.
    pub fn apply(&mut self, event: &Event) -> Applied {
        match self.seen.judge(event) {
            Judgement::New => Applied::Counted(self.count(event)),
            Judgement::Duplicate => Applied::Duplicate,
            Judgement::TooOld => Applied::TooOld,
        }
    }

    /// Counts an event by the archive's verdict, if the number of the verdict is the next one. A
    /// repeated verdict and a verdict out of turn change nothing. The function is total.
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

    /// Counts one row of the archive; all rows in counting order give the state that the live
    /// aggregator had. An event without a verdict is judged and counted. An event with a verdict is
    /// counted without asking the sets, because the sets could not judge it when it arrived either.
    ///
    /// Every row of an archive was counted once, so any result but [`Applied::Counted`] means that
    /// rows are missing, doubled or out of order.
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

    /// Counts an event without judging it: the archive decided by a verdict, or the event is part
    /// of a replay, where neither acceptance nor the sets apply.
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
