//! Why a snapshot can't be gone on from.

/// Why a snapshot can't be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotRefusal {
    /// Its pointer or object is gone, cut, or other bytes than were stored.
    Damaged,
    /// Another release wrote it.
    Version,
    /// Its bytes are whole, and no state.
    Undecodable,
    /// It is of another stream.
    Stream,
    /// It was counted by other rules than the stream's.
    Rules,
    /// It is of another epoch.
    Epoch,
    /// The stream no longer has what comes after it.
    OutOfReach,
    /// The stream has another message at its position.
    OtherStream,
}

impl SnapshotRefusal {
    /// Every reason, for metrics that begin at 0.
    pub(crate) const ALL: [Self; 8] = [
        Self::Damaged,
        Self::Version,
        Self::Undecodable,
        Self::Stream,
        Self::Rules,
        Self::Epoch,
        Self::OutOfReach,
        Self::OtherStream,
    ];

    /// Its name in metrics and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Version => "version",
            Self::Undecodable => "undecodable",
            Self::Stream => "stream",
            Self::Rules => "rules",
            Self::Epoch => "epoch",
            Self::OutOfReach => "out_of_reach",
            Self::OtherStream => "other_stream",
        }
    }
}
