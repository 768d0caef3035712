//! One stream of the archive, read ahead of publishing.

use std::{collections::VecDeque, time::Duration};

use domain::{Position, Stream, Timestamp};
use event_store::{ArchiveView, Counted, StoreError, StoreSettings};
use service_kit::Clock;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{ReplayProgress, plan::Filter};

/// How many pages may be read and not yet taken. A page has about thirty thousand events, some ten
/// megabytes: enough to read while others are published.
const PAGES_MAX: usize = 1;
/// The age at which a view is replaced by a new one at the same position: an open transaction
/// prevents the server from cleaning up, and a slow replay may take days.
const VIEW_AGE_MAX: Duration = Duration::from_secs(60);

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    pub(crate) store: StoreSettings,
    pub(crate) stream: Stream,
    pub(crate) filter: Filter,
    /// Reading starts after this position.
    pub(crate) after: Option<Position>,
}

/// The events of one stream that match a filter, in counting order.
#[derive(Debug)]
pub(crate) struct StreamSource {
    pages: mpsc::Receiver<Result<VecDeque<Counted>, StoreError>>,
    page: VecDeque<Counted>,
    /// The latest time of an event so far.
    newest: Timestamp,
    _task: AbortOnDropHandle<()>,
}

impl StreamSource {
    /// Starts to read, up to the end of the archive as it is now. Returns the source and about how
    /// many events it will read.
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
                // If the receiver is gone, nobody needs the error.
                drop(ahead.sender.send(Err(error)).await);
            }
        });
        let task = AbortOnDropHandle::new(task);
        let page = VecDeque::new();
        Ok((Self { pages, page, newest: Timestamp(i64::MIN), _task: task }, events))
    }

    /// The time by which sources are ordered to find the next event; `None` at the end.
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

    /// The next event, after [`StreamSource::turn`] returned a time.
    pub(crate) fn take(&mut self) -> Option<Counted> {
        let counted = self.page.pop_front()?;
        self.newest = self.newest.max(counted.event.occurred_at);
        Some(counted)
    }
}

/// The task that reads for a [`StreamSource`].
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
            // A source keeps the number that it once got.
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
