//! Counts the rows of the archive.

use std::collections::BTreeMap;

use sqlx::{Connection as _, PgConnection};

use crate::{
    error::StoreError,
    numbers::unsigned,
    settings::connection::StoreSettings,
    statement::{Doing, run},
};

/// Numbers of rows in the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows of all kinds of events.
    pub events: u64,
    /// Rows beyond the first of each identity; the keys should prevent them.
    pub duplicates: u64,
    /// Dead letters, open and closed.
    pub dead_letters: u64,
    /// The rows of each source; rows without a source are under an empty name.
    pub sources: BTreeMap<String, SourceTally>,
    /// The sequence up to which each stream is archived.
    pub checkpoints: BTreeMap<String, u64>,
}

/// The rows of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceTally {
    /// Rows of requests and inventories.
    pub lake: u64,
    /// Rows of queries.
    pub warehouse: u64,
    /// Dead letters, open and closed.
    pub dead_letters: u64,
}

/// Counts the archive at one moment. Reads every key: seconds per ten million rows.
///
/// # Errors
///
/// The database cannot be read.
pub async fn tally(settings: &StoreSettings) -> Result<Tally, StoreError> {
    const DOING: &str = "counting the archive";
    let mut connection = settings.connect().await?;
    run(&mut connection, "begin isolation level repeatable read read only", DOING).await?;
    let mut distinct = 0_u64;
    for kind in ["lake_access", "lake_inventory", "warehouse_query"] {
        // `distinct` over the two columns uses the key's index; over a row it would sort.
        let sql = format!(
            "select count(*) from (select distinct occurred_at, id from lakegauge.{kind}) as d"
        );
        let identities: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .doing(DOING)?;
        distinct = distinct.saturating_add(unsigned(identities)?);
    }
    let sources = by_source(&mut connection).await?;
    let events: u64 = sources.values().map(|source| source.lake + source.warehouse).sum();
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
        events,
        duplicates: events.saturating_sub(distinct),
        dead_letters: sources.values().map(|source| source.dead_letters).sum(),
        sources,
        checkpoints: checkpoints.collect::<Result<_, StoreError>>()?,
    })
}

async fn by_source(
    connection: &mut PgConnection,
) -> Result<BTreeMap<String, SourceTally>, StoreError> {
    const DOING: &str = "counting what each source has";
    let mut sources: BTreeMap<String, SourceTally> = BTreeMap::new();
    for table in ["lake_access", "lake_inventory", "warehouse_query", "dead_letter"] {
        // Grouped by number first, so that names are joined to a few rows only.
        let sql = format!(
            "select coalesce(source.name, ''), part.rows
             from (select stream, source, count(*) as rows
                   from lakegauge.{table} group by stream, source) as part
             left join lakegauge.source
                 on source.stream = part.stream and source.number = part.source"
        );
        let rows: Vec<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .doing(DOING)?;
        for (name, rows) in rows {
            let of_source = sources.entry(name).or_default();
            let counted = match table {
                "lake_access" | "lake_inventory" => &mut of_source.lake,
                "warehouse_query" => &mut of_source.warehouse,
                _ => &mut of_source.dead_letters,
            };
            *counted = counted.saturating_add(unsigned(rows)?);
        }
    }
    Ok(sources)
}
