//! The corrections that withdraw a source, computed from the rows at one moment, and the record of
//! withdrawals.

use domain::{Event, Side, Stream, Timestamp, verdict::VerdictProgress};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::{
    checkpoint,
    error::StoreError,
    numbers::{signed, unsigned},
    read::view::ArchiveView,
    rows::{
        columns::{names_in, read},
        event::{self, columns_of},
        kind::EventTable,
    },
    settings::connection::StoreSettings,
    statement::Doing,
    stream_id::StreamId,
    timestamptz::Timestamptz,
};

/// Corrections of one page: a few megabytes.
const PAGE_ROWS: u32 = 10_000;
const DOING: &str = "looking for what is to be withdrawn";

/// The part of a source that is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// The source.
    pub source: String,
    /// Only events from this time on.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
}

/// How much of a source in a stream can be withdrawn, and how much can't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withdrawable {
    /// Requests or queries that count, and are not withdrawn yet.
    pub events: u64,
    /// Of these, the time of the first and of the last.
    pub occurred: Option<(Timestamp, Timestamp)>,
    /// Inventories, which are not withdrawn: a later inventory of the same bucket replaces them.
    pub inventories: u64,
    /// Events that only PostgreSQL refused: metrics count them, but they have no row to correct.
    pub counted_dead_letters: u64,
}

impl ArchiveView {
    /// How much of a source the stream has; `None` if the archive doesn't know the source.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn withdrawable(
        &mut self,
        of: &SourceRange,
    ) -> Result<Option<Withdrawable>, StoreError> {
        let Some(source) = self.number_of(of) else { return Ok(None) };
        let kind = EventTable::with_windows(self.stream().side);
        let mine = mine(kind, self.stream, source, of);
        let sql = format!(
            "select count(*) as events, min(event.occurred_at) as first, \
             max(event.occurred_at) as last, {} as inventories, \
             (select count(*) from lakegauge.dead_letter as letter where letter.stream = {} \
             and letter.source = {source} and letter.counted \
             and letter.closed_as is distinct from 0) as letters from {mine}",
            match self.stream().side {
                Side::Lake => format!(
                    "(select count(*) from lakegauge.lake_inventory as stock \
                     where stock.stream = {} and stock.source = {source})",
                    self.stream.id
                ),
                Side::Warehouse => "0::bigint".to_owned(),
            },
            self.stream.id
        );
        let row =
            sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.connection).await.doing(DOING)?;
        let number = |column: &str| unsigned(row.try_get(column).doing(DOING)?);
        let first: Option<Timestamp> = read(&row, "first").doing(DOING)?;
        let last: Option<Timestamp> = read(&row, "last").doing(DOING)?;
        Ok(Some(Withdrawable {
            events: number("events")?,
            occurred: first.zip(last),
            inventories: number("inventories")?,
            counted_dead_letters: number("letters")?,
        }))
    }

    /// Begins to read the corrections that withdraw a source, in the order of the events' times. The
    /// withdrawal of a change that decides about its object is followed by the restoration of the
    /// change that decides without it. [`ArchiveView::next_corrections`] returns them. Only events
    /// that are counted are withdrawn.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn begin_withdrawal(&mut self, of: &SourceRange) -> Result<(), StoreError> {
        // No source has this number.
        let source = self.number_of(of).unwrap_or(-1);
        let kind = EventTable::with_windows(self.stream().side);
        let sql = match self.stream().side {
            Side::Lake => lake(self.stream, source, of),
            Side::Warehouse => warehouse(self.stream, source, of),
        };
        self.declare(kind, &sql).await
    }

    /// Begins to read the restorations that are still missing: changes that were counted while a
    /// later change of the same object was being withdrawn, and that must decide about their object
    /// now.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn begin_restoration(&mut self) -> Result<(), StoreError> {
        let sql = missing(self.stream);
        self.declare(EventTable::LakeAccess, &sql).await
    }

    /// The next corrections, at most ten thousand; an empty list at the end.
    ///
    /// # Errors
    ///
    /// The database failed, or contains a row that this program cannot read.
    pub async fn next_corrections(&mut self) -> Result<Vec<Event>, StoreError> {
        let kind = EventTable::with_windows(self.stream().side);
        let rows = sqlx::query(AssertSqlSafe(format!("fetch {PAGE_ROWS} from corrections")))
            .fetch_all(&mut self.connection)
            .await
            .doing(DOING)?;
        rows.iter()
            .map(|row| {
                let mut event = event::counted(kind, row)?.event;
                event.id = wire::derived::of_correction(event.occurred_at, &event.fact)
                    .ok_or_else(|| StoreError::Inconsistent("no correction".to_owned()))?;
                Ok(event)
            })
            .collect()
    }

    fn number_of(&self, of: &SourceRange) -> Option<i16> {
        self.sources().known([&of.source]).first().copied()
    }

    async fn declare(&mut self, kind: EventTable, sql: &str) -> Result<(), StoreError> {
        let columns = names_in("part", columns_of(kind).iter());
        let cursor = format!(
            "declare corrections no scroll cursor for select part.epoch, part.sequence, \
             part.index, part.verdict, part.source, part.at as occurred_at, part.id, \
             part.correction, part.of_at, part.of_id, {columns} from ({sql}) as part \
             order by part.at, part.decided, part.correction"
        );
        sqlx::query(AssertSqlSafe("close all".to_owned()))
            .execute(&mut self.connection)
            .await
            .doing(DOING)?;
        sqlx::query(AssertSqlSafe(cursor))
            .execute(&mut self.connection)
            .await
            .doing(DOING)
            .map(|_| ())
    }
}

