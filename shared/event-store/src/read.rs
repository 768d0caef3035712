//! Reading the archive back: one interface, whatever form the events are kept in.

use domain::{
    Event, EventId, Fact, LakeAccess, LakeInventory, Mark, Operation, Outcome, Position, Rules,
    Seen, Statement, Stream, StreamState, Timestamp, WarehouseQuery,
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    archive::read_seen,
    batch::StreamId,
    checkpoint::{self, Checkpoint},
    error::{Doing, StoreError, unsigned, unsigned_32},
    migrate,
    pages::{Range, ranges},
    pg::Timestamptz,
    retention::StoredBase,
    rows::Kind,
    settings::StoreSettings,
    sources::{self, Sources},
};

/// An event at the position where it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its own position; of an event that was too old to judge, that of its verdict.
    pub position: Position,
    /// The number of its verdict, if it was too old to judge.
    pub verdict: Option<u64>,
    /// The number of its source in [`ArchiveView::sources`]; none where it is not kept.
    pub source: Option<i16>,
    /// The event.
    pub event: Event,
}

/// A stream as it was at one moment: a transaction that sees nothing later.
#[derive(Debug)]
pub struct ArchiveView {
    pub(crate) connection: PgConnection,
    pub(crate) stream: StreamId,
    name: Stream,
    checkpoint: Option<Checkpoint>,
    /// What the fold begins with, where old days were dropped.
    base: Option<StoredBase>,
    /// Ranges left to read, the next one last.
    ranges: Vec<Range>,
    noted: bool,
    sources: Sources,
}

pub(crate) const DOING: &str = "reading the archive";

