//! What became of a batch.

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Rows that were added to the archive.
    pub inserted: u64,
    /// Events, dead letters and samples that were known already.
    pub duplicates: u64,
    /// Dead letters, those of refused rows included.
    pub dead: u64,
    /// The number of inserted rows that were too old to judge; they got the verdict numbers before
    /// `next_verdict`.
    pub too_old: u64,
    /// The next verdict number.
    pub next_verdict: u64,
    /// The highest verdict number that is noted.
    pub noted_verdict: u64,
    /// Alarm: verdicts that are out of turn, were never given, or belong to another event; they are
    /// ignored.
    pub verdicts_out_of_turn: u64,
    /// Alarm: rows that are new by the sets but known by the key.
    pub known_though_new: u64,
    /// Alarm: samples whose values differ from those archived for the same position.
    pub samples_differing: u64,
    /// Rows that the server refused; each is a dead letter.
    pub refused: u64,
}
