//! The writer of one stream: holds its lock, knows its checkpoint, appends batches.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use domain::{
    BrokerSide, EventId, IdKind, Identity, Mark, Meeting, Rules, Seen, Timestamp, seen::Derived,
};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection, Row};
use tokio::sync::watch;
use uuid::Uuid;
use wire::snapshot::{decode_runs, encode_runs};

use crate::{
    append::{self, Path},
    batch::{Batch, StreamId},
    checkpoint::{self, Checkpoint},
    error::{Doing, StoreError, signed, signed_32},
    identity, migrate,
    partitions::Partitions,
    pg::Timestamptz,
    retention::StoredBase,
    settings::StoreSettings,
    sources::{self, Sources},
    sqlstate::Recovery,
};

/// First half of the key of a stream's lock; the second is the stream's number.
pub(crate) const LOCK_CLASS: i32 = 0x6c61_6b65;

/// Attempts at one batch before an error is given back: the first, one after a partition was made,
/// one on the careful path, and one more for a partition dropped in between.
const ATTEMPTS_MAX: u32 = 4;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Rows that are in the archive now and were not before.
    pub inserted: u64,
    /// Events, letters and samples that were known already.
    pub duplicates: u64,
    /// Dead letters, those of refused rows included.
    pub dead: u64,
    /// Of the rows inserted, those too old to judge; they got the verdict numbers up to
    /// `next_verdict`.
    pub too_old: u64,
    /// The verdict number that is next.
    pub next_verdict: u64,
    /// The highest verdict number that is noted.
    pub noted_verdict: u64,
    /// Alarm: verdicts that are out of turn, were never given, or speak of another event; ignored.
    pub verdicts_out_of_turn: u64,
    /// Alarm: rows that the sets called new and the key called known.
    pub known_though_new: u64,
    /// Alarm: samples whose values differ from those archived for the same position.
    pub samples_differing: u64,
    /// Rows that the server refused; each is a dead letter.
    pub refused: u64,
}

/// The only writer of one stream. Dropping it gives the lock back.
#[derive(Debug)]
pub struct Archive {
    settings: StoreSettings,
    name: String,
    stream: StreamId,
    /// Tells this writer from every other.
    token: Uuid,
    /// Number of the batch that is being appended. Another attempt has the same.
    transaction: u64,
    session: Option<Session>,
    checkpoint: Option<Checkpoint>,
    /// What the last attempt would have done, had its commit been answered.
    unanswered: Option<Appended>,
    waiting_for: Arc<watch::Sender<Option<String>>>,
    /// Whose events are written; whatever comes, if none.
    broker: Option<BrokerSide>,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: PgConnection,
    pub(crate) partitions: Partitions,
}

