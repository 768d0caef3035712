//! Verdicts: the key's decisions about events that were too old to judge for the sets.
//!
//! A verdict is *given* (numbered) in the transaction that inserts its row, published by the
//! archiver after the commit, and *noted* (with the position where it was read back) in the
//! transaction whose checkpoint passes that position.

use std::collections::BTreeSet;

use domain::{Event, EventId, EventIdentity, Position, Timestamp, Verdict, verdict::Turn};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{
    error::StoreError,
    numbers::{count, signed},
    rows::{
        columns::{Columns, columns},
        kind::EventTable,
    },
    statement::Doing,
    write::appended::Appended,
};

/// A verdict that was read from its stream. Its other fields are in its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadBack {
    pub(crate) position: Position,
    pub(crate) number: u64,
    kind: EventTable,
    pub(crate) identity: EventIdentity,
}

impl ReadBack {
    pub(crate) const fn new(position: Position, verdict: &Verdict) -> Self {
        let Verdict { number, event } = verdict;
        Self {
            position,
            number: *number,
            kind: EventTable::of(&event.fact),
            identity: (event.occurred_at, event.id),
        }
    }

    fn numbered(&self) -> Result<Numbered, StoreError> {
        Ok(Numbered { at: self.identity.0, id: self.identity.1, number: signed(self.number)? })
    }

    fn noted(&self) -> Result<Noted, StoreError> {
        let Numbered { at, id, number } = self.numbered()?;
        let Position { epoch, sequence, index } = self.position;
        Ok(Noted { at, id, number, epoch, sequence: signed(sequence)?, index })
    }
}

/// A row and the number of its verdict.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    at: Timestamp,
    id: EventId,
    number: i64,
}
columns!(Numbered { at, id, number });

/// The same with the position where the verdict was read back.
#[derive(Clone, Copy, Debug)]
struct Noted {
    at: Timestamp,
    id: EventId,
    number: i64,
    epoch: u32,
    sequence: i64,
    index: u32,
}
columns!(Noted { at, id, number, epoch, sequence, index });

/// Gives events that were too old to judge their numbers, in the order of their positions.
pub(crate) async fn number(
    connection: &mut PgConnection,
    events: &[&Event],
    first: u64,
) -> Result<(), StoreError> {
    let mut numbered: [Vec<Numbered>; 3] = Default::default();
    for (number, event) in (first..).zip(events) {
        let row = Numbered { at: event.occurred_at, id: event.id, number: signed(number)? };
        numbered[EventTable::of(&event.fact).place()].push(row);
    }
    for (kind, rows) in EventTable::ALL.into_iter().zip(numbered) {
        if rows.is_empty() {
            continue;
        }
        // The name is one of our own tables.
        let sql = format!(
            "update lakegauge.{} as event set verdict = part.number \
             from unnest($1::timestamptz[], $2::uuid[], $3::bigint[]) as part (at, id, number) \
             where event.occurred_at = part.at and event.id = part.id",
            kind.table()
        );
        let done = Numbered::bind(rows.iter(), sqlx::query(AssertSqlSafe(sql)))
            .execute(&mut *connection)
            .await
            .doing("numbering verdicts")?;
        exactly("numbered", done.rows_affected(), count(rows.len()))?;
    }
    Ok(())
}

/// Notes on the rows where their verdicts were first read. `noted` is the highest number noted so
/// far; given numbers are below [`Appended::next_verdict`].
///
/// A number that was noted before is skipped. A verdict that is out of turn, was never given, or
/// belongs to another event than its row is ignored and counted.
pub(crate) async fn note(
    connection: &mut PgConnection,
    read: &[ReadBack],
    noted: u64,
    appended: &mut Appended,
) -> Result<(), StoreError> {
    appended.noted_verdict = noted;
    if read.is_empty() {
        return Ok(());
    }
    let given = appended.next_verdict;
    let candidates: Vec<&ReadBack> =
        read.iter().filter(|verdict| verdict.number > noted && verdict.number < given).collect();
    let mut known = BTreeSet::new();
    for kind in EventTable::ALL {
        let of_kind: Vec<&ReadBack> =
            candidates.iter().copied().filter(|verdict| verdict.kind == kind).collect();
        known.extend(on_rows(connection, kind, &of_kind).await?);
    }
    let (taken, out_of_turn) = in_turn(read, noted, &known);
    for kind in EventTable::ALL {
        let of_kind: Vec<&ReadBack> =
            taken.iter().copied().filter(|verdict| verdict.kind == kind).collect();
        set_positions(connection, kind, &of_kind).await?;
    }
    appended.noted_verdict = taken.last().map_or(noted, |verdict| verdict.number);
    appended.verdicts_out_of_turn = out_of_turn;
    Ok(())
}

