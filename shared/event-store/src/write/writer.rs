//! The writer of one stream: holds its lock, keeps its checkpoint, appends batches.

use std::{sync::Arc, time::Duration};

use domain::{BrokerSide, Mark, Meeting, Rules, Seen};
use sqlx::PgConnection;
use tokio::sync::watch;
use uuid::Uuid;
use wire::snapshot::encode_runs;

use crate::{
    checkpoint::{self, Checkpoint},
    error::StoreError,
    identity::pipeline,
    numbers::signed_32,
    partitions::create::Partitions,
    read::seen,
    schema::migrate,
    settings::connection::StoreSettings,
    sqlstate::SqlRecovery,
    stream_id::StreamId,
    write::{
        appended::Appended,
        batch::Batch,
        sources::{self, Sources},
        stream_lock,
        transaction::{self, Path},
    },
};

/// Attempts at one batch before an error is returned: the first, one after a partition was created,
/// one on the careful path, and one more for a partition dropped in between.
const ATTEMPTS_MAX: u32 = 4;

/// The only writer of one stream. Dropping it releases the lock.
#[derive(Debug)]
pub struct Archive {
    settings: StoreSettings,
    name: String,
    stream: StreamId,
    /// Distinguishes this writer from every other.
    token: Uuid,
    /// Number of the batch that is being appended. A repeated attempt has the same number.
    transaction: u64,
    session: Option<Session>,
    checkpoint: Option<Checkpoint>,
    /// The result of the last attempt, if its commit was not answered.
    unanswered: Option<Appended>,
    waiting_for: Arc<watch::Sender<Option<String>>>,
    /// The broker whose events are written; `None` accepts any.
    broker: Option<BrokerSide>,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: PgConnection,
    pub(crate) partitions: Partitions,
}

impl Archive {
    /// Opens a stream for writing, after waiting for its lock. `waiting_for` contains the holder
    /// meanwhile.
    ///
    /// `token` must be random, because it distinguishes this writer from every other, also after a
    /// restart. `broker` is the one whose events are written: after the lock was taken, and at each
    /// new connection, the archive must name the broker's pipeline.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, does not have the schema that this program needs, or keeps
    /// the events of another broker.
    pub async fn open(
        settings: &StoreSettings,
        name: &str,
        token: [u8; 16],
        waiting_for: Arc<watch::Sender<Option<String>>>,
        broker: Option<BrokerSide>,
    ) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        let mut connection = settings.connect_as_archiver().await?;
        let stream = StreamId::find_or_insert(&mut connection, name).await?;
        let mut archive = Self {
            settings: settings.clone(),
            name: name.to_owned(),
            stream,
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

    /// The stream, for [`crate::BatchBuilder::new`].
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How far the stream is archived; `None` if nothing was archived yet.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The sets of identities at the checkpoint: the sequenced ids from the checkpoint itself, the
    /// derived ones from rows and counted dead letters.
    ///
    /// # Errors
    ///
    /// The database cannot be read, or the checkpoint was written by a program that this one does
    /// not know.
    pub async fn seen(&mut self, rules: &Rules) -> Result<Seen, StoreError> {
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(Seen::new(rules)) };
        let mut session = self.take_session().await?;
        let seen = seen::read(&mut session.connection, self.stream, &checkpoint, rules).await?;
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
    /// all, only its result is returned. Dropping the future ends the connection, and leaves the
    /// archive either without the batch or with all of it.
    ///
    /// # Errors
    ///
    /// The database failed ([`StoreError::recovery`] decides what to do), or another writer moved
    /// the checkpoint ([`StoreError::Fenced`]).
    pub async fn append(&mut self, batch: &Batch) -> Result<Appended, StoreError> {
        let mut path = if batch.doubtful.is_empty() { Path::Copy } else { Path::CopyAndInsert };
        for attempt in 1.. {
            let error = match self.attempt(batch, path).await {
                Ok(appended) => return Ok(appended),
                Err(error) => error,
            };
            match error.recovery() {
                _ if attempt >= ATTEMPTS_MAX => return Err(error),
                SqlRecovery::Duplicate | SqlRecovery::IsolateRow if path != Path::Insert => {
                    tracing::warn!(stream = %self.name, %error, "inserting on the careful path");
                    path = Path::Insert;
                }
                // A new connection knows no partitions, and creates those that are missing.
                SqlRecovery::MakePartition => {
                    tracing::info!(stream = %self.name, %error, "trying again");
                }
                SqlRecovery::Duplicate
                | SqlRecovery::IsolateRow
                | SqlRecovery::Retry
                | SqlRecovery::RetryAlarm
                | SqlRecovery::Pause
                | SqlRecovery::Stop => return Err(error),
            }
        }
        Err(StoreError::Inconsistent("no attempt was made".to_owned()))
    }

    /// Closes the epoch of the checkpoint and begins a new one at `start`, before its first
    /// message. `newest` is the last sequence that the closed epoch is known to have had: its
    /// messages after the checkpoint are declared lost in the same transaction. Returns how many
    /// these are.
    ///
    /// # Errors
    ///
    /// The errors of [`Archive::append`]; or the epoch is not above the last one.
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
        let moved =
            transaction::epoch(&mut session.connection, self.stream, old.as_ref(), &new, newest);
        if !self.in_time("beginning an epoch", moved).await? {
            drop(session);
            return Err(self.fenced().await);
        }
        self.session = Some(session);
        self.checkpoint = Some(new);
        Ok(old.map_or(0, |old| newest.saturating_sub(old.mark.sequence)))
    }

