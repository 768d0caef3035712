//! How far a stream may be trimmed, and trimming it.
//!
//! A stream is trimmed below the archive's checkpoint and the aggregator's snapshot. The message of
//! the checkpoint itself stays, because it proves that the stream is still the same. Messages
//! within the configured time stay, too, unless space is short.

use std::time::Duration;

use bus::{BusError, Comparison, StreamStatus};
use domain::Mark;
use service_kit::{Condition, FailPoint};
use tokio::sync::watch;

use super::{ClosedEpoch, Committed, OrderGuard, StreamContext};

/// Share of a stream's room, in percent, above which messages are no longer kept for the configured
/// time. The other half of the room is for messages that arrive while a service is down.
const SPACE_SHORT_PERCENT: u64 = 50;

/// Share of a stream's room, in percent, above which a stream that cannot be trimmed is reported.
/// The alert LakegaugeStreamNearlyFull has the same threshold.
const NEARLY_FULL_PERCENT: u64 = 80;

static COMPARED: FailPoint = FailPoint::new("archiver.trim_compared");
static TRIMMED: FailPoint = FailPoint::new("archiver.trimmed");

/// The limits of trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrimRules {
    /// Messages younger than this stay as long as there is room.
    pub(super) keep: Duration,
    /// Whether the aggregator's snapshot must have passed a message. True for event streams if an
    /// aggregator is expected.
    pub(super) await_snapshot: bool,
}

/// The result of an attempt to trim.
struct Trimmed {
    /// The sequence below which everything was deleted; `None` if nothing was.
    below: Option<u64>,
    /// Why a stream that is nearly full could not be trimmed.
    held: Option<String>,
}

/// Trims a stream as far as is allowed, periodically.
pub(super) struct Trimmer<'a> {
    pub(super) context: &'a StreamContext,
    pub(super) rules: TrimRules,
    pub(super) interval: Duration,
    /// The epoch that was closed last.
    pub(super) closed: Option<ClosedEpoch>,
    pub(super) commits: watch::Receiver<Committed>,
    pub(super) guard: &'a OrderGuard,
    /// Whether a stream that is nearly full can be trimmed.
    pub(super) condition: Condition,
}

impl Trimmer<'_> {
    /// Trims until the stream seems to be another one, or a message beyond the end of the closed
    /// epoch is known. Returns the reason. Whether the stream is another one is checked against the
    /// checkpoint in the archive: another archiver may have taken over and trimmed since our last
    /// commit.
    pub(super) async fn run(self) -> String {
        let StreamContext { name: stream, bus, .. } = self.context;
        let mut failures = 0_u64;
        loop {
            tokio::time::sleep(self.interval).await;
            let checkpoint = self.commits.borrow().mark;
            match bus.compare(stream, &checkpoint).await.map(Comparison::difference) {
                Ok(Some(why)) => return why,
                Ok(None) => {}
                Err(error) => tracing::debug!(stream, %error, "can't compare yet"),
            }
            if let Some(closed) = &self.closed
                && let Ok(Some(newest)) = closed.late_news(self.context).await
            {
                return format!("epoch {} had messages up to {newest}", closed.epoch());
            }
            match self.trim(&checkpoint).await {
                Ok(trimmed) => {
                    self.tell(trimmed);
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(stream, %error, "not trimmed yet");
                    } else {
                        // One lost response does not matter, so only repeated failures are
                        // reported.
                        self.condition.fail(format!("{stream} is not trimmed: {error}"));
                    }
                }
            }
        }
    }

    fn tell(&self, Trimmed { below, held }: Trimmed) {
        let stream = &self.context.name;
        tracing::debug!(stream, below, "trimmed as far as is allowed");
        self.context.metrics.observe_trim(below);
        match held {
            Some(why) => self.condition.fail(why),
            None => self.condition.pass(format!("{stream}: as far as is allowed")),
        }
    }

    /// Trims once. Trimming again later is always correct.
    async fn trim(&self, checkpoint: &Mark) -> Result<Trimmed, BusError> {
        let StreamContext { name: stream, bus, .. } = self.context;
        let status = bus.stream(stream).await?;
        let allowed = self.allowed(checkpoint).await?;
        let nothing = Trimmed { below: None, held: held(stream, &status, allowed, checkpoint) };
        let Some(allowed) = allowed.filter(|allowed| status.first_sequence < *allowed) else {
            return Ok(nothing);
        };
        let below = match short_of_space(&status, allowed) {
            Some(below) => below,
            None => self.first_kept(&status, allowed).await?,
        };
        if below <= status.first_sequence {
            return Ok(nothing);
        }
        // The message at the checkpoint is compared last, so that nothing of another stream is
        // deleted.
        if bus.compare(stream, checkpoint).await? != Comparison::Same {
            return Ok(nothing);
        }
        COMPARED.pass();
        if !self.guard.may_trim(below) {
            return Ok(nothing);
        }
        bus.trim(stream, below).await?;
        TRIMMED.pass();
        Ok(Trimmed { below: Some(below), held: None })
    }

    /// The sequence below which every reader has finished, if all readers are in one epoch.
    async fn allowed(&self, checkpoint: &Mark) -> Result<Option<u64>, BusError> {
        let StreamContext { name: stream, bus, .. } = self.context;
        if bus.epochs().get(stream).await? != Some(checkpoint.epoch) {
            return Ok(None);
        }
        if !self.rules.await_snapshot {
            return Ok(Some(checkpoint.sequence));
        }
        let snapshot = bus.snapshots().pointer(stream).await?;
        Ok(passed_by_both(checkpoint, snapshot.map(|(pointer, _)| pointer.mark)))
    }

    /// The first sequence that is young enough to be kept, found by bisection on the broker's
    /// timestamps.
    async fn first_kept(&self, status: &StreamStatus, allowed: u64) -> Result<u64, BusError> {
        let StreamContext { name: stream, bus, clock, .. } = self.context;
        let keep_us = i64::try_from(self.rules.keep.as_micros()).unwrap_or(i64::MAX);
        let since_ns = clock.now_us().saturating_sub(keep_us).saturating_mul(1_000);
        bus.first_stored_since(stream, since_ns, status.first_sequence..allowed).await
    }
}

