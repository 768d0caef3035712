//! A run of `up`, from the first part's start to the summary.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aggregator::api::KeyMetrics;
use anyhow::Context as _;
use service_kit::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::addresses::{self, UpAddresses};
use crate::archive;
use crate::config::{Config, DATA_DIR};
use crate::console::Console;
use crate::line;
use crate::on_path;
use crate::parts::{Executable, SIMULATORS};
use crate::pipeline::RunningParts;
use crate::readings::{self, PartReadings, Positions};
use crate::summary::{ArchivedTotals, RunOutcome, SimulatorReport, Summary};
use crate::troubles::Troubles;

/// Time between two live lines on a terminal.
const LIVE_EVERY: Duration = Duration::from_secs(1);
/// Time between two plain lines elsewhere.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Time between two checks while draining.
const DRAIN_EVERY: Duration = Duration::from_millis(250);
/// After this time, in microseconds, queries of an earlier run are out of the response time's
/// window.
const RESPONSE_WINDOW_US: i64 = 61_000_000;

/// Runs the pipeline. Returns whether all was well.
///
/// # Errors
///
/// It can't be started, or a part can't run.
pub(crate) async fn run(config: Config, executable: Executable) -> anyhow::Result<bool> {
    let console = Console::stdout();
    let ended = run_with(config, executable, console.clone()).await;
    console.flush();
    ended
}

