//! The sums of the archive's ledger as metrics: the short form of `lakegauge audit`, always
//! visible.

use std::{collections::BTreeMap, time::Duration};

use bus::status::LedgerStatus;
use domain::Reason;
use event_store::{
    StoreError, StoreSettings,
    totals::{ArchiveTotals, DatabaseSize, TotalsReader},
};
use service_kit::{
    Clock, Context,
    metrics::{clamped, raise},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    rollup_lag::{RollupWaits, RollupWatch},
    shared_status::SharedArchiveStatus,
    size::{SizeRules, SizeWatch},
};

/// Time between two checks that the database is reachable. It bounds how late an outage is noticed
/// while nothing is written.
const PING_INTERVAL: Duration = Duration::from_secs(1);

service_kit::metrics! {
    /// The gauges of all streams of the archive, whichever archiver writes them.
    #[derive(Clone, Debug)]
    struct LedgerMetrics {
        ledger: counters("lakegauge_archive_ledger_events_total",
            "Sums of the archive's ledger, by what became of the events.",
            &["stream", "result"]),
        gaps: gauges("lakegauge_archive_ledger_gaps",
            "Ranges of the ledger that do not begin where the one before ends; it must be 0.",
            &["stream"]),
        lost: counters("lakegauge_archive_declared_lost_messages_total",
            "Messages that the broker lost before they could be archived.", &["stream"]),
        letters: gauges("lakegauge_archive_dead_letters_open",
            "Dead letters that nobody has closed.", &["stream", "reason"]),
    }
}

impl LedgerMetrics {
    fn observe(&self, totals: &ArchiveTotals) {
        for (stream, sums) in &totals.ledger {
            let results =
                [("inserted", sums.inserted), ("duplicate", sums.duplicates), ("dead", sums.dead)];
            for (result, value) in results {
                raise(&self.ledger.with_label_values(&[stream, result]), value);
            }
            self.gaps.with_label_values(&[stream]).set(clamped(sums.gaps));
            let lost = totals.lost_messages.get(stream).copied().unwrap_or(0);
            raise(&self.lost.with_label_values(&[stream]), lost);
            for reason in Reason::ALL {
                let open = totals.open_dead_letters.get(&(stream.clone(), *reason)).copied();
                let gauge = self.letters.with_label_values(&[stream.as_str(), reason.name()]);
                gauge.set(clamped(open.unwrap_or(0)));
            }
        }
    }
}

/// Reads the ledger of the archive periodically.
#[derive(Debug)]
pub(crate) struct LedgerWatch {
    store: StoreSettings,
    interval: Duration,
    metrics: LedgerMetrics,
    size: SizeWatch,
    rollups: RollupWatch,
    /// Whether the archiver keeps what is known of each key.
    keys: bool,
    status: SharedArchiveStatus,
    drain: CancellationToken,
    clock: Clock,
}

/// The result of one reading.
struct Looked {
    totals: ArchiveTotals,
    /// For how long rows of each stream have not been in its rollups.
    rollup_lag: BTreeMap<String, Duration>,
    /// `None` if the size was not read this time; it is read less often.
    size: Option<DatabaseSize>,
}

impl LedgerWatch {
    /// Watches the archive of a service.
    ///
    /// # Errors
    ///
    /// The name of a metric is taken, which is a programming error.
    pub(crate) fn new(
        config: &Config,
        service: &Context,
        status: SharedArchiveStatus,
        rollups: RollupWaits,
    ) -> prometheus::Result<Self> {
        let rules = SizeRules {
            interval: config.database_size_interval,
            limit_bytes: config.database_limit_bytes,
            is_remote: config.store.is_remote(),
        };
        Ok(Self {
            store: config.store.clone(),
            interval: config.ledger_interval,
            metrics: LedgerMetrics::register(&service.registry)?,
            size: SizeWatch::new(rules, &service.registry)?,
            rollups: RollupWatch::new(
                config.rollups_overdue_after,
                rollups,
                service.readiness.condition("rollups"),
                &service.registry,
            )?,
            keys: config.keys,
            status,
            drain: service.lifecycle.drain_token(),
            clock: service.clock.clone(),
        })
    }

