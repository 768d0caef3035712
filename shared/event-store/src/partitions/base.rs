//! The base: the state from which the archive of a stream is folded after old days were dropped.

use domain::{Mark, Rules, StreamState, Timestamp};
use sqlx::PgConnection;
use wire::snapshot;

use crate::{
    error::StoreError,
    numbers::{signed, signed_32},
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
};

/// A snapshot of the aggregator: what it had counted up to a mark.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// The last message that is counted in the state.
    pub mark: Mark,
    /// The state in the encoding of snapshots.
    pub state: &'a [u8],
    /// The blake3 hash of the state, in hexadecimal.
    pub digest: &'a str,
}

/// The base of a stream's archive: its position, and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct StoredBase {
    pub(crate) epoch: i32,
    pub(crate) sequence: i64,
    state: Vec<u8>,
}

impl StoredBase {
    pub(crate) async fn read(
        connection: &mut PgConnection,
        stream: StreamId,
    ) -> Result<Option<Self>, StoreError> {
        let row: Option<(i32, i64, Vec<u8>)> =
            sqlx::query_as("select epoch, sequence, state from lakegauge.base where stream = $1")
                .bind(stream.id)
                .fetch_optional(connection)
                .await
                .doing("reading the base of the archive")?;
        Ok(row.map(|(epoch, sequence, state)| Self { epoch, sequence, state }))
    }

    /// The state to begin a fold with, under the rules in force.
    pub(crate) fn state(&self, rules: &Rules) -> Result<StreamState, StoreError> {
        snapshot::decode_state_under(&self.state, rules)
            .map_err(|error| StoreError::Version(format!("the base of the archive: {error}")))
    }
}

/// Stores a snapshot as the base, unless the base is a later one.
pub(crate) async fn store(
    connection: &mut PgConnection,
    stream: StreamId,
    base: &Base<'_>,
    kept_from: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into lakegauge.base as known (stream, epoch, sequence, broker_ns, created_ns, \
         kept_from, digest, state) values ($1, $2, $3, $4, $5, $6, $7, $8) \
         on conflict (stream) do update set epoch = excluded.epoch, \
             sequence = excluded.sequence, broker_ns = excluded.broker_ns, \
             created_ns = excluded.created_ns, digest = excluded.digest, state = excluded.state, \
             kept_from = greatest(known.kept_from, excluded.kept_from), stored_at = now() \
         where (known.epoch, known.sequence) < (excluded.epoch, excluded.sequence)",
    )
    .bind(stream.id)
    .bind(signed_32(base.mark.epoch)?)
    .bind(signed(base.mark.sequence)?)
    .bind(base.mark.broker_ns)
    .bind(base.mark.created_ns)
    .bind(Timestamptz(kept_from.0))
    .bind(base.digest)
    .bind(base.state)
    .execute(connection)
    .await
    .doing("storing the base of the archive")
    .map(|_| ())
}