async fn run_with(
    config: Config,
    executable: Executable,
    console: Console,
) -> anyhow::Result<bool> {
    let mut stop = stop_on_signals()?;
    let clock = Clock::system();
    let mut pipeline = tokio::select! {
        prepared = RunningParts::prepare(config, executable, console, clock) => prepared?,
        () = signalled(&mut stop, 1) => anyhow::bail!("stopped before anything was started"),
    };
    announce(&pipeline);
    let outcome = live(&mut pipeline, stop).await;
    pipeline.console.settle();
    pipeline.console.say("  stopping");
    pipeline.stop_all().await;
    // After a kill the file stays, which shows that parts may still be ending.
    std::fs::remove_file(pipeline.dir.at(addresses::FILE)).unwrap_or_default();
    let mut outcome = outcome?;
    let (restarts, problems) = pipeline.account();
    outcome.restarts = restarts;
    outcome.problems.extend(problems);
    let stopped_us = pipeline.clock.now_us().to_string();
    pipeline.dir.write("stopped", &stopped_us)?;
    let summary = Summary::of(outcome);
    pipeline.console.say(&summary.describe());
    if let Some(file) = &pipeline.config.summary_json {
        let json = serde_json::to_string_pretty(&summary).context("the summary is no JSON")?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(summary.is_good())
}

/// The number of signals so far.
type Stop = watch::Receiver<u32>;

fn stop_on_signals() -> anyhow::Result<Stop> {
    let mut terminate = signal(SignalKind::terminate()).context("signals can't be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals can't be handled")?;
    let (count, stop) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(stop)
}

/// Completes when this many signals have come.
async fn signalled(stop: &mut Stop, times: u32) {
    if stop.wait_for(|count| *count >= times).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn announce(pipeline: &RunningParts) {
    let config = &pipeline.config;
    let ports = &config.ports;
    let at = |port| config.reach(port);
    let say = |name: &str, text: String| pipeline.console.say(&format!("  {name:<11} {text}"));
    pipeline.console.say("Lakegauge");
    say("page", format!("http://{}/", at(ports.metrics)));
    say("metrics", format!("http://{}/metrics", at(ports.metrics)));
    say(
        "NATS",
        format!("nats://{} (monitor http://127.0.0.1:{})", at(ports.nats), ports.nats_monitor),
    );
    let url = pipeline.dir.at("database-url").display().to_string();
    say("PostgreSQL", format!("psql \"$(cat {})\"", shell_word(&url)));
    if pipeline.has_prometheus() {
        say("Prometheus", format!("http://{}", at(ports.prometheus)));
    } else {
        say("Prometheus", "not installed, or not wanted".to_owned());
    }
    if pipeline.has_grafana() {
        say("Grafana", format!("http://{} (admin, admin at first)", at(ports.grafana)));
    } else {
        say("Grafana", crate::grafana::MISSING.to_owned());
    }
    let admin = [
        ("archiver", ports.archiver_admin),
        ("aggregator", ports.aggregator_admin),
        ("lake simulator", ports.lake_admin),
        ("warehouse simulator", ports.warehouse_admin),
    ];
    let shown = if config.simulators { &admin[..] } else { &admin[..2] };
    let shown: Vec<String> =
        shown.iter().map(|(name, port)| format!("{} {name}", at(*port))).collect();
    say("admin", shown.join(", "));
    say("logs", pipeline.dir.at("logs").display().to_string());
    say("tools", format!("{} top, tail, doctor, audit, …", called(pipeline)));
    if !config.bind.is_loopback() {
        pipeline.console.say(
            "  ! NATS has no password and listens on the network: whoever reaches it can publish",
        );
    }
}

/// How the tools are called from the current directory.
fn called(pipeline: &RunningParts) -> String {
    let own = pipeline.executable();
    let is_own = |found: &PathBuf| found.canonicalize().is_ok_and(|found| found == own);
    let program = match on_path("lakegauge").filter(is_own) {
        Some(_) => "lakegauge".to_owned(),
        None => shell_word(&own.display().to_string()),
    };
    // The tools find this directory by themselves.
    let found = Path::new(DATA_DIR.default.unwrap_or_default()).canonicalize();
    let dir = pipeline.dir.at("");
    let is_found = found.is_ok_and(|found| dir.canonicalize().is_ok_and(|dir| dir == found));
    if is_found {
        return program;
    }
    let dir = dir.display().to_string();
    format!("LAKEGAUGE_DATA_DIR={} {program}", shell_word(dir.trim_end_matches('/')))
}

/// Runs from the first start until everything is drained and counted.
async fn live(pipeline: &mut RunningParts, mut stop: Stop) -> anyhow::Result<RunOutcome> {
    tokio::select! {
        started = pipeline.start() => started?,
        () = signalled(&mut stop, 1) => anyhow::bail!("stopped before everything had started"),
    }
    write_state(pipeline)?;
    // What an earlier run left in the streams must not count as this run's growth.
    let left_behind = drain(pipeline, &mut stop, pipeline.clock.monotonic(), None).await;
    pipeline.console.settle();
    left_behind?;
    let before = baseline(pipeline).await?;
    let started = pipeline.clock.monotonic();
    let simulators = pipeline.config.simulators;
    let response_comparable = !ran_just_now(pipeline);
    let reports = if simulators { pipeline.start_simulators()? } else { Vec::new() };

    let ended = watch_run(pipeline, &mut stop, started).await;
    pipeline.console.settle();
    ended?;
    pipeline.console.say("  draining");
    pipeline.stop(&SIMULATORS).await;
    let seconds = pipeline.clock.monotonic().saturating_sub(started).as_secs_f64();
    let longest = Some(pipeline.config.drain_max);
    let drained = drain(pipeline, &mut stop, started, longest).await;
    pipeline.console.settle();

    let mut outcome = RunOutcome {
        reports: reports.iter().filter_map(read_report).collect(),
        simulators,
        response_comparable,
        seconds,
        ..RunOutcome::default()
    };
    outcome.problems.extend(drained.err().map(|error| format!("{error:#}")));
    let readings = PartReadings::take(&pipeline.config).await;
    outcome.four = readings.four.map(|four| readings::growth(&four, &before.four));
    match archive::count(pipeline).await {
        Ok(counted) => outcome.archive = Some(counted.since(&before.archive)),
        Err(error) => outcome.problems.push(format!("counting the archive: {error:#}")),
    }
    Ok(outcome)
}

struct Baseline {
    four: KeyMetrics,
    archive: ArchivedTotals,
}

async fn baseline(pipeline: &RunningParts) -> anyhow::Result<Baseline> {
    let four = PartReadings::take(&pipeline.config)
        .await
        .four
        .context("the aggregator is ready, but the four metrics are not there")?;
    let archive = archive::count(pipeline).await.context("counting the archive")?;
    Ok(Baseline { four, archive })
}

/// Whether an earlier run's queries may still be in the response time's window.
fn ran_just_now(pipeline: &RunningParts) -> bool {
    let stopped = std::fs::read_to_string(pipeline.dir.at("stopped")).ok();
    let stopped: Option<i64> = stopped.and_then(|text| text.trim().parse().ok());
    stopped
        .is_some_and(|stopped| pipeline.clock.now_us().saturating_sub(stopped) < RESPONSE_WINDOW_US)
}

/// Shows the progress until it is time to stop.
async fn watch_run(
    pipeline: &RunningParts,
    stop: &mut Stop,
    started: Duration,
) -> anyhow::Result<()> {
    let over = async {
        match pipeline.config.run_for {
            Some(run_for) => tokio::time::sleep(run_for).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => Ok(()),
        () = signalled(stop, 1) => Ok(()),
        error = pipeline.unusable() => Err(error),
        () = show(pipeline, started) => Ok(()),
    }
}

/// Writes one line after the other; ends when the simulators have ended by themselves.
async fn show(pipeline: &RunningParts, started: Duration) {
    let mut live = LiveLine::begin(pipeline, started).await;
    let mut ticks = tokio::time::interval(live.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        live.write(pipeline).await;
        if pipeline.config.simulators && pipeline.simulators_finished() {
            return;
        }
    }
}

/// The line with the state of the pipeline, written again and again.
struct LiveLine {
    started: Duration,
    every: Duration,
    troubles: Troubles,
    /// The readings of the line before, and when they were taken.
    before: (Duration, PartReadings),
}

impl LiveLine {
    async fn begin(pipeline: &RunningParts, started: Duration) -> Self {
        Self {
            started,
            every: if pipeline.console.is_terminal() { LIVE_EVERY } else { PLAIN_EVERY },
            troubles: Troubles::default(),
            before: (pipeline.clock.monotonic(), PartReadings::take(&pipeline.config).await),
        }
    }

    /// Writes what changed in the health of the parts, and the line.
    async fn write(&mut self, pipeline: &RunningParts) {
        for line in self.troubles.news(&pipeline.config).await {
            pipeline.console.say(&line);
        }
        let readings = PartReadings::take(&pipeline.config).await;
        let now = pipeline.clock.monotonic();
        let (running, apart) =
            (now.saturating_sub(self.started), now.saturating_sub(self.before.0));
        pipeline.console.live(&line::line(running, &readings, &self.before.1, apart));
        self.before = (now, readings);
    }
}

/// Waits until everything that was published is archived and counted, at most for `longest`.
async fn drain(
    pipeline: &RunningParts,
    stop: &mut Stop,
    started: Duration,
    longest: Option<Duration>,
) -> anyhow::Result<()> {
    let begun = pipeline.clock.monotonic();
    let mut live = LiveLine::begin(pipeline, started).await;
    let bus = archive::connect(pipeline).await?;
    // The next Ctrl-C while draining ends the wait.
    let hurry = (*stop.borrow()).saturating_add(1);
    loop {
        // NATS may be restarting; without an answer the check fails.
        let last = archive::last_sequences(&bus).await.ok();
        let positions = Positions::take(&pipeline.config).await;
        if last.zip(positions).is_some_and(|(last, positions)| positions.reach(&last)) {
            return Ok(());
        }
        let now = pipeline.clock.monotonic();
        let waited = now.saturating_sub(begun);
        if let Some(longest) = longest.filter(|longest| waited >= *longest) {
            let seconds = longest.as_secs();
            anyhow::bail!(
                "not everything was archived and counted within {seconds} s (--drain-max-s)"
            );
        }
        if now.saturating_sub(live.before.0) >= live.every {
            live.write(pipeline).await;
        }
        tokio::select! {
            () = tokio::time::sleep(DRAIN_EVERY) => {}
            () = signalled(stop, hurry) => anyhow::bail!("stopped before everything was archived"),
            error = pipeline.unusable() => return Err(error),
        }
    }
}

fn read_report(file: &PathBuf) -> Option<SimulatorReport> {
    serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
}

/// Writes the addresses for tools and scripts, which are kept while `up` runs.
fn write_state(pipeline: &RunningParts) -> anyhow::Result<()> {
    let config = &pipeline.config;
    let ports = &config.ports;
    let at = |port| format!("http://{}", config.reach(port));
    let addresses = UpAddresses {
        metrics: format!("{}/metrics", at(ports.metrics)),
        nats: pipeline.nats_url(),
        nats_monitor: format!("http://127.0.0.1:{}", ports.nats_monitor),
        postgres_port: ports.postgres,
        prometheus: pipeline.has_prometheus().then(|| at(ports.prometheus)),
        grafana: pipeline.has_grafana().then(|| at(ports.grafana)),
        archiver_admin: at(ports.archiver_admin),
        aggregator_admin: at(ports.aggregator_admin),
        lake_simulator_admin: at(ports.lake_admin),
        warehouse_simulator_admin: at(ports.warehouse_admin),
    };
    let text = serde_json::to_string_pretty(&addresses).context("the addresses are no JSON")?;
    pipeline.dir.write(addresses::FILE, &(text + "\n"))
}

/// A text quoted for a shell.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_the_shell_where_it_must_be() {
        assert_eq!(shell_word("/a/.lakegauge"), "/a/.lakegauge");
        assert_eq!(shell_word("a b$c"), "'a b$c'");
        assert_eq!(shell_word("a'b"), r"'a'\''b'");
    }
}
