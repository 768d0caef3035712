//! Publishes the corrections that withdraw a source, stream by stream, and waits until they are
//! counted.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bus::{Bus, BusSettings, Publisher, PublisherLimits, Topology};
use domain::{Event, Fact, Side, Stream};
use event_store::{ArchiveView, SourceRange, StoreSettings, Withdrawable, Withdrawals};
use service_kit::{Clock, metrics::float, terminal::grouped};
use wire::{Format, Packer, PackerLimits, Subjects, json::format_time};

use crate::{identity, said::flush_saying};

/// The source in the subjects of the corrections.
const SOURCE: &str = "withdraw";
/// Longest statement: all rows of a source are read, and those of the keys that it changed, which
/// takes minutes for a year of them.
const STATEMENT_MS_MAX: u64 = 3_600_000;
/// Time between two looks at the archive's checkpoint.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two reports while it waits.
const SAY: Duration = Duration::from_secs(10);

/// Withdraws a source if there is a reason; otherwise reports what that would mean. Returns whether
/// all events of the range are withdrawn.
///
/// # Errors
///
/// The source has no events in the range, or the archive or the broker failed. Corrections that were
/// published until then count; the same command continues.
pub(super) async fn withdraw(
    bus: &BusSettings,
    store: &StoreSettings,
    range: &SourceRange,
    reason: Option<&str>,
) -> anyhow::Result<bool> {
    let store = StoreSettings { statement_timeout_ms: STATEMENT_MS_MAX, ..store.clone() };
    let broker = Bus::connect(bus).await?;
    identity::compare(&broker, &store).await?;
    let (mut meant, mut known) = (Vec::new(), BTreeSet::new());
    for stream in Topology::event_streams() {
        let mut view = ArchiveView::open(&store, stream).await?;
        known.extend(view.sources().names().map(str::to_owned));
        let Some(found) = view.withdrawable(range).await? else { continue };
        say(stream, &found);
        let is_begun = stream.side == Side::Lake && {
            view.begin_restoration().await?;
            !view.next_corrections().await?.is_empty()
        };
        if is_begun {
            eprintln!("{stream}: objects of a withdrawal that was cut off are to be restored");
        }
        meant.push(Meant { stream, found, is_begun });
    }
    if meant.iter().all(|meant| meant.found.events == 0 && !meant.is_begun) {
        let known: Vec<String> = known.into_iter().collect();
        anyhow::bail!(
            "nothing of source {} counts in this range; the archive knows {}",
            range.source,
            if known.is_empty() { "no source".to_owned() } else { known.join(", ") }
        );
    }
    let Some(reason) = reason else {
        eprintln!("nothing was changed; --confirm and --reason withdraw it");
        return Ok(true);
    };
    let mut record = Withdrawals::open(&store).await?;
    let note = record.begin(range, reason).await?;
    let (mut withdrawn, mut left) = (0, 0);
    for Meant { stream, .. } in meant {
        let mut withdrawing = Withdrawing::new(&broker, bus, &store, stream);
        withdrawn += withdrawing.run(range, &mut record).await?;
        left += withdrawing.left(range).await?;
    }
    if left > 0 {
        eprintln!(
            "{} events still count: they came meanwhile, or are dead letters of the reason \
             nothing_to_correct; the same command tries again",
            number(left)
        );
        return Ok(false);
    }
    record.finish(note, withdrawn).await?;
    eprintln!("withdrawn: {} events of source {}", number(withdrawn), range.source);
    Ok(true)
}

/// The part of the range in one stream.
struct Meant {
    stream: Stream,
    found: Withdrawable,
    /// Whether there are objects to be restored already.
    is_begun: bool,
}

fn number(count: u64) -> String {
    grouped(float(count))
}

fn say(stream: Stream, found: &Withdrawable) {
    let what = match stream.side {
        Side::Lake => "requests",
        Side::Warehouse => "queries",
    };
    let times = found.occurred.map_or_else(String::new, |(first, last)| {
        let text = |at| format_time(at).unwrap_or_default();
        format!(", from {} to {}", text(first), text(last))
    });
    eprintln!("{stream}: {} {what}{times}", number(found.events));
    if found.inventories > 0 {
        eprintln!(
            "{stream}: {} inventories stay; a later one takes the place of a wrong one",
            number(found.inventories)
        );
    }
    if found.counted_dead_letters > 0 {
        eprintln!(
            "{stream}: {} events that only PostgreSQL refused stay counted; `lakegauge dead-letters \
             retry` makes rows of them, which can be withdrawn",
            number(found.counted_dead_letters)
        );
    }
}

