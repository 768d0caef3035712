//! One transaction: rows, window aggregates, samples, dead letters, ledger and checkpoint.
//!
//! Every statement's error ends the transaction. The checkpoint comes last and must match, because
//! the server answers the commit of an aborted transaction like any other.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Event, Position, Reason, Refusal, Windows};
use service_kit::FailPoint;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    checkpoint::{self, Checkpoint},
    error::StoreError,
    numbers::{count, signed, signed_32, unsigned, unsigned_32},
    rows::kind::{EventTable, Placed},
    statement::{self, Doing, begin},
    stream_id::StreamId,
    timestamptz::Timestamptz,
    write::{
        appended::Appended,
        batch::Batch,
        copy, corrections,
        dead_letters::{self, RefusedEvent, letter_of},
        insert, samples, sources, verdicts, windows,
        windows::{Following, WindowRows},
    },
};

static COPIED: FailPoint = FailPoint::new("store.copied");
static WINDOWS_ADDED: FailPoint = FailPoint::new("store.windows_added");
static LEDGER_WRITTEN: FailPoint = FailPoint::new("store.ledger_written");
static CHECKPOINT_SET: FailPoint = FailPoint::new("store.checkpoint_set");
static COMMITTED: FailPoint = FailPoint::new("store.committed");
static EPOCH_CLOSED: FailPoint = FailPoint::new("store.epoch_closed");

/// How the rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// No row can conflict: all by COPY.
    Copy,
    /// New rows by the sets with COPY, rows that only the key can judge with INSERT.
    CopyAndInsert,
    /// All with INSERT, after the server knew or refused a row that is new by the sets.
    Insert,
}

/// What an uncommitted transaction did.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) appended: Appended,
    pub(crate) checkpoint: Checkpoint,
}

/// Writes a batch into an open transaction, which [`commit`] ends. `None` if the checkpoint is no
/// longer `known`.
///
/// `writer` is the writer's token and the number of this batch.
pub(crate) async fn write(
    connection: &mut PgConnection,
    batch: &Batch,
    path: Path,
    known: Option<&Checkpoint>,
    writer: (Uuid, u64),
) -> Result<Option<Written>, StoreError> {
    check_order(batch)?;
    begin(connection).await?;
    let next_verdict = known.map_or(1, |known| known.next_verdict);
    let mut appended =
        Appended { duplicates: batch.duplicates, next_verdict, ..Appended::default() };

    sources::append(connection, batch.stream, &batch.sources).await?;
    let careful: Vec<&Placed> = match path {
        Path::Copy => Vec::new(),
        Path::CopyAndInsert => batch.doubtful.iter().collect(),
        Path::Insert => batch.fresh.iter().chain(&batch.doubtful).collect(),
    };
    match path {
        Path::Copy | Path::CopyAndInsert => {
            appended.inserted += copy::copy_all(connection, batch).await?;
            COPIED.pass();
            windows::add(connection, batch.stream, Some(following(batch)), &batch.windows).await?;
            WINDOWS_ADDED.pass();
        }
        Path::Insert => {}
    }
    let refused = insert_careful(connection, batch, &careful, &mut appended).await?;
    // After the numbers were given: when an older copy of the archive reads a stream again, a row
    // and its verdict may be in one batch.
    let noted = known.map_or(0, |known| known.noted_verdict);
    verdicts::note(connection, &batch.verdicts, noted, &mut appended).await?;

    dead_letters::append(connection, batch.stream, &batch.letters, &refused, &mut appended).await?;
    samples::append(connection, &batch.samples, &mut appended).await?;
    ledger(connection, batch, &appended).await?;
    LEDGER_WRITTEN.pass();

    let checkpoint = Checkpoint {
        mark: batch.after,
        seen: batch.seen.clone(),
        derived_floor: batch.derived_floor,
        next_verdict: appended.next_verdict,
        noted_verdict: appended.noted_verdict,
        writer: writer.0,
        writer_transaction: writer.1,
    };
    let moved = checkpoint::compare_and_set(connection, batch.stream, known, &checkpoint).await?;
    CHECKPOINT_SET.pass();
    Ok(moved.then_some(Written { appended, checkpoint }))
}

