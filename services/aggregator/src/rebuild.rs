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

/// Folds the archive up to the archiver's checkpoint. First it waits until that has reached what
/// the stream can no longer give, in the epoch that is in force. Nothing: the service drains.
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
) -> anyhow::Result<Option<StreamFold>> {
    if !archive_is_ahead(bus, store, stream, epoch, lifecycle).await? {
        return Ok(None);
    }
    let mut view = ArchiveView::open(store, stream).await?;
    let Some(mark) = view.checkpoint().map(|checkpoint| checkpoint.mark) else {
        anyhow::bail!("the checkpoint of stream {stream} is gone");
    };
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
            return Ok(None);
        }
    }
    if unexpected > 0 {
        tracing::error!(%stream, unexpected, "rows of the archive that live can't have counted");
    }
    REBUILT.pass();
    tracing::info!(%stream, events, sequence = mark.sequence, epoch, "rebuilt from the archive");
    Ok(Some(StreamFold::new(state, mark)))
}

async fn archive_is_ahead(
    bus: &Bus,
    store: &StoreSettings,
    stream: Stream,
    epoch: u32,
    lifecycle: &Lifecycle,
) -> anyhow::Result<bool> {
    let mut said = false;
    loop {
        let first_sequence = bus.stream(&stream.to_string()).await?.first_sequence;
        let mark = read_checkpoint(store, &stream.to_string()).await?;
        if mark.is_some_and(|mark| reaches(&mark, epoch, first_sequence)) {
            return Ok(true);
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(%stream, epoch, first_sequence, ?mark, "waiting for the archiver");
        }
        tokio::select! {
            () = lifecycle.draining() => return Ok(false),
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
