//! Rebuilds the state from the archive if no snapshot can be used.

use std::time::Duration;

use bus::StreamEpoch;
use domain::{Applied, Mark, Rules};
use event_store::{ArchiveView, StoreSettings, archive_side, read_checkpoint};
use service_kit::FailPoint;

use super::{context::StreamContext, gap::Gap};
use crate::fold::StreamFold;

/// How often the archiver's checkpoint is read while a rebuild waits for it.
const CHECKPOINT_POLL: Duration = Duration::from_millis(250);

static REBUILT: FailPoint = FailPoint::new("aggregator.rebuilt");

/// What the state of a live stream is recovered from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovery<'a> {
    pub(super) context: &'a StreamContext,
    /// The archive; `None` if none is set.
    pub(super) store: Option<&'a StoreSettings>,
    pub(super) epoch: &'a StreamEpoch,
    /// Whether to rebuild from the archive even if a snapshot can be used.
    pub(super) from_archive: bool,
    /// Messages deleted from the middle of the stream, which the archive must have passed.
    pub(super) missed: Option<Gap>,
}

/// How a rebuild ended.
#[derive(Debug)]
pub(super) enum Rebuilt {
    /// The state after a message that is archived.
    Whole(Box<StreamFold>),
    /// The service drains.
    Drained,
    /// Another epoch is in force, or will be: begin again.
    EpochMoved,
}

/// How waiting for the archiver ended.
enum Awaited {
    Reached,
    Drained,
    EpochMoved,
}

/// Folds the part of the archive that is no longer in the stream. Waits first until the archiver's
/// checkpoint has reached the beginning of the stream, in the epoch that is in force.
///
/// The archive is read in one repeatable-read transaction. Later commits of the archiver are not
/// seen, and their messages are read from the stream afterwards.
///
/// # Errors
///
/// The broker or the archive failed; the caller decides whether to try again.
pub(super) async fn from_archive(
    recovery: &Recovery<'_>,
    store: &StoreSettings,
    rules: &Rules,
    epoch: u32,
) -> anyhow::Result<Rebuilt> {
    let StreamContext { stream, name, bus, drain, .. } = recovery.context;
    match archive_is_ahead(recovery, store, epoch).await? {
        Awaited::Reached => {}
        Awaited::Drained => return Ok(Rebuilt::Drained),
        Awaited::EpochMoved => return Ok(Rebuilt::EpochMoved),
    }
    let broker = bus.broker_side(name).await?;
    domain::meet(&broker, &archive_side(store).await?)?;
    let mut view = ArchiveView::open(store, *stream).await?;
    let Some(checkpoint) = view.checkpoint().map(|checkpoint| checkpoint.mark) else {
        anyhow::bail!("the checkpoint of stream {stream} is gone");
    };
    if checkpoint.epoch != epoch {
        return Ok(Rebuilt::EpochMoved);
    }
    let mark = end(recovery, &mut view, checkpoint).await?;
    let mut state = view.origin(rules)?;
    let (mut events, mut unexpected) = (0_u64, 0_u64);
    'pages: while let Some(page) = view.next_page().await? {
        for counted in &page {
            let position = counted.position;
            if (position.epoch, position.sequence) > (mark.epoch, mark.sequence) {
                break 'pages;
            }
            match state.recount(&counted.event, counted.verdict) {
                Applied::Counted(_) => events += 1,
                Applied::Duplicate | Applied::TooOld => unexpected += 1,
            }
        }
        if drain.is_cancelled() {
            return Ok(Rebuilt::Drained);
        }
    }
    if unexpected > 0 {
        tracing::error!(%stream, unexpected, "the archive has rows that were not counted live");
    }
    // The mark may be the broker's own, which proves nothing about the archive. So check again,
    // after what may have taken long, that the stream is still the one that was archived.
    let compared = bus.compare_until_answered(name, &checkpoint, drain).await?;
    let Some(compared) = compared else { return Ok(Rebuilt::Drained) };
    if let Some(why) = compared.replacement() {
        tracing::warn!(%stream, why, "the stream was replaced during the rebuild");
        return Ok(Rebuilt::EpochMoved);
    }
    REBUILT.pass();
    tracing::info!(%stream, events, sequence = mark.sequence, epoch, "rebuilt from the archive");
    Ok(Rebuilt::Whole(Box::new(StreamFold::new(state, mark))))
}

/// Where the fold of the archive ends and the stream continues: at the first message that the
/// stream still has. From there on every sample is the same as without the loss of the snapshot.
/// After messages were deleted from the middle of the stream, the fold ends at the checkpoint
/// instead, because the archive may have more such messages.
async fn end(
    recovery: &Recovery<'_>,
    view: &mut ArchiveView,
    checkpoint: Mark,
) -> anyhow::Result<Mark> {
    if recovery.missed.is_some() {
        return Ok(checkpoint);
    }
    let StreamContext { name, bus, .. } = recovery.context;
    let folded = view.base().await?.unwrap_or_default();
    let first = bus.stream(name).await?.first_sequence;
    if first <= checkpoint.sequence
        && (checkpoint.epoch, first) >= folded
        && let Some(message) = bus.message_at(name, first).await?
    {
        return Ok(Mark { sequence: first, broker_ns: message.broker_ns, ..checkpoint });
    }
    Ok(checkpoint)
}

async fn archive_is_ahead(
    recovery: &Recovery<'_>,
    store: &StoreSettings,
    epoch: u32,
) -> anyhow::Result<Awaited> {
    let StreamContext { name: stream, bus, drain, .. } = recovery.context;
    let mut said = false;
    loop {
        if bus.epochs().get(stream).await?.is_some_and(|now| now != epoch) {
            return Ok(Awaited::EpochMoved);
        }
        let first_sequence = bus.stream(stream).await?.first_sequence;
        let mark = read_checkpoint(store, stream).await?;
        if mark.is_some_and(|mark| reaches(&mark, epoch, first_sequence, recovery.missed)) {
            return Ok(Awaited::Reached);
        }
        if mark.is_some_and(|mark| mark.epoch > epoch) {
            return Ok(Awaited::EpochMoved);
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(stream, epoch, first_sequence, ?mark, "waiting for the archiver");
        }
        tokio::select! {
            () = drain.cancelled() => return Ok(Awaited::Drained),
            () = tokio::time::sleep(CHECKPOINT_POLL) => {}
        }
    }
}

/// Whether the stream continues where the archive ends, and the archive has passed a gap of the
/// same epoch that was missed before.
fn reaches(mark: &Mark, epoch: u32, first_sequence: u64, missed: Option<Gap>) -> bool {
    let needed = missed.filter(|gap| gap.epoch == epoch).map_or(0, |gap| gap.last);
    mark.epoch == epoch && mark.sequence + 1 >= first_sequence && mark.sequence >= needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_must_reach_what_the_stream_can_no_longer_give_in_the_same_epoch() {
        let mark = Mark { epoch: 2, sequence: 10, broker_ns: 1, created_ns: 1 };
        assert!(reaches(&mark, 2, 11, None));
        assert!(!reaches(&mark, 2, 12, None));
        assert!(!reaches(&mark, 3, 1, None));
        let gap = |epoch, last| Some(Gap { epoch, first: 5, last });
        assert!(reaches(&mark, 2, 3, gap(2, 10)));
        assert!(!reaches(&mark, 2, 3, gap(2, 11)), "the archiver has not passed it");
        assert!(reaches(&mark, 2, 3, gap(1, 11)), "of an epoch that is over");
    }
}
