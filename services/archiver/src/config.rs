//! The archiver's settings.

use std::time::Duration;

use bus::{
    backlog::{BacklogLimits, LAG_CHECK_MS, STALLED_AFTER_MS},
    service::BusConfig,
};
use event_store::StoreSettings;
use service_kit::{Setting, Settings};

use crate::{batcher::BatchLimits, size::SizeRules};

const PARTITIONS: Setting = Setting {
    key: "ARCHIVER_PARTITIONS",
    flag: "partitions",
    default: Some("0"),
    help: "The partitions of lake and warehouse that this archiver writes, with commas between \
           them; the samples are written by the one that has partition 0.",
    secret: false,
};
const BATCH_EVENTS_MAX: Setting = Setting {
    key: "ARCHIVER_BATCH_EVENTS_MAX",
    flag: "batch-events-max",
    default: Some("10000"),
    help: "Events from which on a transaction is begun. Below 5,000 half of the speed is lost; up \
           to three batches of each stream are in memory, 10,000 events take about 8 MB.",
    secret: false,
};
const BATCH_AGE_MS_MAX: Setting = Setting {
    key: "ARCHIVER_BATCH_AGE_MS_MAX",
    flag: "batch-age-ms-max",
    default: Some("500"),
    help: "Longest time that an event waits for its transaction to begin.",
    secret: false,
};
const TRIM_INTERVAL_MS: Setting = Setting {
    key: "ARCHIVER_TRIM_INTERVAL_MS",
    flag: "trim-interval-ms",
    default: Some("5000"),
    help: "Time between two attempts to trim a stream.",
    secret: false,
};
const BOOKS_INTERVAL_MS: Setting = Setting {
    key: "ARCHIVER_BOOKS_INTERVAL_MS",
    flag: "books-interval-ms",
    default: Some("10000"),
    help: "Time between two looks at the archive's books (ledger, declared losses, open dead \
           letters), which are shown as metrics.",
    secret: false,
};
const DATABASE_SIZE_INTERVAL_MS: Setting = Setting {
    key: "ARCHIVER_DATABASE_SIZE_INTERVAL_MS",
    flag: "database-size-interval-ms",
    default: Some("60000"),
    help: "Least time between two looks at the size of the database, which is shown as a metric.",
    secret: false,
};
const DATABASE_LIMIT_BYTES: Setting = Setting {
    key: "ARCHIVER_DATABASE_LIMIT_BYTES",
    flag: "database-limit-bytes",
    default: None,
    help: "Size that the database may have: 500000000 in Supabase's free plan, else the disk. With \
           it the time until it is reached is shown as a metric, and 90 % of it in the log.",
    secret: false,
};
const RETENTION_INTERVAL_MS: Setting = Setting {
    key: "ARCHIVER_RETENTION_INTERVAL_MS",
    flag: "retention-interval-ms",
    default: Some("60000"),
    help: "Time between two looks whether days are older than the stream's retention (retention_days \
           in NATS_STREAM_RULES; 0 keeps everything) and a day, or windows than they are kept \
           (windows in the same), and can be dropped.",
    secret: false,
};
const STREAM_KEEP_S: Setting = Setting {
    key: "ARCHIVER_STREAM_KEEP_S",
    flag: "stream-keep-s",
    default: Some("86400"),
    help: "Messages younger than this stay in the stream although they are archived, as long as \
           half of its room is free.",
    secret: false,
};
const AWAIT_AGGREGATOR: Setting = Setting {
    key: "ARCHIVER_AWAIT_AGGREGATOR",
    flag: "await-aggregator",
    default: Some("true"),
    help: "Whether streams are trimmed only below the aggregator's snapshot. Set it to false where \
           no aggregator runs, or a stream fills up for good.",
    secret: false,
};
const EPOCH_CHECK_MS: Setting = Setting {
    key: "ARCHIVER_EPOCH_CHECK_MS",
    flag: "epoch-check-ms",
    default: Some("1000"),
    help: "How often the epoch of each stream is looked up: how late it is noticed that another \
           service found a stream made again.",
    secret: false,
};

/// The archiver's own settings; those of bus and archive stand with them.
pub const SETTINGS: &[Setting] = &[
    PARTITIONS,
    BATCH_EVENTS_MAX,
    BATCH_AGE_MS_MAX,
    TRIM_INTERVAL_MS,
    RETENTION_INTERVAL_MS,
    BOOKS_INTERVAL_MS,
    DATABASE_SIZE_INTERVAL_MS,
    DATABASE_LIMIT_BYTES,
    STREAM_KEEP_S,
    AWAIT_AGGREGATOR,
    EPOCH_CHECK_MS,
    LAG_CHECK_MS,
    STALLED_AFTER_MS,
];

/// What the archiver is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) bus: BusConfig,
    pub(crate) store: StoreSettings,
    pub(crate) partitions: Vec<u16>,
    pub(crate) limits: BatchLimits,
    pub(crate) trim_interval: Duration,
    pub(crate) retention_interval: Duration,
    pub(crate) books_interval: Duration,
    pub(crate) size: SizeRules,
    pub(crate) keep: Duration,
    pub(crate) await_aggregator: bool,
    pub(crate) epoch_check: Duration,
    pub(crate) backlog: BacklogLimits,
}

impl Config {
    /// Reads every setting; problems are collected in `settings`.
    pub fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let bus = bus::service::load("archiver", settings);
        let store = event_store::service::load("lakegauge-archiver", settings);
        let partitions = partitions(settings);
        let events_max = settings.in_range(&BATCH_EVENTS_MAX, 1..=1_000_000);
        let age_ms_max = settings.parse(&BATCH_AGE_MS_MAX);
        let trim_interval = settings.duration_ms(&TRIM_INTERVAL_MS);
        let retention_interval = settings.duration_ms(&RETENTION_INTERVAL_MS);
        let books_interval = settings.duration_ms(&BOOKS_INTERVAL_MS);
        let size_interval = settings.duration_ms(&DATABASE_SIZE_INTERVAL_MS);
        let limit_bytes = settings.optional::<u64>(&DATABASE_LIMIT_BYTES);
        let keep_s = settings.parse(&STREAM_KEEP_S);
        let await_aggregator = settings.switch(&AWAIT_AGGREGATOR);
        let epoch_check = settings.duration_ms(&EPOCH_CHECK_MS);
        let backlog = BacklogLimits::load(settings);
        Some(Self {
            bus: bus?,
            store: store?,
            partitions: partitions?,
            limits: BatchLimits { events_max: events_max?, age_ms_max: age_ms_max? },
            trim_interval: trim_interval?,
            retention_interval: retention_interval?,
            books_interval: books_interval?,
            size: SizeRules { interval: size_interval?, limit_bytes: limit_bytes? },
            keep: Duration::from_secs(keep_s?),
            await_aggregator: await_aggregator?,
            epoch_check: epoch_check?,
            backlog: backlog?,
        })
    }
}

fn partitions(settings: &mut Settings<'_>) -> Option<Vec<u16>> {
    let text = settings.text(&PARTITIONS)?;
    let numbers: Result<Vec<u16>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    if numbers.is_err() {
        settings.problem(&PARTITIONS, "must be numbers with commas between them");
    }
    numbers.ok()
}
