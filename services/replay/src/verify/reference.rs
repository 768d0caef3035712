//! What the archive is compared with: snapshots, and the rules that each stream follows.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use bus::{Bus, BusError, FoundSnapshot};
use domain::{ArchiveSide, Mark, Rules, Stream, StreamState};
use event_store::{ArchiveView, StoreSettings, archive_side, read_checkpoint};

use super::{Against, Verify};

/// How often the archive's checkpoint is read while waiting for it.
const CHECKPOINT_POLL: Duration = Duration::from_millis(250);

/// An aggregator's state at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state.
    pub state: StreamState,
    /// The last message that the state includes.
    pub mark: Mark,
    /// The bytes as they were stored.
    pub bytes: Vec<u8>,
}

impl Snapshot {
    /// Reads a snapshot from its bytes.
    ///
    /// # Errors
    ///
    /// The bytes have another version, or are cut or damaged.
    pub fn read(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let (state, mark) = wire::snapshot::decode_state(&bytes)?;
        Ok(Self { state, mark, bytes })
    }
}

/// What one stream is compared with besides its rows.
#[derive(Debug)]
struct Reference {
    snapshot: Result<Snapshot, String>,
    rules: Option<Rules>,
}

/// What every stream is compared with besides its rows.
#[derive(Debug)]
pub(super) struct References {
    of: BTreeMap<Stream, Reference>,
    /// The rules of the archive, or else those of the settings.
    rules: Rules,
    /// Whether the rules are those of the archive.
    is_named: bool,
    /// Why a stream that has no entry is not compared.
    otherwise: String,
}

impl References {
    /// Reads the snapshots from the bus, or takes the given ones.
    pub(super) async fn find(what: &Verify) -> anyhow::Result<Self> {
        let mut of = BTreeMap::new();
        let archive = archive_side(&what.store).await?;
        let otherwise = match &what.against {
            Against::Nothing(why) => why.clone(),
            Against::Snapshots(snapshots) => {
                for snapshot in snapshots {
                    let rules = Some(snapshot.state.rules().clone());
                    let reference = Reference { snapshot: Ok(snapshot.clone()), rules };
                    of.insert(snapshot.state.stream(), reference);
                }
                "no snapshot of it was given".to_owned()
            }
            Against::Bus(bus) => {
                let mut view = ArchiveView::open(&what.store, Stream::lake(0)).await?;
                for stream in view.streams().await? {
                    belong_together(bus, stream, &archive).await?;
                    of.insert(stream, from_bus(bus, stream).await?);
                }
                "the stream was added to the archive in the meantime".to_owned()
            }
        };
        let (is_named, rules) = match archive.pipeline {
            Some(pipeline) => (true, pipeline.rules),
            None => (false, what.rules.clone()),
        };
        Ok(Self { of, rules, is_named, otherwise })
    }

    /// Returns when the archive has reached every snapshot.
    pub(super) async fn wait_for_archive(
        &self,
        store: &StoreSettings,
        limit: Duration,
    ) -> anyhow::Result<()> {
        for (stream, reference) in &self.of {
            let Ok(snapshot) = &reference.snapshot else { continue };
            let waiting = reached(store, *stream, &snapshot.mark);
            match tokio::time::timeout(limit, waiting).await {
                Ok(reached) => reached?,
                Err(_) => anyhow::bail!(
                    "the archive of {stream} has not reached the snapshot at epoch {}, sequence {} \
                     within {} ms: does the archiver run?",
                    snapshot.mark.epoch,
                    snapshot.mark.sequence,
                    limit.as_millis()
                ),
            }
        }
        Ok(())
    }

    /// The snapshot of a stream, if there is one; the rules that the stream follows; and what
    /// cannot be compared because one of them is missing.
    pub(super) fn of(&self, stream: Stream) -> (Option<&Snapshot>, &Rules, Vec<String>) {
        let reference = self.of.get(&stream);
        let (snapshot, why) = match reference.map(|reference| &reference.snapshot) {
            Some(Ok(snapshot)) => (Some(snapshot), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, Some(&self.otherwise)),
        };
        let mut notes: Vec<String> =
            why.map(|why| format!("{stream}: no snapshot: {why}")).into_iter().collect();
        let rules = reference.and_then(|reference| reference.rules.as_ref());
        if rules.is_none() && !self.is_named {
            notes.push(format!(
                "{stream}: its rules are not stored anywhere: folded by those of NATS_STREAM_RULES"
            ));
        }
        (snapshot, rules.unwrap_or(&self.rules), notes)
    }
}

/// Whether a stream of the broker belongs to the pipeline whose events the archive keeps. A stream
/// that does not exist is no contradiction.
async fn belong_together(bus: &Bus, stream: Stream, archive: &ArchiveSide) -> anyhow::Result<()> {
    match bus.broker_side(&stream.to_string()).await {
        Ok(broker) => Ok(domain::meet(&broker, archive).map(drop)?),
        Err(BusError::NoStream { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn from_bus(bus: &Bus, stream: Stream) -> anyhow::Result<Reference> {
    let name = stream.to_string();
    let rules = match bus.stream(&name).await {
        Ok(status) => Some(
            Rules::from_metadata(&status.metadata)
                .with_context(|| format!("the rules of stream {name}"))?,
        ),
        Err(BusError::NoStream { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let found = match bus.snapshots().load(&name).await {
        Ok(loaded) => loaded.found,
        Err(BusError::NoStream { .. }) => FoundSnapshot::Nothing,
        Err(error) => return Err(error.into()),
    };
    let snapshot = match found {
        FoundSnapshot::Nothing => Err("none was stored yet".to_owned()),
        FoundSnapshot::Damaged(why) => anyhow::bail!("the snapshot of {name} is damaged: {why}"),
        FoundSnapshot::Whole(_, bytes) => Ok(Snapshot::read(bytes.to_vec())
            .with_context(|| format!("the snapshot of {name} can't be read"))?),
    };
    Ok(Reference { snapshot, rules })
}

async fn reached(store: &StoreSettings, stream: Stream, wanted: &Mark) -> anyhow::Result<()> {
    loop {
        let mark = read_checkpoint(store, &stream.to_string()).await?;
        if mark.is_some_and(|mark| reaches(&mark, wanted)) {
            return Ok(());
        }
        tokio::time::sleep(CHECKPOINT_POLL).await;
    }
}

/// Whether an archive has every event that a snapshot includes, or will never have it because that
/// epoch has ended.
const fn reaches(archive: &Mark, wanted: &Mark) -> bool {
    archive.epoch > wanted.epoch
        || archive.epoch == wanted.epoch && archive.sequence >= wanted.sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_reaches_a_snapshot_in_its_epoch_or_in_a_later_one() {
        let at = |epoch, sequence| Mark { epoch, sequence, broker_ns: 0, created_ns: 0 };
        assert!(reaches(&at(1, 7), &at(1, 7)));
        assert!(!reaches(&at(1, 6), &at(1, 7)));
        assert!(reaches(&at(2, 0), &at(1, 7)));
        assert!(!reaches(&at(1, 9), &at(2, 1)));
    }
}