impl Archive {
    /// Opens a stream for writing, once nobody else does: waits for its lock. `waiting_for` says
    /// who holds it meanwhile.
    ///
    /// `token` tells this writer from every other, also after a restart: random. `broker` is the one
    /// whose events are to be written: once the lock is held, and with each new connection after
    /// that, the archive must name its pipeline.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, is not of the version that this program needs, or keeps the
    /// events of another broker.
    pub async fn open(
        settings: &StoreSettings,
        name: &str,
        token: [u8; 16],
        waiting_for: Arc<watch::Sender<Option<String>>>,
        broker: Option<BrokerSide>,
    ) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        let mut connection = connect(settings).await?;
        let id = stream_id(&mut connection, name).await?;
        let mut archive = Self {
            settings: settings.clone(),
            name: name.to_owned(),
            stream: StreamId::new(id, name),
            token: Uuid::from_bytes(token),
            transaction: 0,
            session: None,
            checkpoint: None,
            unanswered: None,
            waiting_for,
            broker,
        };
        let (session, checkpoint) = archive.begin_session(connection).await?;
        archive.session = Some(session);
        archive.checkpoint = checkpoint;
        Ok(archive)
    }

    /// The stream, for the builder of a batch.
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How far the stream is archived; none where nothing was yet.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The sets of identities at the checkpoint: the sequenced from the checkpoint itself, the
    /// derived from their rows and counted letters.
    ///
    /// # Errors
    ///
    /// The database cannot be read, or the checkpoint was written by a program unknown to this one.
    pub async fn seen(&mut self, rules: &Rules) -> Result<Seen, StoreError> {
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(Seen::new(rules)) };
        let mut session = self.take_session().await?;
        let seen = read_seen(&mut session.connection, self.stream, &checkpoint, rules).await?;
        self.session = Some(session);
        Ok(seen)
    }

    /// The sources of the stream that the archive knows.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub async fn sources(&mut self) -> Result<Sources, StoreError> {
        let mut session = self.take_session().await?;
        let sources = sources::read(&mut session.connection, self.stream).await?;
        self.session = Some(session);
        Ok(sources)
    }

    /// Appends a batch in one transaction and moves the checkpoint to its end.
    ///
    /// After an error the same batch may be given again: if the transaction was committed after
    /// all, only its answer is given. Dropping the future ends the connection and leaves the
    /// archive as it was, or with the whole batch in it.
    ///
    /// # Errors
    ///
    /// The database failed ([`StoreError::recovery`] says what to do), or another writer moved the
    /// checkpoint ([`StoreError::Fenced`]).
    pub async fn append(&mut self, batch: &Batch) -> Result<Appended, StoreError> {
        let mut path = if batch.doubtful.is_empty() { Path::Copy } else { Path::CopyAndInsert };
        for attempt in 1.. {
            let error = match self.attempt(batch, path).await {
                Ok(appended) => return Ok(appended),
                Err(error) => error,
            };
            match error.recovery() {
                _ if attempt >= ATTEMPTS_MAX => return Err(error),
                Recovery::Duplicate | Recovery::IsolateRow if path != Path::Insert => {
                    tracing::warn!(stream = %self.name, %error, "taking the careful path");
                    path = Path::Insert;
                }
                // A new connection knows of no partition and makes those that are missing.
                Recovery::MakePartition => tracing::info!(stream = %self.name, %error, "again"),
                Recovery::Duplicate
                | Recovery::IsolateRow
                | Recovery::Retry
                | Recovery::RetryAlarm
                | Recovery::Pause
                | Recovery::Stop => return Err(error),
            }
        }
        Err(StoreError::Inconsistent("no attempt was made".to_owned()))
    }

    /// Closes the epoch of the checkpoint and begins a new one at `start`, before its first
    /// message. `newest` is the last sequence that the closed epoch is known to have had: what
    /// stood behind the checkpoint is declared lost in the same transaction. Returns how many
    /// messages that are.
    ///
    /// # Errors
    ///
    /// As [`Archive::append`]; or the epoch is not above the last.
    pub async fn begin_epoch(&mut self, start: Mark, newest: u64) -> Result<u64, StoreError> {
        let mut session = self.take_session().await?;
        let old = self.checkpoint.clone();
        if old.as_ref().is_some_and(|old| start.epoch <= old.mark.epoch) {
            let detail = format!("epoch {} was used already", start.epoch);
            return Err(StoreError::Inconsistent(detail));
        }
        self.transaction += 1;
        let seen = old.as_ref().map_or_else(
            || encode_runs(Seen::new(&Rules::default()).runs()),
            |old| old.seen.clone(),
        );
        let new = Checkpoint {
            mark: start,
            seen,
            derived_floor: old.as_ref().and_then(|old| old.derived_floor),
            next_verdict: old.as_ref().map_or(1, |old| old.next_verdict),
            noted_verdict: old.as_ref().map_or(0, |old| old.noted_verdict),
            writer: self.token,
            writer_transaction: self.transaction,
        };
        let moved = append::epoch(&mut session.connection, self.stream, old.as_ref(), &new, newest);
        if !self.in_time("beginning an epoch", moved).await? {
            drop(session);
            return Err(self.fenced().await);
        }
        self.session = Some(session);
        self.checkpoint = Some(new);
        Ok(old.map_or(0, |old| newest.saturating_sub(old.mark.sequence)))
    }

    /// The epoch that was closed last, and the sequence up to which it is archived or declared
    /// lost; none where the first one is open.
    ///
    /// # Errors
    ///
    /// As [`Archive::append`].
    pub async fn closed_epoch(&mut self) -> Result<Option<(u32, u64)>, StoreError> {
        let mut session = self.take_session().await?;
        let closed = append::closed_epoch(&mut session.connection, self.stream);
        let closed = self.in_time("asking for the closed epoch", closed).await?;
        self.session = Some(session);
        Ok(closed)
    }

    /// Declares messages of a closed epoch lost that became known later, both ends included.
    ///
    /// # Errors
    ///
    /// As [`Archive::append`].
    pub async fn declare_lost(&mut self, epoch: u32, lost: (u64, u64)) -> Result<(), StoreError> {
        let mut session = self.take_session().await?;
        let epoch = signed_32(epoch)?;
        let declared = append::declare_lost(&mut session.connection, self.stream, epoch, lost);
        self.in_time("declaring a loss", declared).await?;
        self.session = Some(session);
        Ok(())
    }

    /// One attempt. Whatever goes wrong, also being dropped, ends the connection.
    async fn attempt(&mut self, batch: &Batch, path: Path) -> Result<Appended, StoreError> {
        let mut session = self.take_session().await?;
        if let Some(appended) = self.was_committed(batch) {
            self.session = Some(session);
            return Ok(appended);
        }
        let known = self.checkpoint.as_ref();
        if known.map(|known| known.mark) != batch.before {
            drop(session);
            return Err(self.fenced().await);
        }
        if self.unanswered.take().is_none() {
            self.transaction += 1;
        }
        let made = session.partitions.ensure(&mut session.connection, &batch.days);
        self.in_time("making partitions", made).await?;
        let written = append::write(
            &mut session.connection,
            batch,
            path,
            self.checkpoint.as_ref(),
            (self.token, self.transaction),
        );
        let Some(written) = self.in_time("archiving a batch", written).await? else {
            // Gives the lock back, which the next connection waits for.
            drop(session);
            return Err(self.fenced().await);
        };
        self.unanswered = Some(written.appended.clone());
        let committed = append::commit(&mut session.connection);
        self.in_time("committing a batch", committed).await?;
        self.unanswered = None;
        self.session = Some(session);
        self.checkpoint = Some(written.checkpoint);
        Ok(written.appended)
    }

    /// Whether the checkpoint is the one that this batch would have written.
    fn was_committed(&mut self, batch: &Batch) -> Option<Appended> {
        let checkpoint = self.checkpoint.as_ref()?;
        let mine = checkpoint.writer == self.token
            && checkpoint.writer_transaction == self.transaction
            && checkpoint.mark == batch.after;
        if mine { self.unanswered.take() } else { None }
    }

    /// The connection; a new one with the lock, if there was none, and then the checkpoint anew.
    pub(crate) async fn take_session(&mut self) -> Result<Session, StoreError> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let connection = connect(&self.settings).await?;
        let (session, checkpoint) = self.begin_session(connection).await?;
        self.checkpoint = checkpoint;
        Ok(session)
    }

    /// Gives it back after its work; without that it is closed, and with it the lock.
    pub(crate) fn give_session(&mut self, session: Session) {
        self.session = Some(session);
    }

    async fn begin_session(
        &self,
        mut connection: PgConnection,
    ) -> Result<(Session, Option<Checkpoint>), StoreError> {
        self.lock(&mut connection).await?;
        if let Some(broker) = &self.broker {
            let archive = identity::read(&mut connection).await?;
            if domain::meet(broker, &archive)? == Meeting::NamePipeline {
                return Err(StoreError::Inconsistent(format!(
                    "archive {} has forgotten its pipeline {}",
                    archive.id, broker.pipeline.id
                )));
            }
        }
        let partitions = Partitions::load(&mut connection).await?;
        let checkpoint = checkpoint::read(&mut connection, self.stream).await?;
        Ok((Session { connection, partitions }, checkpoint))
    }

    /// Waits for the stream's lock and says for whom.
    async fn lock(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let doing = "taking the lock of the stream";
        let mut taken: bool = sqlx::query_scalar("select pg_try_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(i32::from(self.stream.id))
            .fetch_one(&mut *connection)
            .await
            .doing(doing)?;
        while !taken {
            let holder = holder(connection, self.stream.id).await?;
            tracing::info!(stream = %self.name, %holder, "waiting for the lock of the stream");
            self.waiting_for.send_replace(Some(holder));
            let waited = sqlx::query("select pg_advisory_lock($1, $2)")
                .bind(LOCK_CLASS)
                .bind(i32::from(self.stream.id))
                .execute(&mut *connection)
                .await
                .doing(doing);
            match waited {
                Ok(_) => taken = true,
                // The server ended the wait in time; say again for whom, and wait on.
                Err(error) if error.sqlstate().as_deref() == Some("55P03") => {}
                Err(error) => return Err(error),
            }
        }
        self.waiting_for.send_replace(None);
        Ok(())
    }

    /// Where the checkpoint stands now that it is not ours.
    pub(crate) async fn fenced(&mut self) -> StoreError {
        self.session = None;
        match self.take_session().await {
            Ok(session) => {
                self.session = Some(session);
                let (epoch, sequence) = self
                    .checkpoint
                    .as_ref()
                    .map_or((0, 0), |known| (known.mark.epoch, known.mark.sequence));
                StoreError::Fenced { stream: self.name.clone(), epoch, sequence }
            }
            Err(error) => error,
        }
    }

    /// An answer within the limit, also when the network swallows it.
    async fn in_time<T>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit_ms = self.settings.answer_limit_ms();
        tokio::time::timeout(Duration::from_millis(limit_ms), answer)
            .await
            .map_err(|_| StoreError::TimedOut { doing, limit_ms })?
    }
}

