//! Recovers the state of a replay run: from its own snapshot, or its own stream.

use std::time::Duration;

use anyhow::Context as _;
use bus::{BusError, Comparison, FoundSnapshot, ReplayRun, StreamEpoch, StreamStatus};
use domain::{Mark, Position, Rules, StreamState};
use wire::replay::read_replay;

use super::{context::StreamContext, recovery::Recovered};
use crate::fold::StreamFold;

/// How often a run that does not exist yet is searched for.
const RUN_POLL: Duration = Duration::from_millis(500);

/// Recovers the state of a stream of a run, with the rules of the stream that it replays. Waits
/// until the run exists. `None` if the stream drains first.
///
/// # Errors
///
/// The rules are not known to this program; or the beginning of the run is gone.
pub(super) async fn find(
    context: &StreamContext,
    run: &ReplayRun,
    epoch: &StreamEpoch,
) -> anyhow::Result<Option<Recovered>> {
    let StreamContext { stream, name, bus, .. } = context;
    let Some(status) = stream_of_run(context).await? else { return Ok(None) };
    let live = bus.stream(&stream.to_string()).await?;
    let rules = Rules::from_metadata(&live.metadata)
        .with_context(|| format!("the rules of stream {stream}"))?;
    let epoch = epoch.in_force(None).await?;
    let loaded = bus.snapshots().load(name).await?;
    let revision = loaded.revision;
    let fold = match from_snapshot(context, &rules, epoch, loaded.found).await {
        Ok(fold) => fold,
        Err(NoState::Unusable(why)) => {
            tracing::info!(stream = name, why, "counting the run from its beginning");
            let mark = Mark { epoch, sequence: 0, broker_ns: 0, created_ns: status.created_ns };
            StreamFold::of_replay(StreamState::new(*stream, rules), mark, None)
        }
        Err(NoState::Unanswered(error)) => return Err(error.into()),
    };
    let next = fold.mark().sequence.saturating_add(1);
    anyhow::ensure!(
        status.first_sequence <= next,
        "run {} begins at message {}, but {next} is needed: another aggregator counted and \
         trimmed it; replay it again under another name",
        run.name(),
        status.first_sequence
    );
    Ok(Some(Recovered { fold, revision, rebuilt: false }))
}

async fn stream_of_run(context: &StreamContext) -> Result<Option<StreamStatus>, BusError> {
    let StreamContext { name: stream, bus, drain, .. } = context;
    let mut said = false;
    loop {
        match bus.stream(stream).await {
            Ok(status) => return Ok(Some(status)),
            Err(BusError::NoStream { .. }) => {}
            Err(error) => return Err(error),
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(stream, "waiting for the run, which `lakegauge replay` creates");
        }
        tokio::select! {
            () = drain.cancelled() => return Ok(None),
            () = tokio::time::sleep(RUN_POLL) => {}
        }
    }
}

/// Why a snapshot gives no state.
enum NoState {
    /// The run must be counted from its beginning.
    Unusable(String),
    /// The broker did not answer a request that decides about the snapshot.
    Unanswered(BusError),
}

impl From<BusError> for NoState {
    fn from(error: BusError) -> Self {
        Self::Unanswered(error)
    }
}

/// The state of a snapshot.
async fn from_snapshot(
    context: &StreamContext,
    rules: &Rules,
    epoch: u32,
    found: FoundSnapshot,
) -> Result<StreamFold, NoState> {
    let unusable = |why: &str| Err(NoState::Unusable(why.to_owned()));
    let bytes = match found {
        FoundSnapshot::Nothing => return unusable("there is no snapshot"),
        FoundSnapshot::Damaged(why) => return Err(NoState::Unusable(why)),
        FoundSnapshot::Whole(_, bytes) => bytes,
    };
    let (state, mark) = wire::snapshot::decode_state(&bytes)
        .map_err(|error| NoState::Unusable(error.to_string()))?;
    if state.stream() != context.stream || state.rules() != rules || mark.epoch != epoch {
        return unusable("its snapshot is of other rules or of another epoch");
    }
    match context.bus.compare(&context.name, &mark).await? {
        Comparison::Same => {}
        Comparison::Deleted => return unusable("the message of its snapshot is gone"),
        Comparison::Purged(why) | Comparison::Other(why) => return Err(NoState::Unusable(why)),
    }
    let passed = passed(context, mark.sequence).await?;
    Ok(StreamFold::of_replay(state, mark, passed))
}

/// The position of the last event in a message.
async fn passed(context: &StreamContext, sequence: u64) -> Result<Option<Position>, NoState> {
    let message = context.bus.message_at(&context.name, sequence).await?;
    let Some(message) = message else { return Ok(None) };
    let events = read_replay(&message.headers, &message.payload)
        .map_err(|refusal| NoState::Unusable(format!("message {sequence}: {refusal}")))?;
    Ok(events.last().map(|(position, _)| *position))
}
