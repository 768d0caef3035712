//! The ledger of the archive beside the rows that exist, at one moment.
//!
//! The server counts, by ranges of the ledger: ten million rows take seconds. The caller interprets
//! the numbers.

use std::collections::BTreeMap;

use domain::{Mark, Timestamp};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Row, postgres::PgRow};

use crate::{
    checkpoint,
    error::StoreError,
    message_range::MessageRange,
    numbers::{bigint, integer, unsigned, unsigned_32},
    read::records::declared_losses,
    rows::{columns::read, kind::EventTable},
    schema::migrate,
    settings::connection::StoreSettings,
    statement::{Doing, take_snapshot},
    stream_id::StreamId,
};

const DOING: &str = "auditing the archive";
/// One statement may read a whole table.
const STATEMENT_MS_MAX: u64 = 3_600_000;
/// The most ranges in one statement: their bounds are searched for each row, and are sent as two
/// arrays.
const RANGES_MAX: usize = 20_000;
/// Approximate number of rows per statement: small enough to show progress.
const EVENTS_MAX: u64 = 2_000_000;
/// How many doubled identities are named; the rest is only counted.
const DOUBLED_NAMED_MAX: usize = 100;

/// All streams of the archive at one moment: a transaction that sees no later changes, and during
/// which nothing is dropped.
#[derive(Debug)]
pub struct AuditView {
    connection: PgConnection,
    streams: Vec<(StreamId, String)>,
    taken_at: String,
}

/// What the archive contains of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamLedger {
    /// The name of the stream.
    pub stream: String,
    /// How far it is archived.
    pub checkpoint: Option<Mark>,
    /// Closed epochs, with the sequence up to which they were archived.
    pub closed: BTreeMap<u32, u64>,
    /// Where the epoch after each closed one begins: the sequence before its first message.
    pub next_after: BTreeMap<u32, u64>,
    /// The ledger in order, each range with what exists of it.
    pub ranges: Vec<LedgerRange>,
    /// What exists outside the ranges of the ledger.
    pub outside: Vec<Outside>,
    /// Messages that were declared lost.
    pub lost: Vec<MessageRange>,
    /// Rows that retention dropped.
    pub dropped_rows: u64,
    /// The number of samples, for the stream of samples only: samples do not store their message.
    pub samples: Option<u64>,
}

/// A range of the ledger and what exists of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerRange {
    /// Its messages.
    pub messages: MessageRange,
    /// Events, dead letters and samples in the range, by the ledger.
    pub events: u64,
    /// The number of them that were inserted as rows.
    pub inserted: u64,
    /// The number of them that were known already.
    pub duplicates: u64,
    /// The number of them that are dead letters.
    pub dead: u64,
    /// Rows whose own position lies in the range.
    pub rows: u64,
    /// Dead letters whose position lies in the range.
    pub letters: u64,
    /// The number of these that were retried, so that their rows are among `rows`.
    pub retried: u64,
    /// Whether retention dropped days of the range's events.
    pub dropped: bool,
}

/// What exists outside the ranges of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Rows or dead letters.
    pub what: &'static str,
    /// From the first to the last of their messages.
    pub messages: MessageRange,
    /// The number.
    pub count: u64,
}

/// Identities that exist more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubled {
    /// Rows beyond the first of each identity.
    pub rows: u64,
    /// Some of the identities: table, time and id.
    pub named: Vec<String>,
}

impl AuditView {
    /// Takes the view. Partitions can't be dropped while it is open.
    ///
    /// # Errors
    ///
    /// The database cannot be reached or read, or is not of the version that this program needs.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        let settings = StoreSettings { statement_timeout_ms: STATEMENT_MS_MAX, ..settings.clone() };
        let mut connection = settings.connect().await?;
        take_snapshot(&mut connection, DOING).await?;
        let streams = StreamId::all(&mut connection, DOING).await?;
        let taken_at: String = sqlx::query_scalar(
            "select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        )
        .fetch_one(&mut connection)
        .await
        .doing(DOING)?;
        Ok(Self { connection, streams, taken_at })
    }

