//! The archiver's own metrics, on the admin port.

use std::time::Duration;

use bus::{
    backlog::Backlog,
    publishing::{PublishMetrics, PublisherMetrics},
};
use domain::{Reason, verdict::VerdictProgress};
use event_store::Appended;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use service_kit::metrics::{clamped, registered};

/// Boundaries of the commit's duration, in seconds.
const COMMIT_SECONDS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The metrics of all streams.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    events: IntCounterVec,
    dead_letters: IntCounterVec,
    too_old: IntCounterVec,
    verdicts: IntGaugeVec,
    verdicts_again: IntCounterVec,
    position: IntGaugeVec,
    lag: IntGaugeVec,
    stalled: IntGaugeVec,
    commit: HistogramVec,
    retries: IntCounterVec,
    last_commit: IntGaugeVec,
    trimmed_below: IntGaugeVec,
    trims: IntCounterVec,
    stream_bytes: IntGaugeVec,
    stream_max_bytes: IntGaugeVec,
    lost: IntCounterVec,
    dropped_partitions: IntCounterVec,
    dropped_rows: IntCounterVec,
    epoch: IntGaugeVec,
    epochs_begun: IntCounterVec,
    alarms: IntCounterVec,
    publishing: PublishMetrics,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registered(registry, vec)
        };
        let gauge = |name, help| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), &["stream"])?)
        };
        let commit = HistogramOpts::new(
            "lakegauge_archiver_commit_duration_seconds",
            "Time from the first statement of a transaction to the answer to its commit.",
        )
        .buckets(COMMIT_SECONDS.to_vec());
        Ok(Self {
            events: counter(
                "lakegauge_archiver_events_total",
                "Events, letters and samples committed, by what became of them.",
                &["stream", "result"],
            )?,
            dead_letters: counter(
                "lakegauge_archiver_dead_letters_total",
                "Dead letters read, by reason.",
                &["stream", "reason"],
            )?,
            too_old: counter(
                "lakegauge_archiver_too_old_total",
                "Rows inserted that were too old to judge; each has a verdict number.",
                &["stream"],
            )?,
            verdicts: registered(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "lakegauge_archiver_verdicts",
                        "Verdicts over events too old to judge since the first event: given to \
                         rows, noted where they were read back, and waiting, which is the \
                         difference.",
                    ),
                    &["stream", "state"],
                )?,
            )?,
            verdicts_again: counter(
                "lakegauge_archiver_verdicts_published_again_total",
                "Times that verdicts were deleted from the stream before they were read back.",
                &["stream"],
            )?,
            position: gauge(
                "lakegauge_archiver_position",
                "Sequence of the last message committed.",
            )?,
            lag: gauge(
                "lakegauge_archiver_lag_messages",
                "Messages of the stream that are not committed yet; asked of the broker, not taken \
                 from what is delivered.",
            )?,
            stalled: gauge(
                "lakegauge_archiver_stalled_seconds",
                "How long messages have waited, or nobody could say whether any do, while nothing \
                 was committed; 0 where nothing waits.",
            )?,
            commit: registered(registry, HistogramVec::new(commit, &["stream"])?)?,
            retries: counter(
                "lakegauge_archiver_retries_total",
                "Batches that failed and were tried again.",
                &["stream"],
            )?,
            last_commit: gauge(
                "lakegauge_archiver_last_commit_timestamp_seconds",
                "When the last transaction was committed; 0 before the first of this process.",
            )?,
            trimmed_below: gauge(
                "lakegauge_archiver_trimmed_below",
                "Sequence below which the stream was trimmed by this process.",
            )?,
            trims: counter(
                "lakegauge_archiver_trims_total",
                "Times that the stream was trimmed as far as is allowed, if only by nothing.",
                &["stream"],
            )?,
            stream_bytes: gauge(
                "lakegauge_archiver_stream_bytes",
                "Bytes that the stream holds in the broker.",
            )?,
            stream_max_bytes: gauge(
                "lakegauge_archiver_stream_max_bytes",
                "Bytes that the stream may hold before producers have to wait; -1 is without bound.",
            )?,
            lost: counter(
                "lakegauge_archiver_lost_messages_total",
                "Messages that the broker had and deleted or lost before they could be archived.",
                &["stream"],
            )?,
            epoch: gauge(
                "lakegauge_archiver_epoch",
                "Epoch of the stream that is archived; 0 before the archive is opened.",
            )?,
            epochs_begun: counter(
                "lakegauge_archiver_epochs_begun_total",
                "Epochs that ended because the stream was another, and were closed.",
                &["stream"],
            )?,
            dropped_partitions: counter(
                "lakegauge_archiver_dropped_partitions_total",
                "Partitions that retention dropped, by the stream whose archiver did.",
                &["stream"],
            )?,
            dropped_rows: counter(
                "lakegauge_archiver_dropped_rows_total",
                "Rows in the partitions that retention dropped.",
                &["stream"],
            )?,
            alarms: counter(
                "lakegauge_archiver_alarms_total",
                "What must never happen: known_though_new, a row that the sets call new and the \
                 key calls known; sample_differs, two samples of one position; stuck, a batch that \
                 keeps failing; out_of_order, something acknowledged or trimmed that is not \
                 committed, or a checkpoint that went back; verdict_out_of_turn, a verdict that this \
                 archive did not publish, or whose forerunners were deleted.",
                &["stream", "alarm"],
            )?,
            publishing: PublishMetrics::register(registry)?,
        })
    }

    /// Those of the publisher of a stream's verdicts.
    pub(crate) fn of_publisher(&self, stream: &str) -> PublisherMetrics {
        self.publishing.of("verdicts", stream)
    }

    pub(crate) fn of_stream(&self, stream: &str) -> StreamMetrics {
        let event = |result| self.events.with_label_values(&[stream, result]);
        let verdicts = |state| self.verdicts.with_label_values(&[stream, state]);
        // Every reason at 0: a counter that begins at 1 has not increased.
        for reason in Reason::ALL {
            self.dead_letters.with_label_values(&[stream, reason.name()]);
        }
        let alarm = |alarm| self.alarms.with_label_values(&[stream, alarm]);
        StreamMetrics {
            stream: stream.to_owned(),
            dead_letters: self.dead_letters.clone(),
            inserted: event("inserted"),
            duplicates: event("duplicate"),
            dead: event("dead"),
            too_old: self.too_old.with_label_values(&[stream]),
            verdicts_given: verdicts("given"),
            verdicts_noted: verdicts("noted"),
            verdicts_waiting: verdicts("waiting"),
            verdicts_again: self.verdicts_again.with_label_values(&[stream]),
            position: self.position.with_label_values(&[stream]),
            lag: self.lag.with_label_values(&[stream]),
            stalled: self.stalled.with_label_values(&[stream]),
            commit: self.commit.with_label_values(&[stream]),
            retries: self.retries.with_label_values(&[stream]),
            last_commit: self.last_commit.with_label_values(&[stream]),
            trimmed_below: self.trimmed_below.with_label_values(&[stream]),
            trims: self.trims.with_label_values(&[stream]),
            stream_bytes: self.stream_bytes.with_label_values(&[stream]),
            stream_max_bytes: self.stream_max_bytes.with_label_values(&[stream]),
            lost: self.lost.with_label_values(&[stream]),
            dropped_partitions: self.dropped_partitions.with_label_values(&[stream]),
            dropped_rows: self.dropped_rows.with_label_values(&[stream]),
            epoch: self.epoch.with_label_values(&[stream]),
            epochs_begun: self.epochs_begun.with_label_values(&[stream]),
            known_though_new: alarm("known_though_new"),
            sample_differs: alarm("sample_differs"),
            stuck: alarm("stuck"),
            out_of_order: alarm("out_of_order"),
            verdict_out_of_turn: alarm("verdict_out_of_turn"),
        }
    }
}