impl ArchiveView {
    /// A view of a stream, from the first event that was archived; where old days were dropped,
    /// from the first that was counted after the base.
    ///
    /// # Errors
    ///
    /// The database cannot be reached or read, or is not of the version that this program needs.
    pub async fn open(settings: &StoreSettings, stream: Stream) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        let mut connection = settings.connect().await?;
        sqlx::raw_sql(
            "set idle_in_transaction_session_timeout = 0; \
             begin isolation level repeatable read read only; \
             lock table lakegauge.lake_access, lakegauge.lake_inventory, \
             lakegauge.warehouse_query in access share mode",
        )
        .execute(&mut connection)
        .await
        .doing(DOING)?;
        Self::of_stream(connection, stream).await
    }

    /// The same moment, but another stream, from its first event.
    ///
    /// # Errors
    ///
    /// The database failed; the view is gone then.
    pub async fn turn_to(self, stream: Stream) -> Result<Self, StoreError> {
        Self::of_stream(self.connection, stream).await
    }

    async fn of_stream(mut connection: PgConnection, name: Stream) -> Result<Self, StoreError> {
        let id: Option<i16> = sqlx::query_scalar("select id from lakegauge.stream where name = $1")
            .bind(name.to_string())
            .fetch_optional(&mut connection)
            .await
            .doing(DOING)?;
        let nothing = StreamId { id: 0, side: Some(name.side) };
        let Some(id) = id else {
            return Ok(Self {
                connection,
                stream: nothing,
                name,
                checkpoint: None,
                base: None,
                ranges: Vec::new(),
                noted: false,
                sources: Sources::default(),
            });
        };
        let stream = StreamId { id, side: Some(name.side) };
        let checkpoint = checkpoint::read(&mut connection, stream).await?;
        let base = StoredBase::read(&mut connection, stream).await?;
        let ranges = ranges(&mut connection, stream, base.as_ref()).await?;
        let noted = any_noted(&mut connection, stream).await?;
        let sources = sources::read(&mut connection, stream).await?;
        Ok(Self { connection, stream, name, checkpoint, base, ranges, noted, sources })
    }

    /// The stream whose events it gives.
    pub const fn stream(&self) -> Stream {
        self.name
    }

    /// Who sent what is archived of the stream.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The state to begin a fold with: nothing, or where old days were dropped the base.
    ///
    /// # Errors
    ///
    /// The base was written by a program unknown to this one.
    pub fn origin(&self, rules: &Rules) -> Result<StreamState, StoreError> {
        match &self.base {
            None => Ok(StreamState::new(self.name, rules.clone())),
            Some(base) => base.state(rules),
        }
    }

    /// Leaves out pages in which everything is counted at or before a position. The page with the
    /// position itself still comes whole.
    pub fn skip_to(&mut self, after: Position) {
        let passed = |range: &Range| {
            (i64::from(after.epoch), after.sequence)
                > (i64::from(range.epoch), u64::try_from(range.last).unwrap_or(0))
        };
        while self.ranges.last().is_some_and(passed) {
            self.ranges.pop();
        }
    }

    /// Leaves out what did not happen in `[since, until)`, as far as that spares reading it: events
    /// with a verdict or in a letter come all the same.
    pub fn narrow(&mut self, since: Option<Timestamp>, until: Option<Timestamp>) {
        let since = since.map_or(i64::MIN, |since| since.0);
        let until = until.map_or(i64::MAX, |until| until.0);
        for range in &mut self.ranges {
            range.occurred = range
                .occurred
                .map(|(from, to)| {
                    (Timestamptz(from.0.max(since)), Timestamptz(to.0.min(until.saturating_sub(1))))
                })
                .filter(|(from, to)| from <= to);
        }
    }

    /// How far the stream is archived in this view; none where nothing was.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The next events in counting order, about thirty thousand; possibly none although more follow.
    /// The first `None` is the end.
    ///
    /// # Errors
    ///
    /// The database failed, or holds a row that this program cannot read.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Counted>>, StoreError> {
        let Some(range) = self.ranges.pop() else { return Ok(None) };
        let mut page = Vec::new();
        for kind in Kind::of_side(self.stream.side) {
            if let Some(occurred) = range.occurred {
                self.rows(*kind, range, occurred, &mut page).await?;
            }
            if self.noted {
                self.noted_rows(*kind, range, &mut page).await?;
            }
        }
        self.counted_letters(range, &mut page).await?;
        page.sort_unstable_by_key(|counted| counted.position);
        Ok(Some(page))
    }

    /// The sets of identities at the checkpoint of this view.
    ///
    /// # Errors
    ///
    /// As [`crate::Archive::seen`].
    pub async fn seen(&mut self, rules: &Rules) -> Result<Seen, StoreError> {
        match &self.checkpoint {
            None => Ok(Seen::new(rules)),
            Some(checkpoint) => {
                read_seen(&mut self.connection, self.stream, checkpoint, rules).await
            }
        }
    }

    async fn rows(
        &mut self,
        kind: Kind,
        range: Range,
        (from, to): (Timestamptz, Timestamptz),
        page: &mut Vec<Counted>,
    ) -> Result<(), StoreError> {
        let query = match kind {
            Kind::LakeAccess => sqlx::query(concat!(
                "select epoch, sequence, index, verdict, source, occurred_at, id, operation, outcome, bytes, \
                 object_bytes, duration_us, bucket, key, sequencer, principal \
                 from lakegauge.lake_access ",
                "where stream = $1 and epoch = $2 and sequence between $3 and $4 \
                 and occurred_at between $5 and $6 and verdict is null"
            )),
            Kind::LakeInventory => sqlx::query(concat!(
                "select epoch, sequence, index, verdict, source, occurred_at, id, objects, bytes, bucket \
                 from lakegauge.lake_inventory ",
                "where stream = $1 and epoch = $2 and sequence between $3 and $4 \
                 and occurred_at between $5 and $6 and verdict is null"
            )),
            Kind::WarehouseQuery => sqlx::query(concat!(
                "select epoch, sequence, index, verdict, source, occurred_at, id, statement, outcome, queued_us, \
                 executed_us, rows_processed, rows_returned, bytes_scanned, cache_hit, warehouse, \
                 database, principal, fingerprint from lakegauge.warehouse_query ",
                "where stream = $1 and epoch = $2 and sequence between $3 and $4 \
                 and occurred_at between $5 and $6 and verdict is null"
            )),
        };
        let rows = query
            .bind(self.stream.id)
            .bind(range.epoch)
            .bind(range.first)
            .bind(range.last)
            .bind(from)
            .bind(to)
            .fetch_all(&mut self.connection)
            .await
            .doing(DOING)?;
        for row in &rows {
            page.push(counted(kind, row)?);
        }
        Ok(())
    }

    async fn noted_rows(
        &mut self,
        kind: Kind,
        range: Range,
        page: &mut Vec<Counted>,
    ) -> Result<(), StoreError> {
        let query = match kind {
            Kind::LakeAccess => sqlx::query(concat!(
                "select noted_epoch as epoch, noted_sequence as sequence, noted_index as index, \
                 verdict, source, occurred_at, id, operation, outcome, bytes, object_bytes, duration_us, bucket, \
                 key, sequencer, principal from lakegauge.lake_access ",
                "where stream = $1 and noted_epoch = $2 \
                 and noted_sequence between $3 and $4"
            )),
            Kind::LakeInventory => sqlx::query(concat!(
                "select noted_epoch as epoch, noted_sequence as sequence, noted_index as index, \
                 verdict, source, occurred_at, id, objects, bytes, bucket from lakegauge.lake_inventory ",
                "where stream = $1 and noted_epoch = $2 \
                 and noted_sequence between $3 and $4"
            )),
            Kind::WarehouseQuery => sqlx::query(concat!(
                "select noted_epoch as epoch, noted_sequence as sequence, noted_index as index, \
                 verdict, source, occurred_at, id, statement, outcome, queued_us, executed_us, rows_processed, \
                 rows_returned, bytes_scanned, cache_hit, warehouse, database, principal, \
                 fingerprint from lakegauge.warehouse_query ",
                "where stream = $1 and noted_epoch = $2 \
                 and noted_sequence between $3 and $4"
            )),
        };
        let rows = query
            .bind(self.stream.id)
            .bind(range.epoch)
            .bind(range.first)
            .bind(range.last)
            .fetch_all(&mut self.connection)
            .await
            .doing(DOING)?;
        for row in &rows {
            page.push(counted(kind, row)?);
        }
        Ok(())
    }

    /// Events that only the database refused were counted; their letters hold them as JSON.
    async fn counted_letters(
        &mut self,
        range: Range,
        page: &mut Vec<Counted>,
    ) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "select epoch, sequence, index, source, bytes from lakegauge.dead_letter \
             where stream = $1 and counted and closed_as is distinct from 0 and epoch = $2 \
             and sequence between $3 and $4",
        )
        .bind(self.stream.id)
        .bind(range.epoch)
        .bind(range.first)
        .bind(range.last)
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        for row in &rows {
            let bytes: Vec<u8> = row.try_get("bytes").doing(DOING)?;
            let position = position(row)?;
            let decoded = wire::json::decode_line(&bytes).map_err(|undecoded| {
                StoreError::Inconsistent(format!(
                    "the counted letter at {position:?} is not an event: {}",
                    undecoded.refusal
                ))
            })?;
            // Written by us, with its id.
            let event = decoded.or_id(|| EventId::from_bytes([0; 16]));
            let source = get(row, "source")?;
            page.push(Counted { position, verdict: None, source, event });
        }
        Ok(())
    }
}

