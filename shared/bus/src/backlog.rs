//! How far a reader is behind. The broker is asked independently of deliveries, because a reader
//! that gets nothing must not look like one that has nothing to do.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use service_kit::{Clock, Condition};

use crate::{api, connection::Bus, error::BusError, read::ReaderProgress};

/// Up to this many gaps inside a stream are counted one by one, because the server lists each of
/// them. If there are more, all of them are assumed to lie before the position, as long as messages
/// are left then.
const GAPS_LISTED_MAX: u64 = 1_000_000;

service_kit::settings! {
    /// How often the lag is read, and what is too long.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct BacklogLimits {
        /// How often each stream is asked how many messages wait to be counted or archived, whether
        /// or not messages are delivered.
        #[setting(LAG_CHECK_MS, "lag-check-ms", default = "1000")]
        pub check: Duration = duration_ms,
        /// Time after which /readyz reports that messages of a stream wait and none is counted or
        /// archived, or that NATS does not report whether any wait.
        #[setting(STALLED_AFTER_MS, "stalled-after-ms", default = "30000")]
        pub stalled_after: Duration = duration_ms,
    }
}

/// The result of one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Messages stored after the position; `None` if the broker can't be asked.
    pub messages: Option<u64>,
    /// How long messages have waited, or may have waited, while the position did not move.
    pub stalled: Duration,
}

/// Since when a position has not moved although there are more messages. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct Standstill {
    position: u64,
    since_ms: Option<u64>,
}

impl Standstill {
    fn observe(&mut self, now_ms: u64, position: u64, messages: Option<u64>) -> Duration {
        let is_moving = std::mem::replace(&mut self.position, position) != position;
        if is_moving || messages == Some(0) {
            self.since_ms = None;
        }
        if messages == Some(0) {
            return Duration::ZERO;
        }
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        Duration::from_millis(now_ms.saturating_sub(since_ms))
    }
}

/// The position of a reader. One task moves the position and another watches it.
#[derive(Debug, Default)]
pub struct SharedPosition(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    position: ReadPosition,
    reader: Option<Arc<ReaderProgress>>,
}

/// How far a stream is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadPosition {
    /// The position to read after was not found yet.
    #[default]
    Unknown,
    /// Another process reads the stream, so this one can't be late.
    StandsBy,
    /// Everything up to this sequence was handled.
    After(u64),
}

impl SharedPosition {
    /// Sets the position.
    pub fn moved(&self, position: u64) {
        self.shared().position = ReadPosition::After(position);
    }

    /// Another process moves the position, so this one can't be late.
    pub fn stands_by(&self) {
        self.shared().position = ReadPosition::StandsBy;
    }

    /// Sets the reader whose trouble is reported.
    pub fn reads(&self, reader: Arc<ReaderProgress>) {
        self.shared().reader = Some(reader);
    }

    /// The current position.
    pub fn position(&self) -> ReadPosition {
        self.shared().position
    }

