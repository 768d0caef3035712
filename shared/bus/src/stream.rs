//! The contents of a stream, single messages of it, and trimming.

use std::{collections::BTreeMap, ops::Range};

use domain::Mark;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{self, Nanoseconds, PURGE_FAILED, named},
    connection::Bus,
    delivery::Delivery,
    error::BusError,
    stored::Which,
};

/// A subject that no message of our streams has.
const SUBJECT_OF_NOTHING: &str = "lakegauge.nothing";

/// The most names of streams that the server returns in one answer.
const NAMES_PAGE: usize = 1_024;

/// A stream as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// When it was created, in nanoseconds since 1970: another value means another stream.
    pub created_ns: i64,
    /// The sequence of the oldest message; one above the last sequence if there is none.
    pub first_sequence: u64,
    /// The sequence of the newest message that was ever stored; 0 before the first.
    pub last_sequence: u64,
    /// Messages stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// The most bytes that it may store; a negative number means no limit.
    pub max_bytes: i64,
    /// The stream's metadata, which contains the rules.
    pub metadata: BTreeMap<String, String>,
}

/// Whether the message at a mark is still the one that was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The message is the same, or nothing was handled yet.
    Same,
    /// The stream is the same and reaches as far, but this one message was deleted since.
    Deleted,
    /// The stream begins after the mark: it was trimmed, or somebody purged it.
    Purged(String),
    /// The stream was created again, lost its tail, or is an older copy.
    Other(String),
}

impl Comparison {
    /// Why the stream counts as another one, for a caller whose message is never trimmed, like that
    /// of the archive's checkpoint.
    pub fn difference(self) -> Option<String> {
        match self {
            Self::Same | Self::Deleted => None,
            Self::Purged(how) | Self::Other(how) => Some(how),
        }
    }

    /// Why the stream counts as another one, for a caller whose message may have been trimmed.
    pub fn replacement(self) -> Option<String> {
        match self {
            Self::Same | Self::Deleted | Self::Purged(_) => None,
            Self::Other(how) => Some(how),
        }
    }
}

impl Bus {
    /// The names on the server of the streams that match a request of `STREAM.NAMES`: all streams
    /// for an empty request.
    ///
    /// # Errors
    ///
    /// Any error of a request.
    pub(crate) async fn stream_names(&self, question: &Value) -> Result<Vec<String>, BusError> {
        let mut names: Vec<String> = Vec::new();
        let mut question = question.clone();
        loop {
            question["offset"] = json!(names.len());
            let page: Names = api::request(
                &self.context,
                "STREAM.NAMES".to_owned(),
                &question,
                "the names of the streams",
            )
            .await?;
            let page = page.streams.unwrap_or_default();
            let is_last = page.len() < NAMES_PAGE;
            names.extend(page);
            if is_last {
                return Ok(names);
            }
        }
    }

    /// The current state of a stream.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] if there is none, and any error of a request.
    pub async fn stream(&self, stream: &str) -> Result<StreamStatus, BusError> {
        let name = self.server_name(stream);
        let info: Info = api::request(
            &self.context,
            format!("STREAM.INFO.{name}"),
            &json!({}),
            &format!("description of stream {name}"),
        )
        .await
        .map_err(|error| named(error, &name))?;
        Ok(StreamStatus {
            created_ns: info.created.0,
            first_sequence: info.state.first_seq,
            last_sequence: info.state.last_seq,
            messages: info.state.messages,
            bytes: info.state.bytes,
            max_bytes: info.config.max_bytes,
            metadata: info.config.metadata,
        })
    }

    /// The message at a sequence; `None` if it was deleted or never existed.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request.
    pub async fn message_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Delivery>, BusError> {
        if sequence == 0 {
            return Ok(None);
        }
        let stored = self.stored(&self.server_name(stream), Which::At(sequence)).await?;
        Ok(stored.map(|stored| stored.delivery(0)))
    }