/// Withdraws a source from one stream.
struct Withdrawing<'a> {
    store: &'a StoreSettings,
    stream: Stream,
    publisher: Publisher,
    packer: Packer,
    /// The last message that was stored.
    stored: Arc<AtomicU64>,
    clock: Clock,
}

impl<'a> Withdrawing<'a> {
    fn new(bus: &Bus, settings: &BusSettings, store: &'a StoreSettings, stream: Stream) -> Self {
        let stored: Arc<AtomicU64> = Arc::default();
        let told = Arc::clone(&stored);
        let publisher = bus.publisher(PublisherLimits::default(), move |acknowledged| {
            told.fetch_max(acknowledged.sequence, Ordering::Relaxed);
        });
        let subjects = Subjects::new(&settings.subject_prefix);
        let subject = match stream.side {
            Side::Lake => subjects.lake_access(stream.partition, SOURCE),
            Side::Warehouse => subjects.warehouse_query(stream.partition, SOURCE),
        };
        let mut packer = Packer::new(subject, Format::Json, PackerLimits::default());
        packer.bound(bus.message_bytes_max());
        Self { store, stream, publisher, packer, stored, clock: Clock::system() }
    }

    /// Withdraws, and then restores what came too late to be restored with it, until nothing is left
    /// of that. How many events were withdrawn.
    async fn run(&mut self, range: &SourceRange, record: &mut Withdrawals) -> anyhow::Result<u64> {
        let mut view = ArchiveView::open(self.store, self.stream).await?;
        view.begin_withdrawal(range).await?;
        let (withdrawn, _) = self.publish(view).await?;
        self.counted(record).await?;
        let mut before = u64::MAX;
        while self.stream.side == Side::Lake {
            let mut view = ArchiveView::open(self.store, self.stream).await?;
            view.begin_restoration().await?;
            let (_, restored) = self.publish(view).await?;
            if restored == 0 {
                break;
            }
            // What is refused is missing again, and would be in every round.
            anyhow::ensure!(
                restored < before,
                "{}: {restored} objects could not be restored; `lakegauge dead-letters list` shows why",
                self.stream
            );
            before = restored;
            self.counted(record).await?;
        }
        Ok(withdrawn)
    }

    /// Publishes the corrections that a view gives: how many withdraw, and how many restore.
    async fn publish(&mut self, mut view: ArchiveView) -> anyhow::Result<(u64, u64)> {
        let (mut withdrawn, mut restored) = (0, 0);
        loop {
            let corrections: Vec<Event> = view.next_corrections().await?;
            if corrections.is_empty() {
                break;
            }
            for event in &corrections {
                let restores = matches!(event.fact, Fact::LakeAccessRestored(_));
                *if restores { &mut restored } else { &mut withdrawn } += 1;
                // The time is of no matter: what is left at the end goes out at once.
                if let Some(sealed) = self.packer.push(0, event) {
                    self.publisher.publish(sealed).await?;
                }
            }
        }
        if let Some(sealed) = self.packer.flush() {
            self.publisher.publish(sealed).await?;
        }
        flush_saying(&self.publisher, |news| eprintln!("{news}")).await?;
        Ok((withdrawn, restored))
    }

    /// Waits until everything that was published is archived and counted, and says so meanwhile.
    async fn counted(&self, record: &mut Withdrawals) -> anyhow::Result<()> {
        let until = self.stored.load(Ordering::Relaxed);
        let since = self.clock.monotonic();
        let (mut said, mut given) = (since, None);
        loop {
            let progress = record.progress(self.stream).await?.context("nothing is archived")?;
            if progress.sequence >= until {
                // Of the moment when the last correction was judged: others come all the time.
                let given = *given.get_or_insert(progress.given);
                if progress.noted >= given {
                    return Ok(());
                }
            }
            let now = self.clock.monotonic();
            if now - said >= SAY {
                said = now;
                eprintln!(
                    "{}: waiting for the archiver for {} s: it is at message {} of {until}, and {} \
                     verdicts are not counted yet",
                    self.stream,
                    (now - since).as_secs(),
                    progress.sequence,
                    number(progress.waiting())
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The number of events of the source that still count.
    async fn left(&self, range: &SourceRange) -> anyhow::Result<u64> {
        let mut view = ArchiveView::open(self.store, self.stream).await?;
        Ok(view.withdrawable(range).await?.map_or(0, |found| found.events))
    }
}
