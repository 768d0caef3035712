//! Epochs: noticing that a stream is another one, closing the old epoch, beginning the new one.

use bus::{BusError, StreamEpoch, StreamStatus};
use domain::Mark;
use event_store::Archive;
use service_kit::FailPoint;

use super::StreamContext;

static EPOCH_BEGUN: FailPoint = FailPoint::new("archiver.epoch_begun");

/// An epoch that is closed, and the sequence up to which it is archived or declared lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosedEpoch {
    epoch: u32,
    last: u64,
}

impl ClosedEpoch {
    async fn of(archive: &mut Archive) -> anyhow::Result<Option<Self>> {
        Ok(archive.closed_epoch().await?.map(|(epoch, last)| Self { epoch, last }))
    }

    /// The last message of the epoch that is known by now and not declared lost yet.
    ///
    /// # Errors
    ///
    /// Any error of the broker.
    pub(super) async fn late_news(&self, context: &StreamContext) -> Result<Option<u64>, BusError> {
        let newest = context.bus.epochs().newest(&context.name, self.epoch).await?;
        Ok(newest.filter(|newest| *newest > self.last))
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// Opens the epoch in force in an archive.
pub(super) struct EpochOpener<'a> {
    pub(super) context: &'a StreamContext,
    pub(super) epoch: &'a StreamEpoch,
}

impl EpochOpener<'_> {
    /// Makes the epoch in force that of the archive: the epoch of its checkpoint, or a new one if
    /// the stream is not the one of the checkpoint or if another service has raised the epoch.
    /// Returns the epoch that was closed last. A crash in between leaves the epoch raised, and the
    /// next start begins it.
    ///
    /// # Errors
    ///
    /// Any error of broker or archive.
    pub(super) async fn open(
        &self,
        archive: &mut Archive,
        status: &StreamStatus,
    ) -> anyhow::Result<Option<ClosedEpoch>> {
        let known = archive.checkpoint().map(|checkpoint| checkpoint.mark);
        let epoch = self.in_force(known.as_ref()).await?;
        if known.is_none_or(|known| known.epoch < epoch) {
            self.begin(archive, epoch, known, status).await?;
        }
        self.declare_what_is_known_by_now(archive).await?;
        ClosedEpoch::of(archive).await
    }

    /// The epoch in force, raised if the stream is not the one of the checkpoint.
    async fn in_force(&self, known: Option<&Mark>) -> Result<u32, BusError> {
        let StreamContext { name, bus, .. } = self.context;
        if let Some(known) = known
            && let Some(why) = bus.compare(name, known).await?.difference()
        {
            return self.epoch.end(known.epoch, 0, &why).await;
        }
        self.epoch.in_force(known).await
    }

    /// Closes the epoch of the checkpoint, if there is one, and begins another.
    async fn begin(
        &self,
        archive: &mut Archive,
        epoch: u32,
        known: Option<Mark>,
        status: &StreamStatus,
    ) -> anyhow::Result<()> {
        let newest = match &known {
            Some(known) => self.newest_of(known, status).await?,
            None => 0,
        };
        let start = start_of(epoch, known.as_ref(), status);
        let lost = archive.begin_epoch(start, newest).await?;
        EPOCH_BEGUN.pass();
        if let Some(known) = known {
            self.context.metrics.observe_epoch_begun(lost);
            tracing::error!(
                stream = self.context.name,
                closed = known.epoch,
                at = known.sequence,
                epoch,
                after = start.sequence,
                lost,
                "the stream is another one: a new epoch begins; messages of the old one after the \
                 checkpoint is declared lost"
            );
        }
        Ok(())
    }

    /// Declares messages of the closed epoch lost that other services reported after it was closed.
    async fn declare_what_is_known_by_now(&self, archive: &mut Archive) -> anyhow::Result<()> {
        if let Some(closed) = ClosedEpoch::of(archive).await?
            && let Some(newest) = closed.late_news(self.context).await?
        {
            let ClosedEpoch { epoch, last } = closed;
            archive.declare_lost(epoch, (last + 1, newest)).await?;
            self.context.metrics.observe_loss(newest - last);
            let (stream, first) = (&self.context.name, last + 1);
            tracing::error!(
                stream,
                epoch,
                first,
                newest,
                "declared lost: other services had read these messages"
            );
        }
        Ok(())
    }

    /// The last message of the checkpoint's epoch that any service is known to have seen.
    async fn newest_of(&self, known: &Mark, status: &StreamStatus) -> Result<u64, BusError> {
        let snapshot = match self.context.bus.snapshots().pointer(&self.context.name).await {
            Ok(pointer) => pointer.map(|(pointer, _)| pointer.mark),
            Err(BusError::Garbled { .. }) => None,
            Err(error) => return Err(error),
        };
        let snapshot = snapshot.filter(|mark| mark.epoch == known.epoch).map(|mark| mark.sequence);
        let seen = self.epoch.newest_of(known.epoch).await?;
        Ok(seen.max(snapshot.unwrap_or(0)).max(start_of(0, Some(known), status).sequence))
    }
}

/// The mark before the first message of a stream that is not the one of the checkpoint.
///
/// A purged or shortened stream continues its numbering: messages before its first one are not part
/// of the new epoch. A stream that was created again counts from 1, and messages that it deleted
/// since were never read. The same holds for a stream that is archived for the first time.
fn start_of(epoch: u32, known: Option<&Mark>, status: &StreamStatus) -> Mark {
    let is_same = known.is_some_and(|known| known.created_ns == status.created_ns);
    let sequence = if is_same { status.first_sequence.saturating_sub(1) } else { 0 };
    Mark { epoch, sequence, broker_ns: 0, created_ns: status.created_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(first_sequence: u64) -> StreamStatus {
        StreamStatus {
            created_ns: 5,
            first_sequence,
            last_sequence: 200,
            messages: 1,
            bytes: 1,
            max_bytes: 1,
            metadata: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_purged_stream_goes_on_behind_its_end_and_one_made_again_begins_at_1() {
        let known = Mark { epoch: 1, sequence: 200, broker_ns: 7, created_ns: 5 };
        assert_eq!(start_of(2, Some(&known), &status(201)).sequence, 200);
        assert_eq!(start_of(2, Some(&known), &status(0)).sequence, 0);
        let before = Mark { created_ns: 4, ..known };
        assert_eq!(start_of(2, Some(&before), &status(201)).sequence, 0);
        assert_eq!(start_of(1, None, &status(201)).sequence, 0);
        assert!(start_of(2, Some(&known), &status(201)).is_before_first());
    }
}
