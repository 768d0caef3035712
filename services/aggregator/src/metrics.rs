//! The aggregator's own metrics, on the admin port: how it is doing, not what the lake is doing.

use std::time::Duration;

use bus::{
    backlog::Backlog,
    publishing::{PublishMetrics, PublisherMetrics},
};
use domain::{Reason, Stream, lake::LakeEffect};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use service_kit::metrics::{clamped, registered};

use crate::{fold::Counts, health::LiveHealth, stream::SnapshotRefusal};

/// The metrics of all streams.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    messages: IntCounterVec,
    events: IntCounterVec,
    verdicts: IntCounterVec,
    dead_letters: IntCounterVec,
    effects: IntCounterVec,
    fields_ignored: IntCounterVec,
    position: IntGaugeVec,
    lag: IntGaugeVec,
    stalled: IntGaugeVec,
    samples: IntCounterVec,
    snapshot_position: IntGaugeVec,
    snapshot_bytes: IntGaugeVec,
    snapshot_time: IntGaugeVec,
    snapshot_failures: IntCounterVec,
    unsaved: IntGaugeVec,
    rebuilds: IntCounterVec,
    snapshots_refused: IntCounterVec,
    epoch: IntGaugeVec,
    epochs_ended: IntCounterVec,
    owner: IntGauge,
    ownerships_lost: IntCounter,
    publishing: PublishMetrics,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// A name that is taken: a mistake of ours.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            messages: counters(
                registry,
                "lakegauge_aggregator_messages_total",
                "Messages read.",
                &[],
            )?,
            events: counters(
                registry,
                "lakegauge_aggregator_events_total",
                "Accepted events by what became of them; too_old ones await the archive's verdict.",
                &["judgement"],
            )?,
            verdicts: counters(
                registry,
                "lakegauge_aggregator_verdicts_total",
                "Verdicts of the archive read, by what became of them: counted, passed (came \
                 again), ahead (out of turn and ignored: some before it were deleted, or somebody \
                 else than the archiver published it).",
                &["result"],
            )?,
            dead_letters: counters(
                registry,
                "lakegauge_aggregator_dead_letters_total",
                "Events that were not accepted; the archiver keeps their bytes.",
                &["reason"],
            )?,
            effects: counters(
                registry,
                "lakegauge_aggregator_lake_effects_total",
                "Counted lake events that could not change used space as they said.",
                &["effect"],
            )?,
            fields_ignored: counters(
                registry,
                "lakegauge_aggregator_fields_ignored_total",
                "Unknown fields in JSON events.",
                &[],
            )?,
            position: gauges(
                registry,
                "lakegauge_aggregator_position",
                "Sequence of the last message counted.",
            )?,
            lag: gauges(
                registry,
                "lakegauge_aggregator_lag_messages",
                "Messages of the stream that are not counted yet; asked of the broker, not taken from \
                 what is delivered.",
            )?,
            stalled: gauges(
                registry,
                "lakegauge_aggregator_stalled_seconds",
                "How long messages have waited, or nobody could say whether any do, while nothing \
                 was counted; 0 where nothing waits.",
            )?,
            samples: counters(
                registry,
                "lakegauge_aggregator_samples_total",
                "Samples published.",
                &[],
            )?,
            snapshot_position: gauges(
                registry,
                "lakegauge_aggregator_snapshot_position",
                "Sequence that the last snapshot reaches to.",
            )?,
            snapshot_bytes: gauges(
                registry,
                "lakegauge_aggregator_snapshot_bytes",
                "Size of the last snapshot.",
            )?,
            snapshot_time: gauges(
                registry,
                "lakegauge_aggregator_snapshot_timestamp_seconds",
                "When the last snapshot was stored; 0 before the first of this process.",
            )?,
            snapshot_failures: counters(
                registry,
                "lakegauge_aggregator_snapshot_failures_total",
                "Snapshots that could not be stored; the next one tries again.",
                &[],
            )?,
            unsaved: gauges(
                registry,
                "lakegauge_aggregator_unsaved_seconds",
                "How long ago all that was counted was in a snapshot; about the snapshots' interval \
                 at most where they can be stored, also before the first.",
            )?,
            rebuilds: counters(
                registry,
                "lakegauge_aggregator_rebuilds_total",
                "Rebuilds of the state from the archive.",
                &[],
            )?,
            snapshots_refused: counters(
                registry,
                "lakegauge_aggregator_snapshots_refused_total",
                "Snapshots that could not be gone on from, by reason.",
                &["reason"],
            )?,
            epoch: gauges(
                registry,
                "lakegauge_aggregator_epoch",
                "Epoch of the stream that is counted; 0 before its state is found.",
            )?,
            epochs_ended: counters(
                registry,
                "lakegauge_aggregator_epochs_ended_total",
                "Times that the stream that was counted was found to be another.",
                &[],
            )?,
            owner: registered(
                registry,
                IntGauge::new(
                    "lakegauge_aggregator_owner",
                    "1 while this process owns its partition, 0 while it waits for another.",
                )?,
            )?,
            ownerships_lost: registered(
                registry,
                IntCounter::new(
                    "lakegauge_aggregator_ownerships_lost_total",
                    "Times that another aggregator took the partition over from this process.",
                )?,
            )?,
            publishing: PublishMetrics::register(registry)?,
        })
    }

    /// Whether this process owns its partition.
    pub(crate) fn observe_owner(&self, is_owner: bool) {
        self.owner.set(i64::from(is_owner));
    }

    /// Another process took the partition over.
    pub(crate) fn observe_ownership_lost(&self) {
        self.ownerships_lost.inc();
    }

    /// Those of the publisher of a stream's samples.
    pub(crate) fn of_publisher(&self, stream: Stream) -> PublisherMetrics {
        self.publishing.of("samples", &stream.to_string())
    }

    /// The metrics of one stream, every known label at 0, and its health, which they show.
    pub(crate) fn of_stream(&self, stream: Stream, health: LiveHealth) -> StreamMetrics {
        let stream = stream.to_string();
        let stream = stream.as_str();
        for reason in SnapshotRefusal::ALL {
            self.snapshots_refused.with_label_values(&[stream, reason.name()]);
        }
        for reason in Reason::ALL {
            self.dead_letters.with_label_values(&[stream, reason.name()]);
        }
        for effect in [
            LakeEffect::Unordered,
            LakeEffect::InventoryOutdated,
            LakeEffect::InventoryTooOld,
            LakeEffect::InventoryWithoutLabel,
        ] {
            self.effects.with_label_values(&[stream, name(effect)]);
        }
        self.fields_ignored.with_label_values(&[stream]);
        let judged = |judgement| self.events.with_label_values(&[stream, judgement]);
        let verdict = |result| self.verdicts.with_label_values(&[stream, result]);
        StreamMetrics {
            stream: stream.to_owned(),
            health,
            all: self.clone(),
            messages: self.messages.with_label_values(&[stream]),
            counted: judged("counted"),
            duplicates: judged("duplicate"),
            too_old: judged("too_old"),
            verdicts: verdict("counted"),
            verdicts_passed: verdict("passed"),
            verdicts_ahead: verdict("ahead"),
            position: self.position.with_label_values(&[stream]),
            lag: self.lag.with_label_values(&[stream]),
            stalled: self.stalled.with_label_values(&[stream]),
            samples: self.samples.with_label_values(&[stream]),
            rebuilds: self.rebuilds.with_label_values(&[stream]),
            epoch: self.epoch.with_label_values(&[stream]),
            epochs_ended: self.epochs_ended.with_label_values(&[stream]),
            snapshot_failures: self.snapshot_failures.with_label_values(&[stream]),
            unsaved: self.unsaved.with_label_values(&[stream]),
        }
    }
}

