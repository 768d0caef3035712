//! What a stream holds, single messages of it, and trimming.

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

/// No stream of ours holds a message of this subject.
const SUBJECT_OF_NOTHING: &str = "lakegauge.nothing";

/// Names of streams that the server gives with one answer are at most so many.
const NAMES_PAGE: usize = 1_024;

/// A stream as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// When it was made, in nanoseconds since 1970: another value is another stream.
    pub created_ns: i64,
    /// Of the oldest message; one above the last where there is none.
    pub first_sequence: u64,
    /// Of the newest message that ever was; 0 before the first.
    pub last_sequence: u64,
    /// Messages stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// The most bytes it may store; negative is without limit.
    pub max_bytes: i64,
    /// Its metadata, with the rules among it.
    pub metadata: BTreeMap<String, String>,
}

/// Whether the message at a mark is the one that was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// It is the same message of the same stream, or nothing was handled yet.
    Same,
    /// The stream is the same and reaches as far, but this one message was deleted since.
    Deleted,
    /// The stream begins behind it: trimmed, or purged by somebody.
    Purged(String),
    /// The stream was made again, lost its tail, or is an older copy.
    Other(String),
}

impl Comparison {
    /// Why the stream must be taken for another by those whose message is never trimmed, as that
    /// of the archive's checkpoint.
    pub fn difference(self) -> Option<String> {
        match self {
            Self::Same | Self::Deleted => None,
            Self::Purged(how) | Self::Other(how) => Some(how),
        }
    }

    /// Why the stream must be taken for another by those whose message we may have trimmed.
    pub fn replacement(self) -> Option<String> {
        match self {
            Self::Same | Self::Deleted | Self::Purged(_) => None,
            Self::Other(how) => Some(how),
        }
    }
}

impl Bus {
    /// The names on the server of the streams that a question of `STREAM.NAMES` means: all of them
    /// for an empty one.
    ///
    /// # Errors
    ///
    /// What any request may meet.
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

    /// What a stream holds now.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] where there is none, and what any request may meet.
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

    /// The message at a sequence; nothing if it was deleted or never was.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and what any request may meet.
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

    /// The first sequence of a range that was stored at or after a time in nanoseconds since 1970, by
    /// bisection; the end of the range where none was. One that was deleted says nothing of its age,
    /// and is taken to be older.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and what any request may meet.
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
    /// [`BusError::NoStream`], and what any request may meet.
    pub async fn first_after(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Delivery>, BusError> {
        let from = Which::From(sequence.saturating_add(1), ">");
        let stored = self.stored(&self.server_name(stream), from).await?;
        Ok(stored.map(|stored| stored.delivery(0)))
    }

    /// Whether the stream still is the one that the mark was taken in, and the message at the mark
    /// the one that was handled.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and what any request may meet.
    pub async fn compare(&self, stream: &str, mark: &Mark) -> Result<Comparison, BusError> {
        let status = self.stream(stream).await?;
        if mark.created_ns != 0 && mark.created_ns != status.created_ns {
            return Ok(Comparison::Other(format!(
                "it was made again (created at {} instead of {} ns)",
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
                "it begins at {}, behind {}: it was purged",
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
    /// [`BusError::NoStream`], and what any request may meet. An answer that is lost may have been
    /// obeyed: trimming again changes nothing.
    pub async fn trim(&self, stream: &str, below_sequence: u64) -> Result<u64, BusError> {
        if below_sequence <= 1 {
            // To the server, 0 means everything.
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

    /// Why the server writes nothing to a stream any more, in its own words, if it does not. After a
    /// write that failed (a full disk) it acknowledges nothing and says nothing, until it is started
    /// again; but it refuses to purge with the error, also what holds nothing.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and what any request may meet: that this user may not purge looks
    /// like no answer.
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

    /// The sequence of the first message that the stream still has at or after one.
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
