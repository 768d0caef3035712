//! Drops old days, and stores the base from which the archive is then folded.

use domain::{Mark, Stream, Timestamp, time::SECONDS_PER_DAY};
use sqlx::{AssertSqlSafe, PgConnection};
use wire::snapshot;

use crate::{
    checkpoint,
    error::StoreError,
    numbers::unsigned,
    partitions::{
        base::{self, Base},
        create::Partitions,
    },
    rows::kind::EventTable,
    schema::ownership,
    statement::{Doing, begin, commit, roll_back, run},
    stream_id::StreamId,
    timestamptz::Timestamptz,
    write::writer::Archive,
};

/// Days kept in addition to retention, because brokers' clocks step and partitions hold whole days.
const DAYS_BEYOND: i64 = 1;
/// Longest wait for the lock of a partition; the next attempt comes later. Readers and writers of
/// its table wait meanwhile.
const LOCK_WAIT_MS_MAX: u32 = 1_000;
/// Counting the rows of a partition may read all of it.
const STATEMENT_MS_MAX: u32 = 600_000;

/// The result of retention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Names of the dropped partitions.
    pub partitions: Vec<String>,
    /// Rows in them, of all streams.
    pub rows: u64,
    /// Partitions that are old enough, but are in use, or contain rows that were counted after a
    /// base.
    pub waiting: Vec<String>,
}

/// Rows before this time may be dropped once the state at the mark is the base; `None` if retention
/// is off. No event of a later message is accepted that is older: a day is kept for the broker's
/// clock.
pub fn kept_from(mark: &Mark, retention_days: u32) -> Option<Timestamp> {
    let days = i64::from(retention_days) + DAYS_BEYOND;
    (retention_days > 0).then(|| mark.broker_time().plus_seconds(-days * SECONDS_PER_DAY))
}

impl Archive {
    /// Whether any existing days may be dropped once the state at this mark is the base.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn is_overdue(
        &mut self,
        mark: &Mark,
        retention_days: u32,
    ) -> Result<bool, StoreError> {
        let Some(kept_from) = kept_from(mark, retention_days) else { return Ok(false) };
        let mut session = self.take_session().await?;
        let old = old_partitions(&mut session.connection, self.stream(), kept_from).await?;
        self.give_session(session);
        Ok(!old.is_empty())
    }

    /// Stores a snapshot as the base of the archive, and then drops the days that are older than
    /// retention plus one day. This happens between two batches, so nothing is appended meanwhile.
    ///
    /// A crash leaves the old base or the new one, and each partition complete or gone. Because the
    /// base is stored first, folding the archive gives the same result at every moment. A partition
    /// is kept while it contains a row of any stream that was counted after that stream's base,
    /// whose verdict was not read back yet, or that the rollups have not reached.
    ///
    /// # Errors
    ///
    /// The database failed; the state can't be decoded or does not belong to this stream and mark;
    /// or another writer moved the checkpoint. A base that the checkpoint has not reached changes
    /// nothing.
    pub async fn retain(
        &mut self,
        base: &Base<'_>,
        retention_days: u32,
    ) -> Result<Retained, StoreError> {
        let Some(kept_from) = kept_from(&base.mark, retention_days) else {
            return Ok(Retained::default());
        };
        let mut session = self.take_session().await?;
        let known = self.checkpoint().cloned();
        let Some(known) = known.filter(|known| reaches(&known.mark, &base.mark)) else {
            self.give_session(session);
            return Ok(Retained::default());
        };
        let (state, mark) = snapshot::decode_state(base.state)
            .map_err(|error| StoreError::Version(format!("a base for the archive: {error}")))?;
        if mark != base.mark || Stream::from_name(self.name()) != Some(state.stream()) {
            return Err(StoreError::Inconsistent(format!(
                "a base of stream {} at {mark:?} was offered to {} as one at {:?}",
                state.stream(),
                self.name(),
                base.mark
            )));
        }
        let connection = &mut session.connection;
        begin(connection).await?;
        if !checkpoint::is_still(connection, self.stream(), &known).await? {
            drop(session);
            return Err(self.fenced().await);
        }
        base::store(connection, self.stream(), base, kept_from).await?;
        commit(connection).await?;
        let mut retained = Retained::default();
        for partition in old_partitions(connection, self.stream(), kept_from).await? {
            match drop_partition(connection, &partition).await {
                Ok(Some(rows)) => {
                    retained.rows += rows;
                    retained.partitions.push(partition.name);
                }
                Ok(None) => retained.waiting.push(partition.name),
                // Somebody reads the partition; the next attempt comes later.
                Err(error) if error.sqlstate().as_deref() == Some("55P03") => {
                    roll_back(connection).await?;
                    retained.waiting.push(partition.name);
                }
                Err(error) => return Err(error),
            }
        }
        // The session may know partitions that are gone.
        session.partitions = Partitions::load(connection).await?;
        self.give_session(session);
        Ok(retained)
    }
}

const fn reaches(checkpoint: &Mark, base: &Mark) -> bool {
    checkpoint.epoch == base.epoch
        && checkpoint.created_ns == base.created_ns
        && checkpoint.sequence >= base.sequence
}

/// A partition that is old enough to drop.
#[derive(Clone, Debug)]
struct Old {
    kind: EventTable,
    name: String,
    from: Timestamptz,
    to: Timestamptz,
}

