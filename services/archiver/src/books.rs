//! What the archive's books say, as metrics: the standing short form of `lakegauge audit`.

use std::time::Duration;

use domain::Reason;
use event_store::{
    StoreError, StoreSettings,
    totals::{ArchiveTotals, DatabaseSize, TotalsReader},
};
use prometheus::{IntGaugeVec, Opts, Registry};
use service_kit::{
    Clock,
    metrics::{clamped, registered},
};
use tokio_util::sync::CancellationToken;

use crate::size::SizeWatch;

/// The gauges of all streams of the archive, whoever writes them.
#[derive(Clone, Debug)]
pub(crate) struct BooksMetrics {
    ledger: IntGaugeVec,
    gaps: IntGaugeVec,
    lost: IntGaugeVec,
    letters: IntGaugeVec,
}

impl BooksMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            ledger: gauge(
                "lakegauge_archive_ledger_events",
                "What the ledger of the archive adds up to, by what became of the events.",
                &["stream", "result"],
            )?,
            gaps: gauge(
                "lakegauge_archive_ledger_gaps",
                "Ranges of the ledger that do not begin where the one before ends; it must be 0.",
                &["stream"],
            )?,
            lost: gauge(
                "lakegauge_archive_declared_lost_messages",
                "Messages that the broker lost before they could be archived.",
                &["stream"],
            )?,
            letters: gauge(
                "lakegauge_archive_dead_letters_open",
                "Dead letters that nobody has closed.",
                &["stream", "reason"],
            )?,
        })
    }

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

/// Looks at the books until the service drains. A database that is away is asked again: the
/// metrics stay as they were.
pub(crate) async fn look_forever(
    store: StoreSettings,
    interval: Duration,
    metrics: BooksMetrics,
    mut size: SizeWatch,
    (drain, clock): (CancellationToken, Clock),
) -> anyhow::Result<()> {
    let mut books = None;
    let mut measured: Option<Duration> = None;
    loop {
        let now = clock.monotonic();
        let is_due = measured.is_none_or(|at| now >= at + size.rules.interval);
        let looked = look(&store, &mut books, is_due).await;
        match looked {
            Ok((totals, found)) => {
                metrics.observe(&totals);
                if let Some(found) = found {
                    measured = Some(now);
                    let inserted = totals.ledger.values().map(|sums| sums.inserted).sum();
                    size.observe(now.as_secs(), found, inserted);
                }
            }
            Err(error) => {
                books = None;
                tracing::debug!(%error, "the books can't be looked at");
            }
        }
        tokio::select! {
            () = drain.cancelled() => return Ok(()),
            () = tokio::time::sleep(interval) => {}
        }
    }
}

async fn look(
    store: &StoreSettings,
    books: &mut Option<TotalsReader>,
    with_size: bool,
) -> Result<(ArchiveTotals, Option<DatabaseSize>), StoreError> {
    if books.is_none() {
        *books = Some(TotalsReader::open(store).await?);
    }
    let Some(books) = books else { return Ok((ArchiveTotals::default(), None)) };
    let totals = books.read().await?;
    let size = if with_size { Some(books.size().await?) } else { None };
    Ok((totals, size))
}
