//! The careful way into the archive: rows whose key may be known, or that the server may refuse.

use domain::{Fact, LakeAccess, LakeInventory, Position, WarehouseQuery};
use sqlx::{
    PgConnection, Postgres,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::{
    error::StoreError,
    numbers::{bigint, integer},
    rows::{
        decode::position,
        kind::{Kind, Placed, is_derived},
    },
    sqlstate::Recovery,
    statement::{Doing, run},
    timestamptz::Timestamptz,
};

/// Rows of one statement: large enough that statements don't count, small enough that finding a
/// refused row among them takes a dozen steps.
const CHUNK_ROWS: usize = 2_000;

/// What is being done about a savepoint.
const SAVEPOINT: &str = "marking a savepoint";

/// What became of rows that were inserted one way or the other.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Positions of the rows that are new.
    pub(crate) inserted: Vec<Position>,
    /// Rows that the server refused, by their place among those given.
    pub(crate) refused: Vec<Refused>,
}

/// A row that the server refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) place: usize,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

/// Inserts rows of one kind where their key is not known, and halves a statement that is refused
/// until the rows at fault are found. Runs inside of the caller's transaction.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    kind: Kind,
    stream: i16,
    rows: &[&Placed],
) -> Result<Outcome, StoreError> {
    let mut outcome = Outcome::default();
    let mut ranges: Vec<(usize, usize)> = (0..rows.len())
        .step_by(CHUNK_ROWS)
        .map(|from| (from, rows.len().min(from + CHUNK_ROWS)))
        .rev()
        .collect();
    while let Some((from, to)) = ranges.pop() {
        run(connection, "savepoint careful", SAVEPOINT).await?;
        let inserted = insert_chunk(connection, kind, stream, &rows[from..to]).await;
        let error = match inserted {
            Ok(positions) => {
                run(connection, "release savepoint careful", SAVEPOINT).await?;
                outcome.inserted.extend(positions);
                continue;
            }
            Err(error) => error,
        };
        if error.recovery() != Recovery::IsolateRow {
            return Err(error);
        }
        run(connection, "rollback to savepoint careful", SAVEPOINT).await?;
        run(connection, "release savepoint careful", SAVEPOINT).await?;
        if to - from == 1 {
            let sqlstate = error.sqlstate().unwrap_or_default();
            outcome.refused.push(Refused { place: from, sqlstate, message: error.to_string() });
        } else {
            let middle = from + (to - from) / 2;
            ranges.push((middle, to));
            ranges.push((from, middle));
        }
    }
    Ok(outcome)
}

async fn insert_chunk(
    connection: &mut PgConnection,
    kind: Kind,
    stream: i16,
    rows: &[&Placed],
) -> Result<Vec<Position>, StoreError> {
    let query = match kind {
        Kind::LakeAccess => lake_access(rows),
        Kind::LakeInventory => lake_inventory(rows),
        Kind::WarehouseQuery => warehouse_query(rows),
    };
    let query = place(query, stream, rows);
    let known: Vec<PgRow> = query.fetch_all(connection).await.doing("inserting rows")?;
    known.iter().map(position).collect::<Result<_, _>>().doing("reading what was inserted")
}

type Insert = Query<'static, Postgres, PgArguments>;

/// Binds the columns that every kind has; they come last.
fn place(query: Insert, stream: i16, rows: &[&Placed]) -> Insert {
    let at = |row: &&Placed| Timestamptz(row.event.occurred_at.0);
    query
        .bind(column(rows, at))
        .bind(column(rows, |row| Uuid::from_bytes(*row.event.id.as_bytes())))
        .bind(column(rows, |row| integer(row.position.epoch)))
        .bind(column(rows, |row| bigint(row.position.sequence)))
        .bind(column(rows, |row| integer(row.position.index)))
        .bind(column(rows, |row| is_derived(&row.event)))
        .bind(column(rows, |row| row.source))
        .bind(stream)
}

