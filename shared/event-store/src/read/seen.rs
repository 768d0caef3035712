//! The sets of identities that a stream has counted.

use std::collections::BTreeSet;

use domain::{EventId, EventIdentity, IdKind, Rules, Seen, Timestamp, seen::Derived};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;
use wire::snapshot::decode_runs;

use crate::{
    checkpoint::Checkpoint, error::StoreError, partitions::base::StoredBase, statement::Doing,
    stream_id::StreamId, timestamptz::Timestamptz,
};

/// The sets at a checkpoint.
pub(crate) async fn read(
    connection: &mut PgConnection,
    stream: StreamId,
    checkpoint: &Checkpoint,
    rules: &Rules,
) -> Result<Seen, StoreError> {
    let runs = decode_runs(&checkpoint.seen, rules)
        .map_err(|error| StoreError::Version(format!("the checkpoint's set of ids: {error}")))?;
    let mut kept = derived_above(connection, stream, checkpoint.derived_floor).await?;
    // The base contains the rows that retention dropped, and their identities. The aggregator
    // remembers them, so they are added here too.
    if let Some(base) = StoredBase::read(connection, stream).await? {
        let known = base.state(rules)?;
        let ids = known.seen().derived().kept().iter().copied();
        kept.extend(ids.filter(|id| checkpoint.derived_floor.is_none_or(|floor| *id > floor)));
    }
    let derived = Derived::restore(rules.derived_ids_max, kept, checkpoint.derived_floor);
    Ok(Seen::restore(runs, derived))
}

/// The derived identities above the floor, of rows and of counted dead letters: as many as the set
/// contains.
async fn derived_above(
    connection: &mut PgConnection,
    stream: StreamId,
    floor: Option<EventIdentity>,
) -> Result<BTreeSet<EventIdentity>, StoreError> {
    let doing = "reading the derived ids back";
    if stream.kinds().is_empty() {
        return Ok(BTreeSet::new());
    }
    let of_rows = stream.kinds().iter().map(|kind| {
        format!(
            "select occurred_at, id from lakegauge.{} where stream = $1 and derived \
             and verdict is null and (occurred_at, id) > ($2, $3) union all ",
            kind.table()
        )
    });
    let sql = of_rows.collect::<String>()
        + "select occurred_at, id from lakegauge.dead_letter \
           where stream = $1 and counted and (occurred_at, id) > ($2, $3)";
    let (floor_at, floor_id) =
        floor.map_or((i64::MIN, Uuid::nil()), |(at, id)| (at.0, Uuid::from_bytes(*id.as_bytes())));
    // All events are later than 1970, and PostgreSQL can't represent the smallest number as a time.
    let floor_at = Timestamptz(floor_at.max(-1));
    let mut kept = BTreeSet::new();
    let mut rows = sqlx::query_as(AssertSqlSafe(sql))
        .bind(stream.id)
        .bind(floor_at)
        .bind(floor_id)
        .fetch(connection);
    while let Some(row) = rows.try_next().await.doing(doing)? {
        let (at, id): (Timestamptz, Uuid) = row;
        let id = EventId::from_bytes(*id.as_bytes());
        // Dead letters with sequenced ids are skipped.
        if matches!(id.kind(), IdKind::Derived) {
            kept.insert((Timestamp(at.0), id));
        }
    }
    Ok(kept)
}
