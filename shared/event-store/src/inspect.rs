//! Looking at the archive from outside: what it holds, and whether its server is fit for it.

use std::collections::BTreeMap;

use sqlx::Connection as _;

use crate::error::{Doing as _, StoreError, unsigned};
use crate::settings::StoreSettings;

/// What the archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows of all kinds of events.
    pub events: u64,
    /// Rows beyond the first of an identity; the keys see to it that there is none.
    pub duplicates: u64,
    /// Dead letters, open and closed.
    pub dead_letters: u64,
    /// The sequence up to which each stream is archived.
    pub checkpoints: BTreeMap<String, u64>,
}

/// Counts the archive, of one moment. Reads every key: seconds per ten million rows.
///
/// # Errors
///
/// The database cannot be read.
pub async fn tally(settings: &StoreSettings) -> Result<Tally, StoreError> {
    const DOING: &str = "counting the archive";
    let mut connection = settings.connect().await?;
    sqlx::raw_sql("begin isolation level repeatable read read only")
        .execute(&mut connection)
        .await
        .doing(DOING)?;
    let (mut events, mut distinct) = (0_i64, 0_i64);
    for kind in ["lake_access", "lake_inventory", "warehouse_query"] {
        // `distinct` over the two columns follows the key's index; over a row it would sort.
        let sql = format!(
            "select (select count(*) from lakegauge.{kind}),
                    (select count(*) from (select distinct occurred_at, id from lakegauge.{kind}) d)"
        );
        let (rows, identities): (i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .doing(DOING)?;
        events = events.saturating_add(rows);
        distinct = distinct.saturating_add(identities);
    }
    let dead_letters: i64 = sqlx::query_scalar("select count(*) from lakegauge.dead_letter")
        .fetch_one(&mut connection)
        .await
        .doing(DOING)?;
    let checkpoints: Vec<(String, i64)> = sqlx::query_as(
        "select stream.name, checkpoint.sequence
         from lakegauge.checkpoint join lakegauge.stream on stream.id = checkpoint.stream",
    )
    .fetch_all(&mut connection)
    .await
    .doing(DOING)?;
    connection.close().await.doing(DOING)?;
    let checkpoints =
        checkpoints.into_iter().map(|(name, sequence)| Ok((name, unsigned(sequence)?)));
    Ok(Tally {
        events: unsigned(events)?,
        duplicates: unsigned(events.saturating_sub(distinct))?,
        dead_letters: unsigned(dead_letters)?,
        checkpoints: checkpoints.collect::<Result<_, StoreError>>()?,
    })
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`: 150014 is 15.14.
    pub version: i32,
    /// Whom we are logged in as.
    pub user: String,
    /// Whether that role may act as the one that writes the archive.
    pub may_write: bool,
    /// Whether that role may act as the one that reads it.
    pub may_read: bool,
    /// Settings on which a commit's durability depends, and others worth a look, by name.
    pub settings: BTreeMap<String, String>,
}

/// Asks the server what it is and who we are there.
///
/// # Errors
///
/// The database cannot be reached, or is behind a pooler of transactions.
pub async fn inspect(settings: &StoreSettings) -> Result<ServerFacts, StoreError> {
    const DOING: &str = "asking the server about itself";
    settings.refuse_transaction_pooling().await?;
    let mut connection = settings.connect().await?;
    let (version, user, may_write, may_read): (i32, String, bool, bool) = sqlx::query_as(
        "select current_setting('server_version_num')::int, current_user::text,
                coalesce((select pg_has_role(oid, 'usage') from pg_roles
                          where rolname = 'lakegauge_archiver'), false),
                coalesce((select pg_has_role(oid, 'usage') from pg_roles
                          where rolname = 'lakegauge_reader'), false)",
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
    Ok(ServerFacts { version, user, may_write, may_read, settings: found.into_iter().collect() })
}
