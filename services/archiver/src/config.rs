//! The archiver's settings.

use std::time::Duration;

use bus::{backlog::BacklogLimits, service::BusConfig};
use event_store::StoreSettings;

service_kit::settings! {
    /// Settings of the archiver.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub(crate) bus: BusConfig = bus::service::load("archiver"),
        /// PostgreSQL.
        #[settings(event_store::service::table())]
        pub(crate) store: StoreSettings = event_store::service::load("lakegauge-archiver"),
        /// Partitions of lake and warehouse that this archiver writes, separated by commas. The
        /// archiver of partition 0 also writes the samples.
        #[setting(ARCHIVER_PARTITIONS, "partitions", default = "0")]
        pub(crate) partitions: Vec<u16> = parse_by(partitions),
        /// Number of events at which a transaction begins. Below 5,000, half of the speed is lost.
        /// Up to three batches of each stream are in memory; 10,000 events take about 8 MB.
        #[setting(ARCHIVER_BATCH_EVENTS_MAX, "batch-events-max", default = "10000")]
        pub(crate) batch_events_max: u64 = in_range(1..=1_000_000),
        /// Longest time that an event waits for its transaction to begin.
        #[setting(ARCHIVER_BATCH_AGE_MS_MAX, "batch-age-ms-max", default = "500")]
        pub(crate) batch_age_ms_max: u64,
        /// Time between two attempts to trim a stream.
        #[setting(ARCHIVER_TRIM_INTERVAL_MS, "trim-interval-ms", default = "5000")]
        pub(crate) trim_interval: Duration = duration_ms,
        /// How often the archiver looks for data to drop: days older than the stream's retention
        /// (retention_days in NATS_STREAM_RULES; 0 keeps everything) and a day, and windows older
        /// than they are kept (windows in NATS_STREAM_RULES).
        #[setting(ARCHIVER_RETENTION_INTERVAL_MS, "retention-interval-ms", default = "60000")]
        pub(crate) retention_interval: Duration = duration_ms,
        /// How often the archiver looks for rows that are not yet in the rollups (by day and by
        /// key). The rollups are behind by at most this time.
        #[setting(ARCHIVER_ROLLUP_INTERVAL_MS, "rollup-interval-ms", default = "60000")]
        pub(crate) rollup_interval: Duration = duration_ms,
        /// From which time on rows that the rollups do not include make the archiver not ready. While
        /// the archiver itself is behind, its rollups wait for up to 15 rollup intervals.
        #[setting(ARCHIVER_ROLLUPS_OVERDUE_AFTER_MS, "rollups-overdue-after-ms", default = "1200000")]
        pub(crate) rollups_overdue_after: Duration = duration_ms,
        /// Whether to keep what is stored now, by key, and when each key was last read. It takes
        /// about 200 bytes for each key that is stored, and, where retention_days is set, for each
        /// key that was deleted or read within so many days; otherwise for each key that ever
        /// existed. With false it is deleted; with true again it is computed from the rows that
        /// exist.
        #[setting(ARCHIVER_KEYS, "keys", default = "true")]
        pub(crate) keys: bool = switch,
        /// Time between two readings of the archive's ledger (sums, declared losses, open dead
        /// letters), which are shown as metrics and on the page.
        #[setting(ARCHIVER_LEDGER_INTERVAL_MS, "ledger-interval-ms", default = "3000")]
        pub(crate) ledger_interval: Duration = duration_ms,
        /// Least time between two readings of the size of the database, which is shown as a metric.
        #[setting(ARCHIVER_DATABASE_SIZE_INTERVAL_MS, "database-size-interval-ms", default = "60000")]
        pub(crate) database_size_interval: Duration = duration_ms,
        /// Size that the database may have: 500000000 in Supabase's free plan, else the size of the
        /// disk. If it is set, the time until the database reaches it is shown as a metric, and 90
        /// % of it is reported in the log.
        #[setting(ARCHIVER_DATABASE_LIMIT_BYTES, "database-limit-bytes")]
        pub(crate) database_limit_bytes: Option<u64> = optional,
        /// Messages younger than this stay in the stream although they are archived, as long as
        /// half of the stream's room is free.
        #[setting(ARCHIVER_STREAM_KEEP_S, "stream-keep-s", default = "86400")]
        pub(crate) keep: Duration = duration_s,
        /// Whether streams are trimmed only below the aggregator's snapshot. Set it to false if no
        /// aggregator runs; otherwise the stream fills up and stays full.
        #[setting(ARCHIVER_AWAIT_AGGREGATOR, "await-aggregator", default = "true")]
        pub(crate) await_aggregator: bool = switch,
        /// How often the epoch of each stream is read. Another service may find that a stream was
        /// created again; the archiver notices that after at most this time.
        #[setting(ARCHIVER_EPOCH_CHECK_MS, "epoch-check-ms", default = "1000")]
        pub(crate) epoch_check: Duration = duration_ms,
        /// How often the lag is read, and after which time a stream counts as stalled.
        #[settings(BacklogLimits::table())]
        pub(crate) backlog: BacklogLimits = BacklogLimits::load(),
    }
}

impl Config {
    /// Size that the database may have, where one is set.
    pub const fn database_limit_bytes(&self) -> Option<u64> {
        self.database_limit_bytes
    }
}

fn partitions(text: &str) -> Result<Vec<u16>, &'static str> {
    let numbers: Result<Vec<u16>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    numbers.map_err(|_| "must be numbers, separated by commas")
}
