//! How far the rollups of each stream are behind its rows, and what they wait for: as a metric, in
//! `/readyz` and in the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus::status::ArchiveStatus;
use prometheus::Registry;
use service_kit::{Condition, metrics::clamped};

service_kit::metrics! {
    /// The gauges of all streams of the archive, whichever archiver writes them.
    #[derive(Clone, Debug)]
    struct RollupMetrics {
        lag: gauges("lakegauge_archive_rollup_lag_seconds",
            "How long rows have been archived that the rollups (by day and by key) do not include; \
             0 where they include every row.", &["stream"]),
    }
}

/// What the rollups of each stream wait for. Clones show the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct RollupWaits(Arc<Mutex<BTreeMap<String, String>>>);

impl RollupWaits {
    /// The rollups of a stream wait for this. Returns whether that is news.
    pub(crate) fn begin(&self, stream: &str, what: &str) -> bool {
        self.waits().insert(stream.to_owned(), what.to_owned()).as_deref() != Some(what)
    }

    /// The rollups of a stream include every row that was archived when they were brought up.
    pub(crate) fn end(&self, stream: &str) {
        self.waits().remove(stream);
    }

    fn of(&self, stream: &str) -> Option<String> {
        self.waits().get(stream).cloned()
    }

    fn waits(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows how far the rollups are behind. Not ready while a stream that this archiver writes is
/// behind for too long.
#[derive(Debug)]
pub(crate) struct RollupWatch {
    overdue_after: Duration,
    metrics: RollupMetrics,
    waits: RollupWaits,
    condition: Condition,
    was_overdue: bool,
}

impl RollupWatch {
    /// Watches what waits; a lag from `overdue_after` on is too long.
    ///
    /// # Errors
    ///
    /// The name of a metric is taken, which is a programming error.
    pub(crate) fn new(
        overdue_after: Duration,
        waits: RollupWaits,
        condition: Condition,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let metrics = RollupMetrics::register(registry)?;
        Ok(Self { overdue_after, metrics, waits, condition, was_overdue: false })
    }

    /// Shows the lag of each stream of the archive. Only the streams that this archiver writes
    /// concern its readiness.
    pub(crate) fn observe(&mut self, lags: &BTreeMap<String, Duration>, archive: &ArchiveStatus) {
        for (stream, lag) in lags {
            self.metrics.lag.with_label_values(&[stream]).set(clamped(lag.as_secs()));
        }
        let is_own = |stream: &str| archive.streams.get(stream).is_some_and(|own| !own.standby);
        let own = lags.iter().filter(|(stream, _)| is_own(stream));
        let (overdue, current): (Vec<_>, Vec<_>) =
            own.partition(|(_, lag)| **lag >= self.overdue_after);
        let describe = |streams: Vec<(&String, &Duration)>| {
            let lines: Vec<String> =
                streams.into_iter().map(|(stream, lag)| self.describe(stream, *lag)).collect();
            lines.join("; ")
        };
        let is_overdue = !overdue.is_empty();
        if is_overdue {
            let why = describe(overdue);
            if !self.was_overdue {
                tracing::warn!(why, "rollups are overdue");
            }
            self.condition.fail(why);
        } else {
            if self.was_overdue {
                tracing::info!("rollups are no longer overdue");
            }
            self.condition.pass(describe(current));
        }
        self.was_overdue = is_overdue;
    }

    fn describe(&self, stream: &str, lag: Duration) -> String {
        let seconds = lag.as_secs();
        match self.waits.of(stream) {
            Some(what) => format!("{stream}: {seconds} s behind the rows, waiting: {what}"),
            None => format!("{stream}: {seconds} s behind the rows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bus::status::ArchivedStreamStatus;
    use prometheus::TextEncoder;
    use service_kit::Readiness;

    use super::*;

    fn archive(streams: [(&str, bool); 2]) -> ArchiveStatus {
        let status = |standby| ArchivedStreamStatus { standby, ..ArchivedStreamStatus::default() };
        let streams = streams.map(|(name, standby)| (name.to_owned(), status(standby)));
        ArchiveStatus { streams: streams.into(), ledger: None }
    }

    fn lags(seconds: [(&str, u64); 2]) -> BTreeMap<String, Duration> {
        seconds.map(|(name, lag)| (name.to_owned(), Duration::from_secs(lag))).into()
    }

    fn watch() -> (RollupWatch, RollupWaits, Readiness, Registry) {
        let (waits, readiness) = (RollupWaits::default(), Readiness::default());
        let (registry, condition) = (Registry::new(), readiness.condition("rollups"));
        let limit = Duration::from_secs(100);
        let watch = RollupWatch::new(limit, waits.clone(), condition, &registry).unwrap();
        (watch, waits, readiness, registry)
    }

    #[test]
    fn what_waits_says_for_what_and_is_not_ready_once_it_is_overdue() {
        let (mut watch, waits, readiness, registry) = watch();
        let own = archive([("LAKE_0", false), ("WAREHOUSE_0", false)]);
        assert!(waits.begin("LAKE_0", "the archiver is behind"));
        assert!(!waits.begin("LAKE_0", "the archiver is behind"), "told once");
        watch.observe(&lags([("LAKE_0", 99), ("WAREHOUSE_0", 7)]), &own);
        assert_eq!(
            readiness.describe(),
            "[+]rollups LAKE_0: 99 s behind the rows, waiting: the archiver is behind; \
             WAREHOUSE_0: 7 s behind the rows\n"
        );
        watch.observe(&lags([("LAKE_0", 100), ("WAREHOUSE_0", 7)]), &own);
        assert_eq!(
            readiness.describe(),
            "[-]rollups LAKE_0: 100 s behind the rows, waiting: the archiver is behind\n"
        );
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let series = "lakegauge_archive_rollup_lag_seconds{stream=\"LAKE_0\"} 100\n";
        assert!(text.contains(series), "{text}");

        waits.end("LAKE_0");
        watch.observe(&lags([("LAKE_0", 0), ("WAREHOUSE_0", 0)]), &own);
        assert!(readiness.is_ready());
        assert!(waits.begin("LAKE_0", "the archiver is behind"), "it is news again");
    }

    #[test]
    fn rollups_of_a_stream_that_another_archiver_writes_are_only_shown() {
        let (mut watch, _, readiness, registry) = watch();
        let own = archive([("LAKE_0", true), ("WAREHOUSE_0", false)]);
        watch.observe(&lags([("LAKE_0", 900), ("LAKE_1", 900)]), &own);
        assert!(readiness.is_ready(), "{}", readiness.describe());
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for stream in ["LAKE_0", "LAKE_1"] {
            let series = format!("lakegauge_archive_rollup_lag_seconds{{stream=\"{stream}\"}} 900");
            assert!(text.contains(&series), "{text}");
        }
    }
}
