//! Rollups follow the rows of one stream: up to an interval behind, and not while the archiver itself
//! is behind.

use std::{convert::Infallible, time::Duration};

use domain::{Mark, Timestamp, time::SECONDS_PER_DAY};
use event_store::{Rollups, StoreError, StoreSettings, StreamId, kept_from};
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{Committed, StreamContext, retry};
use crate::rollup_lag::RollupWaits;

/// Age of the message committed last from which on the archiver is behind: it needs the database for
/// itself.
const BEHIND_S: i64 = 30;
/// Looks in a row at which the archiver may be behind before its rollups are brought up all the
/// same: with the usual interval a quarter of an hour.
const LOOKS_BEHIND_MAX: u32 = 15;

/// Keeps the rollups of a stream, on a connection that is open only while there is something to add.
pub(super) struct RollupKeeper<'a> {
    pub(super) context: &'a StreamContext,
    pub(super) store: &'a StoreSettings,
    pub(super) id: StreamId,
    /// Says what the rollups wait for.
    pub(super) waits: &'a RollupWaits,
    pub(super) interval: Duration,
    /// Whether to keep what is known of each key.
    pub(super) keys: bool,
    /// Number of days after which deleted keys are forgotten; 0 keeps all.
    pub(super) retention_days: u32,
}

impl RollupKeeper<'_> {
    /// Keeps them for ever.
    ///
    /// # Errors
    ///
    /// What only a person can change.
    pub(super) async fn run(
        self,
        commits: watch::Receiver<Committed>,
    ) -> anyhow::Result<Infallible> {
        let stream = &self.context.name;
        let mut looks = tokio::time::interval(self.interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut behind = Behind::default();
        // The day up to which deleted keys were forgotten. After a start all are looked at again.
        let mut forgotten_to = None;
        loop {
            looks.tick().await;
            let mark = commits.borrow().mark;
            if behind.waits(mark.sequence, mark.broker_time().0, self.context.clock.now_us()) {
                if self.waits.begin(stream, "the archiver is behind itself") {
                    tracing::info!(stream, "rollups wait: the archiver is behind itself");
                }
                continue;
            }
            match self.keep(&mark, &mut forgotten_to).await {
                Ok(()) => self.waits.end(stream),
                Err(error) if retry::waits(&error) => {
                    let error = error.to_string();
                    if self.waits.begin(stream, &error) {
                        tracing::warn!(stream, error, "rollups wait");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds all that is archived, and forgets the keys that were deleted before retention as of this
    /// mark, once for each day.
    async fn keep(&self, mark: &Mark, forgotten_to: &mut Option<i64>) -> Result<(), StoreError> {
        self.catch_up().await?;
        // Up to the beginning of a day, so that the keys are not all looked at every minute.
        let day = kept_from(mark, self.retention_days).map(|kept_from| kept_from.day());
        if let Some(day) = day.filter(|day| self.keys && Some(*day) != *forgotten_to) {
            if let Some(mut rollups) = Rollups::open(self.store, self.id).await? {
                let midnight = Timestamp(0).plus_seconds(day * SECONDS_PER_DAY);
                let keys = rollups.forget_deleted_keys(midnight).await?;
                if keys > 0 {
                    let stream = &self.context.name;
                    tracing::info!(stream, keys, "deleted keys forgotten: older than retention");
                }
            }
            *forgotten_to = Some(day);
        }
        Ok(())
    }

    /// Adds all that is archived.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        match Rollups::open(self.store, self.id).await? {
            Some(mut rollups) => rollups.catch_up(self.keys).await,
            None => Ok(()),
        }
    }
}

/// Whether the archiver is behind, and how long rollups have waited for it.
#[derive(Debug, Default)]
struct Behind {
    sequence: u64,
    looks: u32,
}

impl Behind {
    /// At a look: an old message was committed since the last one, so that there are more to come.
    fn waits(&mut self, sequence: u64, broker_us: i64, now_us: i64) -> bool {
        let moved = std::mem::replace(&mut self.sequence, sequence) != sequence;
        let is_old = now_us.saturating_sub(broker_us) > BEHIND_S * 1_000_000;
        if moved && is_old && self.looks < LOOKS_BEHIND_MAX {
            self.looks += 1;
            return true;
        }
        self.looks = 0;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: i64 = 1_700_000_000_000_000;
    const OLD_US: i64 = NOW_US - (BEHIND_S + 1) * 1_000_000;

    #[test]
    fn rollups_wait_for_an_archiver_that_is_behind_but_not_for_ever() {
        let mut behind = Behind::default();
        assert!(!behind.waits(5, NOW_US, NOW_US), "it keeps up");
        let waited = (6..100).take_while(|sequence| behind.waits(*sequence, OLD_US, NOW_US));
        assert_eq!(waited.count(), 15);
        assert!(behind.waits(200, OLD_US, NOW_US), "and then they wait again");
    }

    #[test]
    fn a_stream_at_rest_is_not_behind_however_old_its_last_message() {
        let mut behind = Behind::default();
        assert!(behind.waits(5, OLD_US, NOW_US), "it may have caught up just now");
        assert!(!behind.waits(5, OLD_US, NOW_US));
    }
}
