//! Publishes a feed on time. This is the only part of a simulator that waits.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bus::{
    Bus, Publisher, PublisherLimits,
    publishing::{PublishMetrics, PublishWatch},
    service::BusConfig,
    status::Announcer,
};
use domain::{Stream, Timestamp};
use service_kit::{Clock, Context};

use crate::{
    feed::{MessageSource, Pulled, SealedMessage},
    model::{Expected, Model, OraclePage},
    rng::to_f64,
};

/// Length of a tick. At high rates all messages of a tick are made together, because timers are not
/// finer than a millisecond and waking up for each message would cost more than the message.
const TICK: Duration = Duration::from_millis(5);
/// How often metrics and readiness are updated while publishing waits for room.
const LOOK: Duration = Duration::from_millis(200);
/// The lag above which the simulator reports that it cannot keep up, in seconds. Below half of it,
/// it reports that it can.
const LAG_MAX_S: f64 = 1.0;

/// What one run publishes, and where.
pub(crate) struct Emitter<M: Model> {
    pub(crate) feed: MessageSource<M>,
    /// When event time starts.
    pub(crate) start: Timestamp,
    /// The stream of the events.
    pub(crate) stream: Stream,
    /// The source of the events.
    pub(crate) source: String,
}

impl<M> Emitter<M>
where
    M: Model + 'static,
    M::Note: Send + 'static,
    M::Oracle: Send + 'static,
{
    /// Publishes until the feed ends or the service drains, then publishes everything that is held
    /// back, awaits every acknowledgement, and writes the expected result.
    pub(crate) async fn run(
        self,
        context: Context,
        bus: &BusConfig,
        file: Option<&Path>,
    ) -> anyhow::Result<()> {
        let connected = bus::service::connect(bus, &context).await.context("connecting to NATS")?;
        let Some(connected) = connected else {
            // No message was published, so there is nothing to finish.
            return write_expected(file, &self.source, &Expected::<M::Oracle>::default());
        };
        Announcer::new(&connected, &context, &self.source).spawn(&context, || None);
        let Context { clock, lifecycle, registry, readiness, not_ready, .. } = context;
        not_ready.open();
        let accounts = Arc::new(Mutex::new(Accounts::<M>::default()));
        let entered = Arc::clone(&accounts);
        let publisher = connected.publisher(PublisherLimits::default(), move |acknowledged| {
            locked(&entered).acknowledge(&acknowledged.sealed.message_id);
        });
        let publishing = PublishMetrics::register(&registry).context("metrics")?;
        let mut shell = Shell {
            watch: PublishWatch::new(
                publisher.progress(),
                publishing.of("events", &self.stream.to_string()),
                readiness.condition("publisher"),
            ),
            metrics: PacerMetrics::register(&registry).context("metrics")?,
            bus: connected,
            clock,
            publisher,
            accounts,
            behind: false,
        };
        shell.publish_all(self.feed, self.start, &lifecycle).await?;
        shell.flush().await?;
        let expected = &locked(&shell.accounts).expected;
        tracing::info!(
            published = expected.published,
            duplicates_sent = expected.duplicates_sent,
            "everything is acknowledged"
        );
        write_expected(file, &self.source, expected)
    }
}

/// The state of a run while it publishes.
struct Shell<M: Model> {
    bus: Bus,
    clock: Clock,
    publisher: Publisher,
    watch: PublishWatch,
    accounts: Arc<Mutex<Accounts<M>>>,
    metrics: PacerMetrics,
    behind: bool,
}