    /// The names of the streams in the archive.
    pub fn streams(&self) -> Vec<String> {
        self.streams.iter().map(|(_, name)| name.clone()).collect()
    }

    /// The database's time at which the view was taken.
    pub fn taken_at(&self) -> &str {
        &self.taken_at
    }

    /// What the archive contains of one stream. `progress` is called with the number of events that
    /// were counted.
    ///
    /// # Errors
    ///
    /// The database failed, or knows no such stream.
    pub async fn ledger(
        &mut self,
        name: &str,
        mut progress: impl FnMut(u64),
    ) -> Result<StreamLedger, StoreError> {
        let known = self.streams.iter().find(|(_, known)| known == name);
        let Some(stream) = known.map(|(stream, _)| *stream) else {
            return Err(StoreError::Inconsistent(format!("the archive has no stream {name}")));
        };
        let checkpoint = checkpoint::load(&mut self.connection, stream).await?;
        let dropped = self.dropped(stream).await?;
        let mut ledger = StreamLedger {
            stream: name.to_owned(),
            checkpoint: checkpoint.map(|checkpoint| checkpoint.mark),
            closed: self.closed(stream, "sequence").await?,
            next_after: self.closed(stream, "next_after").await?,
            ranges: self.ranges(stream, &dropped).await?,
            lost: declared_losses(&mut self.connection, stream).await?,
            dropped_rows: dropped.iter().map(|dropped| dropped.rows).sum(),
            ..StreamLedger::default()
        };
        for (from, to) in chunks(&ledger.ranges) {
            self.count(stream, &mut ledger, from, to).await?;
            progress(ledger.ranges[from..to].iter().map(|range| range.events).sum());
        }
        self.elsewhere(stream, &mut ledger).await?;
        if stream.side.is_none() {
            let samples = sqlx::query_scalar("select count(*) from lakegauge.sample")
                .fetch_one(&mut self.connection)
                .await
                .doing(DOING)?;
            ledger.samples = Some(unsigned(samples)?);
        }
        Ok(ledger)
    }

