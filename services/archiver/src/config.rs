//! The archiver's settings.

use std::time::Duration;

use bus::{backlog::BacklogLimits, service::BusConfig};
use event_store::StoreSettings;

service_kit::settings! {
    /// What the archiver is told.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub(crate) bus: BusConfig = bus::service::load("archiver"),
        /// PostgreSQL.
        #[settings(event_store::service::table())]
        pub(crate) store: StoreSettings = event_store::service::load("lakegauge-archiver"),
        /// The partitions of lake and warehouse that this archiver writes, with commas between them;
        /// the samples are written by the one that has partition 0.
        #[setting(ARCHIVER_PARTITIONS, "partitions", default = "0")]
        pub(crate) partitions: Vec<u16> = parse_by(partitions),
        /// Events from which on a transaction is begun. Below 5,000 half of the speed is lost; up to
        /// three batches of each stream are in memory, 10,000 events take about 8 MB.
        #[setting(ARCHIVER_BATCH_EVENTS_MAX, "batch-events-max", default = "10000")]
        pub(crate) batch_events_max: u64 = in_range(1..=1_000_000),
        /// Longest time that an event waits for its transaction to begin.
        #[setting(ARCHIVER_BATCH_AGE_MS_MAX, "batch-age-ms-max", default = "500")]
        pub(crate) batch_age_ms_max: u64,
        /// Time between two attempts to trim a stream.
        #[setting(ARCHIVER_TRIM_INTERVAL_MS, "trim-interval-ms", default = "5000")]
        pub(crate) trim_interval: Duration = duration_ms,
        /// Time between two looks whether days are older than the stream's retention (retention_days
        /// in NATS_STREAM_RULES; 0 keeps everything) and a day, or windows than they are kept
        /// (windows in the same), and can be dropped.
        #[setting(ARCHIVER_RETENTION_INTERVAL_MS, "retention-interval-ms", default = "60000")]
        pub(crate) retention_interval: Duration = duration_ms,
        /// Time between two looks whether there are rows that the rollups (by day and by key) do not
        /// have yet: how far they are behind.
        #[setting(ARCHIVER_ROLLUP_INTERVAL_MS, "rollup-interval-ms", default = "60000")]
        pub(crate) rollup_interval: Duration = duration_ms,
        /// Whether to keep what is stored now, by key, and when each key was read last. It takes about
        /// 200 bytes for each key that there ever was. With false it is let go of; with true again it
        /// is added up from the rows that are there.
        #[setting(ARCHIVER_KEYS, "keys", default = "true")]
        pub(crate) keys: bool = switch,
        /// Time between two looks at the ledger of the archive (sums, declared losses, open dead letters),
        /// which are shown as metrics and on the page.
        #[setting(ARCHIVER_LEDGER_INTERVAL_MS, "ledger-interval-ms", default = "3000")]
        pub(crate) ledger_interval: Duration = duration_ms,
        /// Least time between two looks at the size of the database, which is shown as a metric.
        #[setting(ARCHIVER_DATABASE_SIZE_INTERVAL_MS, "database-size-interval-ms", default = "60000")]
        pub(crate) database_size_interval: Duration = duration_ms,
        /// Size that the database may have: 500000000 in Supabase's free plan, else the disk. With it
        /// the time until it is reached is shown as a metric, and 90 % of it in the log.
        #[setting(ARCHIVER_DATABASE_LIMIT_BYTES, "database-limit-bytes")]
        pub(crate) database_limit_bytes: Option<u64> = optional,
        /// Messages younger than this stay in the stream although they are archived, as long as half
        /// of its room is free.
        #[setting(ARCHIVER_STREAM_KEEP_S, "stream-keep-s", default = "86400")]
        pub(crate) keep: Duration = duration_s,
        /// Whether streams are trimmed only below the aggregator's snapshot. Set it to false where no
        /// aggregator runs, or a stream fills up for good.
        #[setting(ARCHIVER_AWAIT_AGGREGATOR, "await-aggregator", default = "true")]
        pub(crate) await_aggregator: bool = switch,
        /// How often the epoch of each stream is looked up: how late it is noticed that another service
        /// found a stream made again.
        #[setting(ARCHIVER_EPOCH_CHECK_MS, "epoch-check-ms", default = "1000")]
        pub(crate) epoch_check: Duration = duration_ms,
        /// How often the lag is asked, and when a stream stands still.
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
    numbers.map_err(|_| "must be numbers with commas between them")
}
