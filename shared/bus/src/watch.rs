//! Looking on: what is stored under a subject from now on.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use wire::Headers;

use crate::{
    connection::Bus,
    error::BusError,
    read::{Read, ReaderSettings},
    reader::Reader,
};

/// Messages handed over before the caller takes them; each reader behind bounds its own.
const HANDED_OVER_MAX: usize = 32;

/// Messages of every stream that holds one of the subjects, as they are stored, for people to look
/// at. Not for counting: nobody keeps a position. What no client can read comes too.
#[derive(Debug)]
pub struct Watch {
    items: mpsc::Receiver<Observed>,
    _readers: JoinSet<()>,
}

/// What somebody who looks on sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// A message that was stored.
    Message(StoredMessage),
    /// Something that is not shown, and why.
    Missed(String),
}

/// A message that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Where it was published, with the prefix.
    pub subject: String,
    /// What its headers say.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

impl Bus {
    /// Looks on at subjects, with `*` and `>` for any token and any rest, under the prefix.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] where no stream holds one of them, and what any request may meet.
    pub async fn watch(&self, subjects: &[String]) -> Result<Watch, BusError> {
        let patterns: Vec<String> = subjects.iter().map(|subject| self.subject(subject)).collect();
        let mut streams = BTreeSet::new();
        for pattern in &patterns {
            let held = self.streams_of(pattern).await?;
            if held.is_empty() {
                return Err(BusError::NoStream { stream: format!("that holds {pattern}") });
            }
            streams.extend(held);
        }
        let (sender, items) = mpsc::channel(HANDED_OVER_MAX);
        let mut readers = JoinSet::new();
        for stream in streams {
            let after = self.stream(&stream).await?.last_sequence;
            let looking = Looking {
                reader: self.reader(ReaderSettings::new(&stream, "watch", after)),
                bus: self.clone(),
                stream,
                patterns: patterns.clone(),
                sender: sender.clone(),
            };
            readers.spawn(looking.run());
        }
        Ok(Watch { items, _readers: readers })
    }

    /// The streams that hold what is published under a subject, without the prefix. Those that the
    /// prefix does not begin are another installation's.
    async fn streams_of(&self, pattern: &str) -> Result<Vec<String>, BusError> {
        let names = self.stream_names(&json!({ "subject": pattern })).await?;
        let before = self.server_name("");
        let ours = |name: &String| name.strip_prefix(&before).map(str::to_owned);
        Ok(names.iter().filter_map(ours).collect())
    }
}

impl Watch {
    /// The next of them; `None` when nothing more can come.
    pub async fn next(&mut self) -> Option<Observed> {
        self.items.recv().await
    }
}

/// Looks on at one stream.
struct Looking {
    bus: Bus,
    stream: String,
    patterns: Vec<String>,
    reader: Reader,
    sender: mpsc::Sender<Observed>,
}

impl Looking {
    async fn run(mut self) {
        loop {
            let watched = match self.reader.next().await {
                Ok(Read::Subscribed(_)) => continue,
                Ok(Read::Message(message)) => {
                    if !self.patterns.iter().any(|pattern| matches(pattern, &message.subject)) {
                        continue;
                    }
                    Observed::Message(StoredMessage {
                        subject: message.subject,
                        headers: message.headers,
                        payload: message.payload,
                    })
                }
                Ok(Read::Deleted { first, last }) => Observed::Missed(format!(
                    "messages {first} to {last} of stream {} were deleted",
                    self.stream
                )),
                Ok(Read::Changed(how)) => {
                    self.begin_again().await;
                    Observed::Missed(format!("stream {}: {how}", self.stream))
                }
                // It comes after a change alone, behind which another reader was begun.
                Err(_) => return,
            };
            if self.sender.send(watched).await.is_err() {
                return;
            }
        }
    }

    /// Looks on at the stream that took the place of the one before, from its end.
    async fn begin_again(&mut self) {
        // One that can't be described now is read from its beginning.
        let after = self.bus.stream(&self.stream).await.map_or(0, |status| status.last_sequence);
        self.reader = self.bus.reader(ReaderSettings::new(&self.stream, "watch", after));
    }
}

/// Whether a subject is one of those that a pattern means.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for expected in pattern.split('.') {
        match (expected, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (_, Some(token)) if token == expected => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_the_server_takes_it_for() {
        for pattern in ["lake.access.0.x", "lake.*.0.x", "lake.>", ">", "*.*.*.*"] {
            assert!(matches(pattern, "lake.access.0.x"), "{pattern}");
        }
        for pattern in
            ["lake.access.0", "lake.access.0.x.>", "*.*", "warehouse.>", "lake.access.0.*.*"]
        {
            assert!(!matches(pattern, "lake.access.0.x"), "{pattern}");
        }
    }
}
