//! Retention: the aggregator's snapshot becomes the archive's base, then old days are dropped.

use bus::{Bus, FoundSnapshot};
use event_store::{Archive, Base, Retained};

/// Applies retention to a stream, if there is something to drop; between two of its transactions.
///
/// The snapshot must be of the archive's epoch, and the checkpoint have reached it; otherwise
/// nothing happens now, and the next attempt finds another. A crash leaves nothing half done.
///
/// # Errors
///
/// The broker or the archive failed; trying again later is always right, unless the archive was
/// fenced.
pub(crate) async fn retain(
    bus: &Bus,
    archive: &mut Archive,
    stream: &str,
    retention_days: u32,
) -> anyhow::Result<Option<Retained>> {
    if retention_days == 0 {
        return Ok(None);
    }
    let Some(checkpoint) = archive.checkpoint().map(|checkpoint| checkpoint.mark) else {
        return Ok(None);
    };
    if bus.epochs().get(stream).await? != Some(checkpoint.epoch) {
        return Ok(None);
    }
    let Some((pointer, _)) = bus.snapshots().pointer(stream).await? else { return Ok(None) };
    // Asked before the snapshot is loaded: it has up to a hundred megabytes, and most of the time
    // there is nothing to drop.
    if !archive.is_overdue(&pointer.mark, retention_days).await? {
        return Ok(None);
    }
    match bus.snapshots().load(stream).await?.found {
        FoundSnapshot::Nothing => Ok(None),
        FoundSnapshot::Damaged(why) => {
            tracing::warn!(stream, why, "no base for the archive: the snapshot is damaged");
            Ok(None)
        }
        FoundSnapshot::Whole(pointer, state) => {
            let base = Base { mark: pointer.mark, state: &state, digest: &pointer.digest };
            Ok(Some(archive.retain(&base, retention_days).await?))
        }
    }
}
