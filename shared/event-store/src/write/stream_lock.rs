//! The lock of a stream, which allows only one writer.

use sqlx::PgConnection;

use crate::{error::StoreError, statement::Doing};

/// First half of the key of a stream's lock; the second is the stream's number.
const LOCK_CLASS: i32 = 0x6c61_6b65;

const DOING: &str = "taking the lock of the stream";

/// Takes the lock of a stream for the life of the connection. Returns `false` if another connection
/// has it.
pub(crate) async fn try_take(
    connection: &mut PgConnection,
    stream: i16,
) -> Result<bool, StoreError> {
    sqlx::query_scalar("select pg_try_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(i32::from(stream))
        .fetch_one(connection)
        .await
        .doing(DOING)
}

/// Waits for the lock of a stream, at most the session's limit for locks. Returns whether the lock
/// was taken.
pub(crate) async fn wait(connection: &mut PgConnection, stream: i16) -> Result<bool, StoreError> {
    let waited = sqlx::query("select pg_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(i32::from(stream))
        .execute(connection)
        .await
        .doing(DOING);
    match waited {
        Ok(_) => Ok(true),
        Err(error) if error.sqlstate().as_deref() == Some("55P03") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who holds the lock of a stream, for people.
pub(crate) async fn holder(
    connection: &mut PgConnection,
    stream: i16,
) -> Result<String, StoreError> {
    let holder: Option<String> = sqlx::query_scalar(
        "select format('%s (process %s of the server)', \
         coalesce(nullif(activity.application_name, ''), 'somebody'), activity.pid) \
         from pg_locks as held join pg_stat_activity as activity on activity.pid = held.pid \
         where held.locktype = 'advisory' and held.granted \
         and held.database = (select oid from pg_database where datname = current_database()) \
         and held.classid::bigint = $1 and held.objid::bigint = $2",
    )
    .bind(i64::from(LOCK_CLASS))
    .bind(i64::from(stream))
    .fetch_optional(connection)
    .await
    .doing("asking who holds the lock")?;
    Ok(holder.unwrap_or_else(|| "somebody".to_owned()))
}
