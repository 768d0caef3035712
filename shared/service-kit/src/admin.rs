//! The admin port: `/livez`, `/readyz` and `/metrics` of the service itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::ready;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};

use crate::Readiness;
use crate::lifecycle::Lifecycle;
use crate::readiness::PartHealth;

crate::metrics! {
    /// The contents of `/readyz` as metrics, for monitoring.
    #[derive(Clone, Debug)]
    pub(crate) struct ReadinessGauges {
        ready: gauge("lakegauge_ready",
            "1 while the service is ready, as /readyz reports it, otherwise 0."),
        standby: gauge("lakegauge_standby",
            "1 while the service is healthy and on standby because another does its work."),
        parts: gauges("lakegauge_part_ready",
            "1 for each part of the service that does its job, 0 if it does not or is on standby.",
            &["part"]),
    }
}

impl ReadinessGauges {
    /// Sets the gauges. If several parts have the same name, all of them must be healthy.
    fn observe(&self, readiness: &Readiness, lifecycle: &Lifecycle) {
        let is_ready = readiness.is_ready() && !lifecycle.is_draining();
        self.ready.set(i64::from(is_ready));
        self.standby.set(i64::from(readiness.is_standby()));
        let mut well = BTreeMap::new();
        for part in readiness.parts() {
            *well.entry(part.name).or_insert(true) &= part.health == PartHealth::Well;
        }
        // Parts appear and disappear while the service runs.
        self.parts.reset();
        for (name, is_well) in well {
            self.parts.with_label_values(&[name]).set(i64::from(is_well));
        }
    }
}

/// The routes of the admin port.
///
/// `/livez` is 200 as long as the process can answer. `/readyz` is 200 if the service does its job,
/// otherwise 503 with the reasons; it lists every part with `?verbose`.
pub(crate) fn routes(
    readiness: Readiness,
    lifecycle: Lifecycle,
    registry: Registry,
    gauges: ReadinessGauges,
) -> Router {
    let (watched, ends) = (readiness.clone(), lifecycle.clone());
    Router::new()
        .route("/", get("/livez\n/readyz\n/readyz?verbose\n/metrics\n"))
        .route("/livez", get("ok\n"))
        .route(
            "/readyz",
            get(move |RawQuery(query)| {
                let query = query.unwrap_or_default();
                let is_verbose = query.split('&').any(|part| part == "verbose");
                ready(readyz(&readiness, &lifecycle, is_verbose))
            }),
        )
        .route(
            "/metrics",
            get(move || {
                gauges.observe(&watched, &ends);
                ready(metrics(&registry))
            }),
        )
}

fn readyz(readiness: &Readiness, lifecycle: &Lifecycle, is_verbose: bool) -> (StatusCode, String) {
    let is_ready = readiness.is_ready() && !lifecycle.is_draining();
    let mut body = String::new();
    if !is_ready || is_verbose {
        body = readiness.describe();
        if lifecycle.is_draining() {
            body.push_str("[-]lifecycle draining\n");
        }
    }
    // Writing into a string can't fail.
    writeln!(body, "{}", if is_ready { "ready" } else { "not ready" }).unwrap_or_default();
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

fn metrics(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => crate::http::metrics(text),
        Err(error) => {
            let body = format!("metrics can't be written: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    /// Status and text of the response to a request.
    async fn ask(routes: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn parts() -> (Readiness, Lifecycle, Router) {
        let (readiness, lifecycle) = (Readiness::default(), Lifecycle::default());
        let registry = Registry::new();
        let gauges = ReadinessGauges::register(&registry).unwrap();
        let routes = routes(readiness.clone(), lifecycle.clone(), registry, gauges);
        (readiness, lifecycle, routes)
    }

    #[tokio::test]
    async fn readyz_says_what_is_missing_and_livez_is_well_meanwhile() {
        let (readiness, _lifecycle, routes) = parts();
        let latch = readiness.latch("caught up");
        let not_ready = "[-]caught up not yet\nnot ready\n".to_owned();
        assert_eq!(ask(&routes, "/readyz").await, (503, not_ready));
        assert_eq!(ask(&routes, "/livez").await.0, 200);
        latch.open();
        assert_eq!(ask(&routes, "/readyz").await, (200, "ready\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_say_what_readyz_says() {
        let (readiness, lifecycle, routes) = parts();
        let (nats, first, second) = (
            readiness.condition("nats"),
            readiness.condition("archive"),
            readiness.condition("archive"),
        );
        let says = async |lines: &[&str]| {
            let (_, page) = ask(&routes, "/metrics").await;
            for line in lines {
                assert!(page.lines().any(|found| found == *line), "{line} of\n{page}");
            }
        };
        says(&["lakegauge_ready 1", "lakegauge_standby 0"]).await;
        first.stand_by("another holds the lock");
        let stands_by = ["lakegauge_ready 0", "lakegauge_standby 1"];
        says(&[&stands_by[..], &["lakegauge_part_ready{part=\"archive\"} 0"]].concat()).await;
        nats.fail("no connection");
        let fails = ["lakegauge_standby 0", "lakegauge_part_ready{part=\"nats\"} 0"];
        says(&fails).await;
        drop((nats, first));
        second.pass("archiving");
        says(&["lakegauge_ready 1", "lakegauge_part_ready{part=\"archive\"} 1"]).await;
        let (_, page) = ask(&routes, "/metrics").await;
        assert!(!page.contains("part=\"nats\""), "a part that is gone:\n{page}");
        lifecycle.drain();
        says(&["lakegauge_ready 0"]).await;
    }

    #[tokio::test]
    async fn a_draining_service_is_alive_and_not_ready() {
        let (_readiness, lifecycle, routes) = parts();
        lifecycle.drain();
        assert_eq!(ask(&routes, "/readyz").await.0, 503);
        assert_eq!(ask(&routes, "/livez").await.0, 200);
    }

    #[tokio::test]
    async fn readyz_lists_every_part_when_asked() {
        let (readiness, _lifecycle, routes) = parts();
        let nats = readiness.condition("nats");
        nats.pass("connected");
        let (_, listed) = ask(&routes, "/readyz?verbose").await;
        assert_eq!(listed, "[+]nats connected\nready\n");
    }
}
