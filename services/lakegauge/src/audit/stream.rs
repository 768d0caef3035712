//! Reads again what the stream still contains of the ledger's messages.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Comparison, Read, ReaderSettings, StreamStatus};
use domain::Stream;
use event_store::audit::StreamLedger;
use service_kit::Clock;

use super::compare::Reread;
use crate::waiting::WaitingMessages;

/// After this time without a message, the broker counts as gone: longer than every heartbeat and
/// backoff of the reader.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A stream before the view of the archive was taken: what was trimmed by then must be archived.
#[derive(Clone, Debug)]
pub(super) struct Before {
    status: StreamStatus,
    epoch: Option<u32>,
}

/// Reads the state of a stream; must be called before the view of the archive is taken.
///
/// # Errors
///
/// The broker can't be read.
pub(super) async fn before(bus: &Bus, name: &str) -> anyhow::Result<Before> {
    Ok(Before { status: bus.stream(name).await?, epoch: bus.epochs().get(name).await? })
}

/// Reads the messages up to the checkpoint. `progress` is called for each message.
///
/// # Errors
///
/// The broker can't be read.
pub(super) async fn reread(
    bus: &Bus,
    before: &Before,
    ledger: &StreamLedger,
    progress: impl Fn(u64),
) -> anyhow::Result<Reread> {
    let name = &ledger.stream;
    let mark = ledger.checkpoint.with_context(|| format!("{name} has no checkpoint"))?;
    let status = &before.status;
    let mut reread = Reread {
        first_sequence: status.first_sequence,
        last_sequence: status.last_sequence,
        epoch: before.epoch,
        ..Reread::default()
    };
    match bus.compare(name, &mark).await? {
        // A running archiver may have passed the checkpoint meanwhile, and trimmed its message.
        Comparison::Same | Comparison::Deleted | Comparison::Purged(_) => {}
        Comparison::Other(why) => reread.other = Some(why),
    }
    reread.waiting =
        WaitingMessages::look(bus, name, mark.sequence, Clock::system().now_us()).await?;
    let is_other = reread.other.is_some() || reread.epoch.is_some_and(|now| now != mark.epoch);
    if is_other || status.messages == 0 || status.first_sequence > mark.sequence {
        return Ok(reread);
    }
    let is_events = Stream::from_name(name).is_some();
    let mut reader =
        bus.reader(ReaderSettings::new(name, "audit", status.first_sequence.saturating_sub(1)));
    loop {
        let read = tokio::time::timeout(SILENCE_MAX, reader.next()).await;
        let delivery = match read.with_context(|| format!("NATS is silent on stream {name}"))?? {
            Read::Message(delivery) => delivery,
            Read::Subscribed(_) | Read::Deleted { .. } => continue,
            Read::Changed(why) => {
                reread.other = Some(why);
                return Ok(reread);
            }
        };
        if delivery.sequence <= mark.sequence {
            let items =
                if is_events { wire::count_items(&delivery.headers, &delivery.payload) } else { 1 };
            count(&mut reread, ledger, delivery.sequence, u64::try_from(items)?);
            progress(1);
        }
        if delivery.sequence >= mark.sequence || delivery.pending == 0 {
            return Ok(reread);
        }
    }
}

/// Adds a message to its range of the epoch that is being archived.
fn count(reread: &mut Reread, ledger: &StreamLedger, sequence: u64, items: u64) {
    let epoch = ledger.checkpoint.map_or(0, |mark| mark.epoch);
    let behind = ledger
        .ranges
        .partition_point(|range| (range.messages.epoch, range.messages.first) <= (epoch, sequence));
    let Some(place) = behind.checked_sub(1) else { return };
    let messages = ledger.ranges[place].messages;
    if messages.epoch == epoch && sequence <= messages.last {
        let (read, counted) = reread.ranges.entry(place).or_default();
        *read += 1;
        *counted += items;
    }
}
