//! Dead letters for people: finding, reading, retrying and dropping them.
//!
//! A dead letter is never deleted. When it is closed, the way is stored: its row was inserted, it
//! was published again, or it was dropped.

use domain::{EventId, EventIdentity, Position, Reason, Timestamp};
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::{
    error::StoreError,
    numbers::{signed, unsigned_32},
    partitions::create::Partitions,
    rows::{
        columns::read,
        event::position,
        kind::{EventTable, Placed},
    },
    schema::migrate,
    settings::connection::StoreSettings,
    statement::{Doing, begin, commit, roll_back},
    stream_id::StreamId,
    timestamptz::Timestamptz,
    windows::kept,
    write::{
        insert, rollups,
        windows::{self, WindowRows},
    },
};

const DOING: &str = "reading dead letters";
/// The most dead letters on one page: a few megabytes with their bytes.
const PAGE_LETTERS: i64 = 500;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number, which people use to refer to it.
    pub number: u64,
    /// The stream in which its message was read.
    pub stream: String,
    /// The source that sent it; `None` if the source is not kept.
    pub source: Option<String>,
    /// Its position in the stream.
    pub position: Position,
    /// The broker's timestamp of its message, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// When it was stored, by the database's clock.
    pub received_at: Timestamp,
    /// Why the event was refused.
    pub reason: Reason,
    /// The field that was wrong.
    pub field: Option<String>,
    /// The exact problem.
    pub detail: String,
    /// The SQLSTATE with which PostgreSQL refused the row.
    pub sqlstate: Option<String>,
    /// Whether the event was counted although the database refused its row.
    pub counted: bool,
    /// Its identity, if it could be read.
    pub identity: Option<EventIdentity>,
    /// Its bytes, up to the requested number.
    pub bytes: Vec<u8>,
    /// The number of all its bytes.
    pub bytes_total: u64,
    /// How many bytes at the beginning are a header block that could not be read.
    pub header_bytes: usize,
    /// How and when it was closed; `None` while it is open.
    pub closed: Option<(ClosedAs, Timestamp)>,
    /// How often it was retried.
    pub attempts: u32,
    /// The note from closing it.
    pub note: Option<String>,
}

impl DeadLetter {
    /// The header block that could not be read, which is usually empty, and the bytes after it, as
    /// far as they were requested.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at_checked(self.header_bytes).unwrap_or((&self.bytes, &[]))
    }
}

/// How a dead letter was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedAs {
    /// Its row was inserted.
    Row,
    /// It was published again, and the message was acknowledged.
    Published,
    /// It was dropped.
    Dropped,
}

impl ClosedAs {
    const ALL: [Self; 3] = [Self::Row, Self::Published, Self::Dropped];

    /// The name in views.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Published => "published",
            Self::Dropped => "dropped",
        }
    }

    const fn code(self) -> i16 {
        match self {
            Self::Row => 0,
            Self::Published => 1,
            Self::Dropped => 2,
        }
    }
}

/// A selection of dead letters. Fields that are not set do not restrict it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only dead letters with these numbers.
    pub numbers: Option<Vec<u64>>,
    /// Only dead letters with this reason.
    pub reason: Option<Reason>,
    /// Only dead letters of this stream.
    pub stream: Option<String>,
    /// Only dead letters stored at this time or later.
    pub since: Option<Timestamp>,
    /// Only open ones, or only closed ones.
    pub open: Option<bool>,
}

/// The result of inserting the row of a counted dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowInserted {
    /// The row and its window aggregates are in the archive, and the dead letter is closed.
    Inserted,
    /// The dead letter was closed already.
    Closed(ClosedAs),
    /// The database still refuses the row; the dead letter stays open.
    Refused {
        /// The SQLSTATE.
        sqlstate: String,
        /// The message.
        message: String,
    },
}

/// The dead letters of an archive.
#[derive(Debug)]
pub struct DeadLetters {
    connection: PgConnection,
}