    fn trouble(&self) -> Option<String> {
        self.shared().reader.as_ref().and_then(|reader| reader.trouble())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Each change is complete when the lock is released, even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads how many messages wait behind a position, and keeps a condition up to date.
#[derive(Debug)]
pub struct BacklogWatch {
    /// The connection.
    pub bus: Bus,
    /// The stream's name, without the prefix.
    pub stream: String,
    /// The position.
    pub position: Arc<SharedPosition>,
    /// How often the backlog is read, and what is too long.
    pub limits: BacklogLimits,
    /// Fails while messages have waited for too long, or nobody knows whether any do.
    pub condition: Condition,
    /// What has not happened to messages that wait: `archived`.
    pub done: &'static str,
    /// Measures how long.
    pub clock: Clock,
}

impl BacklogWatch {
    /// Reads the backlog for ever, and calls `told` with each result.
    pub async fn run(&self, told: impl Fn(&Backlog)) -> Infallible {
        let mut standstill = Standstill::default();
        let (mut was_well, mut is_known) = (true, false);
        // Before the first reading nobody knows whether there is something to do, so the part is
        // not ready.
        self.condition
            .fail(format!("{}: the number of waiting messages is not known yet", self.stream));
        loop {
            let looked = self.look().await;
            // The position may have moved while the answer was on its way.
            let position = match self.position.position() {
                ReadPosition::After(sequence) => sequence,
                ReadPosition::Unknown | ReadPosition::StandsBy => 0,
            };
            let messages = looked.as_ref().ok().copied();
            let stalled = standstill.observe(self.clock.monotonic_ms(), position, messages);
            told(&Backlog { messages, stalled });
            is_known |= messages.is_some();
            let is_well = stalled < self.limits.stalled_after;
            if is_well && is_known {
                let waiting = messages.map_or("?".to_owned(), |count| count.to_string());
                self.condition.pass(format!("{}: {waiting} messages wait", self.stream));
            } else {
                let why = self.why(position, &looked, stalled);
                if was_well && !is_well {
                    tracing::error!(why, "a stream is stalled");
                }
                self.condition.fail(why);
            }
            was_well = is_well;
            tokio::time::sleep(self.limits.check).await;
        }
    }

    /// How many messages wait; 0 if another process handles them.
    async fn look(&self) -> Result<u64, String> {
        match self.position.position() {
            ReadPosition::After(sequence) => {
                let waiting = self.bus.stored_after(&self.stream, sequence).await;
                waiting.map_err(|error| error.to_string())
            }
            ReadPosition::Unknown => Err("the position to read after was not found yet".to_owned()),
            ReadPosition::StandsBy => Ok(0),
        }
    }

    fn why(&self, position: u64, looked: &Result<u64, String>, stalled: Duration) -> String {
        let (stream, done, seconds) = (&self.stream, self.done, stalled.as_secs());
        let what = match looked {
            Ok(messages) => format!(
                "{stream}: {messages} messages wait behind message {position}, and none was {done} \
                 for {seconds} s"
            ),
            Err(error) => format!(
                "{stream}: for {seconds} s it has not been known whether messages wait: {error}"
            ),
        };
        match self.position.trouble() {
            Some(trouble) => format!("{what}; the reader says: {trouble}"),
            None => what,
        }
    }
}

impl Bus {
    /// How many messages a stream holds after a sequence. The result is not the last sequence minus
    /// this one, because deleted messages do not wait.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request.
    pub async fn stored_after(&self, stream: &str, after: u64) -> Result<u64, BusError> {
        let name = self.server_name(stream);
        let ask = async |details: bool| -> Result<Held, BusError> {
            let what = format!("how much stream {name} holds");
            let question = json!({ "deleted_details": details });
            api::request::<Info>(&self.context, format!("STREAM.INFO.{name}"), &question, &what)
                .await
                .map(|info| info.state)
                .map_err(|error| api::named(error, &name))
        };
        let held = ask(false).await?;
        if held.num_deleted == 0 || held.last_seq <= after {
            return Ok(held.after(after));
        }
        if self.next_sequence(stream, after.saturating_add(1)).await?.is_none() {
            return Ok(0);
        }
        if held.num_deleted > GAPS_LISTED_MAX {
            return Ok(held.after(after).min(held.messages).max(1));
        }
        Ok(ask(true).await?.after(after))
    }
}

#[derive(Deserialize)]
struct Info {
    state: Held,
}

#[derive(Deserialize)]
struct Held {
    messages: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(default)]
    num_deleted: u64,
    #[serde(default)]
    deleted: Vec<u64>,
}

impl Held {
    /// Messages after a sequence, not counting the gaps that are listed.
    fn after(&self, after: u64) -> u64 {
        if self.messages == 0 {
            return 0;
        }
        let before = after.max(self.first_seq.saturating_sub(1));
        let gaps = self.deleted.iter().filter(|gap| **gap > before);
        let gaps = u64::try_from(gaps.count()).unwrap_or(u64::MAX);
        self.last_seq.saturating_sub(before).saturating_sub(gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_stored_after_the_position_waits() {
        let held = Held {
            messages: 7,
            first_seq: 11,
            last_seq: 20,
            num_deleted: 3,
            deleted: vec![12, 15, 16],
        };
        for (after, waiting) in
            [(0, 7), (10, 7), (11, 6), (12, 6), (15, 4), (16, 4), (19, 1), (20, 0), (99, 0)]
        {
            assert_eq!(held.after(after), waiting, "after {after}");
        }
        let empty =
            Held { messages: 0, first_seq: 21, last_seq: 20, num_deleted: 0, deleted: vec![] };
        assert_eq!(empty.after(3), 0);
    }

    #[test]
    fn a_position_stands_still_only_while_something_waits_or_may_wait() {
        let mut standstill = Standstill::default();
        let mut after =
            |now_ms, position, messages| standstill.observe(now_ms, position, messages).as_millis();
        assert_eq!(after(0, 7, Some(3)), 0);
        assert_eq!(after(500, 7, Some(4)), 500);
        assert_eq!(after(700, 8, Some(900)), 0, "it moves");
        assert_eq!(after(900, 8, Some(900)), 200);
        assert_eq!(after(950, 8, Some(0)), 0, "nothing waits");
        assert_eq!(after(5_000, 8, None), 0, "nobody knows, from here on");
        assert_eq!(after(6_000, 8, None), 1_000);
        assert_eq!(after(6_500, 8, Some(1)), 1_500, "it may have waited since then");
        assert_eq!(after(7_000, 8, Some(0)), 0);
    }
}
