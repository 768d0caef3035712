//! The state of a publisher: for metrics, readiness and the log.

use std::convert::Infallible;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;

use service_kit::Clock;

use crate::unconfirmed::{Unconfirmed, Underway};

/// How often unacknowledged messages are checked within the time in which they should be
/// acknowledged, and the shortest pause between two checks.
const LOOKS_IN_TIME: u32 = 10;
const LOOK_MIN: Duration = Duration::from_millis(10);

/// What a publisher did so far, and what it waits for.
#[derive(Debug)]
pub struct PublishProgress {
    pub(crate) messages: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) full_waits: AtomicU64,
    pub(crate) full: AtomicBool,
    pub(crate) underway: Underway,
    unconfirmed_after: Duration,
}

impl PublishProgress {
    pub(crate) fn new(unconfirmed_after: Duration) -> Self {
        Self {
            messages: AtomicU64::new(0),
            events: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            full_waits: AtomicU64::new(0),
            full: AtomicBool::new(false),
            underway: Underway::new(Clock::system()),
            unconfirmed_after,
        }
    }

    /// Messages acknowledged, duplicates included.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Events in the acknowledged messages.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Messages that the server already had.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Attempts beyond the first of each message.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Answers that reported a full stream.
    pub fn full_waits(&self) -> u64 {
        self.full_waits.load(Ordering::Relaxed)
    }

    /// Whether the last answer reported a full stream.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// What was sent and is not yet acknowledged, since when and why.
    pub fn unconfirmed(&self) -> Unconfirmed {
        self.underway.look()
    }

    /// Why publishing waits and what to do. A full stream is reported at once, and a message that
    /// is not acknowledged for any other reason after `NATS_UNCONFIRMED_AFTER_MS`.
    pub fn trouble(&self) -> Option<String> {
        let unconfirmed = self.unconfirmed();
        let after = if self.is_full() { Duration::ZERO } else { self.unconfirmed_after };
        unconfirmed.overdue(after)
    }
}

/// Logs once when a message is not acknowledged in time, and once when all are again. A full stream
/// is logged where its answer is handled.
pub(crate) async fn tell(progress: Arc<PublishProgress>) -> Infallible {
    let after = progress.unconfirmed_after;
    let mut told = None;
    loop {
        let unconfirmed = progress.unconfirmed();
        match (unconfirmed.overdue(after), &told) {
            (Some(why), None) if !progress.is_full() => {
                tracing::warn!(why, "publishing waits");
                told = Some(unconfirmed.subject);
            }
            (None, Some(subject)) => {
                tracing::info!(subject, "everything published is acknowledged again in time");
                told = None;
            }
            (Some(_) | None, _) => {}
        }
        tokio::time::sleep((after / LOOKS_IN_TIME).max(LOOK_MIN)).await;
    }
}
