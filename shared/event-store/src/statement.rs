//! Statements whose rows are of no interest, and what their errors say.

use sqlx::{PgConnection, SqlSafeStr};

use crate::error::StoreError;

/// Says what was being done when the driver failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|driver| StoreError::Database { doing, driver })
    }
}

/// Runs one or several statements by the simple protocol. `doing` says in an error what they are for.
pub(crate) async fn run(
    connection: &mut PgConnection,
    sql: impl SqlSafeStr,
    doing: &'static str,
) -> Result<(), StoreError> {
    sqlx::raw_sql(sql).execute(connection).await.doing(doing).map(|_| ())
}

/// Begins a transaction. Dropping the connection ends the transaction without a commit.
pub(crate) async fn begin(connection: &mut PgConnection) -> Result<(), StoreError> {
    run(connection, "begin", "beginning a transaction").await
}

/// Ends a transaction. The answer to a transaction that failed before is the same as to any other,
/// so that no error of its statements may have been ignored.
pub(crate) async fn commit(connection: &mut PgConnection) -> Result<(), StoreError> {
    run(connection, "commit", "committing a transaction").await
}

/// Undoes a transaction.
pub(crate) async fn roll_back(connection: &mut PgConnection) -> Result<(), StoreError> {
    run(connection, "rollback", "undoing a transaction").await
}

/// Begins a transaction that sees nothing later, and in which no partition can be dropped. The tables
/// are locked before the moment is taken, since a table that is dropped later is gone for every view.
/// The server does not end a reader that rests, whatever that reader asks of others meanwhile.
pub(crate) async fn take_snapshot(
    connection: &mut PgConnection,
    doing: &'static str,
) -> Result<(), StoreError> {
    let sql = "set idle_in_transaction_session_timeout = 0; \
               begin isolation level repeatable read read only; \
               lock table lakegauge.lake_access, lakegauge.lake_inventory, \
               lakegauge.warehouse_query in access share mode";
    run(connection, sql, doing).await
}
