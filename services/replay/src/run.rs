//! A replay run: events of the archive into streams of their own, in counting order.
//!
//! One message of a stream is under way at a time. If more were, a message that must be sent again
//! (because the stream was full or a response was lost) would be stored after its successors, and
//! the aggregator that counts the run ignores positions that it has passed. The last message of a
//! run's stream therefore also shows the progress: after a stop, even by `kill -9`, the same run
//! continues after it.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::Context as _;
use bus::{Bus, Publisher, PublisherLimits, ReplayRun};
use domain::{Position, Stream};
use event_store::{ArchiveView, StoreSettings};
use serde::Serialize;
use service_kit::Clock;
use wire::{
    Subjects,
    replay::{ReplayLimits, ReplayPacker, read_replay},
};

use crate::{
    ReplayProgress,
    plan::{Filter, Pacer, Speed},
    source::{ReadRequest, StreamSource},
};

/// The metadata key of a run's streams that names what the run replays.
const FILTER: &str = "lakegauge.replay";

/// What to replay.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The archive.
    pub store: StoreSettings,
    /// Which events are replayed.
    pub filter: Filter,
    /// At which speed.
    pub speed: Speed,
}

/// The destination of a run.
#[derive(Clone, Debug)]
pub struct Target {
    /// The connection.
    pub bus: Bus,
    /// The name of the run.
    pub run: ReplayRun,
    /// Subjects under the configured prefix.
    pub subjects: Subjects,
    /// Bytes that each of its streams may hold before the replay has to wait.
    pub stream_max_bytes: u64,
}

/// The result of a replay, by stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport(BTreeMap<String, Lines>);

/// The result of a replay for one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Lines {
    events: u64,
    messages: u64,
    /// Epoch, sequence and index of the event after which the run continued.
    after: Option<(u32, u64, u32)>,
    /// Epoch, sequence and index of the last event.
    last: Option<(u32, u64, u32)>,
}

const fn place(position: Position) -> (u32, u64, u32) {
    (position.epoch, position.sequence, position.index)
}

