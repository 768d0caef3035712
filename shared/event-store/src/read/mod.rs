//! Reading a stream of the archive back, as it was at one moment.

pub(crate) mod pages;
pub(crate) mod records;
pub(crate) mod seen;
pub(crate) mod time_range;
pub(crate) mod verdicts;
pub(crate) mod view;
