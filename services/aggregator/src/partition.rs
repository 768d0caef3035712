//! The partition, which is counted while this process has its lease.

use anyhow::Context as _;
use service_kit::Jitter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    lease::{Held, Lease, LeaseHolder},
    stream::{Shared, StreamHistory, StreamTask},
};

/// What is counted under one lease.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) shared: Shared,
    pub(crate) streams: [StreamHistory; 2],
}

impl Partition {
    /// Counts whenever this process owns the partition, until the service drains.
    ///
    /// # Errors
    ///
    /// An error that no retry can correct.
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

    /// Counts both streams until the term ends. If one stream fails, the term ends for the other
    /// too.
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
