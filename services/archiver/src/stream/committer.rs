//! Commits the batches of one stream in order, retrying each until it is committed, and applies
//! retention between two batches.

use std::time::Duration;

use domain::{Mark, verdict::VerdictProgress};
use event_store::{Appended, Archive, Batch, SqlRecovery};
use service_kit::{Backoff, Condition, FailPoint, Jitter, News};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{Committed, OrderGuard, Retention, StreamContext, retry::waits};

/// Number of failed attempts at one batch after which people should look, if the server itself has
/// a problem: about half a minute.
const STUCK_ATTEMPTS: u32 = 10;

static COMMITTED: FailPoint = FailPoint::new("archiver.committed");

/// The only writer of a stream's archive.
pub(super) struct Committer<'a> {
    pub(super) context: &'a StreamContext,
    pub(super) archive: Archive,
    pub(super) committed: watch::Sender<Committed>,
    pub(super) guard: &'a OrderGuard,
    pub(super) retention: Retention<'a>,
    /// Time between two checks whether retention can drop something.
    pub(super) retention_interval: Duration,
    /// Whether the archive is being written, for readiness.
    pub(super) condition: &'a Condition,
    pub(super) jitter: Jitter,
}

impl Committer<'_> {
    /// Commits first. Only after that the reader is notified and acknowledges, and verdicts are
    /// published.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct, or another program wrote into the archive.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
        let mut looks = tokio::time::interval(self.retention_interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether old windows may remain. They are dropped in steps, so that batches are committed
        // in between.
        let mut old_windows = false;
        loop {
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => {
                        let appended = self.commit(&batch).await?;
                        self.tell(batch.after(), &appended);
                    }
                    None => return Ok(()),
                },
                _ = looks.tick() => {
                    self.retention.drop_days(&mut self.archive).await?;
                    old_windows = true;
                }
                () = std::future::ready(()), if old_windows => {
                    old_windows = self.retention.drop_windows(&mut self.archive).await?;
                }
            }
        }
    }

    fn tell(&self, mark: Mark, appended: &Appended) {
        let verdicts = VerdictProgress {
            sequence: mark.sequence,
            given: appended.next_verdict.saturating_sub(1),
            noted: appended.noted_verdict,
        };
        let committed = Committed { mark, verdicts };
        self.guard.committed(&committed);
        COMMITTED.pass();
        self.context.metrics.observe_verdicts(&verdicts);
        self.committed.send_replace(committed);
    }

    async fn commit(&mut self, batch: &Batch) -> anyhow::Result<Appended> {
        let StreamContext { name: stream, clock, metrics, .. } = self.context;
        let (mut backoff, mut news, mut alarmed) = (Backoff::default(), News::default(), false);
        loop {
            let began = clock.monotonic();
            let error = match self.archive.append(batch).await {
                Ok(appended) => {
                    let took = clock.monotonic().saturating_sub(began);
                    metrics.observe_commit(&appended, batch.after().sequence, took, clock.now_us());
                    self.condition.pass(format!("{stream}: archiving"));
                    return Ok(appended);
                }
                Err(error) if waits(&error) => error,
                Err(error) => return Err(error.into()),
            };
            metrics.observe_retry();
            if is_stuck(error.recovery(), backoff.attempts())
                && !std::mem::replace(&mut alarmed, true)
            {
                metrics.observe_stuck();
            }
            let error = error.to_string();
            self.condition.fail(format!("{stream}: {error}"));
            if news.is_new(&error) {
                tracing::warn!(stream, error, "batch not committed, trying again");
            }
            tokio::time::sleep(backoff.next(&mut self.jitter)).await;
        }
    }
}

/// Whether people should look at a batch that failed this many times. A server that is unreachable
/// shows in readiness and usually recovers by itself; a server that cannot write needs somebody.
const fn is_stuck(recovery: SqlRecovery, attempts: u32) -> bool {
    match recovery {
        SqlRecovery::Pause => true,
        SqlRecovery::RetryAlarm => attempts >= STUCK_ATTEMPTS,
        SqlRecovery::Retry
        | SqlRecovery::Duplicate
        | SqlRecovery::MakePartition
        | SqlRecovery::IsolateRow
        | SqlRecovery::Stop => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_called_where_waiting_alone_does_not_help() {
        assert!(is_stuck(SqlRecovery::Pause, 0), "nothing can be written");
        assert!(!is_stuck(SqlRecovery::RetryAlarm, STUCK_ATTEMPTS - 1));
        assert!(is_stuck(SqlRecovery::RetryAlarm, STUCK_ATTEMPTS));
        assert!(!is_stuck(SqlRecovery::Retry, u32::MAX), "it comes back by itself");
    }
}