/// Which of the verdicts count at their positions, and how many are out of turn: the same decision
/// as in the fold. `known` are the numbers and identities of rows.
pub(crate) fn in_turn<'a>(
    read: &'a [ReadBack],
    noted: u64,
    known: &BTreeSet<(u64, EventIdentity)>,
) -> (Vec<&'a ReadBack>, u64) {
    let (mut taken, mut last, mut out_of_turn) = (Vec::new(), noted, 0);
    for verdict in read {
        match Turn::of(verdict.number, last) {
            Turn::Next if known.contains(&(verdict.number, verdict.identity)) => {
                last = verdict.number;
                taken.push(verdict);
            }
            Turn::Passed => {}
            Turn::Next | Turn::Ahead => out_of_turn += 1,
        }
    }
    (taken, out_of_turn)
}

/// Numbers and identities of those verdicts whose row has their number.
async fn on_rows(
    connection: &mut PgConnection,
    kind: EventTable,
    verdicts: &[&ReadBack],
) -> Result<Vec<(u64, EventIdentity)>, StoreError> {
    const DOING: &str = "looking up rows of verdicts";
    if verdicts.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select part.place from unnest($1::timestamptz[], $2::uuid[], $3::bigint[]) \
         with ordinality as part (at, id, number, place) join lakegauge.{} as event \
         on event.occurred_at = part.at and event.id = part.id and event.verdict = part.number",
        kind.table()
    );
    let numbered =
        verdicts.iter().map(|verdict| verdict.numbered()).collect::<Result<Vec<_>, _>>()?;
    let rows = Numbered::bind(numbered.iter(), sqlx::query(AssertSqlSafe(sql)))
        .fetch_all(connection)
        .await
        .doing(DOING)?;
    let mut known = Vec::with_capacity(rows.len());
    for row in &rows {
        let place: i64 = row.try_get(0).doing(DOING)?;
        let verdict = usize::try_from(place - 1).ok().and_then(|place| verdicts.get(place));
        known.extend(verdict.map(|verdict| (verdict.number, verdict.identity)));
    }
    Ok(known)
}

async fn set_positions(
    connection: &mut PgConnection,
    kind: EventTable,
    verdicts: &[&ReadBack],
) -> Result<(), StoreError> {
    if verdicts.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "update lakegauge.{} as event set noted_epoch = part.epoch, \
         noted_sequence = part.sequence, noted_index = part.index \
         from unnest($1::timestamptz[], $2::uuid[], $3::bigint[], $4::integer[], $5::bigint[], \
         $6::integer[]) as part (at, id, number, epoch, sequence, index) \
         where event.occurred_at = part.at and event.id = part.id \
         and event.verdict = part.number and event.noted_sequence is null",
        kind.table()
    );
    let noted = verdicts.iter().map(|verdict| verdict.noted()).collect::<Result<Vec<_>, _>>()?;
    let done = Noted::bind(noted.iter(), sqlx::query(AssertSqlSafe(sql)))
        .execute(connection)
        .await
        .doing("noting verdicts")?;
    exactly("noted", done.rows_affected(), count(verdicts.len()))
}

fn exactly(what: &str, rows: u64, expected: u64) -> Result<(), StoreError> {
    if rows == expected {
        return Ok(());
    }
    Err(StoreError::Inconsistent(format!("{what} {rows} verdicts instead of {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(number: u64, sequence: u64) -> ReadBack {
        let id = EventId::from_bytes([u8::try_from(number).unwrap(); 16]);
        ReadBack {
            position: Position { epoch: 1, sequence, index: 0 },
            number,
            kind: EventTable::LakeAccess,
            identity: (Timestamp(5), id),
        }
    }

    fn taken(read: &[ReadBack], noted: u64, rows: &[u64]) -> (Vec<(u64, u64)>, u64) {
        let known = rows.iter().map(|number| (*number, read_back(*number, 0).identity)).collect();
        let (taken, out_of_turn) = in_turn(read, noted, &known);
        let place = |verdict: &&ReadBack| (verdict.number, verdict.position.sequence);
        (taken.iter().map(place).collect(), out_of_turn)
    }

    #[test]
    fn a_verdict_is_noted_where_it_stands_first() {
        let read = [(3, 10), (4, 10), (3, 11), (4, 11), (5, 11), (2, 12)];
        let read = read.map(|(number, sequence)| read_back(number, sequence));
        assert_eq!(taken(&read, 2, &[3, 4, 5]), (vec![(3, 10), (4, 10), (5, 11)], 0));
    }

    #[test]
    fn what_is_out_of_turn_or_was_never_given_is_not_noted_until_its_turn() {
        let read = [(4, 10), (3, 11), (4, 12), (5, 13)];
        let read = read.map(|(number, sequence)| read_back(number, sequence));
        assert_eq!(taken(&read, 2, &[3, 4]), (vec![(3, 11), (4, 12)], 2));
    }

    #[test]
    fn a_verdict_that_speaks_of_another_event_is_not_noted() {
        let mut read = [read_back(3, 10), read_back(3, 11)];
        read[0].identity.0 = Timestamp(6);
        assert_eq!(taken(&read, 2, &[3]), (vec![(3, 11)], 1));
    }
}
