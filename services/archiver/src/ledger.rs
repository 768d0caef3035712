//! What the archive's ledger adds up to, as metrics: the short form of `lakegauge audit`, always shown.

use std::time::Duration;

use domain::Reason;
use event_store::{
    StoreError, StoreSettings,
    totals::{ArchiveTotals, DatabaseSize, TotalsReader},
};
use service_kit::{Clock, Context, metrics::clamped};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    size::{SizeRules, SizeWatch},
};

service_kit::metrics! {
    /// The gauges of all streams of the archive, whoever writes them.
    #[derive(Clone, Debug)]
    struct LedgerMetrics {
        ledger: gauges("lakegauge_archive_ledger_events",
            "What the ledger of the archive adds up to, by what became of the events.",
            &["stream", "result"]),
        gaps: gauges("lakegauge_archive_ledger_gaps",
            "Ranges of the ledger that do not begin where the one before ends; it must be 0.",
            &["stream"]),
        lost: gauges("lakegauge_archive_declared_lost_messages",
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
                self.ledger.with_label_values(&[stream, result]).set(clamped(value));
            }
            self.gaps.with_label_values(&[stream]).set(clamped(sums.gaps));
            let lost = totals.lost_messages.get(stream).copied().unwrap_or(0);
            self.lost.with_label_values(&[stream]).set(clamped(lost));
            for reason in Reason::ALL {
                let open = totals.open_letters.get(&(stream.clone(), *reason)).copied();
                let gauge = self.letters.with_label_values(&[stream.as_str(), reason.name()]);
                gauge.set(clamped(open.unwrap_or(0)));
            }
        }
    }
}

/// Looks at the ledger of the archive again and again.
#[derive(Debug)]
pub(crate) struct LedgerWatch {
    store: StoreSettings,
    interval: Duration,
    metrics: LedgerMetrics,
    size: SizeWatch,
    drain: CancellationToken,
    clock: Clock,
}

/// What one look found.
struct Looked {
    totals: ArchiveTotals,
    /// Looked at less often.
    size: Option<DatabaseSize>,
}

impl LedgerWatch {
    /// Watches the archive of a service.
    ///
    /// # Errors
    ///
    /// A name of a metric that is taken: a mistake of ours.
    pub(crate) fn new(config: &Config, service: &Context) -> prometheus::Result<Self> {
        let rules = SizeRules {
            interval: config.database_size_interval,
            limit_bytes: config.database_limit_bytes,
        };
        Ok(Self {
            store: config.store.clone(),
            interval: config.ledger_interval,
            metrics: LedgerMetrics::register(&service.registry)?,
            size: SizeWatch::new(rules, &service.registry)?,
            drain: service.lifecycle.drain_token(),
            clock: service.clock.clone(),
        })
    }

    /// Looks until the service drains; never fails. A database that is away is asked again: the
    /// metrics stay as they were.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut reader = None;
        let mut measured: Option<Duration> = None;
        loop {
            let now = self.clock.monotonic();
            let is_due = measured.is_none_or(|at| now >= at + self.size.rules.interval);
            match self.look(&mut reader, is_due).await {
                Ok(Looked { totals, size }) => {
                    self.metrics.observe(&totals);
                    if let Some(size) = size {
                        measured = Some(now);
                        let inserted = totals.ledger.values().map(|sums| sums.inserted).sum();
                        self.size.observe(now.as_secs(), size, inserted);
                    }
                }
                Err(error) => {
                    reader = None;
                    tracing::debug!(%error, "the ledger can't be looked at");
                }
            }
            tokio::select! {
                () = self.drain.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.interval) => {}
            }
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
        let size = if with_size { Some(reader.size().await?) } else { None };
        Ok(Looked { totals, size })
    }
}
