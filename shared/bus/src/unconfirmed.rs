//! Messages that were published and not acknowledged: how many, since when, and why. A server that
//! can't write does not answer, so only the time distinguishes a full disk from an idle lake.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service_kit::Clock;

/// NATS stores nothing and does not answer, which is the effect of a full disk.
pub(crate) const NO_ANSWER: &str = "NATS gives no answer, which is how a full disk looks: see \
    nats-server's log and its /healthz, free space, and start nats-server again (a stream whose \
    write failed takes nothing before that; what waits here is sent again by itself)";
/// Nobody is there to answer.
pub(crate) const NOT_CONNECTED: &str =
    "the connection to NATS is lost; it is made again by itself as soon as NATS answers";

/// Messages that were sent and are not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The number of messages.
    pub messages: u64,
    /// How long the oldest has waited; zero if none waits.
    pub oldest: Duration,
    /// The subject of the oldest.
    pub subject: String,
    /// The result of the last attempt to send the oldest, and what to do; empty before that attempt
    /// ended.
    pub why: String,
}

/// One message on its way.
#[derive(Debug)]
struct Sent {
    since: Duration,
    subject: String,
    why: String,
}

/// The messages of a publisher that are on their way, oldest first.
#[derive(Debug)]
pub(crate) struct Underway {
    clock: Clock,
    sent: Mutex<BTreeMap<u64, Sent>>,
}

impl Underway {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, sent: Mutex::default() }
    }

    /// Records that a message is sent for the first time. Returns a number that identifies it.
    pub(crate) fn begin(&self, subject: &str) -> u64 {
        let mut sent = self.sent();
        let number = sent.last_key_value().map_or(0, |(last, _)| last + 1);
        let since = self.clock.monotonic();
        sent.insert(number, Sent { since, subject: subject.to_owned(), why: String::new() });
        number
    }

    /// Records that an attempt was not answered, or not with an acknowledgement.
    pub(crate) fn failed(&self, number: u64, why: impl Into<String>) {
        if let Some(sent) = self.sent().get_mut(&number) {
            sent.why = why.into();
        }
    }

    /// Records that a message was acknowledged, or given up.
    pub(crate) fn end(&self, number: u64) {
        self.sent().remove(&number);
    }

    pub(crate) fn look(&self) -> Unconfirmed {
        let now = self.clock.monotonic();
        let sent = self.sent();
        let messages = u64::try_from(sent.len()).unwrap_or(u64::MAX);
        sent.first_key_value().map_or_else(Unconfirmed::default, |(_, oldest)| Unconfirmed {
            messages,
            oldest: now.saturating_sub(oldest.since),
            subject: oldest.subject.clone(),
            why: oldest.why.clone(),
        })
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<u64, Sent>> {
        // Each change is complete when the lock is released, even after a panic.
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unconfirmed {
    /// The problem if the oldest message has waited for at least this time, and what to do.
    pub fn overdue(&self, after: Duration) -> Option<String> {
        if self.messages == 0 || self.oldest < after {
            return None;
        }
        let why = if self.why.is_empty() { NO_ANSWER } else { &self.why };
        Some(format!(
            "{} messages for {} are sent and not acknowledged, the oldest for {} s: {why}",
            self.messages,
            self.subject,
            self.oldest.as_secs(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_message_says_since_when_and_why_and_an_acknowledged_one_says_nothing() {
        let clock = Clock::manual(0);
        let underway = Underway::new(clock.clone());
        let first = underway.begin("lake.access.0.a");
        clock.advance(Duration::from_secs(3));
        let second = underway.begin("lake.access.0.b");
        underway.failed(second, "because");
        let look = underway.look();
        assert_eq!((look.messages, look.oldest), (2, Duration::from_secs(3)));
        assert_eq!(look.overdue(Duration::from_secs(4)), None);
        let told = look.overdue(Duration::from_secs(3)).unwrap();
        assert!(told.contains("lake.access.0.a") && told.contains(NO_ANSWER), "{told}");
        underway.end(first);
        clock.advance(Duration::from_secs(5));
        let told = underway.look().overdue(Duration::from_secs(5)).unwrap();
        assert!(told.contains("1 messages") && told.contains("because"), "{told}");
        underway.end(second);
        assert_eq!(underway.look(), Unconfirmed::default());
        assert_eq!(underway.look().overdue(Duration::ZERO), None, "nothing waits");
    }
}
