//! Reads a stream of the archive as it was at one moment.

pub(crate) mod pages;
pub(crate) mod records;
pub(crate) mod seen;
pub(crate) mod time_range;
pub(crate) mod verdicts;
pub(crate) mod view;
