//! Counting the archive.

use std::collections::BTreeMap;

use sqlx::Connection as _;

use crate::{
    error::StoreError,
    numbers::unsigned,
    settings::connection::StoreSettings,
    statement::{Doing, run},
};

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
    run(&mut connection, "begin isolation level repeatable read read only", DOING).await?;
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