/// The metrics of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamMetrics {
    stream: String,
    dead_letters: IntCounterVec,
    inserted: IntCounter,
    duplicates: IntCounter,
    dead: IntCounter,
    too_old: IntCounter,
    verdicts_given: IntGauge,
    verdicts_noted: IntGauge,
    verdicts_waiting: IntGauge,
    verdicts_again: IntCounter,
    position: IntGauge,
    lag: IntGauge,
    stalled: IntGauge,
    commit: Histogram,
    retries: IntCounter,
    last_commit: IntGauge,
    trimmed_below: IntGauge,
    trims: IntCounter,
    stream_bytes: IntGauge,
    stream_max_bytes: IntGauge,
    lost: IntCounter,
    dropped_partitions: IntCounter,
    dropped_rows: IntCounter,
    epoch: IntGauge,
    epochs_begun: IntCounter,
    known_though_new: IntCounter,
    sample_differs: IntCounter,
    stuck: IntCounter,
    out_of_order: IntCounter,
    verdict_out_of_turn: IntCounter,
}

impl StreamMetrics {
    pub(crate) fn observe_refusal(&self, reason: Reason) {
        self.dead_letters.with_label_values(&[&self.stream, reason.name()]).inc();
    }

    /// A transaction was committed at a time in microseconds since 1970.
    pub(crate) fn observe_commit(
        &self,
        appended: &Appended,
        sequence: u64,
        took: Duration,
        now_us: i64,
    ) {
        self.inserted.inc_by(appended.inserted);
        self.duplicates.inc_by(appended.duplicates);
        self.dead.inc_by(appended.dead);
        self.too_old.inc_by(appended.too_old);
        self.known_though_new.inc_by(appended.known_though_new);
        self.sample_differs.inc_by(appended.samples_differing);
        self.verdict_out_of_turn.inc_by(appended.verdicts_out_of_turn);
        self.commit.observe(took.as_secs_f64());
        self.last_commit.set(now_us / 1_000_000);
        self.observe_position(sequence);
    }