/// Who holds the lock of a stream, for people.
pub(crate) async fn holder(
    connection: &mut PgConnection,
    stream: i16,
) -> Result<String, StoreError> {
    let holder: Option<String> = sqlx::query_scalar(
        "select format('%s (process %s of the server)', \
         coalesce(nullif(activity.application_name, ''), 'somebody'), activity.pid) \
         from pg_locks as held join pg_stat_activity as activity on activity.pid = held.pid \
         where held.locktype = 'advisory' and held.granted \
         and held.database = (select oid from pg_database where datname = current_database()) \
         and held.classid::bigint = $1 and held.objid::bigint = $2",
    )
    .bind(i64::from(LOCK_CLASS))
    .bind(i64::from(stream))
    .fetch_optional(connection)
    .await
    .doing("asking who holds the lock")?;
    Ok(holder.unwrap_or_else(|| "somebody".to_owned()))
}

/// A connection as the owner of the tables, whose COPY row level security does not refuse.
pub(crate) async fn connect(settings: &StoreSettings) -> Result<PgConnection, StoreError> {
    let mut connection = settings.connect().await?;
    sqlx::raw_sql("set role lakegauge_archiver")
        .execute(&mut connection)
        .await
        .doing("taking the role lakegauge_archiver")?;
    Ok(connection)
}

