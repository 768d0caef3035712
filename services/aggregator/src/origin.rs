//! Where a stream's state comes from at start: its snapshot, the stream itself, or the archive.

use std::fmt;

use anyhow::Context as _;
use bus::{Bus, FoundSnapshot, StreamEpoch, StreamStatus};
use domain::{Mark, Rules, Stream, StreamState};
use event_store::{StoreSettings, archive_side, read_checkpoint};
use tokio_util::sync::CancellationToken;
use wire::snapshot::SnapshotError;

use crate::{
    fold::StreamFold,
    gap::Gap,
    metrics::StreamMetrics,
    rebuild::{self, Rebuilt},
};

/// A state to go on from, and what the next snapshot must know.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The state.
    pub(crate) fold: StreamFold,
    /// Revision of the snapshot's pointer that ours replaces.
    pub(crate) revision: u64,
    /// Whether it was rebuilt from the archive.
    pub(crate) rebuilt: bool,
}

/// Why a snapshot can't be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its pointer or object is gone, cut, or other bytes than were stored.
    Damaged,
    /// Another release wrote it.
    Version,
    /// Its bytes are whole, and no state.
    Undecodable,
    /// It is of another stream.
    Stream,
    /// It was counted by other rules than the stream's.
    Rules,
    /// It is of another epoch.
    Epoch,
    /// The stream no longer has what comes after it.
    OutOfReach,
    /// The stream has another message at its position.
    OtherStream,
}

impl Refusal {
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

    /// Its name in metrics and logs.
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

/// A reason, and what exactly is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    reason: Refusal,
    detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason.name())
    }
}

const fn refused(reason: Refusal, detail: String) -> Refused {
    Refused { reason, detail }
}

/// Where a state is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// Stream and snapshot.
    pub(crate) bus: &'a Bus,
    /// The archive; none is set.
    pub(crate) store: Option<&'a StoreSettings>,
    /// Of which stream.
    pub(crate) stream: Stream,
    /// Whether the archive is asked although a snapshot would serve.
    pub(crate) from_archive: bool,
    /// What the archive must have passed: messages that are gone from the middle of the stream.
    pub(crate) missed: Option<Gap>,
    /// Its epoch, and how far it was seen to reach.
    pub(crate) epoch: &'a StreamEpoch,
    /// Counts what is refused.
    pub(crate) metrics: &'a StreamMetrics,
}

/// What one look found.
enum Looked {
    Found(Box<Origin>),
    Drained,
    Again,
}

/// Finds the state of a stream, or rebuilds it if that is asked for. Waits as long as a rebuild needs to wait for the archiver. None:
/// the service drains.
///
/// # Errors
///
/// Rules that this program does not know; a rebuild that needs an archive where none is set.
pub(crate) async fn find(
    sources: &Sources<'_>,
    drain: &CancellationToken,
) -> anyhow::Result<Option<Origin>> {
    loop {
        match sources.look(drain).await? {
            Looked::Found(origin) => return Ok(Some(*origin)),
            Looked::Drained => return Ok(None),
            Looked::Again => {
                tracing::info!(stream = %sources.stream, "another epoch is in force: looking again");
            }
        }
    }
}

