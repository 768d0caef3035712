//! Checks whether a broker and an archive are one pipeline, for the tools that read both.

use bus::{Bus, BusError, Topology};
use domain::{ArchiveSide, BrokerSide, meet};
use event_store::{StoreSettings, archive_side};

/// What both say about themselves, if they don't contradict each other; `None` for a broker without
/// streams.
///
/// # Errors
///
/// They belong to different pipelines, or one can't be read.
pub(crate) async fn compare(
    bus: &Bus,
    store: &StoreSettings,
) -> anyhow::Result<(Option<BrokerSide>, ArchiveSide)> {
    let archive = archive_side(store).await?;
    let mut broker = None;
    for stream in Topology::event_streams() {
        match bus.broker_side(&stream.to_string()).await {
            Ok(side) => {
                meet(&side, &archive)?;
                broker = Some(side);
            }
            Err(BusError::NoStream { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((broker, archive))
}
