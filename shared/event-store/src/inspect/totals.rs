//! The totals of the ledger and of the dead letters, for metrics; they can be read often at little
//! cost. [`crate::audit`] compares the ledger with the rows.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::Reason;
use sqlx::{Connection as _, PgConnection};

use crate::{
    error::StoreError,
    numbers::unsigned,
    settings::{connection::StoreSettings, login::Logins},
    statement::{Doing, run},
    stream_id::StreamId,
};

const DOING: &str = "reading the totals of the ledger";
/// The first reading sums up the whole ledger, which takes minutes for a year.
const STATEMENT_MS_MAX: u64 = 600_000;
/// Longest wait for the answer to a ping. A server that needs longer does no work either.
const PING_MS_MAX: u64 = 2_000;

/// The totals of all streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveTotals {
    /// The ledger's sums, by stream.
    pub ledger: BTreeMap<String, LedgerTotals>,
    /// Messages that were declared lost, by stream.
    pub lost_messages: BTreeMap<String, u64>,
    /// Open dead letters, by stream and reason.
    pub open_dead_letters: BTreeMap<(String, Reason), u64>,
}

/// The totals of the ledger of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerTotals {
    /// Rows that were inserted.
    pub inserted: u64,
    /// Events that were known already.
    pub duplicates: u64,
    /// Dead letters.
    pub dead: u64,
    /// Ranges that do not begin where the previous one ends; 0 as long as the ledger is contiguous.
    pub gaps: u64,
}

/// The size of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseSize {
    /// Size of all its files in bytes, including indexes and catalogues.
    pub bytes: u64,
    /// Rows of events that retention dropped.
    pub dropped_rows: u64,
}

/// Reads the totals again and again; each reading covers only the new part of the ledger.
#[derive(Debug)]
pub struct TotalsReader {
    connection: PgConnection,
    /// Where the answers of the server are recorded.
    logins: Logins,
    /// By stream: the last range that was summed up, and the sums up to it.
    passed: BTreeMap<i16, (i32, i64, LedgerTotals)>,
}