/// The metrics of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamMetrics {
    stream: String,
    health: LiveHealth,
    all: Metrics,
    messages: IntCounter,
    counted: IntCounter,
    duplicates: IntCounter,
    too_old: IntCounter,
    verdicts: IntCounter,
    verdicts_passed: IntCounter,
    verdicts_ahead: IntCounter,
    position: IntGauge,
    lag: IntGauge,
    stalled: IntGauge,
    samples: IntCounter,
    rebuilds: IntCounter,
    epoch: IntGauge,
    epochs_ended: IntCounter,
    snapshot_failures: IntCounter,
    unsaved: IntGauge,
}

impl StreamMetrics {
    /// A message was counted.
    pub(crate) fn observe_message(&self, counts: &Counts, sequence: u64) {
        self.messages.inc();
        self.counted.inc_by(counts.counted);
        self.duplicates.inc_by(counts.duplicates);
        self.too_old.inc_by(counts.too_old);
        self.verdicts.inc_by(counts.verdicts);
        self.verdicts_passed.inc_by(counts.verdicts_passed);
        self.verdicts_ahead.inc_by(counts.verdicts_ahead);
        for reason in &counts.refused {
            self.all.dead_letters.with_label_values(&[&self.stream, reason.name()]).inc();
        }
        for effect in &counts.effects {
            self.all.effects.with_label_values(&[self.stream.as_str(), name(*effect)]).inc();
        }
        if counts.fields_ignored > 0 {
            let fields = self.all.fields_ignored.with_label_values(&[&self.stream]);
            fields.inc_by(counts.fields_ignored);
        }
        self.health.update(|health| {
            health.counted += counts.counted;
            health.duplicates += counts.duplicates;
            health.too_old += counts.too_old;
            health.dead_letters += u64::try_from(counts.refused.len()).unwrap_or(u64::MAX);
        });
        self.observe_position(sequence);
    }

