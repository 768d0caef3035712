//! What a reader asks for at a time: the ledger cut and joined into pages.

use sqlx::{PgConnection, Row};

use crate::{
    error::StoreError, numbers::unsigned, partitions::base::StoredBase, rows::decode::DOING,
    statement::Doing, stream_id::StreamId, timestamptz::Timestamptz,
};

/// Events of one page, about: some ten megabytes in memory. Each page also visits what came too late
/// for the index of sequences to know it, up to a minute of rows; smaller pages do so more often.
const PAGE_EVENTS: u64 = 30_000;

/// Messages of one page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) epoch: i32,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Earliest and latest time of the events in it, so that only their partitions are visited.
    pub(crate) occurred: Option<(Timestamptz, Timestamptz)>,
}

/// The ledger behind the base as pages, the first one last. A large batch is cut by its messages.
pub(crate) async fn ranges(
    connection: &mut PgConnection,
    stream: StreamId,
    base: Option<&StoredBase>,
) -> Result<Vec<Range>, StoreError> {
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
        let from: Option<Timestamptz> = row.try_get("occurred_from").doing(DOING)?;
        let to: Option<Timestamptz> = row.try_get("occurred_to").doing(DOING)?;
        let range = Range {
            epoch: row.try_get("epoch").doing(DOING)?,
            first: row.try_get("first").doing(DOING)?,
            last: row.try_get("last").doing(DOING)?,
            occurred: from.zip(to),
        };
        pages.add(range, unsigned(row.try_get("events").doing(DOING)?)?);
    }
    Ok(pages.finish())
}

/// Joins small ranges and cuts large ones.
#[derive(Debug, Default)]
struct Pages {
    done: Vec<Range>,
    events: u64,
}

impl Pages {
    fn add(&mut self, range: Range, events: u64) {
        let parts = i64::try_from(events.div_ceil(PAGE_EVENTS).max(1)).unwrap_or(i64::MAX);
        let messages = range.last - range.first + 1;
        let step = (messages / parts.min(messages)).max(1);
        if let Some(last) = self.done.last_mut()
            && last.epoch == range.epoch
            && self.events + events <= PAGE_EVENTS
        {
            last.last = range.last;
            last.occurred = wider(last.occurred, range.occurred);
            self.events += events;
            return;
        }
        let mut first = range.first;
        while first <= range.last {
            let last = (first + step - 1).min(range.last);
            self.done.push(Range { first, last, ..range });
            first = last + 1;
        }
        self.events = if parts > 1 { PAGE_EVENTS } else { events };
    }

    fn finish(mut self) -> Vec<Range> {
        self.done.reverse();
        self.done
    }
}

fn wider(
    one: Option<(Timestamptz, Timestamptz)>,
    other: Option<(Timestamptz, Timestamptz)>,
) -> Option<(Timestamptz, Timestamptz)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(batches: &[(i32, i64, i64, u64)]) -> Vec<(i32, i64, i64)> {
        let mut pages = Pages::default();
        for (epoch, first, last, events) in batches {
            let range = Range { epoch: *epoch, first: *first, last: *last, occurred: None };
            pages.add(range, *events);
        }
        pages.finish().iter().rev().map(|range| (range.epoch, range.first, range.last)).collect()
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
