//! Partitions made on demand: as a table of its own first, then attached, which takes the weak
//! lock.

use std::collections::BTreeSet;

use domain::{
    Timestamp,
    time::{MICROS_PER_SECOND, SECONDS_PER_DAY},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    error::{Doing, StoreError},
    grid::{Grid, Partition},
    rows::Kind,
};

/// Only one session makes partitions at a time; others wait, then find them made.
const LOCK: i64 = 0x6c61_6b65_7061_7274;

/// Which partitions are known to exist.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    grid: Grid,
    known: BTreeSet<(Kind, Partition)>,
}

impl Partitions {
    pub(crate) async fn load(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let day: i32 = sqlx::query_scalar(
            "select installed_on - date '1970-01-01' from lakegauge.installation",
        )
        .fetch_one(connection)
        .await
        .doing("reading the day of installation")?;
        Ok(Self { grid: Grid::new(i64::from(day)), known: BTreeSet::new() })
    }

    /// Makes the partitions that hold these days, in a transaction of its own.
    pub(crate) async fn ensure(
        &mut self,
        connection: &mut PgConnection,
        days: &BTreeSet<(Kind, i64)>,
    ) -> Result<(), StoreError> {
        let needed: BTreeSet<(Kind, Partition)> = days
            .iter()
            .map(|(kind, day)| (*kind, self.grid.partition_of(start_of(*day))))
            .filter(|needed| !self.known.contains(needed))
            .collect();
        for (kind, partition) in needed {
            make(connection, kind, partition).await?;
            self.known.insert((kind, partition));
        }
        Ok(())
    }
}

const fn start_of(day: i64) -> Timestamp {
    Timestamp(day * SECONDS_PER_DAY * MICROS_PER_SECOND)
}

async fn make(
    connection: &mut PgConnection,
    kind: Kind,
    partition: Partition,
) -> Result<(), StoreError> {
    let doing = "making a partition";
    let table = kind.table();
    let name = format!("{table}_{}", partition.suffix());
    let mut transaction = connection.begin().await.doing(doing)?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await
        .doing(doing)?;
    let attached: bool = sqlx::query_scalar(
        "select exists (select from pg_class as child \
         join pg_namespace as namespace on namespace.oid = child.relnamespace \
         where namespace.nspname = 'lakegauge' and child.relname = $1 and child.relispartition)",
    )
    .bind(&name)
    .fetch_one(&mut *transaction)
    .await
    .doing(doing)?;
    if !attached {
        let (from, to) = partition.bounds();
        // The names consist of our own table's name and digits. Row level security of the parent
        // does not cover a partition that is addressed by its own name.
        let sql = format!(
            "create table if not exists lakegauge.{name} (like lakegauge.{table} including \
             defaults including constraints);
             alter table lakegauge.{name} enable row level security;
             revoke all on lakegauge.{name} from public;
             alter table lakegauge.{table} attach partition lakegauge.{name}
             for values from ('{from}') to ('{to}')"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.doing(doing)?;
        tracing::info!(partition = %name, "made a partition");
    }
    transaction.commit().await.doing(doing)
}
