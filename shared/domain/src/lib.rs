//! Facts about a data lake and a data warehouse, and the pure functions over them.
//!
//! Architecture invariant: this crate performs no I/O, reads no clock, draws no randomness and does
//! not depend on an async runtime. Time arrives as an argument.

pub mod accept;
pub mod adoption;
pub mod effect_order;
pub mod event;
pub mod id;
pub mod labels;
pub mod ladder;
pub mod lake;
pub mod objects;
pub mod partition;
pub mod pipeline;
pub mod rules;
pub mod runs;
pub mod sample;
pub mod seen;
pub mod sketch;
pub mod space;
pub mod state;
pub mod stream;
pub mod time;
pub mod verdict;
pub mod warehouse;
pub mod window;

#[cfg(test)]
mod test_util;

pub use accept::{Reason, Refusal, accept};
pub use effect_order::{EffectOrder, OutOfOrder};
pub use event::{
    Event, EventIdentity, Fact, LakeAccess, LakeAccessRestored, LakeAccessWithdrawn, LakeInventory,
    Operation, Outcome, Side, Statement, WarehouseQuery, WarehouseQueryWithdrawn,
};
pub use id::{EventId, IdKind, Run};
pub use ladder::{Kept, Ladder, Rung};
pub use pipeline::{
    ArchiveId, ArchiveSide, BrokerSide, Meeting, Mismatch, Pipeline, PipelineId, meet,
};
pub use rules::Rules;
pub use runs::Judgement;
pub use sample::{Sample, SampleValues};
pub use seen::Seen;
pub use sketch::Sketch;
pub use state::{Applied, SideMetrics, StreamState};
pub use stream::{ArchivedStream, Mark, Position, SAMPLES, Stream};
pub use time::Timestamp;
pub use verdict::{AppliedVerdict, Verdict};
pub use window::{WindowKey, WindowSums, Windows};
