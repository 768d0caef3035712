//! Starts the aggregator: connection, lease of the partition, one task per stream, the metrics
//! port.

use std::time::Duration;

use anyhow::Context as _;
use bus::{
    Bus, Claim,
    publishing::PublishMetrics,
    status::{Announcer, ServiceStatus, StatusListener},
};
use domain::{SAMPLES, Stream};
use event_store::{StoreError, StoreSettings};
use service_kit::{Clock, Condition, Context, http, random};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    config::Config,
    exposed_state::ExposedState,
    health::LiveHealth,
    lease::LeaseHolder,
    metrics::LeaseMetrics,
    page::{PageFeed, Samples, SharedHistory},
    partition::Partition,
    roster::Roster,
    stream::{Shared, StreamHistory},
};

/// How late readiness may report that the numbers are stale.
const FRESHNESS_POLL: Duration = Duration::from_millis(500);

/// Runs the aggregator until the service drains.
///
/// # Errors
///
/// Errors that no retry can correct: refused logins, unknown rules, a port in use.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let metrics = LeaseMetrics::register(&context.registry).context("metrics")?;
    let publishing = PublishMetrics::register(&context.registry).context("metrics")?;
    // Between two renewals of a long lease the numbers are not stale.
    let exposed = ExposedState::new(config.stale_after.max(config.lease));
    let listener = http::bind("the metrics", config.metrics_addr).await?;
    let history = SharedHistory::new(config.page_grain_s);
    let streams =
        Stream::of_partition(config.partition).map(|stream| (stream, LiveHealth::default()));
    // A replay is counted without the rest of the pipeline.
    let roster = config.mode.replay.is_none().then(Roster::new);
    let feed = PageFeed {
        exposed: exposed.clone(),
        history: history.clone(),
        streams: streams.clone(),
        readiness: context.readiness.clone(),
        roster: roster.clone(),
        name: ServiceStatus::named(&context, &config.partition.to_string()),
        clock: context.clock.clone(),
        links: config.links.clone(),
    };
    let (page, looking) = feed.start();
    let _looking = AbortOnDropHandle::new(tokio::spawn(looking));
    http::serve(listener, page.routes().merge(exposed.clone().routes(context.readiness.clone())));
    tracing::info!(address = %config.metrics_addr, "metrics port open");

    let Some(bus) = bus::service::connect(&config.bus, &context).await? else { return Ok(()) };
    let _listening = roster.map(|roster| {
        let work = config.partition.to_string();
        Announcer::new(&bus, &context, &work).spawn(&context, || None);
        AbortOnDropHandle::new(tokio::spawn(listen(bus.clone(), roster, context.clock.clone())))
    });
    if let Some(store) = config.store.clone() {
        event_store::service::watch_login(&store, &context).context("metrics")?;
        let drain = context.lifecycle.drain_token();
        context.lifecycle.spawn("the archive's address", async move {
            tokio::select! {
                () = drain.cancelled() => Ok(()),
                looked = look_at_archive(store) => looked,
            }
        });
    }
    let samples = Samples {
        bus: bus.clone(),
        name: config
            .mode
            .replay
            .as_ref()
            .map_or_else(|| SAMPLES.to_owned(), bus::ReplayRun::samples),
        partition: config.partition,
        history,
        clock: context.clock.clone(),
    };
    let _samples = AbortOnDropHandle::new(tokio::spawn(samples.run()));
    let jitter = context.jitter();
    let condition = context.readiness.condition("owner");
    condition.fail("asking who owns the partition");
    let lease = LeaseHolder::new(
        &bus,
        thing(&config),
        claim(&config, &context.instance())?,
        config.lease,
        context.clock.clone(),
        condition,
        metrics,
    );
    let readiness = ReadinessWatch {
        complete: context.readiness.condition("caught up"),
        fresh: context.readiness.condition("numbers"),
        exposed: exposed.clone(),
    };
    let _readiness = AbortOnDropHandle::new(tokio::spawn(readiness.run()));
    let partition = Partition {
        streams: streams.map(|(stream, health)| StreamHistory::new(&bus, &config, stream, health)),
        shared: Shared {
            bus,
            config,
            exposed,
            publishing,
            registry: context.registry,
            clock: context.clock,
            readiness: context.readiness,
        },
    };
    context.not_ready.open();
    partition.run(lease, &context.lifecycle.drain_token(), jitter).await
}

/// Records the reports of the services, for ever.
async fn listen(bus: Bus, roster: Roster, clock: Clock) {
    let listener = StatusListener::new(&bus);
    let hearing = listener.run(|status| {
        roster.heard(status, clock.monotonic_ms(), clock.now_us() / 1_000);
    });
    let looking = async {
        loop {
            roster.denied(listener.denial());
            tokio::time::sleep(FRESHNESS_POLL).await;
        }
    };
    tokio::join!(hearing, looking);
}

/// Checks the archive, which is needed only for a rebuild, so problems are only logged. But an
/// address that could lead to wrong answers is refused.
async fn look_at_archive(store: StoreSettings) -> anyhow::Result<()> {
    match event_store::check_fit(&store).await {
        Ok(()) => {}
        Err(error @ StoreError::Settings(_)) => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "no rebuild from the archive would be possible now");
        }
    }
    Ok(())
}

/// Keeps readiness up to date with what is exposed, and with its age.
struct ReadinessWatch {
    complete: Condition,
    fresh: Condition,
    exposed: ExposedState,
}

impl ReadinessWatch {
    async fn run(self) {
        let mut changes = self.exposed.changes();
        let mut was_stale = false;
        loop {
            if self.exposed.is_complete() {
                self.complete.pass("both streams");
            } else if self.exposed.is_counted_elsewhere() {
                self.complete.stand_by("what is shown is counted elsewhere");
            } else {
                self.complete.fail("reading what the streams held at start");
            }
            let stale = self.exposed.stale();
            match &stale {
                Some(stale) => self.fresh.fail(stale.to_string()),
                None => self.fresh.pass("not stale"),
            }
            if std::mem::replace(&mut was_stale, stale.is_some()) != stale.is_some() {
                match stale {
                    Some(stale) => tracing::error!("the numbers are {stale}"),
                    None => tracing::warn!("the numbers are not stale any more"),
                }
            }
            // Either something was exposed, or the time for the next check has come.
            drop(tokio::time::timeout(FRESHNESS_POLL, changes.changed()).await);
        }
    }
}

/// The name of the lease. A replay run is counted beside the live streams, so it has a lease of its
/// own.
fn thing(config: &Config) -> String {
    match &config.mode.replay {
        Some(run) => format!("aggregator.{}.{}", config.partition, run.name()),
        None => format!("aggregator.{}", config.partition),
    }
}

/// The claim of this process; other aggregators show it to people while they wait.
fn claim(config: &Config, instance: &str) -> anyhow::Result<Claim> {
    let token = random::token().context("a token for the owner")?;
    Ok(Claim {
        holder: format!("aggregator {instance} at {}", config.metrics_addr),
        token: format!("{:032x}", u128::from_be_bytes(token)),
        beat: 0,
        is_released: false,
    })
}
