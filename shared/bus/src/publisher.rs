//! The publisher: a bounded window of unconfirmed messages, every acknowledgement awaited.

use std::fmt;
use std::sync::{Arc, atomic::Ordering};
use std::time::Duration;

use async_nats::jetstream::{
    self,
    context::{PublishAckFuture, PublishError, PublishErrorKind},
    message::PublishMessage,
    publish::PublishAck,
};
use service_kit::FailPoint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use wire::Sealed;

use crate::{
    api,
    confirmation::{Confirmation, FirstFailure},
    connection::{Bus, small_payload},
    error::{BusError, Recovery, server_recovery},
    progress::{PublishProgress, tell},
    unconfirmed::{NO_ANSWER, NOT_CONNECTED},
};

/// The stream is full: of messages or of bytes.
const STREAM_FULL: u64 = 10_077;
/// Codes of a full stream, or of an account or server whose storage is used up.
const FULL: [u64; 3] = [STREAM_FULL, 10_047, 10_023];

/// The unit of the window in bytes, so that the number of permits fits into 32 bits.
const WINDOW_UNIT_BYTES: usize = 1_024;

static SENT: FailPoint = FailPoint::new("bus.sent");
static ACKNOWLEDGED: FailPoint = FailPoint::new("bus.acknowledged");

/// Called with each acknowledgement.
type Observer = Box<dyn Fn(&Acknowledged<'_>) + Send + Sync>;

/// How much may be unconfirmed, and how retries are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublisherLimits {
    /// Messages sent and not yet acknowledged. 256 keep a server on the same machine busy; a larger
    /// window helps over long distances.
    pub unconfirmed_max: usize,
    /// Bytes sent and not yet acknowledged: how much is held in memory while the stream is full.
    pub unconfirmed_bytes_max: usize,
    /// The wait before the first retry of a message; it doubles with each further retry.
    pub retry_backoff_min: Duration,
    /// The longest wait between two retries. A full stream is probed at least this often.
    pub retry_backoff_max: Duration,
}

impl Default for PublisherLimits {
    fn default() -> Self {
        Self {
            unconfirmed_max: 256,
            unconfirmed_bytes_max: 32 * 1_024 * 1_024,
            retry_backoff_min: Duration::from_millis(50),
            retry_backoff_max: Duration::from_secs(1),
        }
    }
}

/// A message that the server has stored.
#[derive(Debug)]
pub struct Acknowledged<'a> {
    /// What was published.
    pub sealed: &'a Sealed,
    /// The message's sequence in its stream.
    pub sequence: u64,
    /// The server already had the message: an earlier attempt was stored and its answer lost, or
    /// somebody published the same bytes before.
    pub duplicate: bool,
}

/// What was confirmed since the publisher was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Messages that are stored, duplicates among them.
    pub stored: u64,
    /// Messages that the server already had.
    pub duplicates: u64,
    /// Events in the stored messages.
    pub events: u64,
}

/// Publishes sealed messages to one stream.
///
/// First attempts are sent in the order of [`Publisher::publish`]; a message that has to be sent
/// again is stored after its successors. Every attempt sends the same bytes under the same id, so
/// that a message is stored once within the stream's duplicate window, even if an answer is lost. A
/// server that was restarted may accept only smaller messages than before. A message that became
/// too large is then sent in parts, and counts as acknowledged when all parts are.
///
/// Dropping the publisher gives up what is not confirmed: call [`Publisher::flush`] first.
pub struct Publisher {
    inner: Arc<Inner>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("progress", &self.inner.progress).finish_non_exhaustive()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.inner.dropped.cancel();
    }
}

struct Inner {
    bus: Bus,
    limits: PublisherLimits,
    acknowledged: Observer,
    progress: Arc<PublishProgress>,
    window: Arc<Semaphore>,
    window_bytes: Arc<Semaphore>,
    /// The first error that no retry can correct.
    failure: FirstFailure,
    /// Held by the one message that probes a full stream; the others wait for it.
    probe: tokio::sync::Mutex<()>,
    dropped: CancellationToken,
}

/// A message's place in the window, given back when this is dropped.
struct WindowPlace {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    progress: Arc<PublishProgress>,
    /// Identifies the message among those that are on their way.
    number: u64,
}

impl Drop for WindowPlace {
    fn drop(&mut self) {
        self.progress.underway.end(self.number);
    }
}

