//! The pages of a reader: ranges of the ledger, cut and joined.

use domain::Timestamp;
use sqlx::{FromRow, PgConnection};

use crate::{
    error::StoreError,
    message_range::MessageRange,
    partitions::base::StoredBase,
    rows::{columns::read, event::DOING},
    statement::Doing,
    stream_id::StreamId,
};

/// Approximate number of events per page: some ten megabytes in memory. Each page also visits rows
/// of up to a minute that are not in the index of sequences yet; smaller pages would do so more
/// often.
const PAGE_EVENTS: u64 = 30_000;

/// One page to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRequest {
    pub(crate) messages: MessageRange,
    /// Earliest and latest time of the events in it, so that only their partitions are visited.
    pub(crate) occurred: Option<(Timestamp, Timestamp)>,
}

/// The ledger after the base as pages, in reverse order. A large batch is cut by its messages.
pub(crate) async fn pages(
    connection: &mut PgConnection,
    stream: StreamId,
    base: Option<&StoredBase>,
) -> Result<Vec<PageRequest>, StoreError> {
    let (epoch, sequence) = base.map_or((0, 0), |base| (base.epoch, base.sequence));
    let rows = sqlx::query(
        "select epoch, case when epoch = $2 then greatest(first, $3 + 1) else first end as first, \
         last, events, occurred_from, occurred_to from lakegauge.ledger \
         where stream = $1 and (epoch, last) > ($2, $3) order by epoch, last",
    )
    .bind(stream.id)
    .bind(epoch)
    .bind(sequence)
    .fetch_all(connection)
    .await
    .doing(DOING)?;
    let mut pages = Pages::default();
    for row in &rows {
        let from: Option<Timestamp> = read(row, "occurred_from").doing(DOING)?;
        let to: Option<Timestamp> = read(row, "occurred_to").doing(DOING)?;
        let messages = MessageRange::from_row(row).doing(DOING)?;
        let page = PageRequest { messages, occurred: from.zip(to) };
        pages.add(page, read(row, "events").doing(DOING)?);
    }
    Ok(pages.finish())
}

/// Joins small ranges of the ledger and cuts large ones.
#[derive(Debug, Default)]
struct Pages {
    done: Vec<PageRequest>,
    events: u64,
}

impl Pages {
    fn add(&mut self, page: PageRequest, events: u64) {
        let MessageRange { epoch, first, last } = page.messages;
        let parts = events.div_ceil(PAGE_EVENTS).max(1);
        let messages = last - first + 1;
        let step = (messages / parts.min(messages)).max(1);
        if let Some(before) = self.done.last_mut()
            && before.messages.epoch == epoch
            && self.events + events <= PAGE_EVENTS
        {
            before.messages.last = last;
            before.occurred = wider(before.occurred, page.occurred);
            self.events += events;
            return;
        }
        let mut from = first;
        while from <= last {
            let to = (from + step - 1).min(last);
            self.done.push(PageRequest {
                messages: MessageRange { epoch, first: from, last: to },
                ..page
            });
            from = to + 1;
        }
        self.events = if parts > 1 { PAGE_EVENTS } else { events };
    }

    fn finish(mut self) -> Vec<PageRequest> {
        self.done.reverse();
        self.done
    }
}

fn wider(
    one: Option<(Timestamp, Timestamp)>,
    other: Option<(Timestamp, Timestamp)>,
) -> Option<(Timestamp, Timestamp)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(batches: &[(u32, u64, u64, u64)]) -> Vec<(u32, u64, u64)> {
        let mut pages = Pages::default();
        for (epoch, first, last, events) in batches {
            let messages = MessageRange { epoch: *epoch, first: *first, last: *last };
            pages.add(PageRequest { messages, occurred: None }, *events);
        }
        let range =
            |page: &PageRequest| (page.messages.epoch, page.messages.first, page.messages.last);
        pages.finish().iter().rev().map(range).collect()
    }

    #[test]
    fn small_batches_are_read_together_and_large_ones_in_parts() {
        assert_eq!(pages(&[(1, 1, 5, 500), (1, 6, 9, 400)]), [(1, 1, 9)]);
        assert_eq!(pages(&[(1, 1, 5, 500), (2, 1, 9, 400)]), [(1, 1, 5), (2, 1, 9)]);
        assert_eq!(
            pages(&[(1, 1, 300, 90_000), (1, 301, 310, 10)]),
            [(1, 1, 100), (1, 101, 200), (1, 201, 300), (1, 301, 310)]
        );
        assert_eq!(pages(&[(1, 1, 1, 1_000_000)]), [(1, 1, 1)]);
    }
}
