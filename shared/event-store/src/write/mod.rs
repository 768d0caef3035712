//! Writes to the archive: one writer per stream, one transaction per batch.

pub(crate) mod appended;
pub(crate) mod batch;
pub(crate) mod copy;
pub(crate) mod corrections;
pub(crate) mod dead_letters;
pub(crate) mod insert;
pub(crate) mod old_windows;
pub(crate) mod rollups;
pub(crate) mod samples;
pub(crate) mod sources;
pub(crate) mod stream_lock;
pub(crate) mod transaction;
pub(crate) mod verdicts;
pub(crate) mod windows;
pub(crate) mod writer;
