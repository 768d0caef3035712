//! From settings to exit status: the frame of every service.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use prometheus::{IntGauge, Opts, Registry};

use crate::logs::{LOG_FORMAT, LOG_LEVEL, LogConfig};
use crate::settings::{Environment, Flags, Recorded, Setting, Settings, Strings};
use crate::{Clock, Jitter, Latch, Lifecycle, Readiness, admin, fail_points, http, lifecycle};

/// Exit status for wrong settings (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit status for servers that don't belong together (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIGURATION: u8 = 78;

/// Where Linux keeps the machine's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Address of the admin port. Each service has its own default.
pub const ADMIN_ADDR: Setting = Setting {
    key: "ADMIN_ADDR",
    flag: "admin-addr",
    default: None,
    help: "Address and port of /livez, /readyz and /metrics of the service itself.",
    secret: false,
};
/// How long draining may take.
pub const SHUTDOWN_GRACE_MS: Setting = Setting {
    key: "SHUTDOWN_GRACE_MS",
    flag: "shutdown-grace-ms",
    default: Some("30000"),
    help: "How long a service may take to finish what it has taken after SIGTERM; then it gives \
           up with status 1.",
    secret: false,
};

/// What the frame must know about a service.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The service's name in logs and metrics, `archiver`.
    pub name: &'static str,
    /// The release, as in `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// The default address of the admin port.
    pub admin_addr: &'static str,
}

impl Service {
    /// The settings that the frame itself reads, with this service's defaults.
    pub const fn settings(&self) -> [Setting; 4] {
        let admin = Setting { default: Some(self.admin_addr), ..ADMIN_ADDR };
        [admin, LOG_FORMAT, LOG_LEVEL, SHUTDOWN_GRACE_MS]
    }

    /// Reads the settings of the frame: the address of the admin port, and how long draining may
    /// take.
    pub fn load(&self, settings: &mut Settings<'_>) -> Result<(SocketAddr, Duration), Recorded> {
        let [admin, ..] = self.settings();
        let admin_addr = settings.parse(&admin);
        let grace = settings.duration_ms(&SHUTDOWN_GRACE_MS);
        Ok((admin_addr?, grace?))
    }
}

/// What a service gets for its run.
#[derive(Debug)]
pub struct Context {
    /// The service.
    pub service: Service,
    /// The only clock.
    pub clock: Clock,
    /// Signals when to drain, and waits for spawned tasks.
    pub lifecycle: Lifecycle,
    /// The metrics on the admin port.
    pub registry: Registry,
    /// The source of `/readyz`: conditions that can fail and recover.
    pub readiness: Readiness,
    /// Must be dropped once the service is connected and has caught up.
    pub not_ready: Latch,
}

impl Context {
    /// Machine and process, which distinguish this process from every other that runs now.
    pub fn instance(&self) -> String {
        // On other systems than Linux, only the process is shown.
        let host = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
        format!("{}:{}", host.trim(), std::process::id())
    }

    /// Pseudo-random numbers for pauses, different in each process.
    pub fn jitter(&self) -> Jitter {
        let now = self.clock.now_us().unsigned_abs();
        Jitter::seeded(now ^ (u64::from(std::process::id()) << 40))
    }
}

struct Frame<C> {
    admin_addr: SocketAddr,
    grace: Duration,
    config: C,
}