impl ReplayReport {
    /// Events of all streams.
    pub fn events(&self) -> u64 {
        self.0.values().map(|lines| lines.events).sum()
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (stream, lines) in &self.0 {
            let Lines { events, messages, after, last } = lines;
            write!(f, "{stream}: {events} events")?;
            // None if nothing was published, or only counted.
            if *messages > 0 {
                write!(f, " in {messages} messages")?;
            }
            if let Some((epoch, sequence, index)) = after {
                write!(f, ", after epoch {epoch}, sequence {sequence}, index {index}")?;
            }
            if let Some((epoch, sequence, index)) = last {
                write!(f, ", up to epoch {epoch}, sequence {sequence}, index {index}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Replays to the end of the archive as it is now. With a target, the replay continues after the
/// events that the run holds already; without one, it only counts. Every acknowledgement is
/// awaited.
///
/// Dropping the future stops the run like any other stop.
///
/// # Errors
///
/// Bus or archive failed permanently, or the existing run has another filter.
pub async fn replay(
    what: &Replay,
    target: Option<&Target>,
    clock: &Clock,
    progress: &ReplayProgress,
) -> anyhow::Result<ReplayReport> {
    progress.begin("reading the progress of the run", 0);
    let mut streams = ArchiveView::open(&what.store, Stream::lake(0)).await?.streams().await?;
    if let Some(target) = target {
        declare(target, &streams, &what.filter).await?;
    }
    streams.retain(|stream| what.filter.takes_stream(*stream));
    progress.begin(if target.is_some() { "replaying" } else { "counting" }, 0);
    let mut lanes = Vec::new();
    for stream in streams {
        let after = match target {
            Some(target) => last_position(target, stream).await?,
            None => None,
        };
        let (store, filter) = (what.store.clone(), what.filter.clone());
        let reading = ReadRequest { store, stream, filter, after };
        let (source, expected) =
            StreamSource::open(reading, clock.clone(), progress.clone()).await?;
        progress.expect(expected);
        let lane = Lane::new(stream, source, target, after);
        if let Some((_, publisher)) = &lane.out {
            progress.watch(publisher.progress());
        }
        lanes.push(lane);
    }
    publish(&mut lanes, Pacer::new(what.speed), clock).await?;
    Ok(ReplayReport(lanes.into_iter().map(|lane| (lane.stream.to_string(), lane.told)).collect()))
}

/// Creates the streams of a run, including those without an event, because an aggregator that
/// counts the run needs both sides.
async fn declare(target: &Target, streams: &[Stream], filter: &Filter) -> anyhow::Result<()> {
    let Target { bus, run, stream_max_bytes, .. } = target;
    let mut all = Stream::of_partition(0).to_vec();
    all.extend(streams);
    all.sort_unstable();
    all.dedup();
    let metadata = BTreeMap::from([(FILTER.to_owned(), filter.to_string())]);
    bus.declare_replay(run, &all, *stream_max_bytes, &metadata).await?;
    for stream in all {
        let name = run.stream(stream);
        let found = bus.stream(&name).await?.metadata;
        let other = found.get(FILTER).map_or("something unknown", String::as_str);
        anyhow::ensure!(
            other == filter.to_string(),
            "run {} replays {other}: give the same filters to continue it, another name for \
             another run, or take it away with `lakegauge replay --remove {}`",
            run.name(),
            run.name()
        );
    }
    Ok(())
}

/// The position of the last event that a run holds of a stream.
async fn last_position(target: &Target, stream: Stream) -> anyhow::Result<Option<Position>> {
    let name = target.run.stream(stream);
    let status = target.bus.stream(&name).await?;
    if status.last_sequence == 0 {
        return Ok(None);
    }
    let last = target.bus.message_at(&name, status.last_sequence).await?;
    let last = last.with_context(|| {
        format!("the last message of stream {name} is gone, so the progress of the run is unknown")
    })?;
    let events = read_replay(&last.headers, &last.payload)
        .map_err(|refusal| anyhow::anyhow!("the last message of stream {name}: {refusal}"))?;
    Ok(events.last().map(|(position, _)| *position))
}

/// One stream that is being replayed.
struct Lane {
    stream: Stream,
    source: StreamSource,
    out: Option<(ReplayPacker, Publisher)>,
    told: Lines,
}

impl Lane {
    fn new(
        stream: Stream,
        source: StreamSource,
        target: Option<&Target>,
        after: Option<Position>,
    ) -> Self {
        let out = target.map(|target| {
            let subject = target.subjects.replay(target.run.name(), stream);
            let limits = PublisherLimits { unconfirmed_max: 1, ..PublisherLimits::default() };
            let publisher = target.bus.publisher(limits, |_| {});
            let bytes_max = target.bus.message_bytes_max();
            let replay_limits = ReplayLimits { bytes_max, ..ReplayLimits::default() };
            (ReplayPacker::new(subject, replay_limits), publisher)
        });
        Self { stream, source, out, told: Lines { after: after.map(place), ..Lines::default() } }
    }

    /// Adds the next event; sends the message that this event filled.
    async fn push(&mut self) -> anyhow::Result<()> {
        let Some(counted) = self.source.take() else { return Ok(()) };
        self.told.events += 1;
        self.told.last = Some(place(counted.position));
        if let Some((packer, publisher)) = &mut self.out
            && let Some(sealed) = packer.push(counted.position, &counted.event)
        {
            publisher.publish(sealed).await?;
            self.told.messages += 1;
        }
        Ok(())
    }

    /// Sends the current message, if there is one.
    async fn send(&mut self) -> anyhow::Result<()> {
        if let Some((packer, publisher)) = &mut self.out
            && let Some(sealed) = packer.flush()
        {
            publisher.publish(sealed).await?;
            self.told.messages += 1;
        }
        Ok(())
    }

    async fn confirm(&mut self) -> anyhow::Result<()> {
        self.send().await?;
        if let Some((_, publisher)) = &self.out {
            publisher.flush().await?;
        }
        Ok(())
    }
}

/// Publishes the streams side by side: the next event is always taken from the stream that is
/// behind in time.
async fn publish(lanes: &mut [Lane], mut pacer: Pacer, clock: &Clock) -> anyhow::Result<()> {
    loop {
        let mut next = None;
        for (place, lane) in lanes.iter_mut().enumerate() {
            if let Some(at) = lane.source.turn().await?
                && next.is_none_or(|(first, _)| at < first)
            {
                next = Some((at, place));
            }
        }
        let Some((at, place)) = next else { break };
        let now_us = monotonic_us(clock);
        let due_us = pacer.due_us(at, now_us);
        if due_us > now_us {
            for lane in &mut *lanes {
                lane.send().await?;
            }
            let wait_us = u64::try_from(due_us - now_us).unwrap_or(0);
            tokio::time::sleep(Duration::from_micros(wait_us)).await;
        }
        lanes[place].push().await?;
    }
    for lane in lanes {
        lane.confirm().await?;
    }
    Ok(())
}

fn monotonic_us(clock: &Clock) -> i64 {
    i64::try_from(clock.monotonic().as_micros()).unwrap_or(i64::MAX)
}
