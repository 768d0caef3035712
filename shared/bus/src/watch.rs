//! Looking on: what is published under a subject from now on.

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::{connection::Bus, error::BusError, stream};

/// Messages as they are published, for people to look at. Not for counting: what comes while the
/// connection is down, or faster than it is read, is not seen.
#[derive(Debug)]
pub struct Watch(Subscriber);

/// A message that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it was published, with the prefix.
    pub subject: String,
    /// Its `Content-Type` header.
    pub content_type: Option<String>,
    /// Its body.
    pub payload: Bytes,
}

impl Bus {
    /// Looks on at a subject, with `*` and `>` for any token and any rest, under the prefix.
    ///
    /// # Errors
    ///
    /// The subject is none, or the connection is gone.
    pub async fn watch(&self, subject: &str) -> Result<Watch, BusError> {
        let subject = self.subject(subject);
        let what = format!("a subscription to {subject}");
        let subscriber = self
            .client()
            .subscribe(subject)
            .await
            .map_err(|error| crate::api::no_answer(&error, &what))?;
        Ok(Watch(subscriber))
    }
}

impl Watch {
    /// The next message; `None` when the connection was closed for good.
    pub async fn next(&mut self) -> Option<Seen> {
        let message = self.0.next().await?;
        Some(Seen {
            subject: message.subject.to_string(),
            content_type: stream::content_type(message.headers.as_ref()),
            payload: message.payload,
        })
    }
}