    /// Identities that exist more than once. The keys should prevent them; this call checks that.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn doubled(&mut self) -> Result<Doubled, StoreError> {
        let mut doubled = Doubled::default();
        for kind in EventTable::ALL {
            // Grouping by the key's columns uses its index; grouping by a row would sort.
            let sql = format!(
                "select to_char(occurred_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
                 || ' ' || id, count(*) - 1 from lakegauge.{} group by occurred_at, id \
                 having count(*) > 1 order by occurred_at, id",
                kind.table()
            );
            let rows: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(sql))
                .fetch_all(&mut self.connection)
                .await
                .doing(DOING)?;
            for (identity, more) in rows {
                doubled.rows += unsigned(more)?;
                if doubled.named.len() < DOUBLED_NAMED_MAX {
                    doubled.named.push(format!("{} {identity}", kind.table()));
                }
            }
        }
        Ok(doubled)
    }

    /// A stored sequence of each closed epoch.
    async fn closed(
        &mut self,
        stream: StreamId,
        column: &'static str,
    ) -> Result<BTreeMap<u32, u64>, StoreError> {
        let sql = format!("select epoch, {column} from lakegauge.epoch where stream = $1");
        let rows: Vec<(i32, i64)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(stream.id)
            .fetch_all(&mut self.connection)
            .await
            .doing(DOING)?;
        rows.into_iter()
            .map(|(epoch, sequence)| Ok((unsigned_32(epoch)?, unsigned(sequence)?)))
            .collect()
    }

    async fn dropped(&mut self, stream: StreamId) -> Result<Vec<Dropped>, StoreError> {
        let rows = sqlx::query(
            "select dropped_from, dropped_to, rows from lakegauge.dropped where stream = $1",
        )
        .bind(stream.id)
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        let dropped = |row: &PgRow| {
            Ok(Dropped {
                from: read(row, "dropped_from")?,
                to: read(row, "dropped_to")?,
                rows: read(row, "rows")?,
            })
        };
        rows.iter().map(dropped).collect::<Result<_, _>>().doing(DOING)
    }

    async fn ranges(
        &mut self,
        stream: StreamId,
        dropped: &[Dropped],
    ) -> Result<Vec<LedgerRange>, StoreError> {
        let rows = sqlx::query(
            "select epoch, first, last, events, inserted, duplicates, dead, occurred_from, \
             occurred_to from lakegauge.ledger where stream = $1 order by epoch, first, last",
        )
        .bind(stream.id)
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        let range = |row: &PgRow| {
            let from: Option<Timestamp> = read(row, "occurred_from")?;
            let to: Option<Timestamp> = read(row, "occurred_to")?;
            let occurred = from.zip(to);
            Ok(LedgerRange {
                messages: MessageRange::from_row(row)?,
                events: read(row, "events")?,
                inserted: read(row, "inserted")?,
                duplicates: read(row, "duplicates")?,
                dead: read(row, "dead")?,
                dropped: occurred.is_some_and(|(from, to)| {
                    dropped.iter().any(|dropped| from < dropped.to && to >= dropped.from)
                }),
                ..LedgerRange::default()
            })
        };
        rows.iter().map(range).collect::<Result<_, _>>().doing(DOING)
    }

    /// Counts rows and dead letters of the ranges at these places, and of the gaps after them.
    async fn count(
        &mut self,
        stream: StreamId,
        ledger: &mut StreamLedger,
        from: usize,
        to: usize,
    ) -> Result<(), StoreError> {
        let ranges = &ledger.ranges;
        let epoch = ranges[from].messages.epoch;
        let is_first = from == 0 || ranges[from - 1].messages.epoch != epoch;
        let low = if is_first { 0 } else { ranges[from].messages.first };
        let next = ranges.get(to).filter(|next| next.messages.epoch == epoch);
        let high = next.map_or(u64::MAX, |next| next.messages.first);
        let firsts: Vec<i64> =
            ranges[from..to].iter().map(|range| bigint(range.messages.first)).collect();
        let lasts: Vec<i64> =
            ranges[from..to].iter().map(|range| bigint(range.messages.last)).collect();
        for (what, sql) in statements(stream) {
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(stream.id)
                .bind(integer(epoch))
                .bind(bigint(low))
                .bind(bigint(high))
                .bind(&firsts)
                .bind(&lasts)
                .fetch_all(&mut self.connection)
                .await
                .doing(DOING)?;
            for row in &rows {
                take(ledger, what, (epoch, from), row)?;
            }
        }
        Ok(())
    }

    /// Rows and dead letters of epochs that are not in the ledger.
    async fn elsewhere(
        &mut self,
        stream: StreamId,
        ledger: &mut StreamLedger,
    ) -> Result<(), StoreError> {
        let known: Vec<i32> = ledger
            .ranges
            .iter()
            .map(|range| integer(range.messages.epoch))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let tables = stream.kinds().iter().map(|kind| ("rows", kind.table()));
        for (what, table) in tables.chain([("letters", "dead_letter")]) {
            let sql = format!(
                "select epoch, min(sequence) as first, max(sequence) as last, count(*) from lakegauge.{table} \
                 where stream = $1 and epoch <> all($2) group by epoch order by epoch"
            );
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(stream.id)
                .bind(&known)
                .fetch_all(&mut self.connection)
                .await
                .doing(DOING)?;
            for row in &rows {
                let messages = MessageRange::from_row(row).doing(DOING)?;
                let count = read(row, "count").doing(DOING)?;
                ledger.outside.push(Outside { what, messages, count });
            }
        }
        Ok(())
    }
}

/// Days that retention dropped.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    from: Timestamp,
    to: Timestamp,
    rows: u64,
}

