//! The aggregator's own metrics, on the admin port. They describe the aggregator, not the lake.

use std::{sync::Arc, time::Duration};

use bus::backlog::Backlog;
use domain::{Reason, lake::LakeEffect};
use prometheus::{IntCounter, Registry};
use service_kit::metrics::{Registrar, clamped};

use crate::{
    fold::Counts, health::LiveHealth, snapshot_refusal::SnapshotRefusal, sources::SourceMetrics,
};

service_kit::metrics! {
    /// The metrics of the lease.
    #[derive(Clone, Debug)]
    pub(crate) struct LeaseMetrics {
        owner: gauge("lakegauge_aggregator_owner",
            "1 while this process owns its partition, 0 while it waits for another."),
        lost: counter("lakegauge_aggregator_ownerships_lost_total",
            "Times that another aggregator took the partition over from this process."),
    }
}

impl LeaseMetrics {
    /// Whether this process owns its partition.
    pub(crate) fn observe_owner(&self, is_owner: bool) {
        self.owner.set(i64::from(is_owner));
    }

    /// Another process took the partition over.
    pub(crate) fn observe_lost(&self) {
        self.lost.inc();
    }
}

service_kit::metrics! {
    /// The series of one stream.
    #[derive(Clone, Debug)]
    struct Series {
        messages: counter("lakegauge_aggregator_messages_total", "Messages read."),
        events: counters("lakegauge_aggregator_events_total",
            "Accepted events by what became of them; too_old ones await the archive's verdict.",
            &["judgement"]),
        verdicts: counters("lakegauge_aggregator_verdicts_total",
            "Verdicts of the archive read, by what became of them: counted, passed (read again), \
             ahead (out of turn and ignored: earlier verdicts were deleted, or another program \
             than the archiver published it).", &["result"]),
        dead_letters: counters("lakegauge_aggregator_dead_letters_total",
            "Events that were not accepted; the archiver keeps their bytes.", &["reason"]),
        effects: counters("lakegauge_aggregator_lake_effects_total",
            "Counted lake events that could not change used space in the usual way.", &["effect"]),
        fields_ignored: counter("lakegauge_aggregator_fields_ignored_total",
            "Unknown fields in JSON events."),
        position: gauge("lakegauge_aggregator_counted_sequence",
            "Sequence of the last message of the stream that was counted."),
        lag: gauge("lakegauge_aggregator_lag_messages",
            "Messages of the stream that are not counted yet, as the broker reports them, \
             independently of deliveries."),
        stalled: gauge("lakegauge_aggregator_stalled_seconds",
            "How long messages have waited, or may have waited, while no message was counted; 0 \
             if none waits."),
        samples: counter("lakegauge_aggregator_samples_total", "Samples published."),
        snapshot_position: known_gauge("lakegauge_aggregator_snapshot_sequence",
            "Last sequence in the last snapshot of this process."),
        snapshot_bytes: known_gauge("lakegauge_aggregator_snapshot_bytes",
            "Size of the last snapshot of this process."),
        snapshot_time: known_gauge("lakegauge_aggregator_snapshot_timestamp_seconds",
            "When the last snapshot of this process was stored."),
        snapshot_failures: counter("lakegauge_aggregator_snapshot_failures_total",
            "Snapshots that could not be stored; the next one tries again."),
        unsaved: gauge("lakegauge_aggregator_unsaved_seconds",
            "Time since a snapshot contained all counted messages. It stays at about the interval \
             of snapshots as long as they can be stored."),
        rebuilds: counter("lakegauge_aggregator_rebuilds_total",
            "Rebuilds of the state from the archive."),
        snapshots_refused: counters("lakegauge_aggregator_snapshots_refused_total",
            "Snapshots that could not be used, by reason.", &["reason"]),
        epoch: known_gauge("lakegauge_aggregator_epoch",
            "Epoch of the stream that is counted, once its state is found."),
        epochs_ended: counter("lakegauge_aggregator_epochs_ended_total",
            "Times that the counted stream was found to be another one."),
    }
}

/// The metrics of one stream, which also update its health.
#[derive(Clone, Debug)]
pub(crate) struct StreamMetrics {
    health: LiveHealth,
    series: Series,
    sources: Arc<SourceMetrics>,
    // Looked up once, because they are used for every message.
    counted: IntCounter,
    duplicates: IntCounter,
    too_old: IntCounter,
    verdicts_counted: IntCounter,
    verdicts_passed: IntCounter,
    verdicts_ahead: IntCounter,
}