const COUNTED: &str = "(event.verdict is null or event.noted_sequence is not null)";

/// A condition: the row is not withdrawn. Only our own numbers are written into these statements.
fn not_withdrawn(table: &str) -> String {
    format!(
        "not exists (select from lakegauge.{table} as withdrawn \
         where withdrawn.occurred_at = event.occurred_at and withdrawn.of_id = event.id \
         and withdrawn.correction = 0)"
    )
}

fn in_range(of: &SourceRange) -> String {
    let at = |at: Timestamp| {
        format!("timestamptz '1970-01-01 00:00Z' + {} * interval '1 microsecond'", at.0)
    };
    let since = of.since.map(|since| format!(" and event.occurred_at >= {}", at(since)));
    let until = of.until.map(|until| format!(" and event.occurred_at < {}", at(until)));
    since.into_iter().chain(until).collect()
}

/// The events of a source that count and are not withdrawn.
fn mine(kind: EventTable, stream: StreamId, source: i16, of: &SourceRange) -> String {
    let table = kind.table();
    format!(
        "lakegauge.{table} as event where event.stream = {} and event.source = {source} \
         and event.correction is null and {COUNTED} and {}{}",
        stream.id,
        not_withdrawn(table),
        in_range(of)
    )
}

const CHANGES: &str = "event.operation in (3, 4, 5) and event.outcome = 0";

/// The sequencer as it is compared: a change without one comes before every change with one.
const PLACE: &str = "coalesce('1' || event.sequencer, '') collate \"C\"";

/// The columns of a correction, as [`ArchiveView::next_corrections`] reads them, from the row `row`.
/// `at` and `decided` are time and id of the event that is withdrawn.
fn correction(kind: EventTable, code: u8, row: &str, (at, decided): (&str, &str)) -> String {
    format!(
        "{row}.epoch, {row}.sequence, {row}.index, {row}.verdict, {row}.source, {row}.id, \
         {code}::smallint as correction, {row}.occurred_at as of_at, {row}.id as of_id, \
         {at} as at, {decided} as decided, {}",
        names_in(row, columns_of(kind).iter())
    )
}

fn warehouse(stream: StreamId, source: i16, of: &SourceRange) -> String {
    let kind = EventTable::WarehouseQuery;
    let withdrawn = correction(kind, 0, "event", ("event.occurred_at", "event.id"));
    format!("select {withdrawn} from {}", mine(kind, stream, source, of))
}

fn lake(stream: StreamId, source: i16, of: &SourceRange) -> String {
    let kind = EventTable::LakeAccess;
    let withdrawn = correction(kind, 0, "event", ("event.occurred_at", "event.id"));
    let restored = correction(kind, 1, "before", ("deciding.occurred_at", "deciding.id"));
    format!(
        "with mine as materialized (select event.* from {mine}), \
         touched as (select distinct event.bucket, event.key from mine as event where {CHANGES}), \
         version as (\
             select event.*, coalesce(event.source = {source}, false){range} as is_mine, \
                 row_number() over (partition by event.bucket, event.key \
                     order by event.occurred_at desc, {PLACE} desc, event.id desc) as rank \
             from lakegauge.lake_access as event \
             join touched on touched.bucket = event.bucket and touched.key = event.key \
             where event.stream = {stream} and event.correction is null and {CHANGES} \
                 and {COUNTED} and {not_withdrawn}\
         ), deciding as (select * from version where rank = 1 and is_mine), \
         before as (select distinct on (bucket, key) * from version where not is_mine \
             order by bucket, key, rank) \
         select {withdrawn} from mine as event union all \
         select {restored} from deciding join before on before.bucket = deciding.bucket \
             and before.key = deciding.key",
        mine = mine(kind, stream, source, of),
        range = in_range(of),
        stream = stream.id,
        not_withdrawn = not_withdrawn(kind.table()),
    )
}