    /// The stream was read up to a sequence.
    pub(crate) fn observe_position(&self, sequence: u64) {
        self.health.update(|health| health.position = sequence);
        self.position.set(clamped(sequence));
    }

    /// How much waits. What is not known stays as it was: the time that nobody could say it tells.
    pub(crate) fn observe_backlog(&self, backlog: &Backlog) {
        if let Some(messages) = backlog.messages {
            self.health.update(|health| health.lag_messages = messages);
            self.lag.set(clamped(messages));
        }
        self.stalled.set(clamped(backlog.stalled.as_secs()));
    }

    /// A sample was published.
    pub(crate) fn observe_sample(&self) {
        self.samples.inc();
    }

    /// The state is rebuilt from the archive.
    pub(crate) fn observe_rebuild(&self) {
        self.rebuilds.inc();
    }

    /// A snapshot can't be gone on from.
    pub(crate) fn observe_snapshot_refused(&self, reason: SnapshotRefusal) {
        self.all.snapshots_refused.with_label_values(&[&self.stream, reason.name()]).inc();
    }

    /// The stream is counted in this epoch.
    pub(crate) fn observe_epoch(&self, epoch: u32) {
        self.health.update(|health| health.epoch = epoch);
        self.epoch.set(i64::from(epoch));
    }

    /// The stream was found to be another.
    pub(crate) fn observe_epoch_ended(&self) {
        self.epochs_ended.inc();
    }

    /// A snapshot was stored, at a time in microseconds since 1970.
    pub(crate) fn observe_snapshot(&self, sequence: u64, bytes: usize, now_us: i64) {
        let labels = [self.stream.as_str()];
        self.all.snapshot_position.with_label_values(&labels).set(clamped(sequence));
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.all.snapshot_bytes.with_label_values(&labels).set(bytes);
        let stored_at_s = now_us / 1_000_000;
        self.health.update(|health| health.snapshot_at_s = Some(stored_at_s));
        self.all.snapshot_time.with_label_values(&labels).set(stored_at_s);
    }

    /// So long ago all that was counted was in a snapshot.
    pub(crate) fn observe_unsaved(&self, unsaved: Duration) {
        self.unsaved.set(clamped(unsaved.as_secs()));
    }

    /// A snapshot could not be stored.
    pub(crate) fn observe_snapshot_failure(&self) {
        self.snapshot_failures.inc();
    }
}

const fn name(effect: LakeEffect) -> &'static str {
    match effect {
        LakeEffect::Plain => "plain",
        LakeEffect::Unordered => "unordered",
        LakeEffect::InventoryOutdated => "inventory_outdated",
        LakeEffect::InventoryTooOld => "inventory_too_old",
        LakeEffect::InventoryWithoutLabel => "inventory_without_label",
    }
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let labels: Vec<&str> = ["stream"].iter().chain(labels).copied().collect();
    registered(registry, IntCounterVec::new(Opts::new(name, help), &labels)?)
}

fn gauges(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), &["stream"])?)
}