impl Sources<'_> {
    async fn look(&self, drain: &CancellationToken) -> anyhow::Result<Looked> {
        let (bus, stream, name) = (self.bus, self.stream, self.stream.to_string());
        self.meet().await?;
        let status = bus.stream(&name).await?;
        let rules = Rules::from_metadata(&status.metadata)
            .with_context(|| format!("the rules of stream {name}"))?;
        let loaded = bus.snapshots().load(&name).await?;
        let revision = loaded.revision;
        let snapshot = decoded(loaded.found);
        let mark = snapshot.as_ref().and_then(|found| found.as_ref().ok()).map(|(_, mark)| *mark);
        let epoch = self.epoch_in_force(mark).await?;
        if let Some(mark) = mark.filter(|mark| mark.epoch > epoch) {
            // The entry was lost, and the archive does not know of that epoch: it is never used
            // again, for nobody can say what it was.
            tracing::error!(stream = name, epoch = mark.epoch, "a snapshot of an unknown epoch");
            bus.epochs().raise(&name, mark.epoch).await?;
            return Ok(Looked::Again);
        }
        let origin = |fold, rebuilt| Looked::Found(Box::new(Origin { fold, revision, rebuilt }));
        match snapshot {
            None if epoch == 1 && status.first_sequence <= 1 && !self.from_archive => {
                let mark = Mark { epoch, sequence: 0, broker_ns: 0, created_ns: status.created_ns };
                let state = StreamState::new(stream, rules);
                return Ok(origin(StreamFold::new(state, mark), false));
            }
            None => tracing::warn!(stream = name, "no snapshot: rebuilding from the archive"),
            Some(snapshot) => match self.usable(snapshot, &status, &rules, epoch).await? {
                Ok(_) if self.from_archive => {
                    tracing::info!(stream = name, "rebuilding from the archive, as asked");
                }
                Ok(fold) => {
                    tracing::info!(
                        stream = name,
                        sequence = fold.mark().sequence,
                        "snapshot loaded"
                    );
                    return Ok(origin(fold, false));
                }
                Err(why) => {
                    self.metrics.observe_snapshot_refused(why.reason);
                    let reason = why.reason.name();
                    tracing::warn!(
                        stream = name,
                        reason,
                        why = why.detail,
                        "snapshot refused: rebuilding from the archive"
                    );
                    if why.reason == Refusal::OtherStream {
                        self.end(epoch, mark, &why.detail).await?;
                        return Ok(Looked::Again);
                    }
                }
            },
        }
        let store = self.store.context(
            "the state must be rebuilt from the archive: set DATABASE_URL for the aggregator",
        )?;
        Ok(match rebuild::from_archive(self, store, &rules, epoch, drain).await? {
            Rebuilt::Whole(fold) => origin(*fold, true),
            Rebuilt::Drained => Looked::Drained,
            Rebuilt::EpochMoved => Looked::Again,
        })
    }

    /// Compares the broker with itself and, where it can be asked, with the archive.
    async fn meet(&self) -> anyhow::Result<()> {
        let broker = self.bus.broker_side(&self.stream.to_string()).await?;
        let Some(store) = self.store else { return Ok(()) };
        match archive_side(store).await {
            Ok(archive) => domain::meet(&broker, &archive).map(drop)?,
            Err(error) => {
                tracing::warn!(stream = %self.stream, %error, "the archive can't be compared");
            }
        }
        Ok(())
    }

    /// The epoch in force: never below that of the checkpoint, and raised if the stream is not the
    /// one that the checkpoint speaks of. The archive may know of messages that an older copy of
    /// the broker knows nothing of, neither in its streams nor in its snapshots.
    async fn epoch_in_force(&self, snapshot: Option<Mark>) -> anyhow::Result<u32> {
        let (bus, name) = (self.bus, self.stream.to_string());
        loop {
            let checkpoint = self.checkpoint().await;
            let epoch = self.epoch.in_force(checkpoint.as_ref()).await?;
            self.epoch.tell_of_ended(epoch).await?;
            let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.epoch == epoch) else {
                return Ok(epoch);
            };
            let Some(why) = bus.compare(&name, &checkpoint).await?.difference() else {
                return Ok(epoch);
            };
            if self.checkpoint().await == Some(checkpoint) {
                return self.end(epoch, snapshot, &why).await;
            }
            // It moved on, and what it had passed was trimmed; or the archiver found the same, and
            // its checkpoint is of the next epoch: all is asked again.
        }
    }

    /// Ends an epoch that a snapshot may know more of; returns the epoch that is in force then.
    async fn end(&self, epoch: u32, snapshot: Option<Mark>, why: &str) -> anyhow::Result<u32> {
        self.metrics.observe_epoch_ended();
        let snapshot = snapshot.filter(|mark| mark.epoch == epoch).map(|mark| mark.sequence);
        Ok(self.epoch.end(epoch, snapshot.unwrap_or(0), why).await?)
    }

    /// How far the archive reaches. It is no condition for starting: none, if it can't be asked.
    async fn checkpoint(&self) -> Option<Mark> {
        let store = self.store?;
        match read_checkpoint(store, &self.stream.to_string()).await {
            Ok(mark) => mark,
            Err(error) => {
                tracing::warn!(stream = %self.stream, %error, "the archive can't be asked");
                None
            }
        }
    }

    async fn usable(
        &self,
        snapshot: Result<(StreamState, Mark), Refused>,
        status: &StreamStatus,
        rules: &Rules,
        epoch: u32,
    ) -> anyhow::Result<Result<StreamFold, Refused>> {
        let (state, mark) = match snapshot {
            Ok(decoded) => decoded,
            Err(why) => return Ok(Err(why)),
        };
        if let Err(why) = fits(&state, &mark, status, self.stream, rules, epoch) {
            return Ok(Err(why));
        }
        Ok(match self.bus.compare(&self.stream.to_string(), &mark).await?.replacement() {
            None => Ok(StreamFold::new(state, mark)),
            Some(why) => Err(refused(Refusal::OtherStream, why)),
        })
    }
}

