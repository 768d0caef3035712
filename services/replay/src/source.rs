//! One stream of the archive, read ahead of whoever publishes it.

use std::{collections::VecDeque, time::Duration};

use domain::{Position, Stream, Timestamp};
use event_store::{ArchiveView, Counted, StoreError, StoreSettings};
use service_kit::Clock;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{ReplayProgress, plan::Filter};

/// Pages that were read and not yet taken, of about thirty thousand events each: enough to read while
/// others are published, some ten megabytes.
const PAGES_MAX: usize = 1;
/// A view older than this is given up for a new one at the same place: an open transaction keeps the
/// server from cleaning up, and a slow replay may take days.
const VIEW_AGE_MAX: Duration = Duration::from_secs(60);

/// What to read.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    pub(crate) store: StoreSettings,
    pub(crate) stream: Stream,
    pub(crate) filter: Filter,
    /// Where to begin: after this position.
    pub(crate) after: Option<Position>,
}

/// The events of one stream that a filter takes, in counting order.
#[derive(Debug)]
pub(crate) struct StreamSource {
    pages: mpsc::Receiver<Result<VecDeque<Counted>, StoreError>>,
    page: VecDeque<Counted>,
    /// The latest time of an event so far.
    newest: Timestamp,
    _task: AbortOnDropHandle<()>,
}

impl StreamSource {
    /// Begins to read up to where the archive ends now. Gives the source and about how many events
    /// it will read.
    pub(crate) async fn open(
        reading: ReadRequest,
        clock: Clock,
        progress: ReplayProgress,
    ) -> Result<(Self, u64), StoreError> {
        let mut view = ArchiveView::open(&reading.store, reading.stream).await?;
        let after = reading.after.map_or((0, 0), |after| (after.epoch, after.sequence));
        let events = view.archived_events(after).await?;
        let (sender, pages) = mpsc::channel(PAGES_MAX);
        let ahead = Ahead { reading, clock, progress, sender };
        let task = tokio::spawn(async move {
            if let Err(error) = ahead.read(view).await {
                // Whoever does not listen any more does not want to know.
                drop(ahead.sender.send(Err(error)).await);
            }
        });
        let task = AbortOnDropHandle::new(task);
        let page = VecDeque::new();
        Ok((Self { pages, page, newest: Timestamp(i64::MIN), _task: task }, events))
    }

    /// The time by which the next event is in turn among several sources; `None` at the end.
    pub(crate) async fn turn(&mut self) -> Result<Option<Timestamp>, StoreError> {
        while self.page.is_empty() {
            match self.pages.recv().await {
                None => return Ok(None),
                Some(page) => self.page = page?,
            }
        }
        let next = self.page.front().map(|counted| counted.event.occurred_at);
        Ok(next.map(|next| next.max(self.newest)))
    }

    /// The next event, after [`StreamSource::turn`] said that there is one.
    pub(crate) fn take(&mut self) -> Option<Counted> {
        let counted = self.page.pop_front()?;
        self.newest = self.newest.max(counted.event.occurred_at);
        Some(counted)
    }
}

/// The task behind a [`StreamSource`].
struct Ahead {
    reading: ReadRequest,
    clock: Clock,
    progress: ReplayProgress,
    sender: mpsc::Sender<Result<VecDeque<Counted>, StoreError>>,
}

impl Ahead {
    async fn read(&self, mut view: ArchiveView) -> Result<(), StoreError> {
        let ReadRequest { store, stream, filter, after } = &self.reading;
        let Some(end) = view.checkpoint().map(|checkpoint| checkpoint.mark) else { return Ok(()) };
        let end = (end.epoch, end.sequence);
        let mut after = *after;
        loop {
            let opened = self.clock.monotonic();
            view.narrow(filter.since, filter.until);
            // Numbers are given once and stay.
            let senders = view.sources().known(&filter.sources);
            let takes_source = |source: Option<i16>| {
                filter.sources.is_empty() || source.is_some_and(|source| senders.contains(&source))
            };
            if let Some(after) = after {
                view.skip_to(after);
            }
            while let Some(page) = view.next_page().await? {
                let read = u64::try_from(page.len()).unwrap_or(u64::MAX);
                let last = page.last().map(|counted| counted.position);
                let taken = |counted: &Counted| {
                    let place = (counted.position.epoch, counted.position.sequence);
                    after.is_none_or(|after| counted.position > after)
                        && place <= end
                        && takes_source(counted.source)
                        && filter.takes(&counted.event)
                };
                let page: VecDeque<Counted> = page.into_iter().filter(taken).collect();
                after = after.max(last);
                if self.sender.send(Ok(page)).await.is_err() {
                    return Ok(());
                }
                self.progress.add(read);
                if self.clock.monotonic().saturating_sub(opened) > VIEW_AGE_MAX {
                    break;
                }
            }
            if self.clock.monotonic().saturating_sub(opened) <= VIEW_AGE_MAX {
                return Ok(());
            }
            view = ArchiveView::open(store, *stream).await?;
        }
    }
}
