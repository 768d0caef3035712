//! Dead letters: what could not be archived as an event.

use std::collections::BTreeSet;

use domain::{EventId, Identity, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    error::StoreError,
    numbers::{count, integer, signed},
    rows::kind::Placed,
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
    write::{appended::Appended, batch::Letter},
};

/// Longest detail of a letter, in bytes: it may quote what was refused, which the letter has anyway.
const DETAIL_BYTES_MAX: usize = 4 << 10;

/// A text of any origin as one that PostgreSQL takes (it can't hold a NUL), and of bounded length.
fn storable(text: &str) -> String {
    let end = text.floor_char_boundary(DETAIL_BYTES_MAX);
    let cut = if end < text.len() { "…" } else { "" };
    text[..end].replace('\0', "\u{fffd}") + cut
}

#[derive(Default)]
struct Columns {
    epochs: Vec<i32>,
    sequences: Vec<i64>,
    indexes: Vec<i32>,
    broker_ns: Vec<i64>,
    reasons: Vec<i16>,
    fields: Vec<Option<String>>,
    details: Vec<String>,
    bytes: Vec<Vec<u8>>,
    header_bytes: Vec<i32>,
    counted: Vec<bool>,
    times: Vec<Option<Timestamptz>>,
    ids: Vec<Option<Uuid>>,
    sqlstates: Vec<Option<String>>,
    sources: Vec<Option<i16>>,
}

impl Columns {
    fn push(
        &mut self,
        letter: &Letter,
        counted: bool,
        sqlstate: Option<&str>,
    ) -> Result<(), StoreError> {
        self.epochs.push(integer(letter.position.epoch));
        self.sequences.push(signed(letter.position.sequence)?);
        self.indexes.push(integer(letter.position.index));
        self.broker_ns.push(letter.broker_ns);
        self.reasons.push(i16::from(letter.refusal.reason.code()));
        self.fields.push(letter.refusal.field.map(str::to_owned));
        self.details.push(storable(&letter.refusal.detail));
        self.bytes.push(letter.bytes.clone());
        self.header_bytes.push(i32::try_from(letter.header_bytes).unwrap_or(i32::MAX));
        self.counted.push(counted);
        self.times.push(letter.identity.map(|(at, _)| Timestamptz(at.0)));
        self.ids.push(letter.identity.map(|(_, id)| Uuid::from_bytes(*id.as_bytes())));
        self.sqlstates.push(sqlstate.map(str::to_owned));
        self.sources.push(letter.source);
        Ok(())
    }
}

/// Of these rows, the identities that a letter has counted: no row can tell that they are known.
pub(crate) async fn counted_among(
    connection: &mut PgConnection,
    stream: StreamId,
    rows: &[Placed],
) -> Result<BTreeSet<Identity>, StoreError> {
    let doing = "looking for counted letters";
    if rows.is_empty() {
        return Ok(BTreeSet::new());
    }
    let times: Vec<Timestamptz> =
        rows.iter().map(|row| Timestamptz(row.event.occurred_at.0)).collect();
    let ids: Vec<Uuid> =
        rows.iter().map(|row| Uuid::from_bytes(*row.event.id.as_bytes())).collect();
    let known: Vec<(Timestamptz, Uuid)> = sqlx::query_as(
        "select letter.occurred_at, letter.id from lakegauge.dead_letter as letter \
         join unnest($2::timestamptz[], $3::uuid[]) as part (at, id) \
             on letter.occurred_at = part.at and letter.id = part.id \
         where letter.stream = $1 and letter.counted",
    )
    .bind(stream.id)
    .bind(times)
    .bind(ids)
    .fetch_all(connection)
    .await
    .doing(doing)?;
    let identity =
        |(at, id): (Timestamptz, Uuid)| (Timestamp(at.0), EventId::from_bytes(*id.as_bytes()));
    Ok(known.into_iter().map(identity).collect())
}

/// Keeps letters; one that is known (the same place of the same message) is a duplicate.
///
/// `refused` are rows that the server refused, with whether they were counted and the SQLSTATE.
pub(crate) async fn append(
    connection: &mut PgConnection,
    stream: StreamId,
    letters: &[Letter],
    refused: &[(Letter, bool, String)],
    appended: &mut Appended,
) -> Result<(), StoreError> {
    if letters.is_empty() && refused.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::default();
    for letter in letters {
        columns.push(letter, false, None)?;
    }
    for (letter, counted, sqlstate) in refused {
        columns.push(letter, *counted, Some(sqlstate))?;
    }
    let given = count(letters.len() + refused.len());
    let done = sqlx::query(
        "insert into lakegauge.dead_letter (epoch, sequence, index, broker_ns, reason, field, \
         detail, bytes, counted, occurred_at, id, sqlstate, source, header_bytes, stream) \
         select part.*, $15 from unnest($1::integer[], $2::bigint[], $3::integer[], $4::bigint[], \
         $5::smallint[], $6::text[], $7::text[], $8::bytea[], $9::boolean[], $10::timestamptz[], \
         $11::uuid[], $12::text[], $13::smallint[], $14::integer[]) as part on conflict do nothing",
    )
    .bind(columns.epochs)
    .bind(columns.sequences)
    .bind(columns.indexes)
    .bind(columns.broker_ns)
    .bind(columns.reasons)
    .bind(columns.fields)
    .bind(columns.details)
    .bind(columns.bytes)
    .bind(columns.counted)
    .bind(columns.times)
    .bind(columns.ids)
    .bind(columns.sqlstates)
    .bind(columns.sources)
    .bind(columns.header_bytes)
    .bind(stream.id)
    .execute(connection)
    .await
    .doing("keeping dead letters")?;
    appended.dead += done.rows_affected();
    appended.duplicates += given - done.rows_affected();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_a_text_that_the_database_takes() {
        assert_eq!(storable("as it is"), "as it is");
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        let long = "ü".repeat(DETAIL_BYTES_MAX);
        let cut = storable(&long);
        assert_eq!(cut.chars().filter(|c| *c == 'ü').count(), DETAIL_BYTES_MAX / 2);
        assert!(cut.ends_with('…'));
    }
}