    /// The last closed epoch, and the sequence up to which it is archived or declared lost; `None`
    /// if the first epoch is still open.
    ///
    /// # Errors
    ///
    /// The errors of [`Archive::append`].
    pub async fn closed_epoch(&mut self) -> Result<Option<(u32, u64)>, StoreError> {
        let mut session = self.take_session().await?;
        let closed = transaction::closed_epoch(&mut session.connection, self.stream);
        let closed = self.in_time("asking for the closed epoch", closed).await?;
        self.session = Some(session);
        Ok(closed)
    }

    /// Declares messages of a closed epoch lost that became known later, both ends included.
    ///
    /// # Errors
    ///
    /// The errors of [`Archive::append`].
    pub async fn declare_lost(&mut self, epoch: u32, lost: (u64, u64)) -> Result<(), StoreError> {
        let mut session = self.take_session().await?;
        let epoch = signed_32(epoch)?;
        let declared = transaction::declare_lost(&mut session.connection, self.stream, epoch, lost);
        self.in_time("declaring a loss", declared).await?;
        self.session = Some(session);
        Ok(())
    }

    /// One attempt. Any error, and dropping the future, ends the connection.
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
        let written = transaction::write(
            &mut session.connection,
            batch,
            path,
            self.checkpoint.as_ref(),
            (self.token, self.transaction),
        );
        let Some(written) = self.in_time("archiving a batch", written).await? else {
            // Releases the lock, which the next connection needs.
            drop(session);
            return Err(self.fenced().await);
        };
        self.unanswered = Some(written.appended.clone());
        let committed = transaction::commit(&mut session.connection);
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

    /// The connection. If there was none, a new one takes the lock and reads the checkpoint again.
    pub(crate) async fn take_session(&mut self) -> Result<Session, StoreError> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let connection = self.settings.connect_as_archiver().await?;
        let (session, checkpoint) = self.begin_session(connection).await?;
        self.checkpoint = checkpoint;
        Ok(session)
    }

    /// Returns the session for reuse; otherwise it is closed, and the lock is released.
    pub(crate) fn give_session(&mut self, session: Session) {
        self.session = Some(session);
    }

    async fn begin_session(
        &self,
        mut connection: PgConnection,
    ) -> Result<(Session, Option<Checkpoint>), StoreError> {
        self.lock(&mut connection).await?;
        if let Some(broker) = &self.broker {
            let archive = pipeline::read(&mut connection).await?;
            if domain::meet(broker, &archive)? == Meeting::NamePipeline {
                return Err(StoreError::Inconsistent(format!(
                    "archive {} has forgotten its pipeline {}",
                    archive.id, broker.pipeline.id
                )));
            }
        }
        let partitions = Partitions::load(&mut connection).await?;
        let checkpoint = checkpoint::load(&mut connection, self.stream).await?;
        Ok((Session { connection, partitions }, checkpoint))
    }

    /// Waits for the stream's lock and reports its holder.
    async fn lock(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let mut taken = stream_lock::try_take(connection, self.stream.id).await?;
        while !taken {
            let holder = stream_lock::holder(connection, self.stream.id).await?;
            tracing::info!(stream = %self.name, %holder, "waiting for the lock of the stream");
            self.waiting_for.send_replace(Some(holder));
            taken = stream_lock::wait(connection, self.stream.id).await?;
        }
        self.waiting_for.send_replace(None);
        Ok(())
    }

    /// The error after another writer moved the checkpoint, with its position now.
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

    /// Waits for an answer, but not longer than the limit, even if the network loses it.
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
