//! The end of a service: it drains within a deadline, and reports how that went.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit status of a service that did not drain.
const EXIT_FAILURE: i32 = 1;

/// Signals a service's tasks to drain, and waits for them. Clones are the same lifecycle.
///
/// Draining begins with SIGTERM, SIGINT, a failed task, or the service itself. Work in progress is
/// finished, and no new work is accepted.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    tasks: TaskTracker,
    failures: Arc<Mutex<Vec<anyhow::Error>>>,
}

/// Not every task finished before the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{unfinished} tasks had not finished within {} ms after draining began", .grace.as_millis())]
pub struct GraceExceeded {
    /// The number of tasks that were still running.
    pub unfinished: usize,
    /// How much time they had.
    pub grace: Duration,
}

impl Lifecycle {
    /// Completes when draining begins; at once if it has begun.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// A token that is cancelled when draining begins. Cancelling it does not drain the service, so
    /// it may also be used for work that ends earlier.
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.child_token()
    }

    /// Begins to drain. A second call does nothing.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Starts a task that `finish` waits for. If it fails or panics, the service drains, and the
    /// error becomes the service's.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let lifecycle = self.clone();
        self.tasks.spawn(async move {
            // In a task of its own, so that a panic becomes an error like any other.
            let ended = match tokio::spawn(task).await {
                Ok(result) => result.map_err(|error| error.context(format!("task {name}"))),
                Err(panic) => Err(anyhow::anyhow!("task {name} panicked: {panic}")),
            };
            if let Err(error) = ended {
                lifecycle.fail(error);
            }
        });
    }

    /// Records why the service can't continue, and drains it.
    pub fn fail(&self, error: anyhow::Error) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        self.drain();
    }

    /// Waits for the tasks to end, but not longer than the grace period.
    ///
    /// # Errors
    ///
    /// The first failure of a task, or otherwise that some tasks did not end.
    pub async fn finish(&self, grace: Duration) -> anyhow::Result<()> {
        self.drain();
        self.tasks.close();
        let ended = tokio::time::timeout(grace, self.tasks.wait()).await;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for later in failures.iter().skip(1) {
            tracing::error!(error = format!("{later:#}"), "a task failed while draining");
        }
        if !failures.is_empty() {
            return Err(failures.swap_remove(0));
        }
        ended.map_err(|_| GraceExceeded { unfinished: self.tasks.len(), grace }.into())
    }
}

/// Makes SIGTERM and SIGINT drain the service. A second signal ends the process at once.
///
/// # Errors
///
/// The operating system refuses the handlers.
pub(crate) fn drain_on_signals(lifecycle: &Lifecycle, name: &'static str) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let lifecycle = lifecycle.clone();
    tokio::spawn(async move {
        loop {
            let which = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if lifecycle.is_draining() {
                tracing::error!(service = name, "a second {which}: giving up what is not finished");
                std::process::exit(EXIT_FAILURE);
            }
            tracing::info!(service = name, "{which}: draining");
            lifecycle.drain();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn draining_waits_for_the_tasks() {
        let lifecycle = Lifecycle::default();
        let (finished, was_finished) = tokio::sync::oneshot::channel();
        let inner = lifecycle.clone();
        lifecycle.spawn("worker", async move {
            inner.draining().await;
            finished.send(()).map_err(|()| anyhow::anyhow!("nobody listens"))
        });
        lifecycle.finish(GRACE).await.unwrap();
        was_finished.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_fails_drains_the_service_and_names_itself() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("reader", async { anyhow::bail!("the stream is gone") });
        lifecycle.draining().await;
        let error = lifecycle.finish(GRACE).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "task reader: the stream is gone");
    }

    #[tokio::test]
    async fn a_task_that_panics_drains_the_service() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("reader", async { panic!("boom") });
        lifecycle.draining().await;
        let error = lifecycle.finish(GRACE).await.unwrap_err();
        assert!(error.to_string().starts_with("task reader panicked"), "{error}");
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_not_waited_for_without_end() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("stuck", std::future::pending());
        let grace = Duration::from_millis(1);
        let error = lifecycle.finish(grace).await.unwrap_err();
        let exceeded = error.downcast::<GraceExceeded>().unwrap();
        assert_eq!(exceeded, GraceExceeded { unfinished: 1, grace });
    }
}
