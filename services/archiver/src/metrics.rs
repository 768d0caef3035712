//! The archiver's own metrics, on the admin port.

use std::time::Duration;

use bus::backlog::Backlog;
use domain::{Reason, verdict::VerdictProgress};
use event_store::Appended;
use prometheus::Registry;
use service_kit::metrics::{Registrar, clamped, raise};

/// Upper boundaries of the histogram of commit durations, in seconds.
const COMMIT_SECONDS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

service_kit::metrics! {
    /// The metrics of one stream.
    #[derive(Clone, Debug)]
    pub(crate) struct StreamMetrics {
        events: counters("lakegauge_archiver_events_total",
            "Events, dead letters and samples committed, by what became of them.", &["result"]),
        dead_letters: counters("lakegauge_archiver_dead_letters_total",
            "Dead letters read, by reason.", &["reason"]),
        alarms: counters("lakegauge_archiver_alarms_total",
            "Inconsistencies that must never occur: known_though_new, a row that the sets call \
             new and the key calls known; sample_differs, two samples of one position; stuck, a \
             batch that keeps failing; out_of_order, something acknowledged or trimmed that is \
             not committed, or a checkpoint that went back; verdict_out_of_turn, a verdict that \
             this archive did not publish, or whose forerunners were deleted.", &["alarm"]),
        verdicts_given: counter("lakegauge_archiver_verdicts_given_total",
            "Verdicts over events too old to judge that rows were given, since the first event."),
        verdicts_noted: counter("lakegauge_archiver_verdicts_noted_total",
            "Verdicts that were read back from the stream, since the first event."),
        verdicts_waiting: gauge("lakegauge_archiver_verdicts_waiting",
            "Verdicts that were given and are not read back yet."),
        verdicts_again: counter("lakegauge_archiver_verdicts_published_again_total",
            "Times that verdicts were deleted from the stream before they were read back."),
        too_old: counter("lakegauge_archiver_too_old_total",
            "Rows inserted that were too old to judge; each has a verdict number."),
        position: gauge("lakegauge_archiver_committed_sequence",
            "Sequence of the last message of the stream that was committed."),
        lag: gauge("lakegauge_archiver_lag_messages",
            "Messages of the stream that are not committed yet; asked of the broker, not taken \
             from what is delivered."),
        stalled: gauge("lakegauge_archiver_stalled_seconds",
            "How long messages have waited, or nobody could say whether any do, while nothing \
             was committed; 0 where nothing waits."),
        commit: histogram("lakegauge_archiver_commit_duration_seconds",
            "Time from the first statement of a transaction to the answer to its commit.", &COMMIT_SECONDS),
        retries: counter("lakegauge_archiver_retries_total",
            "Batches that failed and were tried again."),
        last_commit: known_gauge("lakegauge_archiver_last_commit_timestamp_seconds",
            "When the last transaction of this process was committed."),
        trimmed_below: gauge("lakegauge_archiver_trimmed_below_sequence",
            "Sequence below which the stream was trimmed by this process."),
        trims: counter("lakegauge_archiver_trims_total",
            "Times that the stream was trimmed as far as is allowed, even if nothing was deleted."),
        stream_bytes: gauge("lakegauge_archiver_stream_bytes",
            "Bytes that the stream holds in the broker."),
        stream_max_bytes: known_gauge("lakegauge_archiver_stream_max_bytes",
            "Bytes that the stream may hold before producers have to wait; missing where it has no \
             bound."),
        lost: counter("lakegauge_archiver_lost_messages_total",
            "Messages that the broker had and deleted or lost before they could be archived."),
        epoch: known_gauge("lakegauge_archiver_epoch",
            "Epoch of the stream that is archived, once the archive is open."),
        epochs_begun: counter("lakegauge_archiver_epochs_begun_total",
            "Epochs that ended because the stream was another, and were closed."),
        dropped_partitions: counter("lakegauge_archiver_dropped_partitions_total",
            "Partitions that retention dropped, by the stream whose archiver did."),
        dropped_rows: counter("lakegauge_archiver_dropped_rows_total",
            "Rows in the partitions that retention dropped."),
    }
}

