//! How long to wait before the next attempt.

use std::time::Duration;

/// Pauses that double from the first to the longest. Each is random within its upper half, so that
/// processes that failed together do not return together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

/// Pauses from 100 ms to 5 s, for a server that is away.
impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(5), attempts: 0 }
    }
}

/// Why a backoff can't be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    /// A pause of zero would retry in a busy loop.
    #[error("the first pause must be longer than zero")]
    Zero,
    /// The longest pause is shorter than the first.
    #[error("the longest pause must not be shorter than the first")]
    Inverted,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    ///
    /// # Errors
    ///
    /// The first pause is zero, or the longest one is shorter than the first.
    pub fn new(first: Duration, longest: Duration) -> Result<Self, InvalidBackoff> {
        if first.is_zero() {
            return Err(InvalidBackoff::Zero);
        }
        if longest < first {
            return Err(InvalidBackoff::Inverted);
        }
        Ok(Self { first, longest, attempts: 0 })
    }

    /// The next pause.
    pub fn next(&mut self, jitter: &mut Jitter) -> Duration {
        // 2^20 times the first pause is longer than any useful longest pause.
        let doublings = self.attempts.min(20);
        self.attempts = self.attempts.saturating_add(1);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.longest);
        let half = ceiling / 2;
        let spread = u64::try_from((ceiling - half).as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(jitter.below(spread.saturating_add(1)))
    }

    /// How many pauses were taken since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins with the first pause again, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Pseudo-random numbers for pauses (`SplitMix64`); the caller seeds them, so that a test can
/// repeat them.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// The sequence with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, which is determined by this one.
    pub fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }

    /// A number below the bound; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        mixed.checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_grow_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new(FIRST, LONGEST).unwrap();
        let mut jitter = Jitter::seeded(1);
        let mut ceiling = FIRST;
        for _ in 0..40 {
            let pause = backoff.next(&mut jitter);
            assert!(pause >= ceiling / 2 && pause <= ceiling, "{pause:?} of {ceiling:?}");
            ceiling = (ceiling * 2).min(LONGEST);
        }
        assert_eq!(backoff.attempts(), 40);
        backoff.reset();
        assert!(backoff.next(&mut jitter) <= FIRST);
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(FIRST, LONGEST).unwrap();
            let mut jitter = Jitter::seeded(seed);
            (0..10).map(|_| backoff.next(&mut jitter)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }

    #[test]
    fn a_busy_loop_can_not_be_configured() {
        assert_eq!(Backoff::new(Duration::ZERO, LONGEST).unwrap_err(), InvalidBackoff::Zero);
        assert_eq!(Backoff::new(LONGEST, FIRST).unwrap_err(), InvalidBackoff::Inverted);
    }
}
