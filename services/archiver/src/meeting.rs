//! Where the broker and the archive meet: they belong together, or the archiver ends.

use bus::Bus;
use domain::{BrokerSide, Meeting, meet};
use event_store::{StoreSettings, archive_side, name_pipeline};

/// Compares both sides, and makes a fresh pair name each other. Gives what the broker says of itself
/// in the end.
///
/// # Errors
///
/// They differ, or can't be asked. Nothing is written into either where they differ.
pub(crate) async fn join(
    bus: &Bus,
    store: &StoreSettings,
    stream: &str,
) -> anyhow::Result<BrokerSide> {
    // Each step writes what was empty before, so that there are two at most.
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
