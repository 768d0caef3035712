//! Decides when a batch is due: by its number of events, or by the age of its oldest message.
//! Performs no I/O and reads no clock.

/// Bounds of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    /// Events from which on a batch is due.
    pub(crate) events_max: u64,
    /// Age of the oldest message from which on a batch is due, in milliseconds.
    pub(crate) age_ms_max: u64,
}

/// Decides when the collected messages are due.
#[derive(Clone, Debug)]
pub(crate) struct Batcher {
    limits: BatchLimits,
    events: u64,
    /// Set exactly while something is collected, in milliseconds.
    deadline_ms: Option<u64>,
}

impl Batcher {
    pub(crate) const fn new(limits: BatchLimits) -> Self {
        Self { limits, events: 0, deadline_ms: None }
    }

    /// Records a message with this many events. A message without events counts as one, because its
    /// position must be committed too.
    pub(crate) fn push(&mut self, now_ms: u64, events: u64) {
        self.events += events.max(1);
        self.deadline_ms.get_or_insert(now_ms.saturating_add(self.limits.age_ms_max));
    }

    /// When [`Batcher::is_due`] should be called again, in milliseconds.
    pub(crate) const fn poll_timeout(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Whether the batch should be sent to the committer.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.is_full() || self.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
    }

    /// Whether nothing more may be added.
    pub(crate) const fn is_full(&self) -> bool {
        self.events >= self.limits.events_max
    }

    /// Whether nothing was added.
    pub(crate) const fn is_empty(&self) -> bool {
        self.deadline_ms.is_none()
    }

    /// Starts an empty batch, after the last one was sent.
    pub(crate) const fn flush(&mut self) {
        self.events = 0;
        self.deadline_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { events_max: 10, age_ms_max: 5 };

    #[test]
    fn a_batch_is_due_by_number() {
        let mut batcher = Batcher::new(LIMITS);
        batcher.push(0, 9);
        assert!(!batcher.is_due(0));
        batcher.push(0, 0);
        assert!(batcher.is_due(0) && batcher.is_full());
        batcher.flush();
        assert!(batcher.is_empty() && !batcher.is_due(u64::MAX));
    }

    #[test]
    fn the_age_of_a_batch_is_that_of_its_oldest_message() {
        let mut batcher = Batcher::new(LIMITS);
        assert_eq!(batcher.poll_timeout(), None);
        batcher.push(100, 1);
        batcher.push(104, 1);
        assert_eq!(batcher.poll_timeout(), Some(105));
        assert!(!batcher.is_due(104) && batcher.is_due(105));
    }

    #[test]
    fn a_message_without_events_begins_a_batch_that_falls_due() {
        let mut batcher = Batcher::new(LIMITS);
        assert!(batcher.is_empty() && !batcher.is_full());
        batcher.push(100, 0);
        assert!(!batcher.is_empty() && batcher.is_due(105));
    }
}
