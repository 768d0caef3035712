//! Compares the broker and the archive. If they do not belong together, the archiver ends.

use bus::Bus;
use domain::{BrokerSide, Meeting, meet};
use event_store::{StoreSettings, archive_side, name_pipeline};

/// Compares both sides, and makes a fresh pair name each other. Returns what the broker's entry
/// says in the end.
///
/// # Errors
///
/// The two differ, or one cannot be read. If they differ, nothing is written to either.
pub(crate) async fn join(
    bus: &Bus,
    store: &StoreSettings,
    stream: &str,
) -> anyhow::Result<BrokerSide> {
    // Each step writes an entry that was empty before, so there are at most two steps.
    loop {
        let broker = bus.broker_side(stream).await?;
        let archive = archive_side(store).await?;
        match meet(&broker, &archive)? {
            Meeting::Agreed => return Ok(broker),
            Meeting::NamePipeline => name_pipeline(store, &broker.pipeline).await?,
            Meeting::NameArchive => {
                bus.name_archive(broker.pipeline.id, archive.id).await?;
            }
        }
    }
}
