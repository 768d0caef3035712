//! Where the state of a replay run comes from: its own snapshot, or its own stream.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, BusError, Comparison, FoundSnapshot, ReplayRun, StreamStatus};
use domain::{Mark, Position, Rules, Stream, StreamState};
use tokio_util::sync::CancellationToken;
use wire::replay::read_replay;

use crate::{fold::StreamFold, origin::Origin};

/// How often a run that is not there yet is looked for.
const RUN_POLL: Duration = Duration::from_millis(500);

/// Finds the state of a stream of a run, by the rules of the stream that it replays. Waits until the
/// run is there. Nothing: the service drains.
///
/// # Errors
///
/// Rules that this program does not know; a run whose beginning is gone.
pub(crate) async fn find(
    bus: &Bus,
    run: &ReplayRun,
    stream: Stream,
    drain: &CancellationToken,
) -> anyhow::Result<Option<Origin>> {
    let name = run.stream(stream);
    let Some(status) = stream_of_run(bus, &name, drain).await? else { return Ok(None) };
    let live = bus.stream(&stream.to_string()).await?;
    let rules = Rules::from_metadata(&live.metadata)
        .with_context(|| format!("the rules of stream {stream}"))?;
    let epoch = bus.epochs().raise(&name, 0).await?;
    let loaded = bus.snapshots().load(&name).await?;
    let revision = loaded.revision;
    let fold = match usable(bus, &name, stream, &rules, epoch, loaded.found).await? {
        Ok(fold) => fold,
        Err(why) => {
            tracing::info!(stream = name, why, "counting the run from its beginning");
            let mark = Mark { epoch, sequence: 0, broker_ns: 0, created_ns: status.created_ns };
            StreamFold::of_replay(StreamState::new(stream, rules), mark, None)
        }
    };
    let next = fold.mark().sequence.saturating_add(1);
    anyhow::ensure!(
        status.first_sequence <= next,
        "run {} begins at message {}, {next} is needed: it was counted and trimmed by another \
         aggregator; replay it again under another name",
        run.name(),
        status.first_sequence
    );
    Ok(Some(Origin { fold, revision, rebuilt: false }))
}

async fn stream_of_run(
    bus: &Bus,
    name: &str,
    drain: &CancellationToken,
) -> anyhow::Result<Option<StreamStatus>> {
    let mut said = false;
    loop {
        match bus.stream(name).await {
            Ok(status) => return Ok(Some(status)),
            Err(BusError::NoStream { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(stream = name, "waiting for the run: `lakegauge replay` makes it");
        }
        tokio::select! {
            () = drain.cancelled() => return Ok(None),
            () = tokio::time::sleep(RUN_POLL) => {}
        }
    }
}

/// The state of a snapshot, or why the run must be counted from its beginning.
async fn usable(
    bus: &Bus,
    name: &str,
    stream: Stream,
    rules: &Rules,
    epoch: u32,
    found: FoundSnapshot,
) -> anyhow::Result<Result<StreamFold, String>> {
    let bytes = match found {
        FoundSnapshot::Nothing => return Ok(Err("there is no snapshot".to_owned())),
        FoundSnapshot::Damaged(why) => return Ok(Err(why)),
        FoundSnapshot::Whole(_, bytes) => bytes,
    };
    let (state, mark) = match wire::snapshot::decode_state(&bytes) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if state.stream() != stream || state.rules() != rules || mark.epoch != epoch {
        return Ok(Err("its snapshot is of other rules or of another epoch".to_owned()));
    }
    match bus.compare(name, &mark).await? {
        Comparison::Same => {}
        Comparison::Deleted => return Ok(Err("the message of its snapshot is gone".to_owned())),
        Comparison::Purged(why) | Comparison::Other(why) => return Ok(Err(why)),
    }
    let passed = passed(bus, name, mark.sequence).await?;
    Ok(passed.map(|passed| StreamFold::of_replay(state, mark, passed)))
}

/// The position of the last event up to a message: it stands in the message.
async fn passed(
    bus: &Bus,
    name: &str,
    sequence: u64,
) -> anyhow::Result<Result<Option<Position>, String>> {
    let Some(message) = bus.message_at(name, sequence).await? else { return Ok(Ok(None)) };
    let events = match read_replay(&message.headers, &message.payload) {
        Ok(events) => events,
        Err(refusal) => return Ok(Err(format!("message {sequence}: {refusal}"))),
    };
    Ok(Ok(events.last().map(|(position, _)| *position)))
}
