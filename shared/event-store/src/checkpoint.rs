//! How far a stream is archived.

use domain::{EventId, EventIdentity, Mark, Timestamp, verdict::VerdictProgress};
use sqlx::{FromRow, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::StoreError,
    numbers::{signed, signed_32},
    rows::columns::read,
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
};

/// How far a stream is archived, and what is needed to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last message whose effects are archived completely.
    pub mark: Mark,
    /// The encoded sets of sequenced ids.
    pub(crate) seen: Vec<u8>,
    /// The largest derived identity that was ever removed from the set.
    pub derived_floor: Option<EventIdentity>,
    /// The number for the next event that is too old to judge; starts at 1, without gaps.
    pub next_verdict: u64,
    /// The highest verdict number whose position is noted on its row; 0 before the first.
    pub noted_verdict: u64,
    pub(crate) writer: Uuid,
    pub(crate) writer_transaction: u64,
}

impl Checkpoint {
    /// How far the verdicts of the stream are given and noted.
    pub const fn verdicts(&self) -> VerdictProgress {
        VerdictProgress {
            sequence: self.mark.sequence,
            given: self.next_verdict.saturating_sub(1),
            noted: self.noted_verdict,
        }
    }
}

const DOING: &str = "reading the checkpoint";

pub(crate) async fn load(
    connection: &mut PgConnection,
    stream: StreamId,
) -> Result<Option<Checkpoint>, StoreError> {
    sqlx::query_as(
        "select epoch, sequence, broker_ns, created_ns, seen, derived_floor_at, \
         derived_floor_id, next_verdict, noted_verdict, writer, writer_transaction \
         from lakegauge.checkpoint where stream = $1",
    )
    .bind(stream.id)
    .fetch_optional(connection)
    .await
    .doing(DOING)
}

/// Whether the checkpoint is still `known`. The answer holds until the caller's transaction ends.
pub(crate) async fn is_still(
    connection: &mut PgConnection,
    stream: StreamId,
    known: &Checkpoint,
) -> Result<bool, StoreError> {
    let still: Option<i64> = sqlx::query_scalar(
        "select sequence from lakegauge.checkpoint where stream = $1 and writer = $2 \
         and writer_transaction = $3 and epoch = $4 and sequence = $5 for share",
    )
    .bind(stream.id)
    .bind(known.writer)
    .bind(signed(known.writer_transaction)?)
    .bind(signed_32(known.mark.epoch)?)
    .bind(signed(known.mark.sequence)?)
    .fetch_optional(connection)
    .await
    .doing(DOING)?;
    Ok(still.is_some())
}

impl FromRow<'_, PgRow> for Checkpoint {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let floor_at: Option<Timestamp> = read(row, "derived_floor_at")?;
        let floor_id: Option<EventId> = read(row, "derived_floor_id")?;
        Ok(Self {
            mark: mark(row)?,
            seen: row.try_get("seen")?,
            derived_floor: floor_at.zip(floor_id),
            next_verdict: read(row, "next_verdict")?,
            noted_verdict: read(row, "noted_verdict")?,
            writer: row.try_get("writer")?,
            writer_transaction: read(row, "writer_transaction")?,
        })
    }
}

/// The mark in a row with its four columns.
pub(crate) fn mark(row: &PgRow) -> Result<Mark, sqlx::Error> {
    Ok(Mark {
        epoch: read(row, "epoch")?,
        sequence: read(row, "sequence")?,
        broker_ns: row.try_get("broker_ns")?,
        created_ns: row.try_get("created_ns")?,
    })
}

/// Replaces the checkpoint if it is still `known`. Returns `false` if somebody else moved it.
pub(crate) async fn compare_and_set(
    connection: &mut PgConnection,
    stream: StreamId,
    known: Option<&Checkpoint>,
    new: &Checkpoint,
) -> Result<bool, StoreError> {
    let query = match known {
        None => sqlx::query(
            "insert into lakegauge.checkpoint (stream, epoch, sequence, broker_ns, created_ns, \
             seen, derived_floor_at, derived_floor_id, next_verdict, noted_verdict, writer, \
             writer_transaction) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict do nothing",
        ),
        Some(_) => sqlx::query(
            "update lakegauge.checkpoint set epoch = $2, sequence = $3, broker_ns = $4, \
             created_ns = $5, seen = $6, derived_floor_at = $7, derived_floor_id = $8, \
             next_verdict = $9, noted_verdict = $10, writer = $11, writer_transaction = $12, \
             updated_at = now() \
             where stream = $1 and writer = $13 and writer_transaction = $14 and epoch = $15 \
             and sequence = $16",
        ),
    };
    let query = query
        .bind(stream.id)
        .bind(signed_32(new.mark.epoch)?)
        .bind(signed(new.mark.sequence)?)
        .bind(new.mark.broker_ns)
        .bind(new.mark.created_ns)
        .bind(&new.seen)
        .bind(new.derived_floor.map(|(at, _)| Timestamptz(at.0)))
        .bind(new.derived_floor.map(|(_, id)| Uuid::from_bytes(*id.as_bytes())))
        .bind(signed(new.next_verdict)?)
        .bind(signed(new.noted_verdict)?)
        .bind(new.writer)
        .bind(signed(new.writer_transaction)?);
    let query = match known {
        None => query,
        Some(known) => query
            .bind(known.writer)
            .bind(signed(known.writer_transaction)?)
            .bind(signed_32(known.mark.epoch)?)
            .bind(signed(known.mark.sequence)?),
    };
    let done = query.execute(connection).await.doing("moving the checkpoint")?;
    Ok(done.rows_affected() == 1)
}
