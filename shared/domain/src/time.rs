//! Event time.

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Seconds in a day.
pub const SECONDS_PER_DAY: i64 = 86_400;

/// A moment in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The whole second that holds this moment, in seconds since 1970.
    pub const fn second(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// The UTC day that holds this moment, in days since 1970-01-01.
    pub const fn day(self) -> i64 {
        self.second().div_euclid(SECONDS_PER_DAY)
    }

    /// The start of the slot of `length_s` seconds that holds this moment, in seconds since 1970.
    pub const fn slot(self, length_s: i64) -> i64 {
        self.second().div_euclid(length_s) * length_s
    }

    /// The moment `seconds` later, or the last moment that the type can hold.
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// A moment from seconds since 1970, or the last moment that the type can hold.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// A moment from nanoseconds since 1970, rounded down.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos.div_euclid(1_000))
    }
}
