//! Observes what is stored under a subject from now on.

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

/// Messages that may wait for the caller here; each reader bounds its own.
const HANDED_OVER_MAX: usize = 32;

/// Messages of every stream that holds one of the subjects, as they are stored, for people to look
/// at. They are not for counting, because no position is kept. Messages that no client can read are
/// included.
#[derive(Debug)]
pub struct Watch {
    items: mpsc::Receiver<Observed>,
    _readers: JoinSet<()>,
}

/// An item of a watch.
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
    /// The subject, with the prefix.
    pub subject: String,
    /// The headers, or why they can't be read.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

impl Bus {
    /// Observes subjects under the prefix. `*` stands for any token, and `>` for any rest.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] if no stream holds one of them, and any error of a request.
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

    /// The streams that hold messages of a subject, without the prefix. Streams whose name does not
    /// begin with the prefix belong to another installation.
    async fn streams_of(&self, pattern: &str) -> Result<Vec<String>, BusError> {
        let names = self.stream_names(&json!({ "subject": pattern })).await?;
        let before = self.server_name("");
        let ours = |name: &String| name.strip_prefix(&before).map(str::to_owned);
        Ok(names.iter().filter_map(ours).collect())
    }
}

impl Watch {
    /// The next item; `None` when nothing more can come.
    pub async fn next(&mut self) -> Option<Observed> {
        self.items.recv().await
    }
}

/// Observes one stream.
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
                // This happens only after a change, and then another reader was started.
                Err(_) => return,
            };
            if self.sender.send(watched).await.is_err() {
                return;
            }
        }
    }

    /// Continues with the stream that replaced the old one, from its end.
    async fn begin_again(&mut self) {
        // If the stream can't be described now, it is read from its beginning.
        let after = self.bus.stream(&self.stream).await.map_or(0, |status| status.last_sequence);
        self.reader = self.bus.reader(ReaderSettings::new(&self.stream, "watch", after));
    }
}

/// Whether a subject matches a pattern.
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
