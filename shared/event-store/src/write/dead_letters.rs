//! Stores dead letters: events that could not be archived as rows.

use std::collections::BTreeSet;

use domain::{EventId, EventIdentity, Reason, Refusal, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::{
    error::StoreError,
    numbers::{count, signed},
    rows::{
        columns::{Columns, columns, insert},
        kind::Placed,
    },
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
    write::{appended::Appended, batch::NewDeadLetter},
};

/// Longest detail of a dead letter, in bytes. The detail may quote the refused bytes, which are
/// stored anyway.
const DETAIL_BYTES_MAX: usize = 4 << 10;

/// A row that does not get in, as the dead letter that it becomes.
#[derive(Debug)]
pub(crate) struct RefusedEvent {
    pub(crate) letter: NewDeadLetter,
    /// Whether metrics count it all the same.
    pub(crate) counted: bool,
    /// What PostgreSQL answered, if it was PostgreSQL that refused it.
    pub(crate) sqlstate: Option<String>,
}

impl RefusedEvent {
    /// A correction without the row that it corrects. It was not counted, because that needs a verdict.
    pub(super) fn unfounded(placed: &Placed) -> Self {
        let detail = "the archive has no such event in this stream, or what it has says otherwise";
        let refusal = Refusal::whole(Reason::NothingToCorrect, detail);
        Self { letter: letter_of(placed, refusal), counted: false, sqlstate: None }
    }
}

/// The dead letter of an event that has its place.
pub(super) fn letter_of(placed: &Placed, refusal: Refusal) -> NewDeadLetter {
    NewDeadLetter {
        position: placed.position,
        broker_ns: placed.broker_ns,
        refusal,
        bytes: wire::json::encode_line(&placed.event).into_bytes(),
        header_bytes: 0,
        identity: Some(placed.event.identity()),
        source: placed.source,
    }
}

/// A text that PostgreSQL accepts (it can't store a NUL), with bounded length.
fn storable(text: &str) -> String {
    let end = text.floor_char_boundary(DETAIL_BYTES_MAX);
    let cut = if end < text.len() { "…" } else { "" };
    text[..end].replace('\0', "\u{fffd}") + cut
}

/// The stored columns of a dead letter.
struct DeadLetterRow {
    stream: i16,
    epoch: u32,
    sequence: i64,
    index: u32,
    broker_ns: i64,
    reason: Reason,
    field: Option<String>,
    detail: String,
    bytes: Vec<u8>,
    header_bytes: u32,
    counted: bool,
    occurred_at: Option<Timestamp>,
    id: Option<EventId>,
    sqlstate: Option<String>,
    source: Option<i16>,
}
columns!(DeadLetterRow {
    stream,
    epoch,
    sequence,
    index,
    broker_ns,
    reason,
    field,
    detail,
    bytes,
    header_bytes,
    counted,
    occurred_at,
    id,
    sqlstate,
    source,
});

impl DeadLetterRow {
    fn of(
        stream: StreamId,
        letter: &NewDeadLetter,
        counted: bool,
        sqlstate: Option<&str>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            stream: stream.id,
            epoch: letter.position.epoch,
            sequence: signed(letter.position.sequence)?,
            index: letter.position.index,
            broker_ns: letter.broker_ns,
            reason: letter.refusal.reason,
            field: letter.refusal.field.map(str::to_owned),
            detail: storable(&letter.refusal.detail),
            bytes: letter.bytes.clone(),
            header_bytes: u32::try_from(letter.header_bytes).unwrap_or(u32::MAX),
            counted,
            occurred_at: letter.identity.map(|(at, _)| at),
            id: letter.identity.map(|(_, id)| id),
            sqlstate: sqlstate.map(str::to_owned),
            source: letter.source,
        })
    }
}

/// The identities of these rows that are counted in a dead letter. No row shows that they are
/// known.
pub(crate) async fn counted_among(
    connection: &mut PgConnection,
    stream: StreamId,
    rows: &[Placed],
) -> Result<BTreeSet<EventIdentity>, StoreError> {
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

/// Stores dead letters. One that is known (the same position in the same message) is a duplicate.
pub(crate) async fn append(
    connection: &mut PgConnection,
    stream: StreamId,
    letters: &[NewDeadLetter],
    refused: &[RefusedEvent],
    appended: &mut Appended,
) -> Result<(), StoreError> {
    if letters.is_empty() && refused.is_empty() {
        return Ok(());
    }
    let refused = refused
        .iter()
        .map(|row| DeadLetterRow::of(stream, &row.letter, row.counted, row.sqlstate.as_deref()));
    let rows = letters
        .iter()
        .map(|letter| DeadLetterRow::of(stream, letter, false, None))
        .chain(refused)
        .collect::<Result<Vec<_>, _>>()?;
    let sql = insert("dead_letter", DeadLetterRow::COLUMNS.iter());
    let done = DeadLetterRow::bind(rows.iter(), sqlx::query(AssertSqlSafe(sql)))
        .execute(connection)
        .await
        .doing("keeping dead letters")?;
    let given = count(rows.len());
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
