//! The archive in PostgreSQL. The only user of sqlx.
//!
//! [`Archive`] writes: one writer per stream, one transaction per [`Batch`] (`write`). Apart from
//! it, only [`dead_letters`] and [`Adopting`] change the archive. [`ArchiveView`] reads a stream at
//! one moment, in counting order (`read`). Both share the form of rows (`rows`, `windows`,
//! [`Checkpoint`]) and the partitions (`partitions`). [`migrate`] creates the schema of the
//! database (`schema`).

mod checkpoint;
pub mod dead_letters;
mod error;
mod identity;
mod inspect;
mod message_range;
mod numbers;
mod partitions;
mod read;
mod rows;
mod schema;
mod settings;
#[cfg(test)]
mod simulation;
mod sqlstate;
mod statement;
mod stream_id;
mod timestamptz;
mod windows;
mod withdrawals;
mod write;

pub use checkpoint::Checkpoint;
pub use error::StoreError;
pub use identity::{
    adoption::{Adopting, Holdings},
    pipeline::{archive_side, name_pipeline},
};
pub use inspect::{
    audit,
    known::ArchivedIdentities,
    server::{ServerFacts, inspect},
    tally::{SourceTally, Tally, tally},
    totals,
};
pub use message_range::MessageRange;
pub use partitions::{
    base::Base,
    retention::{Retained, kept_from},
};
pub use read::{
    verdicts::VerdictsToCome,
    view::{ArchiveView, read_checkpoint},
};
pub use rows::{event::Counted, kind::Placed};
pub use schema::migrate::{AppliedMigration, check_fit, check_version, migrate};
pub use settings::{
    connection::StoreSettings,
    login::{LoginRefusal, Logins},
    service,
};
pub use sqlstate::{SqlRecovery, recovery};
pub use stream_id::StreamId;
pub use windows::stored::WindowRow;
pub use withdrawals::{SourceRange, Withdrawable, Withdrawals};
pub use write::{
    appended::Appended,
    batch::{Batch, BatchBuilder, NewDeadLetter},
    old_windows::LetGo,
    rollups::Rollups,
    sources::{SOURCES_MAX, Sources},
    writer::Archive,
};