impl Bus {
    /// Creates a publisher. `acknowledged` is called for each message once the server has stored
    /// it, from the task that received the acknowledgement: it must not block.
    ///
    /// Use one publisher per stream, because a full stream delays all messages of its publisher.
    pub fn publisher(
        &self,
        limits: PublisherLimits,
        acknowledged: impl Fn(&Acknowledged<'_>) + Send + Sync + 'static,
    ) -> Publisher {
        let bytes = limits.unconfirmed_bytes_max.div_ceil(WINDOW_UNIT_BYTES).max(1);
        let progress = Arc::new(PublishProgress::new(self.settings().unconfirmed_after));
        let dropped = CancellationToken::new();
        let telling = tell(Arc::clone(&progress));
        let until = dropped.clone();
        tokio::spawn(async move { until.run_until_cancelled(telling).await });
        Publisher {
            inner: Arc::new(Inner {
                bus: self.clone(),
                acknowledged: Box::new(acknowledged),
                progress,
                window: Arc::new(Semaphore::new(limits.unconfirmed_max.max(1))),
                window_bytes: Arc::new(Semaphore::new(bytes)),
                failure: FirstFailure::default(),
                probe: tokio::sync::Mutex::new(()),
                dropped,
                limits,
            }),
        }
    }
}

impl Publisher {
    /// Waits for room in the window, then sends a message. Returns when the message is sent, not
    /// when it is stored. If the call is dropped, the message may or may not have been sent, and
    /// its acknowledgement is not reported.
    ///
    /// # Errors
    ///
    /// The first error of any message of this publisher that no retry can correct; nothing is sent
    /// after it. For problems that end by themselves, a full stream or a lost server, the call
    /// waits.
    pub async fn publish(&self, sealed: Sealed) -> Result<(), BusError> {
        self.hand_over(sealed).await.map(drop)
    }

    /// Sends a message as [`Publisher::publish`] does, for one who awaits the acknowledgement of this
    /// message and of no other.
    ///
    /// # Errors
    ///
    /// As [`Publisher::publish`].
    pub async fn hand_over(&self, sealed: Sealed) -> Result<Confirmation, BusError> {
        let place = self.place(&sealed).await?;
        let number = place.number;
        let sent = self.inner.send(&sealed).await;
        SENT.pass();
        let inner = Arc::clone(&self.inner);
        let (tell, confirmation) = Confirmation::new(inner.failure.clone());
        // Each acknowledgement has a task of its own: its timeout runs from when it is first
        // polled, and one task that awaits them in turn adds the timeouts up.
        tokio::spawn(async move {
            let dropped = inner.dropped.clone();
            tokio::select! {
                () = dropped.cancelled() => {}
                stored = inner.settle(sealed, number, sent) => if stored {
                    // Nobody listens any more where the receiver is gone.
                    tell.send(()).unwrap_or_default();
                }
            }
            drop(place);
        });
        Ok(confirmation)
    }

    /// Waits until everything that was published before is confirmed.
    ///
    /// # Errors
    ///
    /// The first error that no retry can correct. While the stream is full or the server away, the
    /// call waits without a limit: the caller must bound it.
    pub async fn flush(&self) -> Result<Confirmed, BusError> {
        let all = u32::try_from(self.inner.limits.unconfirmed_max.max(1)).unwrap_or(u32::MAX);
        let everything = self.inner.window.acquire_many(all).await;
        drop(everything.map_err(|_| BusError::publisher_ended())?);
        self.inner.failure.check()?;
        Ok(self.confirmed())
    }

    /// What was confirmed so far.
    pub fn confirmed(&self) -> Confirmed {
        let progress = &self.inner.progress;
        Confirmed {
            stored: progress.messages(),
            duplicates: progress.duplicates(),
            events: progress.events(),
        }
    }

    /// The state of the publisher, for metrics and readiness.
    pub fn progress(&self) -> Arc<PublishProgress> {
        Arc::clone(&self.inner.progress)
    }

