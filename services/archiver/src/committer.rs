//! Commits the batches of one stream in order, each until it is committed, and between two of them
//! drops what retention lets go, and windows that the ladder does not keep any more.

use anyhow::Context as _;
use domain::{Ladder, Mark, verdict::VerdictProgress};
use event_store::{Appended, Archive, Batch, LetGo, SqlRecovery, StoreError};
use service_kit::{Backoff, FailPoint, Jitter, News};
use tokio::sync::{mpsc, watch};

use crate::{
    retention,
    steps::Steps,
    stream::{BACKOFF_FIRST, BACKOFF_LONGEST, Committed, StreamTask, passes},
};

/// Attempts at one batch in a row after which people should look, where the server itself is in
/// trouble: about half a minute.
const STUCK_ATTEMPTS: u32 = 10;

static COMMITTED: FailPoint = FailPoint::new("archiver.committed");

/// Commits batches in order, each until it is committed.
pub(crate) struct Committer<'a> {
    pub(crate) task: &'a StreamTask,
    pub(crate) archive: Archive,
    pub(crate) committed: watch::Sender<Committed>,
    pub(crate) steps: &'a Steps,
    /// 0 keeps everything.
    pub(crate) retention_days: u32,
    /// Which windows are kept.
    pub(crate) ladder: Ladder,
    pub(crate) jitter: Jitter,
}

impl Committer<'_> {
    /// Commits first; only then does the reader hear of it and acknowledge, and are verdicts
    /// published.
    pub(crate) async fn run(mut self, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
        let mut looks = tokio::time::interval(self.task.retention_interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Whether there may be old windows. They go in steps, so that batches come in between.
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
                    if self.retention_days > 0 {
                        self.retain().await?;
                    }
                    old_windows = true;
                }
                () = std::future::ready(()), if old_windows => {
                    old_windows = self.let_go().await?;
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
        self.steps.committed(&committed);
        COMMITTED.pass();
        self.task.metrics.observe_verdicts(&verdicts);
        self.committed.send_replace(committed);
    }

    /// Drops what is old enough. What fails and passes is tried again at the next look.
    async fn retain(&mut self) -> anyhow::Result<()> {
        let (task, days) = (self.task, self.retention_days);
        let retained = retention::retain(&task.bus, &mut self.archive, &task.name, days).await;
        match retained {
            Ok(Some(retained)) => {
                let partitions = retained.partitions.len();
                if !retained.waiting.is_empty() {
                    let waiting = retained.waiting.join(", ");
                    tracing::warn!(stream = task.name, waiting, "old, but in use or not counted");
                }
                task.metrics.observe_dropped(partitions, retained.rows);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) if is_fenced(&error) || !passes(&error) => Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(stream = task.name, error, "nothing dropped yet");
                Ok(())
            }
        }
    }

    /// Lets go of some old windows; whether there may be more. What fails and passes is tried again
    /// at the next look.
    async fn let_go(&mut self) -> anyhow::Result<bool> {
        let stream = &self.task.name;
        match self.archive.let_go(&self.ladder).await {
            Ok(LetGo { windows, more }) => {
                if windows > 0 {
                    tracing::info!(stream, windows, "windows dropped: kept as long as they should");
                }
                Ok(more)
            }
            Err(error) if waits(error.recovery()) => {
                tracing::warn!(stream, %error, "old windows not dropped yet");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn commit(&mut self, batch: &Batch) -> anyhow::Result<Appended> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST).context("backoff")?;
        let (mut alarmed, mut news) = (false, News::default());
        loop {
            let began = self.task.clock.monotonic();
            let error = match self.archive.append(batch).await {
                Ok(appended) => {
                    let took = self.task.clock.monotonic().saturating_sub(began);
                    let (sequence, now_us) = (batch.after().sequence, self.task.clock.now_us());
                    self.task.metrics.observe_commit(&appended, sequence, took, now_us);
                    self.task.condition.pass(format!("{}: archiving", self.task.name));
                    return Ok(appended);
                }
                Err(error) => error,
            };
            if !waits(error.recovery()) {
                return Err(error.into());
            }
            self.task.metrics.observe_retry();
            if is_stuck(error.recovery(), backoff.attempts())
                && !std::mem::replace(&mut alarmed, true)
            {
                self.task.metrics.observe_stuck();
            }
            let error = error.to_string();
            self.task.condition.fail(format!("{}: {error}", self.task.name));
            if news.is_new(&error) {
                tracing::warn!(stream = self.task.name, error, "batch not committed, trying again");
            }
            tokio::time::sleep(backoff.next(&mut self.jitter)).await;
        }
    }
}

/// Whether an error of the archive passes by itself, or once somebody has acted, without a restart.
pub(crate) const fn waits(recovery: SqlRecovery) -> bool {
    match recovery {
        SqlRecovery::Retry | SqlRecovery::RetryAlarm | SqlRecovery::Pause => true,
        SqlRecovery::Duplicate
        | SqlRecovery::MakePartition
        | SqlRecovery::IsolateRow
        | SqlRecovery::Stop => false,
    }
}

/// Whether people should look at a batch that failed after so many attempts. A server that is away
/// is told by readiness and comes back by itself; one that can't write needs somebody.
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

fn is_fenced(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Fenced { .. }))
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
