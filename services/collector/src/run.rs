//! Wires the receiver: connection, publisher, HTTP port.

use anyhow::Context as _;
use bus::{
    publishing::{PublishMetrics, PublishWatch},
    status::Announcer,
};
use service_kit::{Context, http};
use tokio_util::task::AbortOnDropHandle;
use wire::Subjects;

use crate::{
    config::Config,
    metrics::CollectorMetrics,
    outlet::Outlet,
    receiver::{Receiver, S3_EVENTS},
};

/// Receives until it is told to drain.
///
/// # Errors
///
/// What no retry can mend: refused logins, a taken port, an address beyond this machine without a
/// token.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.token.is_some() || config.http_addr.ip().is_loopback(),
        "COLLECT_HTTP_ADDR: {} can be reached from other machines, so set COLLECT_TOKEN (or \
         COLLECT_TOKEN_FILE) as well",
        config.http_addr
    );
    let metrics = CollectorMetrics::of(&context.registry).context("metrics")?;
    let publishing = PublishMetrics::register(&context.registry).context("metrics")?;
    let listener = http::bind("what other systems report", config.http_addr).await?;
    let Some(bus) = bus::service::connect(&config.bus, &context).await? else { return Ok(()) };
    Announcer::new(&bus, &context, &config.source).spawn(&context, || None);
    let subjects = Subjects::new(&config.bus.settings.subject_prefix);
    let outlet = Outlet::new(&bus, &subjects, &config.source, config.ack_wait);
    let watch = PublishWatch::new(
        outlet.publisher().progress(),
        publishing.of("events", &Outlet::stream().to_string()),
        context.readiness.condition("publisher"),
    );
    let _watching = AbortOnDropHandle::new(tokio::spawn(watch.run()));
    let receiver = Receiver {
        token: config.token,
        body_bytes_max: config.body_bytes_max,
        outlet,
        metrics,
        clock: context.clock.clone(),
    };
    http::serve(listener, receiver.routes());
    tracing::info!(address = %config.http_addr, path = S3_EVENTS, "S3 events are received");
    context.not_ready.open();
    context.lifecycle.draining().await;
    Ok(())
}
