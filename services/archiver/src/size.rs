//! How large the archive is, what an event takes of it, and how long its room lasts, as metrics.

use std::{collections::VecDeque, time::Duration};

use event_store::totals::DatabaseSize;
use prometheus::{Gauge, IntGauge, Registry};
use service_kit::metrics::{Registrar, clamped, float};

/// Growth is that of the last six hours: a day has its peak and its night.
const GROWTH_WINDOW_S: u64 = 6 * 3_600;
/// A shorter time tells nothing: files grow in steps, and a start catches up.
const GROWTH_SPAN_S_MIN: u64 = 600;
/// Fuller than this is said in the log; at Supabase a free project is read-only at its limit.
const FULL_PERCENT: u64 = 90;

/// What is watched, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeRules {
    pub(crate) interval: Duration,
    /// Bytes that the database may have; none is known.
    pub(crate) limit_bytes: Option<u64>,
}

/// The gauges; those of a limit only where one is set.
#[derive(Debug)]
pub(crate) struct SizeWatch {
    pub(crate) rules: SizeRules,
    bytes: IntGauge,
    event_bytes: Gauge,
    time_to_limit: Option<Gauge>,
    growth: Growth,
    was_full: bool,
}

impl SizeWatch {
    pub(crate) fn new(rules: SizeRules, registry: &Registry) -> prometheus::Result<Self> {
        let all = Registrar::from(registry);
        let bytes = all.gauge(
            "lakegauge_archive_database_bytes",
            "Size of the database with its tables, indexes and everything else.",
        )?;
        let event_bytes = all.float_gauge(
            "lakegauge_archive_event_bytes",
            "Bytes of the database for each event in it; NaN before the first.",
        )?;
        event_bytes.set(f64::NAN);
        let mut time_to_limit = None;
        if let Some(limit_bytes) = rules.limit_bytes {
            let limit = all.gauge(
                "lakegauge_archive_database_limit_bytes",
                "Size that the database may have, as it was set.",
            )?;
            limit.set(clamped(limit_bytes));
            let gauge = all.float_gauge(
                "lakegauge_archive_database_time_to_limit_seconds",
                "Time until the database reaches its limit if it grows as in the last six hours; \
                 NaN in the first ten minutes, +Inf if it does not grow.",
            )?;
            gauge.set(f64::NAN);
            time_to_limit = Some(gauge);
        }
        let growth = Growth::default();
        Ok(Self { rules, bytes, event_bytes, time_to_limit, growth, was_full: false })
    }

    /// Takes a size at a time in seconds; `inserted` rows were ever written.
    pub(crate) fn observe(&mut self, now_s: u64, size: DatabaseSize, inserted: u64) {
        self.bytes.set(clamped(size.bytes));
        let events = inserted.saturating_sub(size.dropped_rows);
        let of_each = if events > 0 { float(size.bytes) / float(events) } else { f64::NAN };
        self.event_bytes.set(of_each);
        self.growth.push(now_s, size.bytes);
        let (Some(limit), Some(gauge)) = (self.rules.limit_bytes, &self.time_to_limit) else {
            return;
        };
        gauge.set(self.growth.seconds_until(limit));
        let is_full = size.bytes.saturating_mul(100) >= limit.saturating_mul(FULL_PERCENT);
        if is_full && !self.was_full {
            tracing::warn!(
                bytes = size.bytes,
                limit,
                "the database is nearly as large as it may be: retention_days in \
                 NATS_STREAM_RULES drops old days"
            );
        }
        self.was_full = is_full;
    }
}

/// Sizes of the last hours, oldest first.
#[derive(Debug, Default)]
struct Growth {
    samples: VecDeque<(u64, u64)>,
}

impl Growth {
    fn push(&mut self, now_s: u64, bytes: u64) {
        self.samples.push_back((now_s, bytes));
        while self.samples.front().is_some_and(|(at, _)| at + GROWTH_WINDOW_S < now_s) {
            self.samples.pop_front();
        }
    }

    /// From the last sample on, at the average of all; 0 where the limit is reached.
    fn seconds_until(&self, limit: u64) -> f64 {
        let (Some((from, before)), Some((to, now))) = (self.samples.front(), self.samples.back())
        else {
            return f64::NAN;
        };
        let span_s = to.saturating_sub(*from);
        match (limit.saturating_sub(*now), now.saturating_sub(*before)) {
            (0, _) => 0.0,
            _ if span_s < GROWTH_SPAN_S_MIN => f64::NAN,
            (_, 0) => f64::INFINITY,
            (left, grown) => float(left) * float(span_s) / float(grown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn growth(samples: &[(u64, u64)]) -> Growth {
        let mut growth = Growth::default();
        for (at, bytes) in samples {
            growth.push(*at, *bytes);
        }
        growth
    }

    #[test]
    fn the_room_lasts_as_long_as_the_last_hours_say() {
        let an_hour = growth(&[(1_000, 100 * MB), (2_000, 120 * MB), (4_600, 200 * MB)]);
        assert_eq!(an_hour.seconds_until(500 * MB).to_bits(), 10_800.0_f64.to_bits());
        assert_eq!(an_hour.seconds_until(200 * MB).to_bits(), 0.0_f64.to_bits());
        assert_eq!(an_hour.seconds_until(100 * MB).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn what_is_older_than_the_window_tells_nothing() {
        let burst = growth(&[(0, 0), (10, 400 * MB), (20_000, 400 * MB), (21_700, 400 * MB)]);
        assert_eq!(burst.samples.len(), 2);
        assert!(burst.seconds_until(500 * MB).is_infinite(), "{burst:?}");
    }

    #[test]
    fn too_short_a_time_is_no_answer_and_a_database_that_shrinks_never_gets_there() {
        assert!(growth(&[]).seconds_until(MB).is_nan());
        assert!(growth(&[(0, MB / 2)]).seconds_until(MB).is_nan());
        assert!(growth(&[(0, 0), (599, MB / 2)]).seconds_until(MB).is_nan());
        assert!(growth(&[(0, MB / 2), (600, MB / 4)]).seconds_until(MB).is_infinite());
    }
}