/// Commits the transaction. If the answer is lost, the checkpoint shows what happened.
pub(crate) async fn commit(connection: &mut PgConnection) -> Result<(), StoreError> {
    statement::commit(connection).await?;
    COMMITTED.pass();
    Ok(())
}

/// Closes the epoch of `known`, declares its messages after the checkpoint lost, and sets the
/// checkpoint before the first message of the new epoch. Returns `false` if the checkpoint is no
/// longer `known`.
pub(crate) async fn epoch(
    connection: &mut PgConnection,
    stream: StreamId,
    known: Option<&Checkpoint>,
    new: &Checkpoint,
    newest: u64,
) -> Result<bool, StoreError> {
    begin(connection).await?;
    if let Some(known) = known {
        sqlx::query(
            "insert into lakegauge.epoch (stream, epoch, sequence, broker_ns, created_ns, \
             next_after) values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(stream.id)
        .bind(signed_32(known.mark.epoch)?)
        .bind(signed(known.mark.sequence)?)
        .bind(known.mark.broker_ns)
        .bind(known.mark.created_ns)
        .bind(signed(new.mark.sequence)?)
        .execute(&mut *connection)
        .await
        .doing("closing an epoch")?;
        if newest > known.mark.sequence {
            let lost = (known.mark.sequence + 1, newest);
            declare_lost(connection, stream, signed_32(known.mark.epoch)?, lost).await?;
        }
    }
    if !checkpoint::compare_and_set(connection, stream, known, new).await? {
        return Ok(false);
    }
    EPOCH_CLOSED.pass();
    commit(connection).await?;
    Ok(true)
}

fn check_order(batch: &Batch) -> Result<(), StoreError> {
    let follows = match batch.before {
        None => batch.after.sequence > 0,
        Some(before) => before.epoch == batch.after.epoch && before.sequence < batch.after.sequence,
    };
    if follows {
        return Ok(());
    }
    Err(StoreError::Inconsistent(format!(
        "a batch from {:?} to {:?} does not go forward in one epoch",
        batch.before, batch.after
    )))
}

/// Inserts rows that may be known, numbers the new ones that were too old to judge, and adds the
/// inserted rows to the windows. Returns dead letters for the rows that the server refused.
async fn insert_careful(
    connection: &mut PgConnection,
    batch: &Batch,
    rows: &[&Placed],
    appended: &mut Appended,
) -> Result<Vec<RefusedEvent>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let too_old: BTreeSet<Position> = batch.doubtful.iter().map(|row| row.position).collect();
    // A refused row that was counted is known, although no key shows it.
    let counted = dead_letters::counted_among(connection, batch.stream, &batch.doubtful).await?;
    let is_counted =
        |row: &Placed| too_old.contains(&row.position) && counted.contains(&row.event.identity());
    let (known, rows): (Vec<&Placed>, Vec<&Placed>) =
        rows.iter().copied().partition(|row| is_counted(row));
    appended.duplicates += count(known.len());
    let mut new: BTreeMap<Position, &Event> = BTreeMap::new();
    let unfounded = corrections::unfounded(connection, batch.stream.id, &rows).await?;
    let (unfounded, rows): (Vec<&Placed>, Vec<&Placed>) =
        rows.iter().copied().partition(|row| unfounded.contains(&row.position));
    let mut refused: Vec<RefusedEvent> =
        unfounded.into_iter().map(RefusedEvent::unfounded).collect();
    for kind in EventTable::ALL {
        let of_kind: Vec<&Placed> =
            rows.iter().copied().filter(|row| EventTable::of(&row.event.fact) == kind).collect();
        let outcome = insert::insert(connection, kind, batch.stream.id, &of_kind).await?;
        let inserted: BTreeSet<Position> = outcome.inserted.into_iter().collect();
        let mut at_fault = BTreeSet::new();
        for row in outcome.refused {
            let placed = of_kind[row.place];
            at_fault.insert(placed.position);
            let counted = !too_old.contains(&placed.position);
            let refusal = Refusal::whole(Reason::RefusedByDatabase, row.message);
            let letter = letter_of(placed, refusal);
            refused.push(RefusedEvent { letter, counted, sqlstate: Some(row.sqlstate) });
        }
        for row in of_kind {
            if inserted.contains(&row.position) {
                new.insert(row.position, &row.event);
            } else if !at_fault.contains(&row.position) {
                appended.duplicates += 1;
                appended.known_though_new += u64::from(!too_old.contains(&row.position));
            }
        }
    }
    appended.inserted += count(new.len());
    appended.refused = count(refused.iter().filter(|row| row.sqlstate.is_some()).count());

    let late: Vec<&Event> = new
        .iter()
        .filter(|(position, _)| too_old.contains(position))
        .map(|(_, event)| *event)
        .collect();
    verdicts::number(connection, &late, appended.next_verdict).await?;
    appended.too_old = count(late.len());
    appended.next_verdict += appended.too_old;

    let mut windows = Windows::default();
    let lengths_s = batch.ladder.lengths_s();
    for event in new.values() {
        windows.add(&lengths_s, event);
    }
    let windows = WindowRows::new(windows);
    windows::add(connection, batch.stream, Some(following(batch)), &windows).await?;
    Ok(refused)
}

