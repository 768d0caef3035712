//! The HTTP port to which other systems post what they report.
//!
//! 2xx only after the broker has stored everything of a request; 503 with `Retry-After` while it is
//! away or full, so that the sender keeps it and tries again; 4xx for what no repetition mends.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Serialize;
use service_kit::{Clock, Secret};

use crate::{
    body::{BodyError, unpacked},
    metrics::CollectorMetrics,
    outlet::Outlet,
    s3_events::{self, Notification},
};

/// Where S3 events are posted.
pub(crate) const S3_EVENTS: &str = "/s3-events";
/// How long a sender waits before it tries again, in seconds: brokers restart within it.
const RETRY_AFTER_S: &str = "5";
/// A sender that has not sent its body within this time is dropped, and sends it again.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// What every request needs.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) token: Option<Secret>,
    pub(crate) body_bytes_max: usize,
    pub(crate) outlet: Outlet,
    pub(crate) metrics: CollectorMetrics,
    pub(crate) clock: Clock,
}

/// What became of a request that was stored.
#[derive(Debug, Serialize)]
struct Stored {
    published: u64,
    ignored: u64,
    /// Records that are dead letters now.
    refused: Vec<StoredRefusal>,
}

#[derive(Debug, Serialize)]
struct StoredRefusal {
    index: usize,
    why: String,
}

impl Receiver {
    /// The routes, one for each kind of report.
    pub(crate) fn routes(self) -> Router {
        let receiver = Arc::new(self);
        Router::new().route(S3_EVENTS, post(s3_events)).with_state(receiver)
    }

    async fn receive(&self, headers: &HeaderMap, body: Body) -> Result<Stored, NotTaken> {
        self.authorise(headers)?;
        let reading = to_bytes(body, self.body_bytes_max);
        let packed = match tokio::time::timeout(BODY_WAIT, reading).await {
            Ok(Ok(packed)) => packed,
            Ok(Err(_)) => return Err(BodyError::TooLong(self.body_bytes_max).into()),
            Err(_) => {
                let why = format!("the body did not come within {} s", BODY_WAIT.as_secs());
                return Err(NotTaken(StatusCode::REQUEST_TIMEOUT, why));
            }
        };
        let body = unpacked(headers, &packed, self.body_bytes_max)?;
        let Notification { events, ignored, refused } = s3_events::parse(&body)
            .map_err(|error| NotTaken(StatusCode::BAD_REQUEST, error.to_string()))?;
        self.outlet
            .store(&events, &refused)
            .await
            .map_err(|error| NotTaken(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let (published, letters) = (count(events.len()), count(refused.len()));
        self.metrics.stored(published, ignored, letters, self.clock.now_us());
        let refused = refused.into_iter().map(|one| {
            tracing::warn!(index = one.index, why = one.why, "a record is a dead letter");
            StoredRefusal { index: one.index, why: one.why }
        });
        Ok(Stored { published, ignored, refused: refused.collect() })
    }

    /// Whether the request brings the token. Hashes are compared, which takes the same time whatever
    /// is wrong with it.
    fn authorise(&self, headers: &HeaderMap) -> Result<(), NotTaken> {
        let Some(token) = &self.token else { return Ok(()) };
        let token = token.read().map_err(|error| {
            tracing::error!(%error, "the token of the receiver can't be read");
            let why = "the receiver can't read its own token (COLLECT_TOKEN_FILE)".to_owned();
            NotTaken(StatusCode::SERVICE_UNAVAILABLE, why)
        })?;
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if blake3::hash(given.trim().as_bytes()) == blake3::hash(token.as_bytes()) {
            return Ok(());
        }
        let why = "the token is missing or wrong: send Authorization: Bearer <COLLECT_TOKEN>";
        Err(NotTaken(StatusCode::UNAUTHORIZED, why.to_owned()))
    }
}

/// Why nothing of a request was taken: the answer to it.
#[derive(Debug)]
struct NotTaken(StatusCode, String);

impl From<BodyError> for NotTaken {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Damaged(_) => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for NotTaken {
    fn into_response(self) -> Response {
        let Self(status, why) = self;
        let answer = (status, format!("{why}\n"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            ([(header::RETRY_AFTER, RETRY_AFTER_S)], answer).into_response()
        } else {
            answer.into_response()
        }
    }
}

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        let text = serde_json::to_string(&self).unwrap_or_default();
        ([(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}

async fn s3_events(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let response = match receiver.receive(&headers, body).await {
        Ok(stored) => stored.into_response(),
        Err(not_taken) => not_taken.into_response(),
    };
    receiver.metrics.answered(response.status().as_u16());
    response
}
