//! Statements without result rows, and the context of their errors.

use sqlx::{PgConnection, SqlSafeStr};

use crate::error::StoreError;

/// Adds what was being done to an error of the driver.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|driver| StoreError::Database { doing, driver })
    }
}

/// Runs one or several statements by the simple protocol. `doing` describes them in an error.
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

/// Commits a transaction. The server answers the commit of a failed transaction like any other, so
/// no error of its statements may have been ignored.
pub(crate) async fn commit(connection: &mut PgConnection) -> Result<(), StoreError> {
    run(connection, "commit", "committing a transaction").await
}

/// Rolls a transaction back.
pub(crate) async fn roll_back(connection: &mut PgConnection) -> Result<(), StoreError> {
    run(connection, "rollback", "undoing a transaction").await
}

/// Begins a transaction that sees no later changes, and during which no partition can be dropped.
/// The tables are locked before the snapshot is taken, since a dropped table is gone for every
/// transaction. The server does not end an idle reader, which may be waiting for something else.
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
