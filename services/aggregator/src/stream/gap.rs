//! A gap in the middle of a stream: messages that were deleted before they were counted here.

use std::time::Duration;

use domain::Stream;
use event_store::{ArchiveView, MessageRange, StoreError, StoreSettings, read_checkpoint};

/// How often the archive is asked while the archiver has not passed a gap.
pub(super) const GAP_POLL: Duration = Duration::from_millis(100);
/// How often the archive is asked before the state is rebuilt from it in any case. An archiver that
/// is not behind passes a gap within a second. If it is behind, waiting longer would show old
/// numbers as if they were current.
pub(super) const GAP_POLLS_MAX: u32 = 100;

/// Deleted messages of one epoch, both ends included.
pub(super) type Gap = MessageRange;

/// What the archive has of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archived {
    /// The archiver found the same gap and declared the messages lost: both services continue
    /// without them.
    Nothing,
    /// Some messages are archived, and must be counted too.
    Something,
    /// The archiver has not passed the gap.
    NotYet,
}

/// Asks the archive whether it has messages of a gap.
///
/// # Errors
///
/// The archive can't be read.
pub(super) async fn ask(
    store: &StoreSettings,
    stream: Stream,
    gap: &Gap,
) -> Result<Archived, StoreError> {
    let mark = read_checkpoint(store, &stream.to_string()).await?;
    if mark.is_none_or(|mark| (mark.epoch, mark.sequence) < (gap.epoch, gap.last)) {
        return Ok(Archived::NotYet);
    }
    let losses = ArchiveView::open(store, stream).await?.losses().await?;
    Ok(if is_lost(gap, &losses) { Archived::Nothing } else { Archived::Something })
}

/// Whether every message of a gap is declared lost. `losses` must be ascending.
fn is_lost(gap: &Gap, losses: &[MessageRange]) -> bool {
    let mut next = gap.first;
    for loss in losses.iter().filter(|loss| loss.epoch == gap.epoch) {
        if (loss.first..=loss.last).contains(&next) {
            next = loss.last.saturating_add(1);
        }
    }
    next > gap.last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(epoch: u32, first: u64, last: u64) -> MessageRange {
        MessageRange { epoch, first, last }
    }

    #[test]
    fn a_gap_is_lost_only_if_every_message_of_it_is_declared_lost() {
        let gap = range(2, 5, 8);
        assert!(!is_lost(&gap, &[]));
        assert!(is_lost(&gap, &[range(2, 5, 8)]));
        assert!(is_lost(&gap, &[range(2, 1, 2), range(2, 3, 6), range(2, 7, 20)]));
        assert!(!is_lost(&gap, &[range(2, 5, 7)]), "the last was archived");
        assert!(!is_lost(&gap, &[range(2, 6, 8)]), "the first was archived");
        assert!(!is_lost(&gap, &[range(2, 5, 5), range(2, 7, 8)]), "one between was archived");
        assert!(!is_lost(&gap, &[range(1, 1, 20)]), "another epoch");
    }
}