/// The short number of a stream, given at its first use.
async fn stream_id(connection: &mut PgConnection, name: &str) -> Result<i16, StoreError> {
    let doing = "naming the stream";
    let mut transaction = connection.begin().await.doing(doing)?;
    sqlx::query("insert into lakegauge.stream (name) values ($1) on conflict do nothing")
        .bind(name)
        .execute(&mut *transaction)
        .await
        .doing(doing)?;
    let id = sqlx::query_scalar("select id from lakegauge.stream where name = $1")
        .bind(name)
        .fetch_one(&mut *transaction)
        .await
        .doing(doing)?;
    transaction.commit().await.doing(doing)?;
    Ok(id)
}

pub(crate) async fn read_seen(
    connection: &mut PgConnection,
    stream: StreamId,
    checkpoint: &Checkpoint,
    rules: &Rules,
) -> Result<Seen, StoreError> {
    let runs = decode_runs(&checkpoint.seen, rules)
        .map_err(|error| StoreError::Version(format!("the checkpoint's set of ids: {error}")))?;
    let mut kept = derived_above(connection, stream, checkpoint.derived_floor).await?;
    // Rows that retention dropped are in the base, and so are their identities: what the
    // aggregator remembers is remembered here too.
    if let Some(base) = StoredBase::read(connection, stream).await? {
        let known = base.state(rules)?;
        let ids = known.seen().derived().kept().iter().copied();
        kept.extend(ids.filter(|id| checkpoint.derived_floor.is_none_or(|floor| *id > floor)));
    }
    let derived = Derived::restore(rules.derived_ids_max, kept, checkpoint.derived_floor);
    Ok(Seen::restore(runs, derived))
}