impl DeadLetters {
    /// Opens the dead letters for reading.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, or is not of the version that this program needs.
    pub async fn read(settings: &StoreSettings) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        Ok(Self { connection: settings.connect().await? })
    }

    /// Opens the dead letters for reading and closing, as the role that writes the archive.
    ///
    /// # Errors
    ///
    /// The errors of [`DeadLetters::read`]; or the login may not use that role.
    pub async fn write(settings: &StoreSettings) -> Result<Self, StoreError> {
        settings.refuse_transaction_pooling().await?;
        migrate::check_fit(settings).await?;
        Ok(Self { connection: settings.connect_as_archiver().await? })
    }

    /// The next dead letters after a number, in ascending order, each with at most `bytes_max`
    /// bytes. An empty page means that there are no more.
    ///
    /// # Errors
    ///
    /// The database failed, or contains a reason that this program does not know.
    pub async fn page(
        &mut self,
        filter: &DeadLetterFilter,
        after: u64,
        bytes_max: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let numbers = filter
            .numbers
            .as_ref()
            .map(|numbers| numbers.iter().map(|number| signed(*number)).collect())
            .transpose()?;
        let numbers: Option<Vec<i64>> = numbers;
        let rows = sqlx::query(PAGE)
            .bind(signed(after)?)
            .bind(i32::try_from(bytes_max).unwrap_or(i32::MAX))
            .bind(numbers)
            .bind(filter.reason.map(|reason| i16::from(reason.code())))
            .bind(filter.stream.as_deref())
            .bind(filter.since.map(|since| Timestamptz(since.0)))
            .bind(filter.open)
            .bind(PAGE_LETTERS)
            .fetch_all(&mut self.connection)
            .await
            .doing(DOING)?;
        rows.iter().map(letter).collect()
    }

    /// Inserts the row of a counted dead letter, adds it to windows and rollups, and closes the
    /// dead letter, all in one transaction. A second call does not insert the row again.
    ///
    /// # Errors
    ///
    /// The database failed; the dead letter is not a counted one; or its identity is in the archive
    /// at another position, which must never happen.
    pub async fn insert_row(&mut self, letter: &DeadLetter) -> Result<RowInserted, StoreError> {
        let doing = "inserting the row of a dead letter";
        let number = letter.number;
        if !letter.counted {
            return Err(StoreError::Inconsistent(format!("dead letter {number} was not counted")));
        }
        let mut placed = placed(letter)?;
        let kind = EventTable::of(&placed.event.fact);
        let mut partitions = Partitions::load(&mut self.connection).await?;
        let day = placed.event.occurred_at.day();
        partitions.ensure(&mut self.connection, &[(kind, day)].into()).await?;
        begin(&mut self.connection).await?;
        let (stream, source, closed): (i16, Option<i16>, Option<i16>) = sqlx::query_as(
            "update lakegauge.dead_letter set attempts = attempts + 1, tried_at = now() \
             where number = $1 returning stream, source, closed_as",
        )
        .bind(signed(number)?)
        .fetch_one(&mut self.connection)
        .await
        .doing(doing)?;
        if let Some(code) = closed {
            roll_back(&mut self.connection).await?;
            return Ok(RowInserted::Closed(closed_as(code)?));
        }
        placed.source = source;
        let outcome = insert::insert(&mut self.connection, kind, stream, &[&placed]).await?;
        if let Some(refused) = outcome.refused.into_iter().next() {
            // The attempt is stored; the savepoint undid the rest.
            commit(&mut self.connection).await?;
            let (sqlstate, message) = (refused.sqlstate, refused.message);
            return Ok(RowInserted::Refused { sqlstate, message });
        }
        if outcome.inserted.len() != 1 {
            roll_back(&mut self.connection).await?;
            return Err(StoreError::Inconsistent(format!(
                "the event of dead letter {number} is in the archive already, at another \
                 position: run `lakegauge audit`"
            )));
        }
        let stream = StreamId::new(stream, &letter.stream);
        let kept = kept::read(&mut self.connection, stream).await?;
        let lengths_s: Vec<u32> = kept.lengths().map(|(length_s, _)| length_s).collect();
        let mut added = domain::Windows::default();
        added.add(&lengths_s, &placed.event);
        windows::add(&mut self.connection, stream, None, &WindowRows::new(added)).await?;
        let (position, at) = (placed.position, placed.event.occurred_at);
        rollups::add_row(&mut self.connection, stream, position, at).await?;
        self.close(number, ClosedAs::Row, None).await?;
        commit(&mut self.connection).await?;
        Ok(RowInserted::Inserted)
    }

    /// Counts an attempt to publish an open dead letter again, and returns its number, from 1. Must
    /// be called before the message is sent, because the message id contains the attempt.
    ///
    /// # Errors
    ///
    /// The database failed, or the dead letter is closed or was counted.
    pub async fn attempt(&mut self, number: u64) -> Result<u32, StoreError> {
        let attempts: Option<i32> = sqlx::query_scalar(
            "update lakegauge.dead_letter set attempts = attempts + 1, tried_at = now() \
             where number = $1 and closed_at is null and not counted returning attempts",
        )
        .bind(signed(number)?)
        .fetch_optional(&mut self.connection)
        .await
        .doing("counting an attempt")?;
        attempts.map_or_else(
            || {
                let detail = format!("dead letter {number} is closed or was counted");
                Err(StoreError::Inconsistent(detail))
            },
            unsigned_32,
        )
    }

    /// Closes an open dead letter.
    ///
    /// # Errors
    ///
    /// The database failed, or the dead letter is closed already.
    pub async fn close(
        &mut self,
        number: u64,
        closed_as: ClosedAs,
        note: Option<&str>,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(
            "update lakegauge.dead_letter set closed_at = now(), closed_as = $2, note = $3 \
             where number = $1 and closed_at is null",
        )
        .bind(signed(number)?)
        .bind(closed_as.code())
        .bind(note)
        .execute(&mut self.connection)
        .await
        .doing("closing a dead letter")?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        Err(StoreError::Inconsistent(format!("dead letter {number} is closed already")))
    }
}

