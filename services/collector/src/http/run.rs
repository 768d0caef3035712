//! Runs `collect http`: connects to the broker, creates the publishers and opens the HTTP port.

use std::sync::Arc;

use anyhow::Context as _;
use service_kit::{Context, http};

use super::{config::Config, metrics::RequestMetrics, receiver::Receiver};
use crate::{metrics::CollectorMetrics, outlet::Outlet, sources::Report};

/// Receives reports until the service drains.
///
/// # Errors
///
/// Errors that no retry can correct: refused logins, a port in use, an address that other machines
/// can reach without a token, a broker that stores nothing for another reason than that it is
/// unreachable or full.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    config.check()?;
    let tls = config.tls()?;
    if tls.is_none() && !config.http_addr.ip().is_loopback() {
        let advice = "set COLLECT_TLS_CERT_FILE, or put a proxy before it that speaks TLS";
        tracing::warn!(address = %config.http_addr, advice, "the token travels unencrypted");
    }
    let reports = config.s3_reports.reports();
    let labels: Vec<&str> = reports.iter().map(Report::label).collect();
    let collected = CollectorMetrics::of(&context.registry, &labels).context("metrics")?;
    let requests = RequestMetrics::of(&context.registry).context("metrics")?;
    let listener = http::bind("what other systems report", config.http_addr).await?;
    let outlet = Outlet::connect(&config.bus, &context, &config.source).await?;
    let Some(outlet) = outlet else { return Ok(()) };
    let outlet = Arc::new(outlet);
    let receiver = Receiver {
        token: config.token,
        body_bytes_max: config.body_bytes_max,
        ack_wait: config.ack_wait,
        outlet: Arc::clone(&outlet),
        collected,
        requests,
        clock: context.clock.clone(),
    };
    let (routes, speaks_tls) = (receiver.routes(&reports), tls.is_some());
    match tls.map(Arc::new) {
        Some(tls) => http::serve_opened(listener, routes, move |stream| {
            let tls = Arc::clone(&tls);
            async move { tls.accept(stream).await }
        }),
        None => http::serve_as_given(listener, routes),
    }
    let paths: Vec<&str> = reports.iter().map(|report| report.path).collect();
    tracing::info!(address = %config.http_addr, ?paths, tls = speaks_tls, "reports are received");
    context.not_ready.open();
    tokio::select! {
        () = context.lifecycle.draining() => Ok(()),
        error = outlet.failed() => Err(error.into()),
    }
}