impl StreamMetrics {
    /// The metrics of a stream, with every known label at 0: a counter whose first value is 1 has
    /// not increased for Prometheus.
    ///
    /// # Errors
    ///
    /// The stream has metrics already, which is a programming error.
    pub(crate) fn of_stream(registry: &Registry, stream: &str) -> prometheus::Result<Self> {
        let metrics = Self::register(Registrar::with_label(registry, "stream", stream))?;
        metrics.count(&Appended::default());
        metrics.alarm("stuck", 0);
        metrics.alarm("out_of_order", 0);
        for reason in Reason::ALL {
            metrics.dead_letters.with_label_values(&[reason.name()]);
        }
        Ok(metrics)
    }

    pub(crate) fn observe_refusal(&self, reason: Reason) {
        self.dead_letters.with_label_values(&[reason.name()]).inc();
    }

    /// Records a transaction that was committed at a time in microseconds since 1970.
    pub(crate) fn observe_commit(
        &self,
        appended: &Appended,
        sequence: u64,
        took: Duration,
        now_us: i64,
    ) {
        self.count(appended);
        self.commit.observe(took.as_secs_f64());
        self.last_commit.set(now_us / 1_000_000);
        self.observe_position(sequence);
    }

    /// When the last transaction was committed, in milliseconds since 1970.
    pub(crate) fn last_commit_ms(&self) -> Option<i64> {
        self.last_commit.get().map(|at_s| at_s * 1_000)
    }

    pub(crate) fn observe_position(&self, sequence: u64) {
        self.position.set(clamped(sequence));
    }

    pub(crate) fn observe_verdicts(&self, progress: &VerdictProgress) {
        raise(&self.verdicts_given, progress.given);
        raise(&self.verdicts_noted, progress.noted);
        self.verdicts_waiting.set(clamped(progress.waiting()));
    }

    pub(crate) fn observe_verdicts_again(&self) {
        self.verdicts_again.inc();
    }

    /// Sets the backlog. A value that is not known keeps its last state; the stalled seconds show
    /// since when it is not known.
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
        self.alarm("stuck", 1);
    }

    pub(crate) fn observe_out_of_order(&self) {
        self.alarm("out_of_order", 1);
    }

    /// Records that the stream was trimmed as far as is allowed: below this sequence, if anything
    /// was deleted.
    pub(crate) fn observe_trim(&self, below: Option<u64>) {
        self.trims.inc();
        if let Some(below) = below {
            self.trimmed_below.set(clamped(below));
        }
    }

    /// Sets how much the stream holds and may hold, in bytes.
    pub(crate) fn observe_stream(&self, bytes: u64, max_bytes: i64) {
        self.stream_bytes.set(clamped(bytes));
        if max_bytes > 0 {
            self.stream_max_bytes.set(max_bytes);
        } else {
            self.stream_max_bytes.forget();
        }
    }

    pub(crate) fn observe_dropped(&self, partitions: usize, rows: u64) {
        self.dropped_partitions.inc_by(u64::try_from(partitions).unwrap_or(u64::MAX));
        self.dropped_rows.inc_by(rows);
    }

    pub(crate) fn observe_epoch(&self, epoch: u32) {
        self.epoch.set(i64::from(epoch));
    }

    /// Records that an epoch was closed and the next one begun, and how many messages of the old
    /// one are lost.
    pub(crate) fn observe_epoch_begun(&self, lost: u64) {
        self.epochs_begun.inc();
        self.lost.inc_by(lost);
    }

    pub(crate) fn observe_loss(&self, messages: u64) {
        self.lost.inc_by(messages);
    }

    fn count(&self, appended: &Appended) {
        let events = [
            ("inserted", appended.inserted),
            ("duplicate", appended.duplicates),
            ("dead", appended.dead),
        ];
        for (result, count) in events {
            self.events.with_label_values(&[result]).inc_by(count);
        }
        self.too_old.inc_by(appended.too_old);
        self.alarm("known_though_new", appended.known_though_new);
        self.alarm("sample_differs", appended.samples_differing);
        self.alarm("verdict_out_of_turn", appended.verdicts_out_of_turn);
    }

    fn alarm(&self, alarm: &str, times: u64) {
        self.alarms.with_label_values(&[alarm]).inc_by(times);
    }
}
