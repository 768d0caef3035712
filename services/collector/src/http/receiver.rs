//! The HTTP port to which other systems post what they report.
//!
//! 2xx only after the broker has stored everything of a request; 503 with `Retry-After` while it is
//! away or full, so that the sender keeps it and tries again; 4xx for what no repetition mends.

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
use service_kit::{Clock, Secret};

use super::{
    answer::{NotTaken, Stored},
    body,
    metrics::RequestMetrics,
};
use crate::{metrics::CollectorMetrics, outlet::Outlet, sources::Report};

/// What every request needs.
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
    /// The routes, one for each of these kinds of report.
    pub(crate) fn routes(self, reports: &[Report]) -> Router {
        let requests = self.requests.clone();
        // Some senders can be told to put instead of to post; it means the same.
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
            .layer(from_fn_with_state(requests, count))
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
        self.collected.stored(&parsed, self.clock.now_us());
        for one in &parsed.refused {
            let (path, index, why) = (report.path, one.index, one.refusal.to_string());
            tracing::warn!(path, index, why, "a record is a dead letter");
        }
        Ok(Stored::from(&parsed))
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
        // Some senders can only be given the whole value of the header, others only the token.
        let given = given.map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        let given = given.unwrap_or_default();
        if blake3::hash(given.trim().as_bytes()) == blake3::hash(token.as_bytes()) {
            return Ok(());
        }
        let why = "the token is missing or wrong: send Authorization: Bearer <COLLECT_TOKEN>";
        Err(NotTaken(StatusCode::UNAUTHORIZED, why.to_owned()))
    }
}

/// Counts every answer, those to unknown paths as well.
async fn count(State(requests): State<RequestMetrics>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    requests.answered(response.status().as_u16());
    response
}

/// Where reports can be posted.
fn not_found(reports: &[Report]) -> String {
    let paths: String =
        reports.iter().map(|report| format!("\n{}  {}", report.path, report.what)).collect();
    format!("nothing is received at this path; reports are posted to{paths}")
}