/// The statements that count. Each row belongs to the last range that begins at or before it; a row
/// after that range's end is outside all ranges.
fn statements(stream: StreamId) -> Vec<(&'static str, String)> {
    let tables = stream.kinds().iter().map(|kind| ("rows", kind.table(), "0::bigint"));
    let letters = ("letters", "dead_letter", "count(*) filter (where covered and retried)");
    tables
        .chain([letters])
        .map(|(what, table, retried)| {
            let column = if table == "dead_letter" { ", closed_as = 0 as retried" } else { "" };
            // `offset 0` prevents that the range is searched for several times per row.
            let sql = format!(
                "select place, count(*) filter (where covered) as covered, {retried} as retried, \
                 count(*) filter (where not covered) as outside, \
                 min(sequence) filter (where not covered) as first, \
                 max(sequence) filter (where not covered) as last \
                 from (select place, sequence{retried_column}, \
                       place > 0 and sequence <= ($6::bigint[])[place] as covered \
                       from (select sequence{column}, \
                             width_bucket(sequence, $5::bigint[]) as place \
                             from lakegauge.{table} where stream = $1 and epoch = $2 \
                             and sequence >= $3 and sequence < $4 offset 0) as placed) as counted \
                 group by place",
                retried_column = if column.is_empty() { "" } else { ", retried" },
            );
            (what, sql)
        })
        .collect()
}

fn take(
    ledger: &mut StreamLedger,
    what: &'static str,
    (epoch, from): (u32, usize),
    row: &PgRow,
) -> Result<(), StoreError> {
    let place: i32 = row.try_get("place").doing(DOING)?;
    let number = |column: &str| read::<u64>(row, column).doing(DOING);
    let (covered, retried, outside) = (number("covered")?, number("retried")?, number("outside")?);
    let place = usize::try_from(place).ok().and_then(|place| place.checked_sub(1));
    if let Some(range) = place.and_then(|place| ledger.ranges.get_mut(from + place)) {
        if what == "letters" {
            range.letters += covered;
            range.retried += retried;
        } else {
            range.rows += covered;
        }
    }
    if outside > 0 {
        let messages = MessageRange { epoch, first: number("first")?, last: number("last")? };
        ledger.outside.push(Outside { what, messages, count: outside });
    }
    Ok(())
}

/// Cuts the ledger into chunks of one epoch each; returns the places of their first range and after
/// their last.
fn chunks(ranges: &[LedgerRange]) -> Vec<(usize, usize)> {
    let mut chunks: Vec<(usize, usize)> = Vec::new();
    let mut events = 0;
    for (place, range) in ranges.iter().enumerate() {
        let epoch = |place: usize| ranges[place].messages.epoch;
        match chunks.last_mut() {
            Some((from, to))
                if epoch(*from) == range.messages.epoch
                    && *to - *from < RANGES_MAX
                    && events + range.events <= EVENTS_MAX =>
            {
                *to = place + 1;
                events += range.events;
            }
            Some(_) | None => {
                chunks.push((place, place + 1));
                events = range.events;
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(epoch: u32, events: u64) -> LedgerRange {
        let messages = MessageRange { epoch, ..MessageRange::default() };
        LedgerRange { messages, events, ..LedgerRange::default() }
    }

    #[test]
    fn a_chunk_ends_with_its_epoch_and_before_its_events_are_too_many() {
        let ranges =
            [range(1, 5), range(1, EVENTS_MAX), range(1, 0), range(2, 1), range(2, EVENTS_MAX * 3)];
        assert_eq!(chunks(&ranges), [(0, 1), (1, 3), (3, 4), (4, 5)]);
        assert_eq!(chunks(&[]), []);
        let many = vec![range(1, 0); RANGES_MAX + 1];
        assert_eq!(chunks(&many), [(0, RANGES_MAX), (RANGES_MAX, RANGES_MAX + 1)]);
    }
}
