//! The answers to senders.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::turned_away::Why;
use crate::{outlet::NotStored, parsed::Parsed};

/// Seconds after which a sender is asked to try again. Brokers restart within this time.
const RETRY_AFTER_S: &str = "5";

/// The answer to a report that was stored: the numbers of published and ignored records, and the
/// refused records.
#[derive(Debug, Serialize)]
pub(crate) struct Stored {
    published: usize,
    ignored: u64,
    /// Records that became dead letters.
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize)]
struct Refused {
    index: usize,
    why: String,
}

impl From<&Parsed> for Stored {
    fn from(parsed: &Parsed) -> Self {
        let refused = parsed.refused.iter();
        Self {
            published: parsed.events.len(),
            ignored: parsed.ignored,
            refused: refused
                .map(|one| Refused { index: one.index, why: one.refusal.to_string() })
                .collect(),
        }
    }
}

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        let text = serde_json::to_string(&self).unwrap_or_default();
        ([(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}

/// The answer to a request of which nothing was stored: the status and the reason.
#[derive(Debug)]
pub(crate) struct NotTaken(pub(crate) StatusCode, pub(crate) String);

impl From<NotStored> for NotTaken {
    fn from(not_stored: NotStored) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, not_stored.to_string())
    }
}

impl IntoResponse for NotTaken {
    fn into_response(self) -> Response {
        let Self(status, why) = self;
        let answer = (status, format!("{why}\n"));
        let mut response = if status == StatusCode::SERVICE_UNAVAILABLE {
            ([(header::RETRY_AFTER, RETRY_AFTER_S)], answer).into_response()
        } else {
            answer.into_response()
        };
        response.extensions_mut().insert(Why(why));
        response
    }
}
