//! Retention: the aggregator's snapshot becomes the archive's base, then old days are dropped; and
//! windows that the ladder does not keep any more.

use bus::FoundSnapshot;
use domain::Ladder;
use event_store::{Archive, Base, LetGo, Retained};

use super::{
    RollupKeeper, StreamContext,
    retry::{is_fenced, passes, waits},
};

/// What a stream's archive keeps. It is applied between two transactions.
pub(super) struct Retention<'a> {
    pub(super) context: &'a StreamContext,
    /// 0 keeps everything.
    pub(super) days: u32,
    /// Which windows are kept.
    pub(super) ladder: Ladder,
    /// They take what is in the rows before it is dropped.
    pub(super) rollups: RollupKeeper<'a>,
}

impl Retention<'_> {
    /// Drops days that are old enough. What fails and passes is tried again at the next look.
    ///
    /// # Errors
    ///
    /// What only a person can change, or somebody else wrote into the archive.
    pub(super) async fn drop_days(&self, archive: &mut Archive) -> anyhow::Result<()> {
        let StreamContext { name: stream, metrics, .. } = self.context;
        match self.retain(archive).await {
            Ok(Some(retained)) => {
                if !retained.waiting.is_empty() {
                    let waiting = retained.waiting.join(", ");
                    tracing::warn!(stream, waiting, "old, but in use or not counted");
                }
                metrics.observe_dropped(retained.partitions.len(), retained.rows);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) if is_fenced(&error) || !passes(&error) => Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(stream, error, "nothing dropped yet");
                Ok(())
            }
        }
    }

    /// Drops days, if there are any to drop.
    ///
    /// The snapshot must be of the archive's epoch, and the checkpoint have reached it; otherwise
    /// nothing happens now, and the next attempt finds another. A crash leaves nothing half done.
    async fn retain(&self, archive: &mut Archive) -> anyhow::Result<Option<Retained>> {
        let StreamContext { name: stream, bus, .. } = self.context;
        if self.days == 0 {
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
        if !archive.is_overdue(&pointer.mark, self.days).await? {
            return Ok(None);
        }
        match bus.snapshots().load(stream).await?.found {
            FoundSnapshot::Nothing => Ok(None),
            FoundSnapshot::Damaged(why) => {
                tracing::warn!(stream, why, "no base for the archive: the snapshot is damaged");
                Ok(None)
            }
            FoundSnapshot::Whole(pointer, state) => {
                self.rollups.catch_up().await?;
                let base = Base { mark: pointer.mark, state: &state, digest: &pointer.digest };
                Ok(Some(archive.retain(&base, self.days).await?))
            }
        }
    }

    /// Drops some old windows; whether there may be more. What fails and passes is tried again at the
    /// next look.
    ///
    /// # Errors
    ///
    /// What only a person can change, or somebody else wrote into the archive.
    pub(super) async fn drop_windows(&self, archive: &mut Archive) -> anyhow::Result<bool> {
        let stream = &self.context.name;
        match archive.let_go(&self.ladder).await {
            Ok(LetGo { windows, more }) => {
                if windows > 0 {
                    tracing::info!(stream, windows, "windows dropped: kept as long as they should");
                }
                Ok(more)
            }
            Err(error) if waits(&error) => {
                tracing::warn!(stream, %error, "old windows not dropped yet");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