/// Runs a service from settings to exit status. This is the whole `main` of every service.
///
/// In this order: the logs, so that everything else can be reported; every setting, before any
/// socket is opened; the runtime; the handlers of SIGTERM and SIGINT; the admin port, bound before
/// anything is spawned; the service. Draining begins with the first signal, the first failed task,
/// or when `run` ends, and has a deadline.
///
/// The exit status is 0 only if the service succeeded and everything drained, 64 if a setting was
/// wrong, and otherwise what `status` returns for the error. A second signal ends the process at
/// once, with 1.
pub fn main<C>(
    service: &Service,
    flags: &Flags,
    load: impl FnOnce(&mut Settings<'_>) -> Result<C, Recorded>,
    run: impl AsyncFnOnce(Context, C) -> anyhow::Result<()>,
    status: impl FnOnce(&anyhow::Error) -> ExitCode,
) -> ExitCode {
    let Some(frame) = load_all(service, flags, &Environment, load) else {
        return ExitCode::from(EXIT_USAGE);
    };
    match enter(service, frame, run) {
        Ok(()) => {
            tracing::info!(service = service.name, "drained");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(service = service.name, error = format!("{error:#}"), "failed");
            status(&error)
        }
    }
}

fn load_all<C>(
    service: &Service,
    flags: &Flags,
    environment: &dyn Strings,
    load: impl FnOnce(&mut Settings<'_>) -> Result<C, Recorded>,
) -> Option<Frame<C>> {
    let mut settings = Settings::new(flags, environment);
    LogConfig::load(&mut settings).install();
    let frame = service.load(&mut settings);
    let config = load(&mut settings);
    if let Err(problem) = fail_points::arm(environment) {
        tracing::error!(service = service.name, problem);
        return None;
    }
    let given = settings.given();
    if let Err(problems) = settings.finish() {
        for problem in &problems.0 {
            tracing::error!(service = service.name, "invalid setting: {problem}");
        }
        return None;
    }
    let (Ok((admin_addr, grace)), Ok(config)) = (frame, config) else {
        // A `load` that fails must record a problem; this line is for one that did not.
        tracing::error!(service = service.name, "the settings could not be loaded");
        return None;
    };
    tracing::info!(service = service.name, version = service.version, settings = given, "starting");
    Some(Frame { admin_addr, grace, config })
}

fn enter<C>(
    service: &Service,
    frame: Frame<C>,
    run: impl AsyncFnOnce(Context, C) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime can't be built")?;
    let ended = runtime.block_on(supervise(service, frame, run));
    // Tasks that `finish` did not wait for are not waited for here either.
    runtime.shutdown_background();
    ended
}

async fn supervise<C>(
    service: &Service,
    frame: Frame<C>,
    run: impl AsyncFnOnce(Context, C) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let lifecycle = Lifecycle::default();
    lifecycle::drain_on_signals(&lifecycle, service.name).context("signals can't be handled")?;
    let registry = registry(service)?;
    let clock = Clock::system();
    let readiness = Readiness::new(clock.clone());
    let not_ready = readiness.latch("started");

    let listener = http::bind("the admin port", frame.admin_addr).await?;
    tracing::info!(
        service = service.name,
        address = %listener.local_addr().context("the admin port has no address")?,
        "admin port open"
    );
    let gauges = admin::ReadinessGauges::register(&registry).context("readiness metrics")?;
    let routes = admin::routes(readiness.clone(), lifecycle.clone(), registry.clone(), gauges);
    http::serve(listener, routes);

    let context = Context {
        service: *service,
        clock,
        lifecycle: lifecycle.clone(),
        registry,
        readiness,
        not_ready,
    };
    let running = run(context, frame.config);
    let ended = tokio::select! {
        ended = running => ended,
        () = deadline(&lifecycle, frame.grace) => {
            Err(lifecycle::GraceExceeded { unfinished: 1, grace: frame.grace }.into())
        }
    };
    let drained = lifecycle.finish(frame.grace).await;
    // The first failure is the cause; later ones were logged by `finish`.
    ended.and(drained)
}

/// Completes when the service has been draining for the grace period.
async fn deadline(lifecycle: &Lifecycle, grace: Duration) {
    lifecycle.draining().await;
    tokio::time::sleep(grace).await;
}

fn registry(service: &Service) -> anyhow::Result<Registry> {
    let registry = Registry::new();
    registry
        .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
        .context("process metrics")?;
    let info = Opts::new("lakegauge_build_info", "Release of the running program; always 1.")
        .const_label("service", service.name)
        .const_label("version", service.version);
    let info = IntGauge::with_opts(info).context("build metric")?;
    info.set(1);
    registry.register(Box::new(info)).context("build metric")?;
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SERVICE: Service =
        Service { name: "example", version: "0.0.0", admin_addr: "127.0.0.1:0" };

    #[test]
    fn a_service_that_ends_well_leaves_with_0_and_one_that_fails_does_not() {
        let frame = || Frame {
            admin_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            grace: Duration::from_secs(10),
            config: (),
        };
        enter(&SERVICE, frame(), async |_, ()| Ok(())).unwrap();
        let error = enter(&SERVICE, frame(), async |_, ()| anyhow::bail!("no broker")).unwrap_err();
        assert_eq!(error.to_string(), "no broker");
    }

    #[test]
    fn a_run_that_does_not_drain_is_given_up() {
        let grace = Duration::from_millis(1);
        let frame = Frame { admin_addr: SocketAddr::from(([127, 0, 0, 1], 0)), grace, config: () };
        let error = enter(&SERVICE, frame, async |context: Context, ()| {
            context.lifecycle.drain();
            std::future::pending().await
        });
        assert!(error.unwrap_err().is::<lifecycle::GraceExceeded>());
    }

    #[test]
    fn problems_of_the_frame_and_of_the_service_come_together() {
        let flags = Flags::default();
        let environment = BTreeMap::from([("ADMIN_ADDR", "nonsense")]);
        let mut seen = false;
        let loaded = load_all(&SERVICE, &flags, &environment, |settings| {
            seen = true;
            settings.duration_ms(&SHUTDOWN_GRACE_MS)
        });
        assert!(loaded.is_none());
        assert!(seen, "the service's own settings are read although the frame's are wrong");
    }
}