/// Why a stream that is nearly full cannot be trimmed.
fn held(
    stream: &str,
    status: &StreamStatus,
    allowed: Option<u64>,
    checkpoint: &Mark,
) -> Option<String> {
    let room = u64::try_from(status.max_bytes).ok().filter(|room| *room > 0)?;
    let percent = status.bytes.saturating_mul(100) / room;
    if percent < NEARLY_FULL_PERCENT || allowed.is_some_and(|to| to > status.first_sequence) {
        return None;
    }
    let counted = allowed.map_or("no snapshot of the aggregator".to_owned(), |allowed| {
        format!("a snapshot: both have everything below {allowed}")
    });
    Some(format!(
        "{stream} is {percent} % full and can't be trimmed: it begins at sequence {}, the archive \
         has {}, and there is {counted}; is the aggregator ready?",
        status.first_sequence, checkpoint.sequence
    ))
}

/// The sequence below which archive and aggregator have both stored everything. `None` if there is
/// no snapshot of this stream in this epoch.
fn passed_by_both(checkpoint: &Mark, snapshot: Option<Mark>) -> Option<u64> {
    snapshot
        .filter(|mark| mark.epoch == checkpoint.epoch && mark.created_ns == checkpoint.created_ns)
        .map(|mark| mark.sequence.min(checkpoint.sequence))
}

/// The sequence below which to trim if the stream is more than half full: it brings the stream down
/// to half, if all messages have the same size.
fn short_of_space(status: &StreamStatus, allowed: u64) -> Option<u64> {
    let room = u64::try_from(status.max_bytes).ok().filter(|room| *room > 0)?;
    let half = room / 100 * SPACE_SHORT_PERCENT;
    if status.bytes <= half {
        return None;
    }
    let excess = u128::from(status.bytes - half) * u128::from(status.messages);
    let messages = u64::try_from(excess.div_ceil(u128::from(status.bytes))).unwrap_or(u64::MAX);
    Some(status.first_sequence.saturating_add(messages).min(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: u64, max_bytes: i64) -> StreamStatus {
        StreamStatus {
            created_ns: 1,
            first_sequence: 101,
            last_sequence: 200,
            messages: 100,
            bytes,
            max_bytes,
            metadata: std::collections::BTreeMap::new(),
        }
    }

    fn mark(epoch: u32, sequence: u64, created_ns: i64) -> Mark {
        Mark { epoch, sequence, broker_ns: 7, created_ns }
    }

    #[test]
    fn nothing_is_trimmed_that_the_aggregator_has_not_counted_or_the_archive_not_committed() {
        let checkpoint = mark(2, 50, 5);
        assert_eq!(passed_by_both(&checkpoint, Some(mark(2, 30, 5))), Some(30), "counted to 30");
        assert_eq!(passed_by_both(&checkpoint, Some(mark(2, 70, 5))), Some(50), "committed to 50");
        assert_eq!(passed_by_both(&checkpoint, None), None, "nobody knows what was counted");
        let others = [mark(1, 30, 5), mark(3, 30, 5), mark(2, 30, 4)];
        for other in others {
            assert_eq!(passed_by_both(&checkpoint, Some(other)), None, "of another stream");
        }
    }

    #[test]
    fn a_stream_that_is_nearly_full_says_why_nothing_is_trimmed() {
        let checkpoint = mark(1, 190, 5);
        let of = |bytes, allowed| held("LAKE_0", &status(bytes, 1_000), allowed, &checkpoint);
        assert_eq!(of(790, None), None, "there is room");
        assert_eq!(of(900, Some(150)), None, "it can be trimmed");
        assert!(of(900, None).unwrap().contains("no snapshot"));
        assert!(of(900, Some(101)).unwrap().contains("90 % full"));
    }

    #[test]
    fn space_is_short_above_half_and_is_brought_back_to_half() {
        assert_eq!(short_of_space(&status(500, 1_000), 200), None);
        assert_eq!(short_of_space(&status(1_000, 1_000), 200), Some(151));
        assert_eq!(short_of_space(&status(600, 1_000), 200), Some(118));
    }

    #[test]
    fn short_space_never_takes_what_a_reader_still_needs() {
        assert_eq!(short_of_space(&status(1_000, 1_000), 120), Some(120));
    }

    #[test]
    fn a_stream_without_a_bound_is_never_short() {
        assert_eq!(short_of_space(&status(1_000, -1), 200), None);
    }
}