fn column<T>(rows: &[&Placed], value: impl FnMut(&&Placed) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// One value of each row's fact; rows of another kind are not given here.
fn fact<F, T>(
    rows: &[&Placed],
    pick: impl Fn(&Fact) -> Option<&F>,
    value: impl Fn(&F) -> T,
) -> Vec<T> {
    rows.iter().filter_map(|row| pick(&row.event.fact)).map(value).collect()
}

fn lake_access(rows: &[&Placed]) -> Insert {
    sqlx::query(
        "insert into lakegauge.lake_access (operation, outcome, bytes, object_bytes, duration_us, \
         bucket, key, sequencer, principal, occurred_at, id, epoch, sequence, index, derived, \
         source, stream) \
         select part.*, $17 from unnest($1::smallint[], $2::smallint[], $3::bigint[], \
         $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], \
         $10::timestamptz[], $11::uuid[], $12::integer[], $13::bigint[], $14::integer[], \
         $15::boolean[], $16::smallint[]) as part \
         on conflict do nothing returning epoch, sequence, index",
    )
    .bind(fact(rows, as_lake_access, |access| i16::from(access.operation.code())))
    .bind(fact(rows, as_lake_access, |access| i16::from(access.outcome.code())))
    .bind(fact(rows, as_lake_access, |access| bigint(access.bytes)))
    .bind(fact(rows, as_lake_access, |access| access.object_bytes.map(bigint)))
    .bind(fact(rows, as_lake_access, |access| bigint(access.duration_us)))
    .bind(fact(rows, as_lake_access, |access| access.bucket.clone()))
    .bind(fact(rows, as_lake_access, |access| access.key.clone()))
    .bind(fact(rows, as_lake_access, |access| access.sequencer.clone()))
    .bind(fact(rows, as_lake_access, |access| access.principal.clone()))
}

fn lake_inventory(rows: &[&Placed]) -> Insert {
    sqlx::query(
        "insert into lakegauge.lake_inventory (objects, bytes, bucket, occurred_at, id, epoch, \
         sequence, index, derived, source, stream) \
         select part.*, $11 from unnest($1::bigint[], $2::bigint[], $3::text[], \
         $4::timestamptz[], $5::uuid[], $6::integer[], $7::bigint[], $8::integer[], \
         $9::boolean[], $10::smallint[]) as part \
         on conflict do nothing returning epoch, sequence, index",
    )
    .bind(fact(rows, as_lake_inventory, |inventory| bigint(inventory.objects)))
    .bind(fact(rows, as_lake_inventory, |inventory| bigint(inventory.bytes)))
    .bind(fact(rows, as_lake_inventory, |inventory| inventory.bucket.clone()))
}

fn warehouse_query(rows: &[&Placed]) -> Insert {
    sqlx::query(
        "insert into lakegauge.warehouse_query (statement, outcome, queued_us, executed_us, \
         rows_processed, rows_returned, bytes_scanned, cache_hit, warehouse, database, principal, \
         fingerprint, occurred_at, id, epoch, sequence, index, derived, source, stream) \
         select part.*, $20 from unnest($1::smallint[], $2::smallint[], $3::bigint[], \
         $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::boolean[], $9::text[], \
         $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::uuid[], \
         $15::integer[], $16::bigint[], $17::integer[], $18::boolean[], $19::smallint[]) as part \
         on conflict do nothing returning epoch, sequence, index",
    )
    .bind(fact(rows, as_warehouse_query, |query| i16::from(query.statement.code())))
    .bind(fact(rows, as_warehouse_query, |query| i16::from(query.outcome.code())))
    .bind(fact(rows, as_warehouse_query, |query| bigint(query.queued_us)))
    .bind(fact(rows, as_warehouse_query, |query| bigint(query.executed_us)))
    .bind(fact(rows, as_warehouse_query, |query| bigint(query.rows_processed)))
    .bind(fact(rows, as_warehouse_query, |query| bigint(query.rows_returned)))
    .bind(fact(rows, as_warehouse_query, |query| bigint(query.bytes_scanned)))
    .bind(fact(rows, as_warehouse_query, |query| query.cache_hit))
    .bind(fact(rows, as_warehouse_query, |query| query.warehouse.clone()))
    .bind(fact(rows, as_warehouse_query, |query| query.database.clone()))
    .bind(fact(rows, as_warehouse_query, |query| query.principal.clone()))
    .bind(fact(rows, as_warehouse_query, |query| query.fingerprint.clone()))
}

const fn as_lake_access(fact: &Fact) -> Option<&LakeAccess> {
    match fact {
        Fact::LakeAccess(access) => Some(access),
        Fact::LakeInventory(_) | Fact::WarehouseQuery(_) => None,
    }
}

const fn as_lake_inventory(fact: &Fact) -> Option<&LakeInventory> {
    match fact {
        Fact::LakeInventory(inventory) => Some(inventory),
        Fact::LakeAccess(_) | Fact::WarehouseQuery(_) => None,
    }
}

const fn as_warehouse_query(fact: &Fact) -> Option<&WarehouseQuery> {
    match fact {
        Fact::WarehouseQuery(query) => Some(query),
        Fact::LakeAccess(_) | Fact::LakeInventory(_) => None,
    }
}