/// How far a stream is archived, read by itself.
///
/// # Errors
///
/// The database cannot be reached or read.
pub async fn read_checkpoint(
    settings: &StoreSettings,
    stream: &str,
) -> Result<Option<Mark>, StoreError> {
    let mut connection = settings.connect().await?;
    let id: Option<i16> = sqlx::query_scalar("select id from lakegauge.stream where name = $1")
        .bind(stream)
        .fetch_optional(&mut connection)
        .await
        .doing(DOING)?;
    let Some(id) = id else { return Ok(None) };
    let checkpoint = checkpoint::read(&mut connection, StreamId::new(id, stream)).await?;
    Ok(checkpoint.map(|checkpoint| checkpoint.mark))
}

async fn any_noted(connection: &mut PgConnection, stream: StreamId) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "select exists (select from lakegauge.lake_access \
            where stream = $1 and noted_sequence is not null) \
         or exists (select from lakegauge.lake_inventory \
            where stream = $1 and noted_sequence is not null) \
         or exists (select from lakegauge.warehouse_query \
            where stream = $1 and noted_sequence is not null)",
    )
    .bind(stream.id)
    .fetch_one(connection)
    .await
    .doing(DOING)
}

fn position(row: &PgRow) -> Result<Position, StoreError> {
    Ok(Position {
        epoch: unsigned_32(row.try_get("epoch").doing(DOING)?)?,
        sequence: unsigned(row.try_get("sequence").doing(DOING)?)?,
        index: unsigned_32(row.try_get("index").doing(DOING)?)?,
    })
}

