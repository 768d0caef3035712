//! What a stream holds, single messages of it, and trimming.

use std::collections::BTreeMap;

use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use domain::Mark;
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{self, NO_MESSAGE_FOUND, STREAM_NOT_FOUND},
    connection::Bus,
    error::BusError,
};

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

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The broker's sequence.
    pub sequence: u64,
    /// When the broker stored it, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// Where it was published, with the prefix.
    pub subject: String,
    /// Its `Content-Type` header.
    pub content_type: Option<String>,
    /// Its body.
    pub payload: Bytes,
    /// How many messages stood behind it when the broker sent it; 0 for single messages.
    pub pending: u64,
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
        let name = self.server_name(stream);
        let what = format!("message {sequence} of stream {name}");
        if sequence == 0 {
            return Ok(None);
        }
        let handle = self
            .context
            .get_stream_no_info(&name)
            .await
            .map_err(|error| api::client_error(&error, &what))?;
        match handle.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(Delivery {
                sequence: message.sequence,
                broker_ns: nanoseconds(message.time, &what)?,
                subject: message.subject.to_string(),
                content_type: content_type(Some(&message.headers)),
                payload: message.payload,
                pending: 0,
            })),
            Err(error) => {
                let error = api::client_error(&error, &what);
                let is_gone = error.server_code() == Some(NO_MESSAGE_FOUND);
                if is_gone { Ok(None) } else { Err(named(error, &name)) }
            }
        }
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

    /// The sequence of the first message that the stream still has at or after one.
    pub(crate) async fn next_sequence(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<u64>, BusError> {
        let name = self.server_name(stream);
        let answer: Result<Stored, BusError> = api::request(
            &self.context,
            format!("STREAM.MSG.GET.{name}"),
            &json!({ "seq": sequence, "next_by_subj": ">" }),
            &format!("first message of stream {name} from {sequence} on"),
        )
        .await
        .map_err(|error| named(error, &name));
        match answer {
            Ok(stored) => Ok(Some(stored.message.seq)),
            Err(BusError::Server { error_code: NO_MESSAGE_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
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

#[derive(Deserialize)]
struct Stored {
    message: StoredMessage,
}

#[derive(Deserialize)]
struct StoredMessage {
    seq: u64,
}

/// RFC 3339 as nanoseconds since 1970.
struct Nanoseconds(i64);

impl<'de> Deserialize<'de> for Nanoseconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time = time::serde::rfc3339::deserialize(deserializer)?;
        i64::try_from(time.unix_timestamp_nanos()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Gives an error of the server about a stream that is not there its name.
pub(crate) fn named(error: BusError, stream: &str) -> BusError {
    if error.server_code() == Some(STREAM_NOT_FOUND) {
        BusError::NoStream { stream: stream.to_owned() }
    } else {
        error
    }
}

pub(crate) fn nanoseconds(
    time: async_nats::datetime::DateTime,
    what: &str,
) -> Result<i64, BusError> {
    i64::try_from(time.unix_timestamp_nanos()).map_err(|_| BusError::Garbled {
        what: what.to_owned(),
        detail: format!("the broker's time {time} is out of range"),
    })
}

pub(crate) fn content_type(headers: Option<&HeaderMap>) -> Option<String> {
    Some(headers?.get(CONTENT_TYPE)?.as_str().to_owned())
}

/// The header that names the form of a message.
pub(crate) const CONTENT_TYPE: &str = "Content-Type";

/// The header by which the server knows a message that it already has.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";

/// A message from a consumer, with the subject that acknowledges it.
pub(crate) fn delivery(
    message: jetstream::Message,
) -> Result<(Delivery, Option<async_nats::Subject>), BusError> {
    let what = "a message's place in its stream";
    let garbled = |detail: String| BusError::Garbled { what: what.to_owned(), detail };
    let (sequence, broker_ns, pending) = {
        let info = message.info().map_err(|error| garbled(error.to_string()))?;
        (info.stream_sequence, nanoseconds(info.published, what)?, info.pending)
    };
    let message = message.message;
    Ok((
        Delivery {
            sequence,
            broker_ns,
            subject: message.subject.to_string(),
            content_type: content_type(message.headers.as_ref()),
            payload: message.payload,
            pending,
        },
        message.reply,
    ))
}
