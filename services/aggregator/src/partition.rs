//! The partition that is counted whenever its lease is ours.

use anyhow::Context as _;
use service_kit::Jitter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    lease::{Held, Lease, LeaseHolder},
    stream::{Shared, StreamHistory, StreamTask},
};

/// What is counted once at a time.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) shared: Shared,
    pub(crate) streams: [StreamHistory; 2],
}

impl Partition {
    /// Counts whenever the partition is ours, until the service drains.
    ///
    /// # Errors
    ///
    /// What no retry can mend.
    pub(crate) async fn run(
        &self,
        mut holder: LeaseHolder,
        drain: &CancellationToken,
        mut jitter: Jitter,
    ) -> anyhow::Result<()> {
        while let Some(lease) = holder.acquire(drain).await? {
            let (term, stop) = (drain.child_token(), CancellationToken::new());
            self.shared.exposed.counted_under(Some(lease.clone()));
            let counting = async {
                let counted = self.count(&lease, &term, &mut jitter).await;
                stop.cancel();
                counted
            };
            let (counted, held) = tokio::join!(counting, holder.hold(&lease, &term, &stop));
            self.shared.exposed.counted_under(None);
            if matches!(held, Ok(Held::Kept)) {
                holder.release().await;
            }
            held?;
            counted?;
            if drain.is_cancelled() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Counts both streams until the term ends; one that fails ends it for the other.
    async fn count(
        &self,
        lease: &Lease,
        term: &CancellationToken,
        jitter: &mut Jitter,
    ) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for counted in &self.streams {
            let task = StreamTask::new(&self.shared, counted, lease, term.clone())?;
            tasks.spawn(task.run(jitter.fork()));
        }
        let mut counted = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.context("a stream's task panicked").and_then(|ended| ended);
            if counted.is_ok() {
                counted = ended;
            }
            term.cancel();
        }
        counted
    }
}
