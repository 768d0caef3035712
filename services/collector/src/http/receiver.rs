//! The HTTP port to which other systems send their reports.
//!
//! The answer is 2xx only after the broker has stored everything from the request. While the broker
//! is unreachable or full, the answer is 503 with `Retry-After`, so that the sender keeps the
//! report and tries again. The answer is 4xx if a repetition can't succeed.

use std::{future::ready, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use service_kit::{Clock, Secret};

use super::{
    answer::{NotTaken, Stored},
    body,
    metrics::RequestMetrics,
    turned_away::{TurnedAway, Why},
};
use crate::{metrics::CollectorMetrics, outlet::Outlet, sources::Report};

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) token: Option<Secret>,
    pub(crate) body_bytes_max: usize,
    pub(crate) ack_wait: Duration,
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) collected: CollectorMetrics,
    pub(crate) requests: RequestMetrics,
    pub(crate) clock: Clock,
}

impl Receiver {
    /// The routes, one for each of the given kinds of report.
    pub(crate) fn routes(self, reports: &[Report]) -> Router {
        let watch = Arc::new(Watch {
            requests: self.requests.clone(),
            turned_away: TurnedAway::new(self.clock.clone()),
        });
        // Some senders can be configured to use PUT instead of POST; both mean the same here.
        let methods = MethodFilter::POST.or(MethodFilter::PUT);
        let not_found = not_found(reports);
        let mut router = Router::new();
        for &report in reports {
            let take = move |State(receiver): State<Arc<Self>>, headers: HeaderMap, body: Body| async move {
                match receiver.take(&report, &headers, body).await {
                    Ok(stored) => stored.into_response(),
                    Err(not_taken) => not_taken.into_response(),
                }
            };
            router = router.route(report.path, on(methods, take));
        }
        router
            .fallback(move || ready(NotTaken(StatusCode::NOT_FOUND, not_found.clone())))
            .method_not_allowed_fallback(async || {
                let why = "reports are posted here: POST, or PUT";
                NotTaken(StatusCode::METHOD_NOT_ALLOWED, why.to_owned())
            })
            .layer(from_fn_with_state(watch, watched))
            .with_state(Arc::new(self))
    }

    async fn take(
        &self,
        report: &Report,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Stored, NotTaken> {
        self.authorise(headers)?;
        let body = body::read(headers, body, self.body_bytes_max).await?;
        let parsed = (report.parse)(&body)
            .map_err(|error| NotTaken(StatusCode::BAD_REQUEST, error.to_string()))?;
        self.outlet.publish_within(&parsed, self.ack_wait).await?;
        self.collected.stored(report.label(), &parsed, self.clock.now_us());
        for notice in &parsed.notices {
            tracing::warn!(path = report.path, "{notice}");
        }
        for one in &parsed.refused {
            let (path, index, why) = (report.path, one.index, one.refusal.to_string());
            tracing::warn!(path, index, why, "a record is a dead letter");
        }
        Ok(Stored::from(&parsed))
    }

    /// Checks the request's token. Hashes are compared, because that takes the same time for every
    /// wrong token.
    fn authorise(&self, headers: &HeaderMap) -> Result<(), NotTaken> {
        let Some(token) = &self.token else { return Ok(()) };
        let token = token.read().map_err(|error| {
            tracing::error!(%error, "the token of the receiver can't be read");
            let why = "the receiver can't read its own token (COLLECT_TOKEN_FILE)".to_owned();
            NotTaken(StatusCode::SERVICE_UNAVAILABLE, why)
        })?;
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.map(credential).unwrap_or_default();
        if blake3::hash(given.trim().as_bytes()) == blake3::hash(token.as_bytes()) {
            return Ok(());
        }
        let why = "the token is missing or wrong: send Authorization: Bearer <COLLECT_TOKEN>";
        Err(NotTaken(StatusCode::UNAUTHORIZED, why.to_owned()))
    }
}

/// The token in an `Authorization` header. Some senders are configured with the whole header, some
/// with the token only. SNS accepts only a user and a password in its URL; the password is then the
/// token.
fn credential(header: &str) -> String {
    if let Some(token) = header.strip_prefix("Bearer ") {
        return token.to_owned();
    }
    let Some(encoded) = header.strip_prefix("Basic ") else { return header.to_owned() };
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    decoded.split_once(':').map(|(_, password)| password.to_owned()).unwrap_or_default()
}

/// Counts and logs answers.
#[derive(Debug)]
struct Watch {
    requests: RequestMetrics,
    turned_away: TurnedAway,
}

/// Counts every answer, including those for unknown paths, and logs the requests that were turned
/// away.
async fn watched(State(watch): State<Arc<Watch>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status();
    watch.requests.answered(status.as_u16());
    if status.is_client_error() {
        let why = response.extensions().get::<Why>().map_or("", |Why(why)| why);
        watch.turned_away.tell(status.as_u16(), &path, why);
    }
    response
}

/// The answer for an unknown path; it lists the paths of all reports.
fn not_found(reports: &[Report]) -> String {
    let paths: String =
        reports.iter().map(|report| format!("\n{}  {}", report.path, report.what)).collect();
    format!("nothing is received at this path; reports are posted to{paths}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_every_form_that_a_sender_can_be_given() {
        for header in ["Bearer a:b c", "a:b c", "Basic c25zOmE6YiBj"] {
            assert_eq!(credential(header), "a:b c", "{header}");
        }
        for nothing in ["Basic ", "Basic !", "Basic c25z", "Basic /w=="] {
            assert_eq!(credential(nothing), "", "{nothing}");
        }
    }
}