/// A snapshot's state; none where none was stored.
fn decoded(found: FoundSnapshot) -> Option<Result<(StreamState, Mark), Refused>> {
    let bytes = match found {
        FoundSnapshot::Nothing => return None,
        FoundSnapshot::Damaged(why) => return Some(Err(refused(Refusal::Damaged, why))),
        FoundSnapshot::Whole(_, bytes) => bytes,
    };
    Some(wire::snapshot::decode_state(&bytes).map_err(|error| {
        let reason = match error {
            SnapshotError::Version { .. } => Refusal::Version,
            SnapshotError::Digest => Refusal::Damaged,
            SnapshotError::Empty | SnapshotError::Damaged(_) | SnapshotError::Impossible(_) => {
                Refusal::Undecodable
            }
        };
        refused(reason, error.to_string())
    }))
}

/// Whether a snapshot speaks of this stream, by these rules, in this epoch, and can be gone on
/// from.
fn fits(
    state: &StreamState,
    mark: &Mark,
    status: &StreamStatus,
    stream: Stream,
    rules: &Rules,
    epoch: u32,
) -> Result<(), Refused> {
    if state.stream() != stream {
        let detail = format!("it is of stream {}", state.stream());
        return Err(refused(Refusal::Stream, detail));
    }
    if state.rules() != rules {
        let detail = "it follows other rules than the stream".to_owned();
        return Err(refused(Refusal::Rules, detail));
    }
    if mark.epoch != epoch {
        let detail = format!("it is of epoch {}, the stream is in epoch {epoch}", mark.epoch);
        return Err(refused(Refusal::Epoch, detail));
    }
    if status.created_ns == mark.created_ns && status.first_sequence > mark.sequence + 1 {
        let detail = format!(
            "it reaches to {}, the stream begins at {}",
            mark.sequence, status.first_sequence
        );
        return Err(refused(Refusal::OutOfReach, detail));
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

    fn why(first_sequence: u64, mark: Mark, rules: &Rules, epoch: u32) -> Option<Refusal> {
        let state = StreamState::new(Stream::lake(0), Rules::default());
        let fits = fits(&state, &mark, &status(first_sequence), Stream::lake(0), rules, epoch);
        fits.err().map(|why| why.reason)
    }

    #[test]
    fn a_snapshot_is_gone_on_from_only_if_nothing_is_missing_after_it() {
        let mark = Mark { epoch: 2, sequence: 10, broker_ns: 7, created_ns: 5 };
        let rules = Rules::default();
        assert_eq!(why(11, mark, &rules, 2), None, "the message after it is there");
        assert_eq!(why(12, mark, &rules, 2), Some(Refusal::OutOfReach));
        assert_eq!(why(1, mark, &rules, 3), Some(Refusal::Epoch));
        let others = Rules { labels_max: 1, ..Rules::default() };
        assert_eq!(why(1, mark, &others, 2), Some(Refusal::Rules));
    }
}
