//! Retention: stores the aggregator's snapshot as the archive's base, then drops old days; also
//! drops windows that the ladder no longer keeps.

use bus::FoundSnapshot;
use domain::Ladder;
use event_store::{Archive, Base, LetGo, Retained};

use super::{
    RollupKeeper, StreamContext,
    retry::{is_fenced, passes, waits},
};

/// What a stream's archive keeps. Retention is applied between two transactions.
pub(super) struct Retention<'a> {
    pub(super) context: &'a StreamContext,
    /// Number of days; 0 keeps everything.
    pub(super) days: u32,
    /// Which windows are kept.
    pub(super) ladder: Ladder,
    /// The rollups must include the rows before these are dropped.
    pub(super) rollups: RollupKeeper<'a>,
}

impl Retention<'_> {
    /// Drops days that are old enough. After a transient failure, the next check tries again.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct, or another program wrote into the archive.
    pub(super) async fn drop_days(&self, archive: &mut Archive) -> anyhow::Result<()> {
        let StreamContext { name: stream, metrics, .. } = self.context;
        match self.retain(archive).await {
            Ok(Some(retained)) => {
                if !retained.waiting.is_empty() {
                    let waiting = retained.waiting.join(", ");
                    tracing::warn!(
                        stream,
                        waiting,
                        "old partitions stay: they are in use, or not all of their rows are counted"
                    );
                }
                metrics.observe_dropped(retained.partitions.len(), retained.rows);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) if is_fenced(&error) || !passes(&error) => Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(stream, error, "old days not dropped yet");
                Ok(())
            }
        }
    }

    /// Drops days, if there are any to drop.
    ///
    /// The snapshot must be of the archive's epoch, and the checkpoint must have reached it;
    /// otherwise nothing is dropped, and the next check uses the snapshot of its time. A crash
    /// leaves nothing half done.
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
        // Checked before the snapshot is loaded: a snapshot has up to a hundred megabytes, and
        // usually there is nothing to drop.
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

    /// Drops some old windows. Returns whether there may be more. After a transient failure, the
    /// next check tries again.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct, or another program wrote into the archive.
    pub(super) async fn drop_windows(&self, archive: &mut Archive) -> anyhow::Result<bool> {
        let stream = &self.context.name;
        match archive.let_go(&self.ladder).await {
            Ok(LetGo { windows, more }) => {
                if windows > 0 {
                    tracing::info!(stream, windows, "old windows dropped");
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
