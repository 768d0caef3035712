//! Recovery of a stream's state at start, from its snapshot, the stream itself, or the archive.

use anyhow::Context as _;
use bus::{FoundSnapshot, StreamStatus};
use domain::{Mark, Rules, Stream, StreamState};
use event_store::{archive_side, read_checkpoint};
use wire::snapshot::SnapshotError;

use super::{
    context::StreamContext,
    rebuild::{self, Rebuilt, Recovery},
};
use crate::{fold::StreamFold, snapshot_refusal::SnapshotRefusal};

/// A state from which counting continues, and what the next snapshot needs.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The state.
    pub(super) fold: StreamFold,
    /// Revision of the pointer that the next snapshot replaces.
    pub(super) revision: u64,
    /// Whether it was rebuilt from the archive.
    pub(super) rebuilt: bool,
}

/// A snapshot that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RefusedSnapshot {
    reason: SnapshotRefusal,
    /// The exact problem.
    detail: String,
}

const fn refused(reason: SnapshotRefusal, detail: String) -> RefusedSnapshot {
    RefusedSnapshot { reason, detail }
}

/// What is stored as a snapshot.
enum Stored {
    Nothing,
    Refused(RefusedSnapshot),
    State(Box<StreamState>, Mark),
}

impl Stored {
    fn decode(found: FoundSnapshot) -> Self {
        let bytes = match found {
            FoundSnapshot::Nothing => return Self::Nothing,
            FoundSnapshot::Damaged(why) => {
                return Self::Refused(refused(SnapshotRefusal::Damaged, why));
            }
            FoundSnapshot::Whole(_, bytes) => bytes,
        };
        match wire::snapshot::decode_state(&bytes) {
            Ok((state, mark)) => Self::State(Box::new(state), mark),
            Err(error) => {
                let reason = match error {
                    SnapshotError::Version { .. } => SnapshotRefusal::Version,
                    SnapshotError::Digest => SnapshotRefusal::Damaged,
                    SnapshotError::Empty
                    | SnapshotError::Damaged(_)
                    | SnapshotError::Impossible(_) => SnapshotRefusal::Undecodable,
                };
                Self::Refused(refused(reason, error.to_string()))
            }
        }
    }
}

/// The result of one attempt.
enum Looked {
    Found(Box<Recovered>),
    Drained,
    Again,
}

