//! Why a snapshot can't be used.

/// Why a snapshot can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotRefusal {
    /// Its pointer or object is gone, truncated, or does not have the bytes that were stored.
    Damaged,
    /// Another release wrote it.
    Version,
    /// Its bytes are complete, but are no state.
    Undecodable,
    /// It belongs to another stream.
    Stream,
    /// It was counted with other rules than the stream's.
    Rules,
    /// It belongs to another epoch.
    Epoch,
    /// The stream no longer has the message after it.
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

    /// The reason's name in metrics and logs.
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
