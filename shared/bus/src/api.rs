//! Requests to JetStream's own API, with JSON in both directions.
//!
//! The client's typed requests drop fields that they don't know. With them, an option that the
//! server silently ignored would look like one that it applied.

use async_nats::jetstream::{self, response::Response};
use serde::{Deserialize, Deserializer, Serialize, de, de::DeserializeOwned};

use crate::error::BusError;

/// There is no such stream.
pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
/// There is no such consumer.
pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
/// There is no such message.
pub(crate) const NO_MESSAGE_FOUND: u64 = 10_037;
/// A stream of this name exists with another configuration.
pub(crate) const STREAM_NAME_IN_USE: u64 = 10_058;
/// The stream could not be purged; the error in its text is the file system's.
pub(crate) const PURGE_FAILED: u64 = 10_051;
/// The reserved space is used up: of the server, of the account, of either; or the request is for
/// more than one stream may have.
pub(crate) const NO_STORAGE: [u64; 4] = [10_047, 10_028, 10_002, 10_122];

/// A time in RFC 3339, as nanoseconds since 1970.
pub(crate) struct Nanoseconds(pub(crate) i64);

impl<'de> Deserialize<'de> for Nanoseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time = time::serde::rfc3339::deserialize(deserializer)?;
        i64::try_from(time.unix_timestamp_nanos()).map(Self).map_err(de::Error::custom)
    }
}

/// Sends one request; `what` describes the request in errors.
pub(crate) async fn request<T: DeserializeOwned>(
    context: &jetstream::Context,
    subject: String,
    body: &(impl Serialize + ?Sized),
    what: &str,
) -> Result<T, BusError> {
    let response: Response<serde_json::Value> =
        context.request(subject, body).await.map_err(|error| request_error(&error, what))?;
    match response {
        Response::Err { error } => Err(server_error(&error, what)),
        Response::Ok(value) => serde_json::from_value(value).map_err(|error| BusError::Garbled {
            what: format!("the answer to {what}"),
            detail: error.to_string(),
        }),
    }
}

/// An error that the server answered with.
pub(crate) fn server_error(error: &jetstream::Error, what: &str) -> BusError {
    BusError::Server {
        what: what.to_owned(),
        detail: error.to_string(),
        code: u16::try_from(error.code()).unwrap_or(u16::MAX),
        error_code: error.error_code().0,
    }
}

/// Turns an error about a missing stream into one with the stream's name.
pub(crate) fn named(error: BusError, stream: &str) -> BusError {
    if error.server_code() == Some(STREAM_NOT_FOUND) {
        BusError::NoStream { stream: stream.to_owned() }
    } else {
        error
    }
}

fn request_error(error: &jetstream::context::RequestError, what: &str) -> BusError {
    use jetstream::context::RequestErrorKind;
    match error.kind() {
        RequestErrorKind::NoResponders => BusError::NoJetStream { what: what.to_owned() },
        RequestErrorKind::TimedOut | RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
            no_answer(error, what)
        }
    }
}

/// An error of the client: the server did not answer.
pub(crate) fn no_answer(error: &dyn std::error::Error, what: &str) -> BusError {
    BusError::NoAnswer { what: what.to_owned(), detail: chain(error) }
}

/// The error of one of the client's typed calls: the server's answer, if the error's chain contains
/// one.
pub(crate) fn client_error(error: &(dyn std::error::Error + 'static), what: &str) -> BusError {
    let mut current = Some(error);
    while let Some(cause) = current {
        if let Some(server) = answer(cause) {
            return server_error(&server, what);
        }
        if is_no_message(cause) {
            return BusError::Server {
                what: what.to_owned(),
                detail: cause.to_string(),
                code: 404,
                error_code: NO_MESSAGE_FOUND,
            };
        }
        current = cause.source();
    }
    no_answer(error, what)
}

/// The server's answer in one of the client's errors. Some of these keep the answer in their kind
/// instead of their source.
fn answer(error: &(dyn std::error::Error + 'static)) -> Option<jetstream::Error> {
    use jetstream::context::{GetStreamError, GetStreamErrorKind};
    use jetstream::stream::{ConsumerError, ConsumerErrorKind};
    use jetstream::stream::{RawMessageError, RawMessageErrorKind};
    if let Some(error) = error.downcast_ref::<jetstream::Error>() {
        return Some(error.clone());
    }
    if let Some(error) = error.downcast_ref::<ConsumerError>()
        && let ConsumerErrorKind::JetStream(error) = error.kind()
    {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<GetStreamError>()
        && let GetStreamErrorKind::JetStream(error) = error.kind()
    {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<RawMessageError>()
        && let RawMessageErrorKind::JetStream(error) = error.kind()
    {
        return Some(error);
    }
    None
}

fn is_no_message(error: &(dyn std::error::Error + 'static)) -> bool {
    use jetstream::stream::{RawMessageError, RawMessageErrorKind};
    error
        .downcast_ref::<RawMessageError>()
        .is_some_and(|error| error.kind() == RawMessageErrorKind::NoMessageFound)
}

/// An error with its causes, without repetitions.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