impl Recovery<'_> {
    /// Recovers the state, or rebuilds it if requested. Waits for the archiver if a rebuild needs
    /// that. `None` if the stream drains first.
    ///
    /// # Errors
    ///
    /// The rules are not known to this program; or a rebuild needs an archive and none is set.
    pub(super) async fn run(&self) -> anyhow::Result<Option<Recovered>> {
        loop {
            match self.look().await? {
                Looked::Found(recovered) => return Ok(Some(*recovered)),
                Looked::Drained => return Ok(None),
                Looked::Again => {
                    let stream = &self.context.name;
                    tracing::info!(stream, "another epoch is in force; recovering again");
                }
            }
        }
    }

    async fn look(&self) -> anyhow::Result<Looked> {
        let StreamContext { stream, name, bus, metrics, .. } = self.context;
        self.meet().await?;
        let status = bus.stream(name).await?;
        let rules = Rules::from_metadata(&status.metadata)
            .with_context(|| format!("the rules of stream {name}"))?;
        let loaded = bus.snapshots().load(name).await?;
        let revision = loaded.revision;
        let stored = Stored::decode(loaded.found);
        let mark = match &stored {
            Stored::State(_, mark) => Some(*mark),
            Stored::Nothing | Stored::Refused(_) => None,
        };
        let epoch = self.epoch_in_force(mark).await?;
        if let Some(mark) = mark.filter(|mark| mark.epoch > epoch) {
            // The entry was lost, and the archive does not know that epoch. The epoch is never used
            // again, because nobody knows what it contained.
            tracing::error!(stream = name, epoch = mark.epoch, "a snapshot of an unknown epoch");
            bus.epochs().raise(name, mark.epoch).await?;
            return Ok(Looked::Again);
        }
        let found = |fold, rebuilt| Looked::Found(Box::new(Recovered { fold, revision, rebuilt }));
        let refusal = match stored {
            Stored::Nothing if epoch == 1 && status.first_sequence <= 1 && !self.from_archive => {
                let mark = Mark { epoch, sequence: 0, broker_ns: 0, created_ns: status.created_ns };
                let state = StreamState::new(*stream, rules);
                return Ok(found(StreamFold::new(state, mark), false));
            }
            Stored::Nothing => {
                tracing::warn!(stream = name, "no snapshot; rebuilding from the archive");
                None
            }
            Stored::Refused(refusal) => Some(refusal),
            Stored::State(state, mark) => {
                match self.refusal(&state, &mark, &status, &rules, epoch).await? {
                    None if !self.from_archive => {
                        let sequence = mark.sequence;
                        tracing::info!(stream = name, sequence, "snapshot loaded");
                        return Ok(found(StreamFold::new(*state, mark), false));
                    }
                    None => {
                        tracing::info!(stream = name, "rebuilding from the archive, as asked");
                        None
                    }
                    refusal @ Some(_) => refusal,
                }
            }
        };
        if let Some(RefusedSnapshot { reason, detail }) = refusal {
            metrics.observe_snapshot_refused(reason);
            tracing::warn!(
                stream = name,
                reason = reason.name(),
                why = detail,
                "snapshot refused; rebuilding from the archive"
            );
            if reason == SnapshotRefusal::OtherStream {
                self.end(epoch, mark, &detail).await?;
                return Ok(Looked::Again);
            }
        }
        let store = self.store.context(
            "the state must be rebuilt from the archive; set DATABASE_URL for the aggregator",
        )?;
        Ok(match rebuild::from_archive(self, store, &rules, epoch).await? {
            Rebuilt::Whole(fold) => found(*fold, true),
            Rebuilt::Drained => Looked::Drained,
            Rebuilt::EpochMoved => Looked::Again,
        })
    }

    /// Checks that the broker agrees with itself and, if the archive can be read, with the archive.
    async fn meet(&self) -> anyhow::Result<()> {
        let StreamContext { name: stream, bus, .. } = self.context;
        let broker = bus.broker_side(stream).await?;
        let Some(store) = self.store else { return Ok(()) };
        match archive_side(store).await {
            Ok(archive) => domain::meet(&broker, &archive).map(drop)?,
            Err(error) => tracing::warn!(stream, %error, "the archive can't be compared"),
        }
        Ok(())
    }

    /// The epoch in force. It is never below that of the checkpoint, and is raised if the stream is
    /// not the one of the checkpoint. The archive may know messages that an older copy of the
    /// broker does not have, neither in its streams nor in its snapshots.
    async fn epoch_in_force(&self, snapshot: Option<Mark>) -> anyhow::Result<u32> {
        let StreamContext { name, bus, .. } = self.context;
        loop {
            let checkpoint = self.checkpoint().await;
            let epoch = self.epoch.in_force(checkpoint.as_ref()).await?;
            self.epoch.tell_of_ended(epoch).await?;
            let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.epoch == epoch) else {
                return Ok(epoch);
            };
            let Some(why) = bus.compare(name, &checkpoint).await?.difference() else {
                return Ok(epoch);
            };
            if self.checkpoint().await == Some(checkpoint) {
                return self.end(epoch, snapshot, &why).await;
            }
            // The checkpoint moved on, and the messages before it were trimmed; or the archiver
            // found the same problem, and its checkpoint has the next epoch. Check everything
            // again.
        }
    }

    /// Ends an epoch, of which a snapshot may know more messages. Returns the epoch that is in
    /// force afterwards.
    async fn end(&self, epoch: u32, snapshot: Option<Mark>, why: &str) -> anyhow::Result<u32> {
        self.context.metrics.observe_epoch_ended();
        let snapshot = snapshot.filter(|mark| mark.epoch == epoch).map(|mark| mark.sequence);
        Ok(self.epoch.end(epoch, snapshot.unwrap_or(0), why).await?)
    }

    /// How far the archive reaches; `None` if it can't be read, which does not prevent a start.
    async fn checkpoint(&self) -> Option<Mark> {
        let stream = &self.context.name;
        match read_checkpoint(self.store?, stream).await {
            Ok(mark) => mark,
            Err(error) => {
                tracing::warn!(stream, %error, "the archive can't be read");
                None
            }
        }
    }

    /// Why the state of a snapshot can't be used; `None` if it can.
    async fn refusal(
        &self,
        state: &StreamState,
        mark: &Mark,
        status: &StreamStatus,
        rules: &Rules,
        epoch: u32,
    ) -> anyhow::Result<Option<RefusedSnapshot>> {
        let StreamContext { stream, name, bus, .. } = self.context;
        if let Err(why) = fits(state, mark, status, *stream, rules, epoch) {
            return Ok(Some(why));
        }
        let replacement = bus.compare(name, mark).await?.replacement();
        Ok(replacement.map(|why| refused(SnapshotRefusal::OtherStream, why)))
    }
}

