//! Counts how many of the events the archive already had before they were sent.
//!
//! This is only information for the user. Counting once does not depend on it: if the archive can't
//! be read, events are published all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::Bus;
use domain::Event;
use event_store::{ArchivedIdentities, StoreSettings};

use super::{
    Config,
    progress::{PublishBar, PublishCounts},
};
use crate::identity;

/// Searches the archive for events, as long as it answers.
pub(super) struct ArchivedBefore<'a> {
    archive: Option<ArchivedIdentities>,
    counts: Arc<PublishCounts>,
    progress: &'a PublishBar,
}

impl<'a> ArchivedBefore<'a> {
    /// Connects, if an archive is set that keeps the events of this broker.
    pub(super) async fn open(config: &Config, bus: &Bus, progress: &'a PublishBar) -> Self {
        let counts = progress.counts();
        let mut this = Self { archive: None, counts, progress };
        let Some(store) = &config.store else { return this };
        match open(bus, store).await {
            Ok(archive) => {
                this.archive = Some(archive);
                this.counts.asked.store(true, Ordering::Relaxed);
            }
            Err(error) => this.unasked(&error),
        }
        this
    }

    /// Counts how many of the events the archive has.
    pub(super) async fn count<'e>(&mut self, events: impl Iterator<Item = &'e Event>) {
        let Some(archive) = &mut self.archive else { return };
        match archive.count(events).await {
            Ok(known) => {
                self.counts.archived.fetch_add(known, Ordering::Relaxed);
            }
            Err(error) => {
                self.archive = None;
                self.counts.asked.store(false, Ordering::Relaxed);
                self.unasked(&error.into());
            }
        }
    }

    fn unasked(&self, why: &anyhow::Error) {
        self.progress.say(&format!(
            "events that the archive already has are not counted, because it can't be read: {why:#}"
        ));
    }
}

async fn open(bus: &Bus, store: &StoreSettings) -> anyhow::Result<ArchivedIdentities> {
    identity::compare(bus, store).await?;
    Ok(ArchivedIdentities::open(store).await?)
}
