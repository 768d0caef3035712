//! What was read at one moment.

use aggregator::api::{History, Now};

/// Everything that the screen shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Readings {
    /// The aggregator's numbers, or why there are none.
    pub(super) now: Result<Now, String>,
    /// The last hour.
    pub(super) history: History,
    /// The archiver, if it answers.
    pub(super) archiver: Option<Archiver>,
    /// The newest dead letters, or why they are not known.
    pub(super) letters: Result<Vec<String>, String>,
}

/// What the archiver says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Archiver {
    /// Messages that are not archived yet.
    pub(super) lag: Option<f64>,
    /// Events a second.
    pub(super) events_per_s: Option<f64>,
    /// Dead letters that are open.
    pub(super) letters_open: Option<f64>,
}
