//! How far a stream may be trimmed, and doing it.
//!
//! Below the archive's checkpoint and the aggregator's snapshot, never the checkpoint's own message
//! (it proves that the stream is still the same), and never within the time that is kept, unless
//! space is short.

use std::time::Duration;

use bus::{Bus, BusError, Comparison, StreamStatus};
use domain::Mark;
use service_kit::FailPoint;

use crate::steps::Steps;

/// Part of a stream's room, in percent, above which the time that is kept no longer counts: half
/// of the room is left for what comes while a service is down.
const SPACE_SHORT_PERCENT: u64 = 50;

static COMPARED: FailPoint = FailPoint::new("archiver.trim_compared");
static TRIMMED: FailPoint = FailPoint::new("archiver.trimmed");

/// What trimming must respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrimRules {
    /// Messages younger than this stay as long as there is room.
    pub(crate) keep: Duration,
    /// Whether the aggregator's snapshot must have passed a message: of event streams, where an
    /// aggregator is wanted.
    pub(crate) await_snapshot: bool,
}

/// Trims a stream as far as is allowed. Returns the sequence below which nothing is left, if
/// something was deleted.
///
/// # Errors
///
/// What the broker may answer; trimming again later is always right.
pub(crate) async fn trim(
    bus: &Bus,
    stream: &str,
    checkpoint: &Mark,
    rules: &TrimRules,
    now_us: i64,
    steps: &Steps,
) -> Result<Option<u64>, BusError> {
    let Some(allowed) = allowed(bus, stream, checkpoint, rules).await? else { return Ok(None) };
    let status = bus.stream(stream).await?;
    if status.first_sequence >= allowed {
        return Ok(None);
    }
    let below = match short_of_space(&status, allowed) {
        Some(below) => below,
        None => older_than(bus, stream, &status, allowed, now_us, rules.keep).await?,
    };
    if below <= status.first_sequence {
        return Ok(None);
    }
    // The message at the checkpoint is compared last: nothing of another stream is deleted.
    if bus.compare(stream, checkpoint).await? != Comparison::Same {
        return Ok(None);
    }
    COMPARED.pass();
    if !steps.may_trim(below) {
        return Ok(None);
    }
    bus.trim(stream, below).await?;
    TRIMMED.pass();
    Ok(Some(below))
}

/// The sequence up to which (exclusive) every reader has passed, if all are in one epoch.
async fn allowed(
    bus: &Bus,
    stream: &str,
    checkpoint: &Mark,
    rules: &TrimRules,
) -> Result<Option<u64>, BusError> {
    if bus.epochs().get(stream).await? != Some(checkpoint.epoch) {
        return Ok(None);
    }
    if !rules.await_snapshot {
        return Ok(Some(checkpoint.sequence));
    }
    let snapshot = bus.snapshots().pointer(stream).await?;
    Ok(snapshot
        .map(|(pointer, _)| pointer.mark)
        .filter(|mark| mark.epoch == checkpoint.epoch && mark.created_ns == checkpoint.created_ns)
        .map(|mark| mark.sequence.min(checkpoint.sequence)))
}

/// Where to trim when the stream is more than half full: as much as brings it down to half, taking
/// messages to be of one size.
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

/// The first sequence that is younger than what is kept, by bisection on the broker's timestamps.
async fn older_than(
    bus: &Bus,
    stream: &str,
    status: &StreamStatus,
    allowed: u64,
    now_us: i64,
    keep: Duration,
) -> Result<u64, BusError> {
    let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let since_ns = now_us.saturating_sub(keep_us).saturating_mul(1_000);
    let (mut low, mut high) = (status.first_sequence, allowed);
    while low < high {
        let middle = low + (high - low) / 2;
        // One that was deleted says nothing of its age; the ones below it are older.
        let young = bus
            .message_at(stream, middle)
            .await?
            .is_some_and(|message| message.broker_ns >= since_ns);
        if young {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
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
