//! Where a stream's state comes from at start: its snapshot, the stream itself, or the archive.

use anyhow::Context as _;
use bus::{Bus, Comparison, Found, StreamStatus};
use domain::{Mark, Rules, Stream, StreamState};
use event_store::StoreSettings;
use service_kit::Lifecycle;

use crate::{fold::StreamFold, rebuild};

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
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unfit {
    /// There is none.
    Nothing,
    /// The archive was asked for instead.
    NotWanted,
    /// It is damaged, of another version, or the stream no longer reaches back to it.
    Unusable(String),
    /// The stream is another than the one that it was taken of.
    OtherStream(String),
}

/// Finds the state of a stream, or rebuilds it from the archive even if a snapshot would serve. Waits
/// as long as a rebuild needs to wait for the archiver.
///
/// # Errors
///
/// Rules that this program does not know; a rebuild that needs an archive where none is set.
pub(crate) async fn find(
    bus: &Bus,
    store: Option<&StoreSettings>,
    stream: Stream,
    from_archive: bool,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Option<Origin>> {
    let name = stream.to_string();
    let status = bus.stream(&name).await?;
    let rules = Rules::from_metadata(&status.metadata)
        .with_context(|| format!("the rules of stream {name}"))?;
    let mut epoch = bus.epochs().raise(&name, 0).await?;
    let loaded = bus.snapshots().load(&name).await?;
    let revision = loaded.revision;
    let unfit = match usable(bus, &status, stream, &rules, epoch, loaded.found).await? {
        Ok(_) | Err(Unfit::Nothing | Unfit::Unusable(_)) if from_archive => Unfit::NotWanted,
        Ok(fold) => {
            tracing::info!(stream = name, sequence = fold.mark().sequence, "snapshot loaded");
            return Ok(Some(Origin { fold, revision, rebuilt: false }));
        }
        Err(unfit) => unfit,
    };
    match &unfit {
        Unfit::Nothing if epoch == 1 && status.first_sequence <= 1 => {
            let mark = Mark { epoch, sequence: 0, broker_ns: 0, created_ns: status.created_ns };
            let fold = StreamFold::new(StreamState::new(stream, rules), mark);
            return Ok(Some(Origin { fold, revision, rebuilt: false }));
        }
        Unfit::NotWanted => tracing::info!(stream = name, "rebuilding from the archive, as asked"),
        Unfit::Nothing => tracing::warn!(stream = name, "no snapshot: rebuilding from the archive"),
        Unfit::Unusable(why) => {
            tracing::warn!(stream = name, why, "snapshot refused: rebuilding from the archive");
        }
        Unfit::OtherStream(why) => {
            epoch = bus.epochs().raise(&name, epoch).await?;
            tracing::error!(stream = name, why, epoch, "the stream is another: epoch raised");
        }
    }
    let store = store.context(
        "the state must be rebuilt from the archive: set DATABASE_URL for the aggregator",
    )?;
    let fold = rebuild::from_archive(bus, store, stream, &rules, epoch, lifecycle).await?;
    Ok(fold.map(|fold| Origin { fold, revision, rebuilt: true }))
}

async fn usable(
    bus: &Bus,
    status: &StreamStatus,
    stream: Stream,
    rules: &Rules,
    epoch: u32,
    found: Found,
) -> anyhow::Result<Result<StreamFold, Unfit>> {
    let bytes = match found {
        Found::Nothing => return Ok(Err(Unfit::Nothing)),
        Found::Damaged(why) => return Ok(Err(Unfit::Unusable(why))),
        Found::Whole(_, bytes) => bytes,
    };
    let (state, mark) = match wire::snapshot::decode_state(&bytes) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(Err(Unfit::Unusable(error.to_string()))),
    };
    if let Err(why) = fits(&state, &mark, status, stream, rules, epoch) {
        return Ok(Err(Unfit::Unusable(why)));
    }
    Ok(match bus.compare(&stream.to_string(), &mark).await? {
        Comparison::Same | Comparison::Deleted => Ok(StreamFold::new(state, mark)),
        Comparison::Other(why) => Err(Unfit::OtherStream(why)),
    })
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
) -> Result<(), String> {
    if state.stream() != stream {
        return Err(format!("it is of stream {}", state.stream()));
    }
    if state.rules() != rules {
        return Err("it follows other rules than the stream".to_owned());
    }
    if mark.epoch != epoch {
        return Err(format!("it is of epoch {}, the stream is in epoch {epoch}", mark.epoch));
    }
    if status.created_ns == mark.created_ns && status.first_sequence > mark.sequence + 1 {
        return Err(format!(
            "it reaches to {}, the stream begins at {}",
            mark.sequence, status.first_sequence
        ));
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

    fn why(first_sequence: u64, mark: Mark, rules: &Rules, epoch: u32) -> Result<(), String> {
        let state = StreamState::new(Stream::lake(0), Rules::default());
        fits(&state, &mark, &status(first_sequence), Stream::lake(0), rules, epoch)
    }

    #[test]
    fn a_snapshot_is_gone_on_from_only_if_nothing_is_missing_after_it() {
        let mark = Mark { epoch: 2, sequence: 10, broker_ns: 7, created_ns: 5 };
        let rules = Rules::default();
        assert_eq!(why(11, mark, &rules, 2), Ok(()), "the message after it is there");
        assert!(why(12, mark, &rules, 2).unwrap_err().contains("the stream begins at 12"));
        assert!(why(1, mark, &rules, 3).unwrap_err().contains("epoch"));
        let others = Rules { labels_max: 1, ..Rules::default() };
        assert!(why(1, mark, &others, 2).unwrap_err().contains("rules"));
    }
}