impl TotalsReader {
    /// Opens a connection of its own.
    ///
    /// # Errors
    ///
    /// The database cannot be reached.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let settings = StoreSettings { statement_timeout_ms: STATEMENT_MS_MAX, ..settings.clone() };
        let mut connection = settings.connect().await?;
        run(&mut connection, "set default_transaction_read_only = on", DOING).await?;
        Ok(Self { connection, logins: settings.logins, passed: BTreeMap::new() })
    }

    /// Checks whether the server still answers, so that an outage is noticed even if nothing is
    /// written. After an error the connection can't be used any more.
    ///
    /// # Errors
    ///
    /// The server does not answer, or not in time.
    pub async fn ping(&mut self) -> Result<(), StoreError> {
        let doing = "asking whether the server answers";
        let limit = Duration::from_millis(PING_MS_MAX);
        let answered = tokio::time::timeout(limit, self.connection.ping()).await;
        let late = Err(StoreError::TimedOut { doing, limit_ms: PING_MS_MAX });
        let answered = answered.map_or(late, |answered| answered.doing(doing));
        match &answered {
            Ok(()) => self.logins.answered(),
            // A new connection may still work; the next attempt shows that.
            Err(error) => self.logins.not_asked(error.to_string()),
        }
        answered
    }

    /// The current totals. After an error the connection can't be used any more.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn read(&mut self) -> Result<ArchiveTotals, StoreError> {
        let mut totals = ArchiveTotals::default();
        let mut moment = self.connection.begin().await.doing(DOING)?;
        for (StreamId { id, .. }, name) in StreamId::all(&mut moment, DOING).await? {
            let passed = self.passed.entry(id).or_default();
            *passed = grown(&mut moment, id, *passed).await?;
            totals.ledger.insert(name, passed.2);
        }
        let lost: Vec<(String, i64)> = sqlx::query_as(
            "select stream.name, sum(loss.last - loss.first + 1)::bigint \
             from lakegauge.declared_loss as loss \
             join lakegauge.stream on stream.id = loss.stream group by stream.name",
        )
        .fetch_all(&mut *moment)
        .await
        .doing(DOING)?;
        for (name, messages) in lost {
            totals.lost_messages.insert(name, unsigned(messages)?);
        }
        let letters: Vec<(String, i16, i64)> = sqlx::query_as(
            "select stream.name, letter.reason, count(*) from lakegauge.dead_letter as letter \
             join lakegauge.stream on stream.id = letter.stream \
             where letter.closed_at is null group by stream.name, letter.reason",
        )
        .fetch_all(&mut *moment)
        .await
        .doing(DOING)?;
        for (name, code, count) in letters {
            if let Some(reason) = u8::try_from(code).ok().and_then(Reason::from_code) {
                totals.open_dead_letters.insert((name, reason), unsigned(count)?);
            }
        }
        moment.commit().await.doing(DOING)?;
        Ok(totals)
    }

    /// For how long rows of each stream have been archived that its rollups do not include, by the
    /// database's clock; zero where they include every row. Streams without rollups are missing.
    /// `keys`: whether what is known of each key is kept, so that it can be behind as well. After an
    /// error the connection is of no more use.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn rollup_lag(
        &mut self,
        keys: bool,
    ) -> Result<BTreeMap<String, Duration>, StoreError> {
        let parts: Vec<(&str, &str)> = [("LAKE", "days"), ("LAKE", "keys"), ("WAREHOUSE", "days")]
            .into_iter()
            .filter(|(_, part)| keys || *part != "keys")
            .collect();
        let (sides, parts): (Vec<&str>, Vec<&str>) = parts.into_iter().unzip();
        // Each part goes by its own position, which is missing before the first step.
        let lags: Vec<(String, i64)> = sqlx::query_as(
            "select stream.name, \
                 max(coalesce(extract(epoch from now() - next.committed_at), 0))::bigint \
             from lakegauge.stream \
             join unnest($1::text[], $2::text[]) as part (side, name) \
                 on starts_with(stream.name, part.side || '_') \
             left join lakegauge.rolled_up as done \
                 on done.stream = stream.id and done.part = part.name \
             left join lateral (\
                 select committed_at from lakegauge.ledger \
                 where ledger.stream = stream.id and (ledger.epoch, ledger.last) \
                     > (coalesce(done.epoch, 0), coalesce(done.sequence, 0)) \
                 order by ledger.epoch, ledger.last limit 1) as next on true \
             group by stream.name",
        )
        .bind(sides)
        .bind(parts)
        .fetch_all(&mut self.connection)
        .await
        .doing("asking how far the rollups are behind")?;
        lags.into_iter()
            .map(|(name, seconds)| Ok((name, Duration::from_secs(unsigned(seconds.max(0))?))))
            .collect()
    }

    /// The current size of the database. The server reads the size of each file: about a
    /// millisecond for a hundred partitions. After an error the connection can't be used any more.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn size(&mut self) -> Result<DatabaseSize, StoreError> {
        let (bytes, dropped): (i64, i64) = sqlx::query_as(
            "select pg_database_size(current_database()), \
             coalesce((select sum(rows) from lakegauge.dropped), 0)::bigint",
        )
        .fetch_one(&mut self.connection)
        .await
        .doing("asking for the size of the database")?;
        Ok(DatabaseSize { bytes: unsigned(bytes)?, dropped_rows: unsigned(dropped)? })
    }
}

async fn grown(
    moment: &mut PgConnection,
    stream: i16,
    (epoch, last, sums): (i32, i64, LedgerTotals),
) -> Result<(i32, i64, LedgerTotals), StoreError> {
    let end: Option<(i32, i64)> = sqlx::query_as(
        "select epoch, last from lakegauge.ledger where stream = $1 \
         order by epoch desc, last desc limit 1",
    )
    .bind(stream)
    .fetch_optional(&mut *moment)
    .await
    .doing(DOING)?;
    let Some(end) = end.filter(|end| *end > (epoch, last)) else { return Ok((epoch, last, sums)) };
    let (inserted, duplicates, dead, gaps): (i64, i64, i64, i64) = sqlx::query_as(
        "select sum(inserted)::bigint, sum(duplicates)::bigint, sum(dead)::bigint, \
         count(*) filter (where first <> before + 1) from (\
             select inserted, duplicates, dead, first, \
                 lag(last, 1, case when epoch = $2 then $3 else 0 end) \
                     over (partition by epoch order by last) as before \
             from lakegauge.ledger where stream = $1 and (epoch, last) > ($2, $3) \
             and (epoch, last) <= ($4, $5)) as part",
    )
    .bind(stream)
    .bind(epoch)
    .bind(last)
    .bind(end.0)
    .bind(end.1)
    .fetch_one(&mut *moment)
    .await
    .doing(DOING)?;
    let sums = LedgerTotals {
        inserted: sums.inserted + unsigned(inserted)?,
        duplicates: sums.duplicates + unsigned(duplicates)?,
        dead: sums.dead + unsigned(dead)?,
        gaps: sums.gaps + unsigned(gaps)?,
    };
    Ok((end.0, end.1, sums))
}