pub(crate) fn counted(kind: Kind, row: &PgRow) -> Result<Counted, StoreError> {
    let at: Timestamptz = row.try_get("occurred_at").doing(DOING)?;
    let id: Uuid = row.try_get("id").doing(DOING)?;
    let fact = match kind {
        Kind::LakeAccess => Fact::LakeAccess(LakeAccess {
            bucket: get(row, "bucket")?,
            key: get(row, "key")?,
            operation: code(row, "operation", Operation::from_code)?,
            bytes: quantity(row, "bytes")?,
            object_bytes: get::<Option<i64>>(row, "object_bytes")?.map(unsigned).transpose()?,
            sequencer: get(row, "sequencer")?,
            duration_us: quantity(row, "duration_us")?,
            outcome: code(row, "outcome", Outcome::from_code)?,
            principal: get(row, "principal")?,
        }),
        Kind::LakeInventory => Fact::LakeInventory(LakeInventory {
            bucket: get(row, "bucket")?,
            objects: quantity(row, "objects")?,
            bytes: quantity(row, "bytes")?,
        }),
        Kind::WarehouseQuery => Fact::WarehouseQuery(WarehouseQuery {
            warehouse: get(row, "warehouse")?,
            database: get(row, "database")?,
            statement: code(row, "statement", Statement::from_code)?,
            queued_us: quantity(row, "queued_us")?,
            executed_us: quantity(row, "executed_us")?,
            rows_processed: quantity(row, "rows_processed")?,
            rows_returned: quantity(row, "rows_returned")?,
            bytes_scanned: quantity(row, "bytes_scanned")?,
            cache_hit: get(row, "cache_hit")?,
            outcome: code(row, "outcome", Outcome::from_code)?,
            principal: get(row, "principal")?,
            fingerprint: get(row, "fingerprint")?,
        }),
    };
    let event =
        Event { id: EventId::from_bytes(*id.as_bytes()), occurred_at: Timestamp(at.0), fact };
    let verdict = get::<Option<i64>>(row, "verdict")?.map(unsigned).transpose()?;
    Ok(Counted { position: position(row)?, verdict, source: get(row, "source")?, event })
}

pub(crate) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).doing(DOING)
}

pub(crate) fn quantity(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    unsigned(get(row, column)?)
}

pub(crate) fn code<T>(row: &PgRow, column: &str, of: fn(u8) -> Option<T>) -> Result<T, StoreError> {
    let code: i16 = get(row, column)?;
    u8::try_from(code)
        .ok()
        .and_then(of)
        .ok_or_else(|| StoreError::Inconsistent(format!("{column} has the unknown code {code}")))
}