impl DeadLetters {
    /// Drops those of the dead letters that are open, in one statement. Returns how many they were.
    /// What somebody else closed meanwhile keeps its state.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn drop_open(
        &mut self,
        numbers: &[u64],
        note: Option<&str>,
    ) -> Result<u64, StoreError> {
        let numbers: Vec<i64> =
            numbers.iter().map(|number| signed(*number)).collect::<Result<_, _>>()?;
        let done = sqlx::query(
            "update lakegauge.dead_letter set closed_at = now(), closed_as = $2, note = $3 \
             where number = any($1) and closed_at is null",
        )
        .bind(numbers)
        .bind(ClosedAs::Dropped.code())
        .bind(note)
        .execute(&mut self.connection)
        .await
        .doing("dropping dead letters")?;
        Ok(done.rows_affected())
    }
}

/// The event in a counted dead letter, with its position.
fn placed(letter: &DeadLetter) -> Result<Placed, StoreError> {
    let decoded = wire::json::decode_line(&letter.bytes).map_err(|undecoded| {
        StoreError::Inconsistent(format!(
            "the counted dead letter {} is not an event: {}",
            letter.number, undecoded.refusal
        ))
    })?;
    // This program wrote the bytes, including the id.
    let event = decoded.or_id(|| EventId::from_bytes([0; 16]));
    Ok(Placed { position: letter.position, broker_ns: letter.broker_ns, source: None, event })
}

const PAGE: &str = "
select letter.number, stream.name, source.name as source, letter.epoch, letter.sequence, letter.index, letter.broker_ns,
    letter.received_at, letter.reason, letter.field, letter.detail, letter.sqlstate,
    letter.counted, letter.occurred_at, letter.id, substring(letter.bytes from 1 for $2) as bytes,
    octet_length(letter.bytes) as bytes_total, letter.header_bytes, letter.closed_as, letter.closed_at,
    letter.attempts, letter.note
from lakegauge.dead_letter as letter
join lakegauge.stream on stream.id = letter.stream
left join lakegauge.source on source.stream = letter.stream and source.number = letter.source
where letter.number > $1
    and ($3::bigint[] is null or letter.number = any($3))
    and ($4::smallint is null or letter.reason = $4)
    and ($5::text is null or stream.name = $5)
    and ($6::timestamptz is null or letter.received_at >= $6)
    and ($7::boolean is null or (letter.closed_at is null) = $7)
order by letter.number limit $8";

fn letter(row: &PgRow) -> Result<DeadLetter, StoreError> {
    let closed: Option<i16> = read(row, "closed_as").doing(DOING)?;
    let closed = closed.map(closed_as).transpose()?;
    read_letter(row, closed).doing(DOING)
}

fn read_letter(row: &PgRow, closed: Option<ClosedAs>) -> Result<DeadLetter, sqlx::Error> {
    let occurred_at: Option<Timestamp> = read(row, "occurred_at")?;
    Ok(DeadLetter {
        number: read(row, "number")?,
        stream: read(row, "name")?,
        source: read(row, "source")?,
        position: position(row)?,
        broker_ns: read(row, "broker_ns")?,
        received_at: read(row, "received_at")?,
        reason: read(row, "reason")?,
        field: read(row, "field")?,
        detail: read(row, "detail")?,
        sqlstate: read(row, "sqlstate")?,
        counted: read(row, "counted")?,
        identity: occurred_at.zip(read(row, "id")?),
        bytes: read(row, "bytes")?,
        bytes_total: read::<u32>(row, "bytes_total")?.into(),
        header_bytes: usize::try_from(row.try_get::<i32, _>("header_bytes")?).unwrap_or(0),
        closed: closed.zip(read(row, "closed_at")?),
        attempts: read(row, "attempts")?,
        note: read(row, "note")?,
    })
}

fn closed_as(code: i16) -> Result<ClosedAs, StoreError> {
    ClosedAs::ALL.into_iter().find(|closed| closed.code() == code).ok_or_else(|| {
        StoreError::Version(format!("a dead letter was closed as {code}, unknown to this release"))
    })
}
