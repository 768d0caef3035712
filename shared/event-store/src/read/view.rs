//! Reads the archive: one interface, whatever form the events are stored in.

use domain::{EventId, Mark, Position, Rules, Seen, Stream, StreamState, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr, postgres::PgRow};

use crate::{
    checkpoint::{self, Checkpoint},
    error::StoreError,
    message_range::MessageRange,
    numbers::{bigint, integer},
    partitions::base::StoredBase,
    read::{
        pages::{PageRequest, pages},
        seen,
    },
    rows::{
        columns::{BoundQuery, read},
        event::{Counted, DOING, counted, position, statements},
        kind::EventTable,
    },
    schema::migrate,
    settings::connection::StoreSettings,
    statement::{Doing, take_snapshot},
    stream_id::StreamId,
    timestamptz::Timestamptz,
    write::sources::{self, Sources},
};

/// A stream as it was at one moment: a transaction that sees no later changes.
#[derive(Debug)]
pub struct ArchiveView {
    pub(crate) connection: PgConnection,
    pub(crate) stream: StreamId,
    name: Stream,
    checkpoint: Option<Checkpoint>,
    /// The state with which the fold begins, if old days were dropped.
    base: Option<StoredBase>,
    /// Pages left to read, in reverse order.
    pages: Vec<PageRequest>,
    noted: bool,
    sources: Sources,
}