    /// Reads the ledger until the service drains; never fails. If the database is unreachable, the
    /// metrics keep their values and the reading is repeated. Between two readings only
    /// reachability is checked.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut reader: Option<TotalsReader> = None;
        let (mut looked, mut measured): (Option<Duration>, Option<Duration>) = (None, None);
        loop {
            let now = self.clock.monotonic();
            let is_due = |at: Option<Duration>, interval| at.is_none_or(|at| now >= at + interval);
            // Before each look too: that one has no short limit, since the first takes minutes.
            if let Some(asked) = &mut reader
                && let Err(error) = asked.ping().await
            {
                tracing::debug!(%error, "the database does not answer");
                // Another connection is made at once, so that it is known which it is: the server, or
                // only this connection.
                reader = None;
            }
            if reader.is_none() || is_due(looked, self.interval) {
                let with_size = is_due(measured, self.size.rules.interval);
                match self.look(&mut reader, with_size).await {
                    Ok(found) => {
                        looked = Some(now);
                        measured = found.size.map(|_| now).or(measured);
                        self.show(now, &found);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the ledger can't be looked at");
                        reader = None;
                    }
                }
            }
            tokio::select! {
                () = self.drain.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.interval.min(PING_INTERVAL)) => {}
            }
        }
    }

    fn show(&mut self, now: Duration, found: &Looked) {
        let Looked { totals, rollup_lag, size } = found;
        self.metrics.observe(totals);
        self.rollups.observe(rollup_lag, &self.status.look());
        self.status.ledger(LedgerStatus {
            checked_ms: self.clock.now_us() / 1_000,
            gaps: totals.ledger.values().map(|sums| sums.gaps).sum(),
            lost_messages: totals.lost_messages.values().sum(),
            dead_letters_open: totals.open_dead_letters.values().sum(),
        });
        if let Some(size) = size {
            let inserted = totals.ledger.values().map(|sums| sums.inserted).sum();
            self.size.observe(now.as_secs(), *size, inserted);
        }
    }

    async fn look(
        &self,
        reader: &mut Option<TotalsReader>,
        with_size: bool,
    ) -> Result<Looked, StoreError> {
        let reader = match reader {
            Some(reader) => reader,
            None => reader.insert(TotalsReader::open(&self.store).await?),
        };
        let totals = reader.read().await?;
        let rollup_lag = reader.rollup_lag(self.keys).await?;
        let size = if with_size { Some(reader.size().await?) } else { None };
        Ok(Looked { totals, rollup_lag, size })
    }
}

#[cfg(test)]
mod tests {
    use event_store::totals::LedgerTotals;
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn every_sum_of_the_ledger_is_a_metric_of_its_stream() {
        let registry = Registry::new();
        let metrics = LedgerMetrics::register(&registry).unwrap();
        let stream = || "LAKE_0".to_owned();
        let ledger = LedgerTotals { inserted: 1, duplicates: 2, dead: 3, gaps: 4 };
        let mut totals = ArchiveTotals {
            ledger: [(stream(), ledger)].into(),
            lost_messages: [(stream(), 5)].into(),
            open_dead_letters: [((stream(), Reason::Undecodable), 6)].into(),
        };
        metrics.observe(&totals);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "ledger_events_total{result=\"inserted\",stream=\"LAKE_0\"} 1",
            "ledger_events_total{result=\"duplicate\",stream=\"LAKE_0\"} 2",
            "ledger_events_total{result=\"dead\",stream=\"LAKE_0\"} 3",
            "ledger_gaps{stream=\"LAKE_0\"} 4",
            "declared_lost_messages_total{stream=\"LAKE_0\"} 5",
            "dead_letters_open{reason=\"undecodable\",stream=\"LAKE_0\"} 6",
        ] {
            assert!(text.contains(&format!("lakegauge_archive_{line}\n")), "{line} of\n{text}");
        }
        totals.open_dead_letters.clear();
        metrics.observe(&totals);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let closed = "dead_letters_open{reason=\"undecodable\",stream=\"LAKE_0\"} 0\n";
        assert!(text.contains(closed), "letters that were closed are no longer open:\n{text}");
    }

    /// Watches a database at an address where no server listens: port 1 of this machine.
    fn of_no_database(drain: CancellationToken) -> LedgerWatch {
        let registry = Registry::new();
        let rules =
            SizeRules { interval: Duration::from_secs(60), limit_bytes: None, is_remote: false };
        LedgerWatch {
            store: StoreSettings::new("postgres://nobody@127.0.0.1:1/nothing", "test"),
            interval: Duration::from_secs(3_600),
            metrics: LedgerMetrics::register(&registry).unwrap(),
            size: SizeWatch::new(rules, &registry).unwrap(),
            rollups: RollupWatch::new(
                Duration::from_secs(60),
                RollupWaits::default(),
                service_kit::Readiness::default().condition("rollups"),
                &registry,
            )
            .unwrap(),
            keys: true,
            status: SharedArchiveStatus::default(),
            drain,
            clock: Clock::manual(0),
        }
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_is_an_error_and_not_empty() {
        let mut reader = None;
        let watch = of_no_database(CancellationToken::new());
        assert!(watch.look(&mut reader, true).await.is_err());
        assert!(reader.is_none());
    }

    #[tokio::test]
    async fn a_database_that_is_away_does_not_end_the_looking_before_the_service_drains() {
        let drain = CancellationToken::new();
        let mut looking = std::pin::pin!(of_no_database(drain.clone()).run());
        tokio::select! {
            biased;
            ended = &mut looking => panic!("it ended by itself: {ended:?}"),
            () = std::future::ready(()) => drain.cancel(),
        }
        looking.await.unwrap();
    }
}