impl<M: Model> Shell<M> {
    async fn publish_all(
        &mut self,
        mut feed: MessageSource<M>,
        start: Timestamp,
        lifecycle: &service_kit::Lifecycle,
    ) -> anyhow::Result<()> {
        let started = self.clock.monotonic();
        let mut draining = false;
        loop {
            if !draining && lifecycle.is_draining() {
                draining = true;
                tracing::info!(
                    held = feed.held(),
                    "draining: publishing the events that are held back"
                );
                feed.drain();
            }
            feed.bound(self.bus.message_bytes_max());
            let now = event_time(start, self.clock.monotonic().saturating_sub(started));
            match feed.pull(now) {
                Pulled::Message(message) => self.publish(message, now).await?,
                Pulled::Wait(until) => {
                    self.watch.look();
                    let wait_us = u64::try_from(until.0 - now.0).unwrap_or(0);
                    let wait = Duration::from_micros(wait_us).clamp(TICK, LOOK);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = lifecycle.draining(), if !draining => {}
                    }
                }
                Pulled::End => return Ok(()),
            }
        }
    }

    async fn publish(
        &mut self,
        message: SealedMessage<M::Note>,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        self.note_lag(now, message.due);
        self.metrics.events.inc_by(message.page.distinct);
        self.metrics.duplicates.inc_by(message.page.duplicates);
        locked(&self.accounts).open(&message.sealed.message_id, message.page);
        let publisher = &self.publisher;
        let publishing = publisher.publish(message.sealed);
        tokio::pin!(publishing);
        loop {
            tokio::select! {
                published = &mut publishing => return published.context("publishing"),
                () = tokio::time::sleep(LOOK) => self.watch.look(),
            }
        }
    }

    async fn flush(&self) -> anyhow::Result<()> {
        let flushing = self.publisher.flush();
        tokio::pin!(flushing);
        loop {
            tokio::select! {
                flushed = &mut flushing => {
                    flushed.context("awaiting the acknowledgements")?;
                    return Ok(());
                }
                () = tokio::time::sleep(LOOK) => self.watch.look(),
            }
        }
    }

    fn note_lag(&mut self, now: Timestamp, due: Timestamp) {
        let lag_s = to_f64(u64::try_from(now.0 - due.0).unwrap_or(0)) / 1e6;
        self.metrics.lag.set(lag_s);
        if !self.behind && lag_s > LAG_MAX_S {
            self.behind = true;
            tracing::warn!(lag_s, "cannot keep up: events are published later than they should be");
        } else if self.behind && lag_s < LAG_MAX_S / 2.0 {
            self.behind = false;
            tracing::info!("caught up");
        }
    }
}

/// Messages that are sent and not acknowledged, and the expected result of those that are.
struct Accounts<M: Model> {
    /// Entries by message id. The same bytes may be sent twice at the same time: an event alone in
    /// its message, and the same event again.
    open: BTreeMap<String, OraclePage<M::Note>>,
    expected: Expected<M::Oracle>,
}

impl<M: Model> Default for Accounts<M> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), expected: Expected::default() }
    }
}

impl<M: Model> Accounts<M> {
    fn open(&mut self, message_id: &str, page: OraclePage<M::Note>) {
        let open = self.open.entry(message_id.to_owned()).or_default();
        open.distinct += page.distinct;
        open.duplicates += page.duplicates;
        open.notes.extend(page.notes);
    }

    fn acknowledge(&mut self, message_id: &str) {
        if let Some(page) = self.open.remove(message_id) {
            self.expected.enter(&page);
        }
    }
}

service_kit::metrics! {
    /// Metrics of the simulator.
    struct PacerMetrics {
        events: counter("lakegauge_simulator_events_total",
            "Distinct events handed to the publisher."),
        duplicates: counter("lakegauge_simulator_duplicates_total",
            "Events handed to the publisher a second time, on purpose."),
        lag: float_gauge("lakegauge_simulator_lag_seconds",
            "How much later than it should the last message went out; it grows while the simulator or \
             the broker can't keep up."),
    }
}

fn write_expected<B: crate::model::Oracle>(
    file: Option<&Path>,
    source: &str,
    expected: &Expected<B>,
) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(&expected.to_json(source))?;
    text.push('\n');
    // The file is renamed into place, so that a reader never sees a part of it.
    let partial = file.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, file))
        .with_context(|| format!("writing what is expected to {}", file.display()))
}

fn event_time(start: Timestamp, since: Duration) -> Timestamp {
    let since_us = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    Timestamp(start.0.saturating_add(since_us))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every entry is complete when the lock is released, even after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
