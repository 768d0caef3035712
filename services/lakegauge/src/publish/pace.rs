//! Spreads events over time, so that an import causes no burst.

use std::num::NonZeroU64;

/// The largest delay that is made up for, in milliseconds. After a longer wait for the broker,
/// events continue at their rate.
const BEHIND_MS_MAX: u64 = 1_000;

/// Limits the number of events per second.
#[derive(Debug)]
pub(super) struct Pace {
    per_s: NonZeroU64,
    /// When event number 0 of this count was due.
    began_ms: u64,
    events: u64,
}

impl Pace {
    pub(super) const fn new(per_s: NonZeroU64, now_ms: u64) -> Self {
        Self { per_s, began_ms: now_ms, events: 0 }
    }

    /// How long to wait before the next event.
    pub(super) const fn wait_ms(&mut self, now_ms: u64) -> u64 {
        let due_ms =
            self.began_ms.saturating_add(self.events.saturating_mul(1_000) / self.per_s.get());
        self.events += 1;
        let behind_ms = now_ms.saturating_sub(due_ms);
        if behind_ms > BEHIND_MS_MAX {
            self.began_ms = self.began_ms.saturating_add(behind_ms);
        }
        due_ms.saturating_sub(now_ms)
    }
}

pub(super) fn rate(text: &str) -> Result<NonZeroU64, &'static str> {
    text.parse().map_err(|_| "must be a whole number of events a second, from 1 on")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of some events, if sending each takes some time.
    fn times(per_s: u64, events: usize, mut takes_ms: impl FnMut(usize) -> u64) -> Vec<u64> {
        let mut pace = Pace::new(NonZeroU64::new(per_s).unwrap(), 0);
        let mut now_ms = 0;
        (0..events)
            .map(|event| {
                now_ms += pace.wait_ms(now_ms);
                let at = now_ms;
                now_ms += takes_ms(event);
                at
            })
            .collect()
    }

    #[test]
    fn events_are_as_far_apart_as_the_rate_says_also_where_sending_takes_time() {
        assert_eq!(times(4, 5, |_| 0), [0, 250, 500, 750, 1_000]);
        assert_eq!(times(4, 5, |_| 100), [0, 250, 500, 750, 1_000]);
        assert_eq!(times(2_000, 2_001, |_| 0)[2_000], 1_000);
    }

    #[test]
    fn a_short_wait_is_made_up_for_and_a_long_one_is_not() {
        let short = times(10, 12, |event| if event == 0 { 500 } else { 0 });
        assert_eq!((short[1], short[5], short[6]), (500, 500, 600));
        let long = times(10, 12, |event| if event == 0 { 60_000 } else { 0 });
        assert_eq!((long[1], long[2], long[3]), (60_000, 60_100, 60_200));
    }

    #[test]
    fn a_rate_is_a_whole_number_above_0() {
        assert_eq!(rate("50").map(NonZeroU64::get), Ok(50));
        assert!(rate("0").is_err() && rate("fast").is_err());
    }
}
