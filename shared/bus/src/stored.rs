//! Messages as the server describes them: JSON, with header block and body in Base64.
//!
//! The client parses header blocks itself. It refuses some, and drops the connection on which they
//! came. In this form the client sees no header block, so every stored message can be read.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::Headers;

use crate::{
    api::{self, NO_MESSAGE_FOUND, Nanoseconds, named},
    connection::Bus,
    delivery::Delivery,
    error::BusError,
};

/// Which message of a stream to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// The message at a sequence.
    At(u64),
    /// The first at or after a sequence whose subject matches.
    From(u64, &'a str),
    /// The last message of a subject.
    Last(&'a str),
}

/// A message with its raw header block.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) broker_ns: i64,
    /// The subject, with the prefix.
    pub(crate) subject: String,
    /// The header block; empty if there is none.
    pub(crate) block: Vec<u8>,
    pub(crate) payload: Bytes,
}

impl Stored {
    /// The message as a reader returns it, with `pending` messages behind it.
    pub(crate) fn delivery(self, pending: u64) -> Delivery {
        Delivery {
            headers: Headers::read(&self.subject, &self.block),
            sequence: self.sequence,
            broker_ns: self.broker_ns,
            subject: self.subject,
            payload: self.payload,
            pending,
        }
    }
}

impl Bus {
    /// A message of a stream, given the stream's name on the server; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`], and any error of a request.
    pub(crate) async fn stored(
        &self,
        name: &str,
        which: Which<'_>,
    ) -> Result<Option<Stored>, BusError> {
        let (question, what) = which.question(name);
        let subject = format!("STREAM.MSG.GET.{name}");
        let answer: Result<Answer, BusError> =
            api::request(&self.context, subject, &question, &what).await;
        match answer {
            Ok(answer) => answer.message.decoded(&what).map(Some),
            Err(error) if error.server_code() == Some(NO_MESSAGE_FOUND) => Ok(None),
            Err(error) => Err(named(error, name)),
        }
    }
}

impl Which<'_> {
    fn question(self, name: &str) -> (Value, String) {
        match self {
            Self::At(sequence) => {
                (json!({ "seq": sequence }), format!("message {sequence} of stream {name}"))
            }
            Self::From(sequence, subject) => (
                json!({ "seq": sequence, "next_by_subj": subject }),
                format!("first message of stream {name} from {sequence} on"),
            ),
            Self::Last(subject) => {
                (json!({ "last_by_subj": subject }), format!("last message of {subject}"))
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    message: Described,
}

#[derive(Deserialize)]
struct Described {
    seq: u64,
    time: Nanoseconds,
    /// Bytes that are not UTF-8 are replaced by U+FFFD.
    subject: String,
    hdrs: Option<String>,
    data: Option<String>,
}

impl Described {
    fn decoded(self, what: &str) -> Result<Stored, BusError> {
        let bytes = |text: Option<String>| {
            STANDARD.decode(text.unwrap_or_default()).map_err(|error| BusError::Garbled {
                what: format!("the answer to {what}"),
                detail: error.to_string(),
            })
        };
        Ok(Stored {
            sequence: self.seq,
            broker_ns: self.time.0,
            subject: self.subject,
            block: bytes(self.hdrs)?,
            payload: bytes(self.data)?.into(),
        })
    }
}
