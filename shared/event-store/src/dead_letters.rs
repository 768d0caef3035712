//! Dead letters as people work with them: found, read, put where they belong, let go.
//!
//! A dead letter is never deleted. Closing one says how: its row was inserted, it was published
//! again, or it was dropped.

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
/// Dead letters of one page: with their bytes a few megabytes.
const PAGE_LETTERS: i64 = 500;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number, by which people name it.
    pub number: u64,
    /// The stream that it was read from.
    pub stream: String,
    /// Who sent it; `None` where that is not kept.
    pub source: Option<String>,
    /// Where it stood there.
    pub position: Position,
    /// The broker's timestamp of its message, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// When it was kept, by the database's clock.
    pub received_at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// The field at fault.
    pub field: Option<String>,
    /// What exactly is wrong.
    pub detail: String,
    /// What PostgreSQL said when it refused the row.
    pub sqlstate: Option<String>,
    /// Whether the event was counted all the same: only the database refused it.
    pub counted: bool,
    /// Its identity, where it could be read.
    pub identity: Option<EventIdentity>,
    /// Its bytes; as many as were asked for.
    pub bytes: Vec<u8>,
    /// How many bytes it has.
    pub bytes_total: u64,
    /// How many of them, at the beginning, are a header block that could not be read.
    pub header_bytes: usize,
    /// How and when it was closed; nothing while it is open.
    pub closed: Option<(ClosedAs, Timestamp)>,
    /// How often it was retried.
    pub attempts: u32,
    /// What somebody wrote when closing it.
    pub note: Option<String>,
}

impl DeadLetter {
    /// The header block that could not be read, which is mostly empty, and what follows it, as far
    /// as the bytes were asked for.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at_checked(self.header_bytes).unwrap_or((&self.bytes, &[]))
    }
}

/// How a dead letter was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedAs {
    /// Its row was inserted.
    Row,
    /// It was published again and acknowledged.
    Published,
    /// It was let go.
    Dropped,
}

impl ClosedAs {
    const ALL: [Self; 3] = [Self::Row, Self::Published, Self::Dropped];

    /// Its name, as the views say it.
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

/// Which dead letters are meant; what is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only these.
    pub numbers: Option<Vec<u64>>,
    /// Only those that were refused for this.
    pub reason: Option<Reason>,
    /// Only those of this stream.
    pub stream: Option<String>,
    /// Only those kept at this time or later.
    pub since: Option<Timestamp>,
    /// Only open ones, or only closed ones.
    pub open: Option<bool>,
}

/// What became of an attempt to insert a counted dead letter's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowInserted {
    /// The row and its window aggregates are in the archive, and the dead letter is closed.
    Inserted,
    /// It is closed already.
    Closed(ClosedAs),
    /// The database refuses the row still; the dead letter stays open.
    Refused {
        /// What it answers.
        sqlstate: String,
        /// In words.
        message: String,
    },
}

/// The dead letters of an archive.
#[derive(Debug)]
pub struct DeadLetters {
    connection: PgConnection,
}

impl DeadLetters {
    /// To read them.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, or is not of the version that this program needs.
    pub async fn read(settings: &StoreSettings) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        Ok(Self { connection: settings.connect().await? })
    }

    /// To read and to close them, as the role that writes the archive.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::read`]; or the login may not act as that role.
    pub async fn write(settings: &StoreSettings) -> Result<Self, StoreError> {
        settings.refuse_transaction_pooling().await?;
        migrate::check_fit(settings).await?;
        Ok(Self { connection: settings.connect_as_archiver().await? })
    }

    /// The next dead letters after a number, in ascending order; an empty page: there are no more.
    /// Of each at most so many bytes.
    ///
    /// # Errors
    ///
    /// The database failed, or holds a reason that this program does not know.
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

    /// Inserts the row of a counted dead letter, adds it to windows and rollups, and closes the dead
    /// letter: in one transaction, so that a crash leaves either all or nothing. Retrying it twice
    /// inserts once.
    ///
    /// # Errors
    ///
    /// The database failed; the dead letter is not a counted one; or its identity is in the archive
    /// at another place, which must never happen.
    pub async fn insert_row(&mut self, letter: &DeadLetter) -> Result<RowInserted, StoreError> {
        let doing = "inserting the row of a dead letter";
        let number = letter.number;
        if !letter.counted {
            return Err(StoreError::Inconsistent(format!("letter {number} was not counted")));
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
            // The attempt is kept, the rest was undone by the savepoint.
            commit(&mut self.connection).await?;
            let (sqlstate, message) = (refused.sqlstate, refused.message);
            return Ok(RowInserted::Refused { sqlstate, message });
        }
        if outcome.inserted.len() != 1 {
            roll_back(&mut self.connection).await?;
            return Err(StoreError::Inconsistent(format!(
                "the event of letter {number} is in the archive already, at another place: \
                 run `lakegauge audit`"
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

    /// Counts an attempt to publish an open dead letter again, and gives its number, from 1. Before
    /// the message is sent: its id hashes the attempt.
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
            || Err(StoreError::Inconsistent(format!("letter {number} is closed or was counted"))),
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
        Err(StoreError::Inconsistent(format!("letter {number} is closed already")))
    }
}

impl DeadLetters {
    /// Drops those of these that are open, in one statement, and says how many they were: what
    /// somebody else closed meanwhile stays as it was closed.
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

/// The event that a counted dead letter holds, at its place.
fn placed(letter: &DeadLetter) -> Result<Placed, StoreError> {
    let decoded = wire::json::decode_line(&letter.bytes).map_err(|undecoded| {
        StoreError::Inconsistent(format!(
            "the counted letter {} is not an event: {}",
            letter.number, undecoded.refusal
        ))
    })?;
    // Written by us, with its id.
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
