//! What a server says about itself, to check whether it is fit for the archive.

use std::collections::BTreeMap;

use sqlx::Connection as _;

use crate::{
    error::StoreError, numbers::unsigned, settings::connection::StoreSettings, statement::Doing,
};

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`: 150014 is 15.14.
    pub version: i32,
    /// The role of our login.
    pub user: String,
    /// Whether that role may use the role that writes the archive.
    pub may_write: bool,
    /// Whether that role may use the role that reads the archive.
    pub may_read: bool,
    /// Size of the database's files, in bytes.
    pub database_bytes: u64,
    /// Settings on which a commit's durability depends, and other useful ones, by name.
    pub settings: BTreeMap<String, String>,
}

/// Asks the server for its version, its settings and our rights.
///
/// # Errors
///
/// The database cannot be reached, or is behind a transaction pooler.
pub async fn inspect(settings: &StoreSettings) -> Result<ServerFacts, StoreError> {
    const DOING: &str = "asking the server about itself";
    settings.refuse_transaction_pooling().await?;
    let mut connection = settings.connect().await?;
    let (version, user, may_write, may_read, bytes): (i32, String, bool, bool, i64) =
        sqlx::query_as(
            "select current_setting('server_version_num')::int, current_user::text,
                coalesce((select pg_has_role(oid, 'usage') from pg_roles
                          where rolname = 'lakegauge_archiver'), false),
                coalesce((select pg_has_role(oid, 'usage') from pg_roles
                          where rolname = 'lakegauge_reader'), false),
                pg_database_size(current_database())",
        )
        .fetch_one(&mut connection)
        .await
        .doing(DOING)?;
    let found: Vec<(String, String)> = sqlx::query_as(
        "select name, current_setting(name) from pg_settings
         where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'max_connections',
                        'shared_buffers', 'max_wal_size', 'default_transaction_read_only')",
    )
    .fetch_all(&mut connection)
    .await
    .doing(DOING)?;
    connection.close().await.doing(DOING)?;
    Ok(ServerFacts {
        version,
        user,
        may_write,
        may_read,
        database_bytes: unsigned(bytes)?,
        settings: found.into_iter().collect(),
    })
}
