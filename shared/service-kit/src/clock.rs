//! The only reader of the wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that is passed down. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Manual { now_us: Arc<AtomicI64>, started_us: i64 },
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the clock")]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that does not move until it is advanced, in microseconds since 1970.
    pub fn manual(now_us: i64) -> Self {
        Self(Source::Manual { now_us: Arc::new(AtomicI64::new(now_us)), started_us: now_us })
    }

    /// Moves a manual clock and all its clones forward; the system's clock is not affected.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { now_us, .. } = &self.0 {
            now_us.fetch_add(micros(by), Ordering::SeqCst);
        }
    }

    /// Wall time in microseconds since 1970, UTC. It may step back; use it for stored times.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the clock")]
    pub fn now_us(&self) -> i64 {
        match &self.0 {
            Source::System { .. } => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => micros(since),
                Err(before) => -micros(before.duration()),
            },
            Source::Manual { now_us, .. } => now_us.load(Ordering::SeqCst),
        }
    }

    /// Time since the clock was created. It never steps back; use it for waits and rates.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the clock")]
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } => Instant::now().saturating_duration_since(*started),
            Source::Manual { now_us, started_us } => {
                let since = now_us.load(Ordering::SeqCst).saturating_sub(*started_us);
                Duration::from_micros(u64::try_from(since).unwrap_or(0))
            }
        }
    }

    /// [`Clock::monotonic`] in whole milliseconds.
    pub fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_manual_clock_share_one_time() {
        let clock = Clock::manual(1_000_000);
        let clone = clock.clone();
        clock.advance(Duration::from_millis(5));
        assert_eq!(clone.now_us(), 1_005_000);
        assert_eq!(clone.monotonic_ms(), 5);
    }

    #[test]
    fn the_system_clock_does_not_step_back() {
        let clock = Clock::system();
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
        // 2020-01-01: on a machine whose clock is not set, everything else would fail too.
        assert!(clock.now_us() > 1_577_836_800_000_000);
    }
}
