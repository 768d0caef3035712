//! Creates partitions on demand: each is first a separate table and is then attached, which needs
//! only a weak lock.

use std::collections::BTreeSet;

use domain::{
    Timestamp,
    time::{MICROS_PER_SECOND, SECONDS_PER_DAY},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    error::StoreError,
    partitions::layout::{DayPartition, PartitionLayout},
    rows::kind::EventTable,
    schema::ownership::{self, MARK},
    statement::{Doing, run},
};

/// Only one session creates partitions at a time; others wait, and then find them created.
const LOCK: i64 = 0x6c61_6b65_7061_7274;

/// Which partitions are known to exist.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    layout: PartitionLayout,
    known: BTreeSet<(EventTable, DayPartition)>,
}

impl Partitions {
    pub(crate) async fn load(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let day: i32 = sqlx::query_scalar(
            "select installed_on - date '1970-01-01' from lakegauge.installation",
        )
        .fetch_one(connection)
        .await
        .doing("reading the day of installation")?;
        Ok(Self { layout: PartitionLayout::new(i64::from(day)), known: BTreeSet::new() })
    }

    /// Creates the partitions for these days, in a transaction of its own.
    pub(crate) async fn ensure(
        &mut self,
        connection: &mut PgConnection,
        days: &BTreeSet<(EventTable, i64)>,
    ) -> Result<(), StoreError> {
        let needed: BTreeSet<(EventTable, DayPartition)> = days
            .iter()
            .map(|(kind, day)| (*kind, self.layout.partition_of(start_of(*day))))
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
    kind: EventTable,
    partition: DayPartition,
) -> Result<(), StoreError> {
    let doing = "creating a partition";
    let table = kind.table();
    let name = format!("{table}_{}", partition.suffix());
    let mut transaction = connection.begin().await.doing(doing)?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await
        .doing(doing)?;
    match found(&mut transaction, kind, &name).await? {
        Found::Absent => {
            let sql = made(table, &name, partition.bounds());
            run(&mut transaction, AssertSqlSafe(sql), doing).await?;
            tracing::info!(partition = %name, "created a partition");
        }
        Found::Attached => {}
        Found::Foreign => return Err(ownership::foreign_partition(&name)),
    }
    transaction.commit().await.doing(doing)
}

/// What exists under the name of a partition.
enum Found {
    Absent,
    Attached,
    Foreign,
}

async fn found(
    connection: &mut PgConnection,
    kind: EventTable,
    name: &str,
) -> Result<Found, StoreError> {
    let attached: Option<bool> = sqlx::query_scalar(
        "select exists (select from pg_inherits where inhrelid = class.oid \
             and inhparent = to_regclass($2)) \
         from pg_class as class join pg_namespace as namespace on namespace.oid = relnamespace \
         where nspname = 'lakegauge' and relname = $1",
    )
    .bind(name)
    .bind(format!("lakegauge.{}", kind.table()))
    .fetch_optional(connection)
    .await
    .doing("looking for a partition")?;
    Ok(match attached {
        None => Found::Absent,
        Some(true) => Found::Attached,
        Some(false) => Found::Foreign,
    })
}

/// The names consist of our own table's name and digits. Row level security of the parent does not
/// cover a partition that is addressed by its own name, and default privileges for a new table may
/// differ from the parent's.
fn made(table: &str, name: &str, (from, to): (String, String)) -> String {
    format!(
        "create table lakegauge.{name} (like lakegauge.{table} including defaults \
             including constraints);
         comment on table lakegauge.{name} is '{MARK}a partition of {table}.';
         select lakegauge.keep_private('lakegauge.{name}'::regclass);
         alter table lakegauge.{name} enable row level security;
         alter table lakegauge.{table} attach partition lakegauge.{name}
         for values from ('{from}') to ('{to}')"
    )
}
