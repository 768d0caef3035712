//! The readings of one moment.

use aggregator::api::{History, Now};

/// Everything that the screen shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Readings {
    /// The aggregator's numbers, or why there are none.
    pub(super) now: Result<Now, String>,
    /// The last hour.
    pub(super) history: History,
    /// The archiver's numbers, if it answers.
    pub(super) archiver: Option<Archiver>,
    /// The newest dead letters, or why they are not known.
    pub(super) letters: Result<Vec<String>, String>,
}

/// The archiver's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Archiver {
    /// Messages that are not archived yet.
    pub(super) lag: Option<f64>,
    /// Events per second.
    pub(super) events_per_s: Option<f64>,
    /// Open dead letters.
    pub(super) letters_open: Option<f64>,
}
