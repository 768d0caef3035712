//! One message of a stream, as readers return it.

use async_nats::{HeaderValue, jetstream};
use bytes::Bytes;
use wire::{
    Message, Subjects,
    headers::{CONTENT_TYPE, Headers},
};

use crate::error::BusError;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The broker's sequence.
    pub sequence: u64,
    /// When the broker stored it, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// The subject, with the prefix.
    pub subject: String,
    /// The headers, or why they can't be read.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// How many messages were waiting behind this one when the broker sent it; 0 for single
    /// messages.
    pub pending: u64,
}

impl Delivery {
    /// The message without the details of its delivery, and with the subject without the prefix.
    pub fn message(&self, subjects: &Subjects) -> Message<'_> {
        Message {
            sequence: self.sequence,
            broker_ns: self.broker_ns,
            subject: subjects.strip(&self.subject),
            headers: &self.headers,
            payload: &self.payload,
        }
    }
}

/// A message from a consumer, and the subject that acknowledges it.
pub(crate) fn delivery(
    message: jetstream::Message,
) -> Result<(Delivery, Option<async_nats::Subject>), BusError> {
    let what = "a message's place in its stream";
    let garbled = |detail| BusError::Garbled { what: what.to_owned(), detail };
    let info = message.info().map_err(|error| garbled(error.to_string()))?;
    let broker_ns = i64::try_from(info.published.unix_timestamp_nanos())
        .map_err(|_| garbled(format!("the broker's time {} is out of range", info.published)))?;
    let (sequence, pending) = (info.stream_sequence, info.pending);
    let message = message.message;
    let content_type = message.headers.as_ref().and_then(|headers| headers.get(CONTENT_TYPE));
    Ok((
        Delivery {
            sequence,
            broker_ns,
            subject: message.subject.to_string(),
            headers: content_type.map(HeaderValue::as_str).into(),
            payload: message.payload,
            pending,
        },
        message.reply,
    ))
}