/// Partitions of a stream's side that end at or before a time.
async fn old_partitions(
    connection: &mut PgConnection,
    stream: StreamId,
    kept_from: Timestamp,
) -> Result<Vec<Old>, StoreError> {
    let mut all = Vec::new();
    for kind in stream.kinds() {
        let found: Vec<(String, Timestamptz, Timestamptz)> = sqlx::query_as(
            "select name, dropped_from, dropped_to from (\
                select child.relname::text as name, \
                    substring(bound from $$FROM \\('([^']+)'\\)$$)::timestamptz as dropped_from, \
                    substring(bound from $$TO \\('([^']+)'\\)$$)::timestamptz as dropped_to \
                from pg_inherits \
                join pg_class as child on child.oid = pg_inherits.inhrelid \
                cross join lateral pg_get_expr(child.relpartbound, child.oid) as bound \
                where pg_inherits.inhparent = $1::regclass \
                    and child.relnamespace = 'lakegauge'::regnamespace \
                    and starts_with(obj_description(child.oid, 'pg_class'), $3)) as partition \
             where dropped_to <= $2 order by dropped_from",
        )
        .bind(format!("lakegauge.{}", kind.table()))
        .bind(Timestamptz(kept_from.0))
        .bind(ownership::MARK)
        .fetch_all(&mut *connection)
        .await
        .doing("looking for old partitions")?;
        let old = |(name, from, to)| Old { kind: *kind, name, from, to };
        all.extend(found.into_iter().map(old));
    }
    Ok(all)
}

/// Drops a partition if all its rows are in the bases of their streams. Returns how many rows it
/// had; `None` if it was kept.
async fn drop_partition(
    connection: &mut PgConnection,
    old: &Old,
) -> Result<Option<u64>, StoreError> {
    let doing = "dropping a partition";
    let name = &old.name;
    // The name comes from the catalogue, and is one of our own.
    let begin = format!(
        "begin; set local lock_timeout = {LOCK_WAIT_MS_MAX}; \
         set local statement_timeout = {STATEMENT_MS_MAX}; \
         lock table lakegauge.\"{name}\" in exclusive mode"
    );
    run(connection, AssertSqlSafe(begin), doing).await?;
    let count = format!(
        "select event.stream, count(*), count(*) filter (where base.stream is null \
             or base.kept_from < $1 \
             or case when event.verdict is null \
                 then (event.epoch, event.sequence) > (base.epoch, base.sequence) \
                 else event.noted_sequence is null \
                     or (event.noted_epoch, event.noted_sequence) > (base.epoch, base.sequence) \
                 end \
             or days.stream is null \
             or (event.epoch, event.sequence) > (days.epoch, days.sequence) \
             or (event.epoch, event.sequence) > (keys.epoch, keys.sequence)) \
         from lakegauge.\"{name}\" as event \
         left join lakegauge.base on base.stream = event.stream \
         left join lakegauge.rolled_up as days \
             on days.stream = event.stream and days.part = 'days' \
         left join lakegauge.rolled_up as keys \
             on keys.stream = event.stream and keys.part = 'keys' \
         group by event.stream"
    );
    let counts: Vec<(i16, i64, i64)> = sqlx::query_as(AssertSqlSafe(count))
        .bind(old.to)
        .fetch_all(&mut *connection)
        .await
        .doing(doing)?;
    if counts.iter().any(|(_, _, needed)| *needed > 0) {
        roll_back(connection).await?;
        return Ok(None);
    }
    let mut rows = 0;
    for (stream, count, _) in counts {
        rows += unsigned(count)?;
        sqlx::query(
            "insert into lakegauge.dropped as known (stream, kind, dropped_from, dropped_to, \
             rows) values ($1, $2, $3, $4, $5) \
             on conflict (stream, kind, dropped_from) do update \
             set rows = known.rows + excluded.rows, dropped_at = now()",
        )
        .bind(stream)
        .bind(old.kind.table())
        .bind(old.from)
        .bind(old.to)
        .bind(count)
        .execute(&mut *connection)
        .await
        .doing(doing)?;
    }
    let drop = format!("drop table lakegauge.\"{name}\"");
    run(connection, AssertSqlSafe(drop), doing).await?;
    commit(connection).await?;
    tracing::info!(partition = %name, rows, "dropped a partition that is older than retention");
    Ok(Some(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_more_than_retention_is_kept_before_the_broker_s_time_of_the_base() {
        let day = SECONDS_PER_DAY;
        let broker_ns = 100 * day * 1_000_000_000;
        let mark = Mark { epoch: 1, sequence: 5, broker_ns, created_ns: 1 };
        assert_eq!(kept_from(&mark, 0), None, "off unless set");
        assert_eq!(kept_from(&mark, 30), Some(Timestamp(69 * day * 1_000_000)));
    }

    #[test]
    fn the_checkpoint_must_have_reached_the_base_in_the_same_epoch_of_the_same_stream() {
        let base = Mark { epoch: 2, sequence: 5, broker_ns: 1, created_ns: 7 };
        assert!(reaches(&base, &base));
        assert!(reaches(&Mark { sequence: 6, ..base }, &base));
        for other in [
            Mark { sequence: 4, ..base },
            Mark { epoch: 3, ..base },
            Mark { created_ns: 8, ..base },
        ] {
            assert!(!reaches(&other, &base), "{other:?}");
        }
    }
}
