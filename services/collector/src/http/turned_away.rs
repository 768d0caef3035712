//! Logs the requests that are turned away: each status at most once a minute, so that they don't
//! fill the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use service_kit::Clock;

/// The shortest time between two log lines about the same status.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of characters of a path that are logged, because any stranger can choose the
/// path.
const PATH_CHARS_MAX: usize = 100;

/// The reason why a request was turned away, as in the answer's text. It is passed along with the
/// answer inside this process.
#[derive(Clone, Debug)]
pub(crate) struct Why(pub(crate) String);

/// The last log line about each status.
#[derive(Debug)]
pub(crate) struct TurnedAway {
    clock: Clock,
    told: Mutex<BTreeMap<u16, Told>>,
}

#[derive(Debug)]
struct Told {
    at: Duration,
    /// Requests since then that were not logged.
    untold: u64,
}

impl TurnedAway {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, told: Mutex::default() }
    }

    /// Logs a request, unless a request with the same status was logged less than a minute ago.
    pub(crate) fn tell(&self, status: u16, path: &str, why: &str) {
        if let Some(untold) = self.untold(status, self.clock.monotonic()) {
            let path: String = path.chars().take(PATH_CHARS_MAX).collect();
            tracing::warn!(status, ?path, why = why.trim_end(), untold, "a request is turned away");
        }
    }

    /// The number of requests with this status that were not logged since the last log line. `None`
    /// if this request must not be logged either.
    fn untold(&self, status: u16, now: Duration) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(&status) {
            Some(last) if now.saturating_sub(last.at) < TELL_INTERVAL => {
                last.untold = last.untold.saturating_add(1);
                None
            }
            last => {
                let untold = last.map_or(0, |last| last.untold);
                told.insert(status, Told { at: now, untold: 0 });
                Some(untold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_told_once_a_minute_with_the_number_of_those_that_were_not() {
        let turned_away = TurnedAway::new(Clock::system());
        let at = |status, seconds| turned_away.untold(status, Duration::from_secs(seconds));
        assert_eq!(
            [at(401, 5), at(401, 6), at(401, 64), at(404, 64)],
            [Some(0), None, None, Some(0)]
        );
        assert_eq!([at(401, 65), at(401, 66), at(401, 125)], [Some(2), None, Some(1)]);
    }
}
