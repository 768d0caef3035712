//! Wires the archiver: connections and one task a stream.

use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use bus::{
    StreamEpoch,
    backlog::{BacklogWatch, SharedPosition},
    publishing::PublishMetrics,
};
use domain::ArchivedStream;
use service_kit::{Context, Jitter, random};
use wire::Subjects;

use crate::{
    batcher::BatchLimits,
    books::{self, BooksMetrics},
    config::Config,
    metrics::Metrics,
    size::{SizeRules, SizeWatch},
    stream::StreamTask,
    trim::TrimRules,
};

/// Runs the archiver until it is told to drain.
///
/// # Errors
///
/// What no retry can mend: refused logins, unknown rules, a database of another version.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let metrics = Metrics::new(&context.registry).context("metrics")?;
    let publishing = PublishMetrics::register(&context.registry).context("metrics")?;
    event_store::service::watch_login(&config.store, &context).context("metrics")?;
    let Some(bus) = bus::service::connect(&config.bus, &context).await? else { return Ok(()) };
    let mut jitter = context.jitter();
    for archived in ArchivedStream::of_partitions(&config.partitions) {
        let (name, stream) = match archived {
            ArchivedStream::Events(stream) => (archived.to_string(), Some(stream)),
            ArchivedStream::Samples => (archived.to_string(), None),
        };
        let position: Arc<SharedPosition> = Arc::default();
        let task = StreamTask {
            bus: bus.clone(),
            store: config.store.clone(),
            stream,
            limits: BatchLimits {
                events_max: config.batch_events_max,
                age_ms_max: config.batch_age_ms_max,
            },
            trim_rules: TrimRules {
                keep: config.keep,
                await_snapshot: stream.is_some() && config.await_aggregator,
            },
            trim_interval: config.trim_interval,
            retention_interval: config.retention_interval,
            epoch_check: config.epoch_check,
            subjects: Subjects::new(&config.bus.settings.subject_prefix),
            metrics: metrics.of_stream(&name),
            publishing: publishing.of("verdicts", &name),
            readiness: context.readiness.clone(),
            condition: context.readiness.condition("archive"),
            backlog: BacklogWatch {
                bus: bus.clone(),
                stream: name.clone(),
                position: Arc::clone(&position),
                limits: config.backlog,
                condition: context.readiness.condition("backlog"),
                done: "archived",
                clock: context.clock.clone(),
            },
            position,
            drain: context.lifecycle.drain_token(),
            clock: context.clock.clone(),
            // So that a writer never takes another's checkpoint for its own.
            token: random::token().context("a token for the writer")?,
            epoch: StreamEpoch::new(&bus, &name),
            closed: Mutex::default(),
            name,
        };
        task.condition.fail(format!("{}: opening the archive", task.name));
        let jitter = Jitter::seeded(jitter.below(u64::MAX));
        context.lifecycle.spawn("stream", task.run(jitter));
    }
    let books = BooksMetrics::new(&context.registry).context("metrics")?;
    let (store, interval) = (config.store.clone(), config.books_interval);
    let rules = SizeRules {
        interval: config.database_size_interval,
        limit_bytes: config.database_limit_bytes,
    };
    let size = SizeWatch::new(rules, &context.registry).context("metrics")?;
    let until = (context.lifecycle.drain_token(), context.clock.clone());
    let looking = books::look_forever(store, interval, books, size, until);
    context.lifecycle.spawn("books", looking);
    context.not_ready.open();
    context.lifecycle.draining().await;
    Ok(())
}