const fn following(batch: &Batch) -> Following<'_> {
    Following { ladder: &batch.ladder, broker_ns: batch.after.broker_ns }
}

async fn ledger(
    connection: &mut PgConnection,
    batch: &Batch,
    appended: &Appended,
) -> Result<(), StoreError> {
    let doing = "writing the ledger";
    let before = signed(batch.before.map_or(0, |before| before.sequence))?;
    let epoch = signed_32(batch.after.epoch)?;
    // The first range of an epoch has no predecessor, even if the stream does not begin at 1.
    let is_first = batch.before.is_none_or(|before| before.is_before_first());
    let previous = (!is_first).then_some(before);
    sqlx::query(
        "insert into lakegauge.ledger (stream, epoch, first, last, previous, events, inserted, \
         duplicates, dead, occurred_from, occurred_to) \
         values ($1, $2, $3 + 1, $4, $11, $5, $6, $7, $8, $9, $10)",
    )
    .bind(batch.stream.id)
    .bind(epoch)
    .bind(before)
    .bind(signed(batch.after.sequence)?)
    .bind(signed(batch.events())?)
    .bind(signed(appended.inserted)?)
    .bind(signed(appended.duplicates)?)
    .bind(signed(appended.dead)?)
    .bind(batch.occurred.map(|(first, _)| Timestamptz(first.0)))
    .bind(batch.occurred.map(|(_, last)| Timestamptz(last.0)))
    .bind(previous)
    .execute(&mut *connection)
    .await
    .doing(doing)?;
    for lost in &batch.lost {
        declare_lost(connection, batch.stream, epoch, *lost).await?;
    }
    Ok(())
}

/// See [`crate::Archive::closed_epoch`].
pub(crate) async fn closed_epoch(
    connection: &mut PgConnection,
    stream: StreamId,
) -> Result<Option<(u32, u64)>, StoreError> {
    let closed: Option<(i32, i64)> = sqlx::query_as(
        "select closed.epoch, greatest(closed.sequence, (select max(last) \
         from lakegauge.declared_loss as loss \
         where loss.stream = closed.stream and loss.epoch = closed.epoch)) \
         from lakegauge.epoch as closed where closed.stream = $1 order by epoch desc limit 1",
    )
    .bind(stream.id)
    .fetch_optional(connection)
    .await
    .doing("asking for the closed epoch")?;
    closed.map(|(epoch, last)| Ok((unsigned_32(epoch)?, unsigned(last)?))).transpose()
}

/// Declares messages lost, both ends included.
pub(crate) async fn declare_lost(
    connection: &mut PgConnection,
    stream: StreamId,
    epoch: i32,
    (first, last): (u64, u64),
) -> Result<(), StoreError> {
    let doing = "declaring a loss";
    sqlx::query(
        "insert into lakegauge.declared_loss (stream, epoch, first, last) values ($1, $2, $3, $4)",
    )
    .bind(stream.id)
    .bind(epoch)
    .bind(signed(first)?)
    .bind(signed(last)?)
    .execute(&mut *connection)
    .await
    .doing(doing)
    .map(|_| ())
}