/// The changes that decide about their object among those that are not withdrawn, that were counted
/// before a later change of the object was withdrawn, and that no restoration names yet.
fn missing(stream: StreamId) -> String {
    let kind = EventTable::LakeAccess;
    format!(
        "with withdrawn as materialized (\
             select event.bucket, event.key, event.occurred_at as at, event.of_id, \
                 {PLACE} as place, event.noted_epoch, event.noted_sequence, event.noted_index \
             from lakegauge.lake_access as event \
             where event.stream = {stream} and event.correction = 0 and {CHANGES} \
                 and event.noted_sequence is not null\
         ), touched as (select distinct bucket, key from withdrawn), \
         live as (\
             select distinct on (event.bucket, event.key) event.*, {PLACE} as place, \
                 coalesce(event.noted_epoch, event.epoch) as counted_epoch, \
                 coalesce(event.noted_sequence, event.sequence) as counted_sequence, \
                 coalesce(event.noted_index, event.index) as counted_index \
             from lakegauge.lake_access as event \
             join touched on touched.bucket = event.bucket and touched.key = event.key \
             where event.stream = {stream} and event.correction is null and {CHANGES} \
                 and {COUNTED} and {not_withdrawn} \
             order by event.bucket, event.key, event.occurred_at desc, {PLACE} desc, event.id desc\
         ), last as (\
             select distinct on (live.bucket, live.key) withdrawn.* \
             from live join withdrawn \
                 on withdrawn.bucket = live.bucket and withdrawn.key = live.key \
             where (withdrawn.at, withdrawn.place, withdrawn.of_id) \
                     > (live.occurred_at, live.place, live.id) \
                 and (withdrawn.noted_epoch, withdrawn.noted_sequence, withdrawn.noted_index) \
                     > (live.counted_epoch, live.counted_sequence, live.counted_index) \
             order by live.bucket, live.key, withdrawn.at desc, withdrawn.place desc, \
                 withdrawn.of_id desc\
         ) \
         select {restored} \
         from live join last on last.bucket = live.bucket and last.key = live.key \
         where not exists (select from lakegauge.lake_access as restored \
             where restored.correction = 1 and restored.occurred_at = last.at \
                 and restored.of_at = live.occurred_at and restored.of_id = live.id)",
        stream = stream.id,
        not_withdrawn = not_withdrawn(kind.table()),
        restored = correction(kind, 1, "live", ("last.at", "last.of_id")),
    )
}

/// The record of withdrawals.
#[derive(Debug)]
pub struct Withdrawals {
    connection: PgConnection,
}

impl Withdrawals {
    /// Opens the record with the archiver's login, which may write it.
    ///
    /// # Errors
    ///
    /// The database cannot be reached.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        Ok(Self { connection: settings.connect_as_archiver().await? })
    }

    /// Records that a source is to be withdrawn, and why. Returns the number of the record.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn begin(&mut self, of: &SourceRange, reason: &str) -> Result<u64, StoreError> {
        let number: i64 = sqlx::query_scalar(
            "insert into lakegauge.withdrawal (source, occurred_from, occurred_to, reason) \
             values ($1, $2, $3, $4) returning number",
        )
        .bind(&of.source)
        .bind(of.since.map(|since| Timestamptz(since.0)))
        .bind(of.until.map(|until| Timestamptz(until.0)))
        .bind(reason)
        .fetch_one(&mut self.connection)
        .await
        .doing("noting a withdrawal")?;
        unsigned(number)
    }

    /// How far a stream is archived and its verdicts are counted, from its checkpoint; `None` if no
    /// message of the stream was ever archived.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn progress(
        &mut self,
        stream: Stream,
    ) -> Result<Option<VerdictProgress>, StoreError> {
        let Some(stream) = StreamId::find(&mut self.connection, &stream.to_string()).await? else {
            return Ok(None);
        };
        let checkpoint = checkpoint::load(&mut self.connection, stream).await?;
        Ok(checkpoint.map(|checkpoint| checkpoint.verdicts()))
    }

    /// Records that the withdrawal is complete, and the number of withdrawn events.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn finish(&mut self, number: u64, events: u64) -> Result<(), StoreError> {
        sqlx::query(
            "update lakegauge.withdrawal set finished_at = now(), events = $2 where number = $1",
        )
        .bind(signed(number)?)
        .bind(signed(events)?)
        .execute(&mut self.connection)
        .await
        .doing("noting the end of a withdrawal")
        .map(|_| ())
    }
}