    async fn place(&self, sealed: &Sealed) -> Result<WindowPlace, BusError> {
        let bytes = sealed.payload.len();
        let inner = &self.inner;
        inner.failure.check()?;
        // A message above the limit gets the whole window, because otherwise it would wait forever.
        let units_max = inner.limits.unconfirmed_bytes_max.div_ceil(WINDOW_UNIT_BYTES).max(1);
        let units = bytes.div_ceil(WINDOW_UNIT_BYTES).min(units_max);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let message = Arc::clone(&inner.window).acquire_owned().await;
        let bytes = Arc::clone(&inner.window_bytes).acquire_many_owned(units).await;
        let (Ok(message), Ok(bytes)) = (message, bytes) else {
            return Err(BusError::publisher_ended());
        };
        inner.failure.check()?;
        let progress = Arc::clone(&inner.progress);
        let number = progress.underway.begin(&sealed.subject);
        Ok(WindowPlace { _message: message, _bytes: bytes, progress, number })
    }
}

impl Inner {
    async fn send(&self, sealed: &Sealed) -> Result<PublishAckFuture, PublishError> {
        let message = PublishMessage::build()
            .payload(sealed.payload.clone())
            .header(wire::headers::CONTENT_TYPE, sealed.content_type.as_ref())
            .message_id(sealed.message_id.as_str());
        self.bus.context.send_publish(sealed.subject.clone(), message).await
    }

    /// Delivers a message until it is acknowledged (`true`), or fails with an error that no retry can
    /// correct; then it is not stored.
    async fn settle(
        &self,
        sealed: Sealed,
        number: u64,
        sent: Result<PublishAckFuture, PublishError>,
    ) -> bool {
        let answer = confirm(sent).await;
        let ack = self.deliver(&sealed, number, answer).await;
        if let Some(ack) = &ack {
            self.store(&sealed, ack);
        }
        ack.is_some()
    }

    /// Sends until the server acknowledges; `None` after an error that no retry can correct.
    async fn deliver(
        &self,
        sealed: &Sealed,
        number: u64,
        mut answer: Result<PublishAck, PublishError>,
    ) -> Option<PublishAck> {
        let mut backoff = self.limits.retry_backoff_min;
        loop {
            let error = match answer {
                Ok(ack) => return Some(ack),
                Err(error) => error,
            };
            match self.judge(sealed, &error) {
                FailedAttempt::Full(why) => {
                    self.progress.underway.failed(number, why);
                    self.note_full(sealed, &error);
                    answer = self.probe(sealed, backoff).await;
                }
                FailedAttempt::Again(why) => {
                    self.progress.underway.failed(number, why);
                    tokio::time::sleep(backoff).await;
                    self.bus.connected().await;
                    answer = self.again(sealed).await;
                }
                FailedAttempt::InParts(parts) => return self.deliver_parts(&parts, number).await,
                FailedAttempt::Never(failure) => {
                    self.fail(failure);
                    return None;
                }
            }
            backoff = backoff.saturating_mul(2).min(self.limits.retry_backoff_max);
        }
    }

    /// Sends a message that is too large for the server now, part after part; each part is
    /// acknowledged before the next one is sent. Returns the last acknowledgement.
    async fn deliver_parts(&self, parts: &[Sealed], number: u64) -> Option<PublishAck> {
        let mut last = None;
        for part in parts {
            let answer = confirm(self.send(part).await).await;
            // Meanwhile the server may have been restarted with an even smaller limit.
            last = Some(Box::pin(self.deliver(part, number, answer)).await?);
        }
        last
    }

    /// Sends again after a wait, one message at a time, until the stream has room.
    async fn probe(&self, sealed: &Sealed, backoff: Duration) -> Result<PublishAck, PublishError> {
        let turn = self.probe.lock().await;
        if self.progress.is_full() {
            tokio::time::sleep(backoff).await;
            self.bus.connected().await;
            let answer = self.again(sealed).await;
            if answer.is_ok() {
                // Before the next message in turn checks whether the stream is full.
                self.note_room(sealed);
            }
            drop(turn);
            answer
        } else {
            drop(turn);
            self.again(sealed).await
        }
    }

    async fn again(&self, sealed: &Sealed) -> Result<PublishAck, PublishError> {
        self.progress.retries.fetch_add(1, Ordering::Relaxed);
        confirm(self.send(sealed).await).await
    }

