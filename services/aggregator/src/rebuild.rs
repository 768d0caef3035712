//! The state from the archive, when no snapshot serves.

use std::time::Duration;

use bus::Bus;
use domain::{Applied, Mark, Rules, Stream};
use event_store::{ArchiveView, StoreSettings, read_checkpoint};
use service_kit::{FailPoint, Lifecycle};

use crate::fold::StreamFold;

/// How often the archiver's checkpoint is looked up while it is waited for.
const CHECKPOINT_POLL: Duration = Duration::from_millis(250);

static REBUILT: FailPoint = FailPoint::new("aggregator.rebuilt");

/// How a rebuild ended.
#[derive(Debug)]
pub(crate) enum Rebuilt {
    /// The state at the archive's checkpoint.
    Whole(Box<StreamFold>),
    /// The service drains.
    Drained,
    /// Another epoch is in force by now: begin again.
    EpochMoved,
}

/// What a rebuild waits for.
enum Awaited {
    Reached,
    Drained,
    EpochMoved,
}

/// Folds the archive up to the archiver's checkpoint. First it waits until that has reached what
/// the stream can no longer give, in the epoch that is in force.
///
/// One repeatable-read transaction: what the archiver commits meanwhile is not seen, and is read
/// from the stream afterwards.
///
/// # Errors
///
/// The broker or the archive failed; the caller decides whether to try again.
pub(crate) async fn from_archive(
    bus: &Bus,
    store: &StoreSettings,
    stream: Stream,
    rules: &Rules,
    epoch: u32,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Rebuilt> {
    match archive_is_ahead(bus, store, stream, epoch, lifecycle).await? {
        Awaited::Reached => {}
        Awaited::Drained => return Ok(Rebuilt::Drained),
        Awaited::EpochMoved => return Ok(Rebuilt::EpochMoved),
    }
    let mut view = ArchiveView::open(store, stream).await?;
    let Some(mark) = view.checkpoint().map(|checkpoint| checkpoint.mark) else {
        anyhow::bail!("the checkpoint of stream {stream} is gone");
    };
    if mark.epoch != epoch {
        return Ok(Rebuilt::EpochMoved);
    }
    let mut state = view.origin(rules)?;
    let (mut events, mut unexpected) = (0_u64, 0_u64);
    while let Some(page) = view.next_page().await? {
        for counted in &page {
            match state.recount(&counted.event, counted.verdict) {
                Applied::Counted(_) => events += 1,
                Applied::Duplicate | Applied::TooOld => unexpected += 1,
            }
        }
        if lifecycle.is_draining() {
            return Ok(Rebuilt::Drained);
        }
    }
    if unexpected > 0 {
        tracing::error!(%stream, unexpected, "rows of the archive that live can't have counted");
    }
    REBUILT.pass();
    tracing::info!(%stream, events, sequence = mark.sequence, epoch, "rebuilt from the archive");
    Ok(Rebuilt::Whole(Box::new(StreamFold::new(state, mark))))
}

async fn archive_is_ahead(
    bus: &Bus,
    store: &StoreSettings,
    stream: Stream,
    epoch: u32,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Awaited> {
    let mut said = false;
    loop {
        if bus.epochs().get(&stream.to_string()).await?.is_some_and(|now| now != epoch) {
            return Ok(Awaited::EpochMoved);
        }
        let first_sequence = bus.stream(&stream.to_string()).await?.first_sequence;
        let mark = read_checkpoint(store, &stream.to_string()).await?;
        if mark.is_some_and(|mark| reaches(&mark, epoch, first_sequence)) {
            return Ok(Awaited::Reached);
        }
        if mark.is_some_and(|mark| mark.epoch > epoch) {
            return Ok(Awaited::EpochMoved);
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(%stream, epoch, first_sequence, ?mark, "waiting for the archiver");
        }
        tokio::select! {
            () = lifecycle.draining() => return Ok(Awaited::Drained),
            () = tokio::time::sleep(CHECKPOINT_POLL) => {}
        }
    }
}

/// Whether the stream goes on where the archive ends.
const fn reaches(mark: &Mark, epoch: u32, first_sequence: u64) -> bool {
    mark.epoch == epoch && mark.sequence + 1 >= first_sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_must_reach_what_the_stream_can_no_longer_give_in_the_same_epoch() {
        let mark = Mark { epoch: 2, sequence: 10, broker_ns: 1, created_ns: 1 };
        assert!(reaches(&mark, 2, 11));
        assert!(!reaches(&mark, 2, 12));
        assert!(!reaches(&mark, 3, 1));
    }
}
