//! Runs `collect postgres-log`: connects to the broker, creates the publishers and follows the log.

use anyhow::Context as _;
use domain::{Reason, Refusal, Side};
use service_kit::{Condition, Context, News};

use super::{
    config::Config,
    follower::{Chunk, Follower},
};
use crate::{
    metrics::CollectorMetrics,
    outlet::Outlet,
    sources::postgres_log::{LogRead, PostgresLog},
};

/// The kind of report in metrics.
const REPORT: &str = "postgres-log";
/// After so many statements without a plan between them the log has no plans. A plan is written just
/// before its statement, so that lines that are read in between leave a few such statements: at most
/// one for each session.
const STATEMENTS_WITHOUT_PLAN: u64 = 20;

/// Follows the log until the service drains.
///
/// # Errors
///
/// Errors that no retry can correct: refused logins, positions that another process uses or that
/// can't be stored.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let follower = Follower::open(&config.path, &config.state_file)?;
    let collected = CollectorMetrics::of(&context.registry, &[REPORT]).context("metrics")?;
    let outlet = Outlet::connect(&config.bus, &context, &config.source).await?;
    let Some(outlet) = outlet else { return Ok(()) };
    let log = PostgresLog { warehouse: config.warehouse.clone(), has_plans: config.has_plans };
    let watch = Watch::new(&context, config.has_plans);
    tracing::info!(path = %config.path.display(), plans = config.has_plans, "the log is followed");
    context.not_ready.open();
    let clock = context.clock;
    let following = async {
        let mut follower = follower;
        let mut watch = watch;
        loop {
            let next;
            (follower, next) = on_files(follower, |follower| Ok(follower.next())).await?;
            match next {
                Ok(Some(chunk)) => {
                    let read = read(&log, &chunk);
                    outlet.publish(outlet.seal(&read.parsed)).await?;
                    (follower, ()) =
                        on_files(follower, move |follower| follower.passed(&chunk)).await?;
                    collected.stored(REPORT, &read.parsed, clock.now_us());
                    watch.stored(&read);
                }
                Ok(None) => {
                    watch.waits_for_lines();
                    tokio::time::sleep(config.poll).await;
                }
                Err(error) => {
                    watch.cannot_read(&error);
                    tokio::time::sleep(config.poll).await;
                }
            }
        }
    };
    tokio::select! {
        () = context.lifecycle.draining() => Ok(()),
        ended = following => ended,
    }
}

/// Runs work on files on a thread where waiting for a disk blocks no other task.
async fn on_files<T: Send + 'static>(
    mut follower: Follower,
    work: impl FnOnce(&mut Follower) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<(Follower, T)> {
    tokio::task::spawn_blocking(move || work(&mut follower).map(|done| (follower, done))).await?
}

fn read(log: &PostgresLog, chunk: &Chunk) -> LogRead {
    if let Some(lines) = &chunk.lines {
        return log.read(lines);
    }
    let mut read = LogRead::default();
    let refusal = Refusal::whole(Reason::TooLong, "the line is longer than 1 MiB");
    read.parsed.add(Side::Warehouse, Err(refusal), b"");
    read
}

/// Reports the state of the log files on `/readyz` and in the log.
struct Watch {
    files: Condition,
    plans: Condition,
    has_plans: bool,
    /// Statements that must have a plan, since the last plan.
    statements_since_plan: u64,
    trouble: News,
    without_plans: News,
}

impl Watch {
    fn new(context: &Context, has_plans: bool) -> Self {
        let (files, plans) =
            (context.readiness.condition("log files"), context.readiness.condition("plans"));
        let (trouble, without_plans) = (News::default(), News::default());
        let statements_since_plan = 0;
        Self { files, plans, has_plans, statements_since_plan, trouble, without_plans }
    }

    fn stored(&mut self, read: &LogRead) {
        self.trouble.is_over();
        self.files.pass("more lines are read");
        match (self.has_plans, read.plans) {
            (false, 0) => {}
            (false, 1..) => self.plans.pass("the log has plans: --plans counts their rows"),
            (true, 0) => self.statements_without_plans(read.planned),
            (true, 1..) => {
                self.statements_since_plan = 0;
                self.without_plans.is_over();
                self.plans.pass("read");
            }
        }
    }

    fn statements_without_plans(&mut self, statements: u64) {
        self.statements_since_plan = self.statements_since_plan.saturating_add(statements);
        if self.statements_since_plan < STATEMENTS_WITHOUT_PLAN {
            return;
        }
        let why = "the log has statements but no plans, so that no query is counted: is \
                   auto_explain loaded? Without it leave --plans off";
        if self.without_plans.is_new(why) {
            tracing::warn!("{why}");
        }
        self.plans.fail(why);
    }

    fn waits_for_lines(&mut self) {
        self.trouble.is_over();
        self.files.pass("read to their ends");
    }

    fn cannot_read(&mut self, error: &anyhow::Error) {
        let why = format!("{error:#}");
        if self.trouble.is_new(&why) {
            tracing::warn!(error = why, "the log can't be read; it is tried again");
        }
        self.files.fail(why);
    }
}
