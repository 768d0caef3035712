//! The careful way into the archive: rows whose key may be known, or that the server may refuse.

use domain::Position;
use sqlx::PgConnection;

use crate::{
    error::StoreError,
    rows::{
        event::{self, position, statements},
        kind::{EventTable, Placed},
    },
    sqlstate::SqlRecovery,
    statement::{Doing, run},
};

/// Rows per statement: large enough that the number of statements does not matter, small enough
/// that a refused row is found in a dozen steps.
const CHUNK_ROWS: usize = 2_000;

/// What is being done in errors about savepoints.
const SAVEPOINT: &str = "marking a savepoint";

/// The result of inserting rows.
#[derive(Debug, Default)]
pub(crate) struct Insertion {
    /// Positions of the new rows.
    pub(crate) inserted: Vec<Position>,
    /// Rows that the server refused, by their place in the input.
    pub(crate) refused: Vec<RefusedRow>,
}

/// A row that the server refused.
#[derive(Debug)]
pub(crate) struct RefusedRow {
    pub(crate) place: usize,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

/// Inserts rows of one kind whose key is not known. A refused statement is halved until the refused
/// rows are found. Runs inside the caller's transaction.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    kind: EventTable,
    stream: i16,
    rows: &[&Placed],
) -> Result<Insertion, StoreError> {
    let mut outcome = Insertion::default();
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
        if error.recovery() != SqlRecovery::IsolateRow {
            return Err(error);
        }
        run(connection, "rollback to savepoint careful", SAVEPOINT).await?;
        run(connection, "release savepoint careful", SAVEPOINT).await?;
        if to - from == 1 {
            let sqlstate = error.sqlstate().unwrap_or_default();
            outcome.refused.push(RefusedRow { place: from, sqlstate, message: error.to_string() });
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
    kind: EventTable,
    stream: i16,
    rows: &[&Placed],
) -> Result<Vec<Position>, StoreError> {
    let query = event::bind(sqlx::query(statements(kind).insert.as_str()), kind, stream, rows);
    let new = query.fetch_all(connection).await.doing("inserting rows")?;
    new.iter().map(position).collect::<Result<_, _>>().doing("reading what was inserted")
}