/// The derived identities above the floor, of rows and of counted letters: as many as the set holds.
pub(crate) async fn derived_above(
    connection: &mut PgConnection,
    stream: StreamId,
    floor: Option<Identity>,
) -> Result<BTreeSet<Identity>, StoreError> {
    let doing = "reading the derived ids back";
    let Some(side) = stream.side else { return Ok(BTreeSet::new()) };
    let (floor_at, floor_id) =
        floor.map_or((i64::MIN, Uuid::nil()), |(at, id)| (at.0, Uuid::from_bytes(*id.as_bytes())));
    // Nothing happened before 1970, and PostgreSQL's time does not reach back to the smallest number.
    let floor_at = Timestamptz(floor_at.max(-1));
    let mut kept = BTreeSet::new();
    let mut rows = sqlx::query(match side {
        domain::Side::Lake => DERIVED_LAKE,
        domain::Side::Warehouse => DERIVED_WAREHOUSE,
    })
    .bind(stream.id)
    .bind(floor_at)
    .bind(floor_id)
    .fetch(connection);
    while let Some(row) = rows.try_next().await.doing(doing)? {
        let at: Timestamptz = row.try_get(0).doing(doing)?;
        let id: Uuid = row.try_get(1).doing(doing)?;
        let id = EventId::from_bytes(*id.as_bytes());
        // Letters of sequenced ids stand among them.
        if matches!(id.kind(), IdKind::Derived) {
            kept.insert((Timestamp(at.0), id));
        }
    }
    Ok(kept)
}

const DERIVED_LAKE: &str = "
select occurred_at, id from (
    select occurred_at, id from lakegauge.lake_access
    where stream = $1 and derived and verdict is null and (occurred_at, id) > ($2, $3)
    union all
    select occurred_at, id from lakegauge.lake_inventory
    where stream = $1 and derived and verdict is null and (occurred_at, id) > ($2, $3)
    union all
    select occurred_at, id from lakegauge.dead_letter
    where stream = $1 and counted and (occurred_at, id) > ($2, $3)
) as known";

const DERIVED_WAREHOUSE: &str = "
select occurred_at, id from (
    select occurred_at, id from lakegauge.warehouse_query
    where stream = $1 and derived and verdict is null and (occurred_at, id) > ($2, $3)
    union all
    select occurred_at, id from lakegauge.dead_letter
    where stream = $1 and counted and (occurred_at, id) > ($2, $3)
) as known";

/// The position before the first message of a stream that was never archived.
pub(crate) fn sequence_of(mark: Option<Mark>) -> Result<i64, StoreError> {
    signed(mark.map_or(0, |mark| mark.sequence))
}
