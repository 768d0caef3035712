//! Facts about a data lake and a data warehouse, and the pure functions over them.
//!
//! Architecture invariant: this crate performs no I/O, reads no clock, draws no randomness and does
//! not depend on an async runtime. Time arrives as an argument.

pub mod event;
pub mod id;
pub mod rules;
pub mod stream;
pub mod time;

pub use event::{
    Event, Fact, Identity, LakeAccess, LakeInventory, Operation, Outcome, Side, Statement,
    WarehouseQuery,
};
pub use id::{EventId, IdKind, Run};
pub use rules::Rules;
pub use stream::{Mark, Position, Stream};
pub use time::Timestamp;