    fn store(&self, sealed: &Sealed, ack: &PublishAck) {
        ACKNOWLEDGED.pass();
        let progress = &self.progress;
        self.note_room(sealed);
        let events = u64::try_from(sealed.events).unwrap_or(u64::MAX);
        (self.acknowledged)(&Acknowledged {
            sealed,
            sequence: ack.sequence,
            duplicate: ack.duplicate,
        });
        progress.messages.fetch_add(1, Ordering::Relaxed);
        progress.events.fetch_add(events, Ordering::Relaxed);
        if ack.duplicate {
            progress.duplicates.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn judge(&self, sealed: &Sealed, error: &PublishError) -> FailedAttempt {
        let what = || format!("publish to {}", sealed.subject);
        let unpublishable = |detail: String| {
            FailedAttempt::Never(BusError::Unpublishable {
                subject: sealed.subject.clone(),
                message_id: sealed.message_id.clone(),
                detail,
            })
        };
        match error.kind() {
            PublishErrorKind::TimedOut => match self.bus.denial(&sealed.subject) {
                Some(detail) => FailedAttempt::Never(BusError::Forbidden { detail }),
                None if self.bus.is_connected() => FailedAttempt::Again(NO_ANSWER.to_owned()),
                None => FailedAttempt::Again(NOT_CONNECTED.to_owned()),
            },
            PublishErrorKind::StreamNotFound => FailedAttempt::Again(format!(
                "no stream takes {}; `lakegauge streams` makes those that are missing",
                sealed.subject
            )),
            PublishErrorKind::BrokenPipe => FailedAttempt::Again(NOT_CONNECTED.to_owned()),
            PublishErrorKind::MaxAckPending => FailedAttempt::Again(error.to_string()),
            PublishErrorKind::MaxPayloadExceeded => self.judge_size(sealed),
            PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence
            | PublishErrorKind::Other => match server_code(error) {
                Some((_, code)) if FULL.contains(&code) => {
                    FailedAttempt::Full(full(code).to_owned())
                }
                Some((status, _)) => match server_recovery(status) {
                    Recovery::Retry => {
                        FailedAttempt::Again(api::client_error(error, &what()).to_string())
                    }
                    Recovery::Skip | Recovery::Stop => {
                        FailedAttempt::Never(api::client_error(error, &what()))
                    }
                },
                // This is no answer of JetStream: an illegal subject, or a reply that is no
                // acknowledgement.
                None => unpublishable(error.to_string()),
            },
        }
    }

    /// What to do with a message that is larger than the server accepts. The limit may change each
    /// time that the server is started.
    fn judge_size(&self, sealed: &Sealed) -> FailedAttempt {
        if let Some(detail) = small_payload(self.bus.max_payload()) {
            return FailedAttempt::Again(format!("NATS {detail}"));
        }
        match wire::cut(sealed, self.bus.taken_bytes_max()) {
            // One part may be as large as the whole, if the body fits but our headers don't.
            Some(parts) if parts.len() > 1 => FailedAttempt::InParts(parts),
            Some(_) | None => FailedAttempt::Never(BusError::Unpublishable {
                subject: sealed.subject.clone(),
                message_id: sealed.message_id.clone(),
                detail: format!(
                    "{} bytes that can't be cut, and the server takes {}; raise max_payload in \
                     nats-server.conf",
                    sealed.payload.len(),
                    self.bus.max_payload()
                ),
            }),
        }
    }

    fn note_full(&self, sealed: &Sealed, error: &PublishError) {
        self.progress.full_waits.fetch_add(1, Ordering::Relaxed);
        if !self.progress.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                subject = sealed.subject,
                answer = %api::client_error(error, "publish"),
                "the stream is full: publishing waits until its readers make room"
            );
        }
    }

    fn note_room(&self, sealed: &Sealed) {
        if self.progress.full.swap(false, Ordering::Relaxed) {
            tracing::info!(subject = sealed.subject, "the stream has room again");
        }
    }

    fn fail(&self, failure: BusError) {
        tracing::error!(error = %failure, "publishing ends");
        self.failure.record(failure);
    }
}

/// What to do about a failed attempt, and why it failed.
enum FailedAttempt {
    Full(String),
    Again(String),
    InParts(Vec<Sealed>),
    Never(BusError),
}

/// What is full, and what makes room.
const fn full(code: u64) -> &'static str {
    match code {
        STREAM_FULL => {
            "the stream is full: it has room again when archiver and aggregator have passed what it \
             holds (are both ready?); NATS_EVENT_STREAM_MAX_BYTES makes it larger"
        }
        _ => {
            "the stream is full, since the storage of its account or server is used up: raise the \
             account's max_file or the server's max_file_store"
        }
    }
}

async fn confirm(sent: Result<PublishAckFuture, PublishError>) -> Result<PublishAck, PublishError> {
    sent?.await
}

/// The server's answer: a code like HTTP's, and JetStream's own.
fn server_code(error: &PublishError) -> Option<(u16, u64)> {
    let source = std::error::Error::source(error)?;
    let answer = source.downcast_ref::<jetstream::Error>()?;
    Some((u16::try_from(answer.code()).unwrap_or(u16::MAX), answer.error_code().0))
}