    /// The first sequence of a range that was stored at or after a time in nanoseconds since 1970,
    /// by bisection; the end of the range if there is none. The age of a deleted message is not
    /// known; it counts as older.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request.
    pub async fn first_stored_since(
        &self,
        stream: &str,
        since_ns: i64,
        within: Range<u64>,
    ) -> Result<u64, BusError> {
        let Range { start: mut low, end: mut high } = within;
        while low < high {
            let middle = low + (high - low) / 2;
            let message = self.message_at(stream, middle).await?;
            if message.is_some_and(|message| message.broker_ns >= since_ns) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The first message that the stream still has after a sequence.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request.
    pub async fn first_after(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Delivery>, BusError> {
        let from = Which::From(sequence.saturating_add(1), ">");
        let stored = self.stored(&self.server_name(stream), from).await?;
        Ok(stored.map(|stored| stored.delivery(0)))
    }

    /// Whether the stream is still the one in which the mark was taken, and the message at the mark
    /// is the one that was handled.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request.
    pub async fn compare(&self, stream: &str, mark: &Mark) -> Result<Comparison, BusError> {
        let status = self.stream(stream).await?;
        if mark.created_ns != 0 && mark.created_ns != status.created_ns {
            return Ok(Comparison::Other(format!(
                "it was created again (at {} instead of {} ns)",
                status.created_ns, mark.created_ns
            )));
        }
        if mark.sequence > status.last_sequence {
            return Ok(Comparison::Other(format!(
                "it ends at {}, before {}: it lost its tail or is an older copy",
                status.last_sequence, mark.sequence
            )));
        }
        if mark.sequence == 0 || mark.is_before_first() {
            return Ok(Comparison::Same);
        }
        Ok(match self.message_at(stream, mark.sequence).await? {
            None if mark.sequence < status.first_sequence => Comparison::Purged(format!(
                "it begins at {}, after {}: it was purged",
                status.first_sequence, mark.sequence
            )),
            None => Comparison::Deleted,
            Some(message) if message.broker_ns == mark.broker_ns => Comparison::Same,
            Some(message) => Comparison::Other(format!(
                "message {} is another one (stored at {} instead of {} ns)",
                mark.sequence, message.broker_ns, mark.broker_ns
            )),
        })
    }

    /// Deletes every message below a sequence; returns how many.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request. If the answer is lost, the server may
    /// have trimmed the stream; trimming again changes nothing.
    pub async fn trim(&self, stream: &str, below_sequence: u64) -> Result<u64, BusError> {
        if below_sequence <= 1 {
            // For the server, 0 means everything.
            return Ok(0);
        }
        let name = self.server_name(stream);
        let purged: Purged = api::request(
            &self.context,
            format!("STREAM.PURGE.{name}"),
            &json!({ "seq": below_sequence }),
            &format!("trimming stream {name} below {below_sequence}"),
        )
        .await
        .map_err(|error| named(error, &name))?;
        Ok(purged.purged)
    }

    /// Why the server writes nothing to a stream any more, in its own words; `None` if it does
    /// write. After a failed write (a full disk) the server acknowledges nothing and reports
    /// nothing until it is restarted. But it then refuses to purge with the error, even if nothing
    /// would be deleted.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request. If this user may not purge, the error
    /// looks like a missing answer.
    pub async fn write_error(&self, stream: &str) -> Result<Option<String>, BusError> {
        let name = self.server_name(stream);
        let purged: Result<Purged, BusError> = api::request(
            &self.context,
            format!("STREAM.PURGE.{name}"),
            &json!({ "filter": SUBJECT_OF_NOTHING }),
            &format!("whether stream {name} is written to"),
        )
        .await;
        match purged {
            Ok(_) => Ok(None),
            Err(BusError::Server { error_code: PURGE_FAILED, detail, .. }) => Ok(Some(detail)),
            Err(error) => Err(named(error, &name)),
        }
    }

    /// The sequence of the first message that the stream still has at or after `sequence`.
    pub(crate) async fn next_sequence(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<u64>, BusError> {
        let from = Which::From(sequence, ">");
        Ok(self.stored(&self.server_name(stream), from).await?.map(|stored| stored.sequence))
    }
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Info {
    created: Nanoseconds,
    state: State,
    config: Config,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Config {
    max_bytes: i64,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}