/// Whether a snapshot belongs to this stream, these rules and this epoch, and counting can continue
/// from it.
fn fits(
    state: &StreamState,
    mark: &Mark,
    status: &StreamStatus,
    stream: Stream,
    rules: &Rules,
    epoch: u32,
) -> Result<(), RefusedSnapshot> {
    if state.stream() != stream {
        let detail = format!("it is of stream {}", state.stream());
        return Err(refused(SnapshotRefusal::Stream, detail));
    }
    if state.rules() != rules {
        let detail = "it follows other rules than the stream".to_owned();
        return Err(refused(SnapshotRefusal::Rules, detail));
    }
    if mark.epoch != epoch {
        let detail = format!("it is of epoch {}, the stream is in epoch {epoch}", mark.epoch);
        return Err(refused(SnapshotRefusal::Epoch, detail));
    }
    if status.created_ns == mark.created_ns && status.first_sequence > mark.sequence + 1 {
        let detail = format!(
            "it reaches to {}, the stream begins at {}",
            mark.sequence, status.first_sequence
        );
        return Err(refused(SnapshotRefusal::OutOfReach, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(first_sequence: u64) -> StreamStatus {
        StreamStatus {
            created_ns: 5,
            first_sequence,
            last_sequence: 100,
            messages: 1,
            bytes: 1,
            max_bytes: 1,
            metadata: Rules::default().to_metadata(),
        }
    }

    fn why(first_sequence: u64, mark: Mark, rules: &Rules, epoch: u32) -> Option<SnapshotRefusal> {
        let state = StreamState::new(Stream::lake(0), Rules::default());
        let fits = fits(&state, &mark, &status(first_sequence), Stream::lake(0), rules, epoch);
        fits.err().map(|why| why.reason)
    }

    #[test]
    fn a_snapshot_is_gone_on_from_only_if_nothing_is_missing_after_it() {
        let mark = Mark { epoch: 2, sequence: 10, broker_ns: 7, created_ns: 5 };
        let rules = Rules::default();
        assert_eq!(why(11, mark, &rules, 2), None, "the message after it is there");
        assert_eq!(why(12, mark, &rules, 2), Some(SnapshotRefusal::OutOfReach));
        assert_eq!(why(1, mark, &rules, 3), Some(SnapshotRefusal::Epoch));
        let others = Rules { labels_max: 1, ..Rules::default() };
        assert_eq!(why(1, mark, &others, 2), Some(SnapshotRefusal::Rules));
    }
}
