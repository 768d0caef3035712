//! SIGTERM and SIGINT for the tools. Both are handled here, because the kernel ignores them for
//! process 1 of a container otherwise.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Reports when a tool is asked to end.
#[derive(Debug)]
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// A signal came before the tool was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {0}")]
pub(crate) struct Stopped(pub(crate) &'static str);

impl Stop {
    /// Listens from now on. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// The operating system refuses the handlers.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes with the next signal that asks to end.
    pub(crate) async fn asked(&mut self) -> Stopped {
        tokio::select! {
            _ = self.terminate.recv() => Stopped("SIGTERM"),
            _ = self.interrupt.recv() => Stopped("SIGINT"),
        }
    }

    /// Runs something that can be interrupted without a loss.
    ///
    /// # Errors
    ///
    /// A signal came first.
    pub(crate) async fn unless<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            done = doing => Ok(done),
            stopped = self.asked() => Err(stopped),
        }
    }
}