impl ArchiveView {
    /// Opens a view of a stream, from the first event that was archived; if old days were dropped,
    /// from the first event that was counted after the base.
    ///
    /// # Errors
    ///
    /// The database cannot be reached or read, or is not of the version that this program needs.
    pub async fn open(settings: &StoreSettings, stream: Stream) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        let mut connection = settings.connect().await?;
        take_snapshot(&mut connection, DOING).await?;
        Self::of_stream(connection, stream).await
    }

    /// Another stream at the same moment, from its first event.
    ///
    /// # Errors
    ///
    /// The database failed; the view can't be used any more then.
    pub async fn turn_to(self, stream: Stream) -> Result<Self, StoreError> {
        Self::of_stream(self.connection, stream).await
    }

    async fn of_stream(mut connection: PgConnection, name: Stream) -> Result<Self, StoreError> {
        let Some(stream) = StreamId::find(&mut connection, &name.to_string()).await? else {
            return Ok(Self {
                connection,
                stream: StreamId { id: 0, side: Some(name.side) },
                name,
                checkpoint: None,
                base: None,
                pages: Vec::new(),
                noted: false,
                sources: Sources::default(),
            });
        };
        let checkpoint = checkpoint::load(&mut connection, stream).await?;
        let base = StoredBase::read(&mut connection, stream).await?;
        let pages = pages(&mut connection, stream, base.as_ref()).await?;
        let noted = any_noted(&mut connection, stream).await?;
        let sources = sources::read(&mut connection, stream).await?;
        Ok(Self { connection, stream, name, checkpoint, base, pages, noted, sources })
    }

    /// The stream of this view.
    pub const fn stream(&self) -> Stream {
        self.name
    }

    /// The sources of the stream.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The state with which a fold begins: an empty one, or the base if old days were dropped.
    ///
    /// # Errors
    ///
    /// The base was written by a program that this one does not know.
    pub fn origin(&self, rules: &Rules) -> Result<StreamState, StoreError> {
        match &self.base {
            None => Ok(StreamState::new(self.name, rules.clone())),
            Some(base) => base.state(rules),
        }
    }

    /// Skips pages in which everything is counted at or before a position. The page with the
    /// position itself is still returned whole.
    pub fn skip_to(&mut self, after: Position) {
        let passed = |page: &PageRequest| {
            (after.epoch, after.sequence) > (page.messages.epoch, page.messages.last)
        };
        while self.pages.last().is_some_and(passed) {
            self.pages.pop();
        }
    }

    /// Skips events outside `[since, until)` if that avoids reading them. Events with a verdict or
    /// in a dead letter are returned all the same.
    pub fn narrow(&mut self, since: Option<Timestamp>, until: Option<Timestamp>) {
        let since = since.map_or(i64::MIN, |since| since.0);
        let until = until.map_or(i64::MAX, |until| until.0);
        for page in &mut self.pages {
            page.occurred = page
                .occurred
                .map(|(from, to)| {
                    (Timestamp(from.0.max(since)), Timestamp(to.0.min(until.saturating_sub(1))))
                })
                .filter(|(from, to)| from <= to);
        }
    }

    /// How far the stream is archived in this view; `None` if nothing was archived.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The next events in counting order, about thirty thousand. A page may be empty although more
    /// follow; `None` is the end.
    ///
    /// # Errors
    ///
    /// The database failed, or contains a row that this program cannot read.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Counted>>, StoreError> {
        let Some(PageRequest { messages, occurred }) = self.pages.pop() else { return Ok(None) };
        let mut page = Vec::new();
        for kind in self.stream.kinds() {
            if let Some(occurred) = occurred {
                self.rows(*kind, messages, occurred, &mut page).await?;
            }
            if self.noted {
                self.noted_rows(*kind, messages, &mut page).await?;
            }
        }
        self.counted_letters(messages, &mut page).await?;
        page.sort_unstable_by_key(|counted| counted.position);
        Ok(Some(page))
    }

    /// The sets of identities at the checkpoint of this view.
    ///
    /// # Errors
    ///
    /// The errors of [`crate::Archive::seen`].
    pub async fn seen(&mut self, rules: &Rules) -> Result<Seen, StoreError> {
        match &self.checkpoint {
            None => Ok(Seen::new(rules)),
            Some(checkpoint) => {
                seen::read(&mut self.connection, self.stream, checkpoint, rules).await
            }
        }
    }

    async fn rows(
        &mut self,
        kind: EventTable,
        messages: MessageRange,
        (from, to): (Timestamp, Timestamp),
        page: &mut Vec<Counted>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "{} where stream = $1 and epoch = $2 and sequence between $3 and $4 \
             and occurred_at between $5 and $6 and verdict is null",
            statements(kind).select
        );
        let query = self
            .in_messages(AssertSqlSafe(sql), messages)
            .bind(Timestamptz(from.0))
            .bind(Timestamptz(to.0));
        let rows = query.fetch_all(&mut self.connection).await.doing(DOING)?;
        take(kind, &rows, page)
    }

    async fn noted_rows(
        &mut self,
        kind: EventTable,
        messages: MessageRange,
        page: &mut Vec<Counted>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "{} where stream = $1 and noted_epoch = $2 and noted_sequence between $3 and $4",
            statements(kind).select_noted
        );
        let query = self.in_messages(AssertSqlSafe(sql), messages);
        let rows = query.fetch_all(&mut self.connection).await.doing(DOING)?;
        take(kind, &rows, page)
    }

    /// A query whose first arguments are the stream and the messages.
    fn in_messages(&self, sql: impl SqlSafeStr, messages: MessageRange) -> BoundQuery {
        sqlx::query(sql)
            .bind(self.stream.id)
            .bind(integer(messages.epoch))
            .bind(bigint(messages.first))
            .bind(bigint(messages.last))
    }

    /// Adds events that were counted although the database refused their rows; their dead letters
    /// contain them as JSON.
    async fn counted_letters(
        &mut self,
        messages: MessageRange,
        page: &mut Vec<Counted>,
    ) -> Result<(), StoreError> {
        let sql = "select epoch, sequence, index, source, bytes from lakegauge.dead_letter \
                   where stream = $1 and counted and closed_as is distinct from 0 \
                   and epoch = $2 and sequence between $3 and $4";
        let query = self.in_messages(sql, messages);
        let rows = query.fetch_all(&mut self.connection).await.doing(DOING)?;
        for row in &rows {
            let bytes: Vec<u8> = read(row, "bytes").doing(DOING)?;
            let position = position(row).doing(DOING)?;
            let decoded = wire::json::decode_line(&bytes).map_err(|undecoded| {
                StoreError::Inconsistent(format!(
                    "the counted dead letter at {position:?} is not an event: {}",
                    undecoded.refusal
                ))
            })?;
            // This program wrote the bytes, including the id.
            let event = decoded.or_id(|| EventId::from_bytes([0; 16]));
            let source = read(row, "source").doing(DOING)?;
            page.push(Counted { position, verdict: None, source, event });
        }
        Ok(())
    }
}

/// How far a stream is archived, read on a connection of its own.
///
/// # Errors
///
/// The database cannot be reached or read.
pub async fn read_checkpoint(
    settings: &StoreSettings,
    stream: &str,
) -> Result<Option<Mark>, StoreError> {
    let mut connection = settings.connect().await?;
    let Some(stream) = StreamId::find(&mut connection, stream).await? else { return Ok(None) };
    let checkpoint = checkpoint::load(&mut connection, stream).await?;
    Ok(checkpoint.map(|checkpoint| checkpoint.mark))
}

async fn any_noted(connection: &mut PgConnection, stream: StreamId) -> Result<bool, StoreError> {
    for kind in stream.kinds() {
        let sql = format!(
            "select exists (select from lakegauge.{} \
             where stream = $1 and noted_sequence is not null)",
            kind.table()
        );
        let any: bool = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(stream.id)
            .fetch_one(&mut *connection)
            .await
            .doing(DOING)?;
        if any {
            return Ok(true);
        }
    }
    Ok(false)
}

fn take(kind: EventTable, rows: &[PgRow], page: &mut Vec<Counted>) -> Result<(), StoreError> {
    for row in rows {
        page.push(counted(kind, row)?);
    }
    Ok(())
}
