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
/// A database that reaches its limit sooner, in seconds, is said in the log: a day to act.
const SOON_S: f64 = 86_400.0;
/// The limit of a remote database for which none is set, in bytes, while it is smaller: that of
/// Supabase's free plan.
const FREE_PLAN_BYTES: u64 = 500_000_000;

/// What is watched, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeRules {
    pub(crate) interval: Duration,
    /// Bytes that the database may have; `None` if none is known.
    pub(crate) limit_bytes: Option<u64>,
    /// Whether the database is on another network, where room is what one pays for.
    pub(crate) is_remote: bool,
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
    was_soon: bool,
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
        Ok(Self {
            rules,
            bytes,
            event_bytes,
            time_to_limit,
            growth,
            was_full: false,
            was_soon: false,
        })
    }

    /// Takes a size at a time in seconds; `inserted` rows were ever written.
    pub(crate) fn observe(&mut self, now_s: u64, size: DatabaseSize, inserted: u64) {
        self.bytes.set(clamped(size.bytes));
        let events = inserted.saturating_sub(size.dropped_rows);
        let of_each = if events > 0 { float(size.bytes) / float(events) } else { f64::NAN };
        self.event_bytes.set(of_each);
        self.growth.push(now_s, size.bytes);
        self.warn_of_growth(size.bytes);
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

    /// Says once that the database reaches its limit within a day.
    fn warn_of_growth(&mut self, bytes: u64) {
        let free_plan =
            (self.rules.is_remote && bytes < FREE_PLAN_BYTES).then_some(FREE_PLAN_BYTES);
        let Some(limit) = self.rules.limit_bytes.or(free_plan) else { return };
        let left_s = self.growth.seconds_until(limit);
        let is_soon = left_s > 0.0 && left_s < SOON_S;
        if is_soon && !self.was_soon {
            tracing::warn!(
                bytes,
                limit,
                minutes = (left_s / 60.0).round(),
                "the database reaches its limit within a day at this rate: ask simulators for fewer \
                 events (SIMULATE_LAKE_RATE, SIMULATE_WAREHOUSE_RATE), let go of old days \
                 (retention_days in NATS_STREAM_RULES), or set ARCHIVER_DATABASE_LIMIT_BYTES to \
                 what it may have (500000000 is Supabase's free plan)"
            );
        }
        self.was_soon = is_soon;
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
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

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
    fn a_size_of_exactly_six_hours_ago_still_counts() {
        let hours = growth(&[(0, 0), (21_600, 216 * MB)]);
        assert_eq!(hours.seconds_until(226 * MB).to_bits(), 1_000.0_f64.to_bits());
    }

    #[test]
    fn a_full_database_has_no_time_left_however_short_it_was_watched() {
        assert_eq!(growth(&[(0, MB)]).seconds_until(MB).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn too_short_a_time_is_no_answer_and_a_database_that_shrinks_never_gets_there() {
        assert!(growth(&[]).seconds_until(MB).is_nan());
        assert!(growth(&[(0, MB / 2)]).seconds_until(MB).is_nan());
        assert!(growth(&[(0, 0), (599, MB / 2)]).seconds_until(MB).is_nan());
        assert!(growth(&[(0, MB / 2), (600, MB / 4)]).seconds_until(MB).is_infinite());
    }

    fn watch(limit_bytes: Option<u64>) -> (SizeWatch, Registry) {
        let registry = Registry::new();
        let rules = SizeRules { interval: Duration::from_secs(60), limit_bytes, is_remote: false };
        (SizeWatch::new(rules, &registry).unwrap(), registry)
    }

    fn said(registry: &Registry, name: &str) -> Option<f64> {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        Some(family.get_metric()[0].get_gauge().get_value())
    }

    #[test]
    fn the_size_is_told_as_a_whole_and_for_each_event_that_is_still_there() {
        let (mut watch, registry) = watch(None);
        let each = |registry: &Registry| said(registry, "lakegauge_archive_event_bytes").unwrap();
        assert!(each(&registry).is_nan(), "nothing was measured");
        watch.observe(0, DatabaseSize { bytes: 9_000, dropped_rows: 30 }, 50);
        assert_eq!(said(&registry, "lakegauge_archive_database_bytes"), Some(9_000.0));
        assert_eq!(each(&registry).to_bits(), 450.0_f64.to_bits());
        watch.observe(1, DatabaseSize { bytes: 9_000, dropped_rows: 50 }, 50);
        assert!(each(&registry).is_nan(), "every event was dropped");
        let without = ["limit_bytes", "time_to_limit_seconds"];
        for name in without.map(|name| format!("lakegauge_archive_database_{name}")) {
            assert_eq!(said(&registry, &name), None, "no limit is set");
        }
    }

    #[test]
    fn the_time_to_the_limit_is_told_where_one_is_set() {
        let (mut watch, registry) = watch(Some(10 * MB));
        let size = |bytes| DatabaseSize { bytes, dropped_rows: 0 };
        let time = |registry: &Registry| {
            said(registry, "lakegauge_archive_database_time_to_limit_seconds").unwrap()
        };
        let limit = said(&registry, "lakegauge_archive_database_limit_bytes");
        assert_eq!(limit.map(f64::to_bits), Some(1e7_f64.to_bits()));
        assert!(time(&registry).is_nan());
        watch.observe(0, size(MB), 1);
        watch.observe(1_000, size(2 * MB), 1);
        assert_eq!(time(&registry).to_bits(), 8_000.0_f64.to_bits());
    }

    /// Counts the warnings of one thread.
    #[derive(Clone, Debug, Default)]
    struct Warnings(Arc<AtomicU64>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_remote_database_that_grows_to_the_free_plan_s_limit_within_a_day_is_said_once() {
        let rules =
            SizeRules { interval: Duration::from_secs(60), limit_bytes: None, is_remote: true };
        let told = |rules: SizeRules, sizes: [(u64, u64); 5]| {
            let mut watch = SizeWatch::new(rules, &Registry::new()).unwrap();
            let warnings = Warnings::default();
            tracing::subscriber::with_default(warnings.clone(), || {
                sizes.map(|(now_s, bytes)| {
                    watch.observe(now_s, DatabaseSize { bytes, dropped_rows: 0 }, 1);
                    warnings.0.load(Ordering::Relaxed)
                })
            })
        };
        let fast = [(0, 0), (600, 4 * MB), (700, 5 * MB), (800, 499 * MB), (900, 600 * MB)];
        assert_eq!(told(rules, fast), [0, 1, 1, 1, 1]);
        assert_eq!(told(SizeRules { is_remote: false, ..rules }, fast), [0; 5]);
        let slow = [(0, 0), (600, MB), (1_200, 2 * MB), (1_800, 3 * MB), (2_400, 4 * MB)];
        assert_eq!(told(rules, slow), [0; 5]);
    }

    #[test]
    fn a_database_that_is_nearly_full_is_said_once_until_it_has_room_again() {
        let (mut watch, _registry) = watch(Some(100 * MB));
        let warnings = Warnings::default();
        let told = tracing::subscriber::with_default(warnings.clone(), || {
            [89 * MB, 90 * MB, 95 * MB, 50 * MB, 100 * MB, 90 * MB - 1].map(|bytes| {
                watch.observe(0, DatabaseSize { bytes, dropped_rows: 0 }, 1);
                warnings.0.load(Ordering::Relaxed)
            })
        });
        assert_eq!(told, [0, 1, 1, 1, 2, 2]);
    }
}