impl StreamMetrics {
    /// The metrics of a stream, with every known label at 0.
    ///
    /// # Errors
    ///
    /// The stream has metrics already, which is a programming error.
    pub(crate) fn of_stream(
        registry: &Registry,
        stream: &str,
        health: LiveHealth,
    ) -> prometheus::Result<Self> {
        let of_stream = Registrar::with_label(registry, "stream", stream);
        let series = Series::register(of_stream)?;
        let sources = Arc::new(SourceMetrics::register(of_stream)?);
        for reason in Reason::ALL {
            series.dead_letters.with_label_values(&[reason.name()]);
        }
        for effect in [
            LakeEffect::Unordered,
            LakeEffect::InventoryOutdated,
            LakeEffect::InventoryTooOld,
            LakeEffect::InventoryWithoutLabel,
        ] {
            series.effects.with_label_values(&[name(effect)]);
        }
        for reason in SnapshotRefusal::ALL {
            series.snapshots_refused.with_label_values(&[reason.name()]);
        }
        let events = |judgement| series.events.with_label_values(&[judgement]);
        let verdicts = |result| series.verdicts.with_label_values(&[result]);
        Ok(Self {
            counted: events("counted"),
            duplicates: events("duplicate"),
            too_old: events("too_old"),
            verdicts_counted: verdicts("counted"),
            verdicts_passed: verdicts("passed"),
            verdicts_ahead: verdicts("ahead"),
            health,
            series,
            sources,
        })
    }

    /// Records a message that was counted.
    pub(crate) fn observe_message(&self, counts: &Counts, sequence: u64) {
        self.series.messages.inc();
        self.counted.inc_by(counts.counted);
        self.duplicates.inc_by(counts.duplicates);
        self.too_old.inc_by(counts.too_old);
        self.verdicts_counted.inc_by(counts.verdicts);
        self.verdicts_passed.inc_by(counts.verdicts_passed);
        self.verdicts_ahead.inc_by(counts.verdicts_ahead);
        for reason in &counts.refused {
            self.series.dead_letters.with_label_values(&[reason.name()]).inc();
        }
        for effect in &counts.effects {
            self.series.effects.with_label_values(&[name(*effect)]).inc();
        }
        self.series.fields_ignored.inc_by(counts.fields_ignored);
        self.series.position.set(clamped(sequence));
        self.health.update(|health| {
            health.position = sequence;
            health.counted += counts.counted;
            health.duplicates += counts.duplicates;
            health.too_old += counts.too_old;
            health.dead_letters += u64::try_from(counts.refused.len()).unwrap_or(u64::MAX);
        });
    }

    /// Records how many new events a message had.
    pub(crate) fn observe_source(&self, message: &wire::Message<'_>, events: u64) {
        self.sources.observe(message.subject, message.broker_ns, events);
    }

    /// Records that the stream was read up to a sequence.
    pub(crate) fn observe_position(&self, sequence: u64) {
        self.health.update(|health| health.position = sequence);
        self.series.position.set(clamped(sequence));
    }

    /// Sets the backlog. A value that is not known keeps its last state; the stalled seconds show
    /// since when it is not known.
    pub(crate) fn observe_backlog(&self, backlog: &Backlog) {
        if let Some(messages) = backlog.messages {
            self.health.update(|health| health.lag_messages = messages);
            self.series.lag.set(clamped(messages));
        }
        self.series.stalled.set(clamped(backlog.stalled.as_secs()));
    }

    /// Records a sample that was published.
    pub(crate) fn observe_sample(&self) {
        self.series.samples.inc();
    }

    /// Records a rebuild of the state from the archive.
    pub(crate) fn observe_rebuild(&self) {
        self.series.rebuilds.inc();
    }

    /// Records a snapshot that can't be used.
    pub(crate) fn observe_snapshot_refused(&self, reason: SnapshotRefusal) {
        self.series.snapshots_refused.with_label_values(&[reason.name()]).inc();
    }

    /// Sets the epoch in which the stream is counted.
    pub(crate) fn observe_epoch(&self, epoch: u32) {
        self.health.update(|health| health.epoch = epoch);
        self.series.epoch.set(i64::from(epoch));
    }

    /// Records that the stream was found to be another one.
    pub(crate) fn observe_epoch_ended(&self) {
        self.series.epochs_ended.inc();
    }

    /// Records a snapshot that was stored at a time in microseconds since 1970.
    pub(crate) fn observe_snapshot(&self, sequence: u64, bytes: usize, now_us: i64) {
        self.series.snapshot_position.set(clamped(sequence));
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.series.snapshot_bytes.set(bytes);
        let stored_at_s = now_us / 1_000_000;
        self.health.update(|health| health.snapshot_at_s = Some(stored_at_s));
        self.series.snapshot_time.set(stored_at_s);
    }

    /// Sets the time since a snapshot contained all counted messages.
    pub(crate) fn observe_unsaved(&self, unsaved: Duration) {
        self.series.unsaved.set(clamped(unsaved.as_secs()));
    }

    /// Records that a snapshot could not be stored.
    pub(crate) fn observe_snapshot_failure(&self) {
        self.series.snapshot_failures.inc();
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