    pub(crate) fn observe_position(&self, sequence: u64) {
        self.position.set(clamped(sequence));
    }

    pub(crate) fn observe_verdicts(&self, progress: &VerdictProgress) {
        self.verdicts_given.set(clamped(progress.given));
        self.verdicts_noted.set(clamped(progress.noted));
        self.verdicts_waiting.set(clamped(progress.waiting()));
    }

    pub(crate) fn observe_verdicts_again(&self) {
        self.verdicts_again.inc();
    }

    /// How much waits. What is not known stays as it was: the time that nobody could say it tells.
    pub(crate) fn observe_backlog(&self, backlog: &Backlog) {
        if let Some(messages) = backlog.messages {
            self.lag.set(clamped(messages));
        }
        self.stalled.set(clamped(backlog.stalled.as_secs()));
    }

    pub(crate) fn observe_retry(&self) {
        self.retries.inc();
    }

    pub(crate) fn observe_stuck(&self) {
        self.stuck.inc();
    }

    pub(crate) fn observe_out_of_order(&self) {
        self.out_of_order.inc();
    }

    /// The stream was trimmed as far as is allowed; below this sequence, if anything was deleted.
    pub(crate) fn observe_trim(&self, below: Option<u64>) {
        self.trims.inc();
        if let Some(below) = below {
            self.trimmed_below.set(clamped(below));
        }
    }

    /// How much the stream holds and may hold, in bytes.
    pub(crate) fn observe_stream(&self, bytes: u64, max_bytes: i64) {
        self.stream_bytes.set(clamped(bytes));
        self.stream_max_bytes.set(max_bytes);
    }

    pub(crate) fn observe_dropped(&self, partitions: usize, rows: u64) {
        self.dropped_partitions.inc_by(u64::try_from(partitions).unwrap_or(u64::MAX));
        self.dropped_rows.inc_by(rows);
    }

    pub(crate) fn observe_epoch(&self, epoch: u32) {
        self.epoch.set(i64::from(epoch));
    }

    /// An epoch was closed and the next begun; so many messages of the old one are lost.
    pub(crate) fn observe_epoch_begun(&self, lost: u64) {
        self.epochs_begun.inc();
        self.lost.inc_by(lost);
    }

    pub(crate) fn observe_loss(&self, messages: u64) {
        self.lost.inc_by(messages);
    }
}
