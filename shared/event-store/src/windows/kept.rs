//! Which windows a stream keeps, as the archive stores it.

use domain::{Kept, Ladder, Timestamp};
use sqlx::PgConnection;

use crate::{
    error::StoreError, numbers::integer, statement::Doing, stream_id::StreamId,
    timestamptz::Timestamptz,
};

/// What a stream keeps. If it is read under the lock of the windows, it does not change before the
/// end of the transaction.
pub(crate) async fn read(
    connection: &mut PgConnection,
    stream: StreamId,
) -> Result<Kept, StoreError> {
    let rows: Vec<(i32, Option<Timestamptz>)> =
        sqlx::query_as("select length_s, kept_from from lakegauge.window_kept where stream = $1")
            .bind(stream.id)
            .fetch_all(connection)
            .await
            .doing("reading which windows are kept")?;
    let lengths = rows.into_iter().map(|(length_s, from)| {
        let length_s = u32::try_from(length_s)
            .map_err(|_| StoreError::Inconsistent(format!("windows of {length_s} s are kept")))?;
        Ok((length_s, from.map(|from| Timestamp(from.0))))
    });
    Ok(Kept::new(lengths.collect::<Result<Vec<_>, StoreError>>()?))
}

/// Makes a stream use a ladder from this transaction on. The transaction's rows must not be in the
/// ledger yet.
pub(crate) async fn follow(
    connection: &mut PgConnection,
    stream: StreamId,
    kept: &mut Kept,
    ladder: &Ladder,
    broker_ns: i64,
) -> Result<(), StoreError> {
    if kept.follows(ladder) {
        return Ok(());
    }
    let doing = "noting which windows are kept";
    let newest: Option<Timestamptz> =
        sqlx::query_scalar("select max(occurred_to) from lakegauge.ledger where stream = $1")
            .bind(stream.id)
            .fetch_one(&mut *connection)
            .await
            .doing(doing)?;
    kept.follow(ladder, broker_ns, newest.map(|newest| Timestamp(newest.0)));
    let lengths = kept.lengths();
    let (lengths_s, from): (Vec<i32>, Vec<Option<Timestamptz>>) = lengths
        .map(|(length_s, from)| (integer(length_s), from.map(|from| Timestamptz(from.0))))
        .unzip();
    sqlx::query("delete from lakegauge.window_kept where stream = $1 and length_s <> all ($2)")
        .bind(stream.id)
        .bind(&lengths_s)
        .execute(&mut *connection)
        .await
        .doing(doing)?;
    sqlx::query(
        "insert into lakegauge.window_kept (stream, length_s, kept_from) \
         select $1, part.* from unnest($2::integer[], $3::timestamptz[]) as part \
         on conflict do nothing",
    )
    .bind(stream.id)
    .bind(lengths_s)
    .bind(from)
    .execute(&mut *connection)
    .await
    .doing(doing)
    .map(|_| ())
}
