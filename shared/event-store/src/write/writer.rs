//! The writer of one stream: holds its lock, knows its checkpoint, appends batches.

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

/// Attempts at one batch before an error is given back: the first, one after a partition was made,
/// one on the careful path, and one more for a partition dropped in between.
const ATTEMPTS_MAX: u32 = 4;

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

    /// The stream, for the builder of a batch.
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How far the stream is archived; `None` where nothing was yet.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The sets of identities at the checkpoint: the sequenced from the checkpoint itself, the
    /// derived from their rows and counted dead letters.
    ///
    /// # Errors
    ///
    /// The database cannot be read, or the checkpoint was written by a program unknown to this one.
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
                SqlRecovery::Duplicate | SqlRecovery::IsolateRow if path != Path::Insert => {
                    tracing::warn!(stream = %self.name, %error, "taking the careful path");
                    path = Path::Insert;
                }
                // A new connection knows of no partition and makes those that are missing.
                SqlRecovery::MakePartition => tracing::info!(stream = %self.name, %error, "again"),
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

    /// The epoch that was closed last, and the sequence up to which it is archived or declared
    /// lost; `None` where the first one is open.
    ///
    /// # Errors
    ///
    /// As [`Archive::append`].
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
    /// As [`Archive::append`].
    pub async fn declare_lost(&mut self, epoch: u32, lost: (u64, u64)) -> Result<(), StoreError> {
        let mut session = self.take_session().await?;
        let epoch = signed_32(epoch)?;
        let declared = transaction::declare_lost(&mut session.connection, self.stream, epoch, lost);
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
        let written = transaction::write(
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

    /// The connection; a new one with the lock, if there was none, and then the checkpoint anew.
    pub(crate) async fn take_session(&mut self) -> Result<Session, StoreError> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let connection = self.settings.connect_as_archiver().await?;
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

    /// Waits for the stream's lock and says for whom.
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
