//! The aggregator's settings.

use std::{net::SocketAddr, time::Duration};

use bus::{Run, service::BusConfig};
use event_store::StoreSettings;
use service_kit::{Setting, Settings};

/// Where the four metrics are.
pub const METRICS_ADDR: Setting = Setting {
    key: "METRICS_ADDR",
    flag: "metrics-addr",
    default: Some("127.0.0.1:8000"),
    help: "Address and port of /metrics with the four metrics; 503 until the aggregator has caught \
           up.",
    secret: false,
};
const PARTITION: Setting = Setting {
    key: "PARTITION",
    flag: "partition",
    default: Some("0"),
    help: "The partition of the lake and of the warehouse that this aggregator counts.",
    secret: false,
};
const SNAPSHOT_INTERVAL_MS: Setting = Setting {
    key: "SNAPSHOT_INTERVAL_MS",
    flag: "snapshot-interval-ms",
    default: Some("10000"),
    help: "Time between two snapshots. Longer: more to read again after a restart, and the archiver \
           trims the streams later.",
    secret: false,
};
const EPOCH_CHECK_MS: Setting = Setting {
    key: "EPOCH_CHECK_MS",
    flag: "epoch-check-ms",
    default: Some("1000"),
    help: "How often the epoch of each stream is looked up: how late it is noticed that another \
           service found a stream made again.",
    secret: false,
};

const FROM_ARCHIVE: Setting = Setting {
    key: "AGGREGATOR_FROM_ARCHIVE",
    flag: "from-archive",
    default: Some("false"),
    help: "Rebuild the state from the archive at start, whatever the snapshot says; needs \
           DATABASE_URL.",
    secret: false,
};
const REPLAY: Setting = Setting {
    key: "AGGREGATOR_REPLAY",
    flag: "replay",
    default: None,
    help: "Count this replay run instead of live, with snapshots of its own and its samples under \
           replay.<run>.sample; give it ports of its own as well.",
    secret: false,
};
const LEASE_MS: Setting = Setting {
    key: "AGGREGATOR_LEASE_MS",
    flag: "lease-ms",
    default: Some("3000"),
    help: "How long the owner of a partition may be silent before a waiting aggregator takes over; \
           it renews three times as often. Also how long a restart after kill -9 waits.",
    secret: false,
};

/// What the aggregator is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// NATS.
    pub bus: BusConfig,
    /// The archive, needed only to rebuild a state that no snapshot gives; none: such a start fails.
    pub store: Option<StoreSettings>,
    /// Where the four metrics are.
    pub metrics_addr: SocketAddr,
    /// Which partition is counted.
    pub partition: u16,
    /// Time between two snapshots.
    pub snapshot_interval: Duration,
    /// Time between two looks at the epoch.
    pub epoch_check: Duration,
    /// Whether the state is rebuilt from the archive at start, whatever the snapshot says.
    pub from_archive: bool,
    /// The replay run that is counted instead of live.
    pub replay: Option<Run>,
    /// How long the owner of the partition may be silent.
    pub lease: Duration,
}

/// The aggregator's own settings; those of bus and archive stand with them.
pub const SETTINGS: &[Setting] = &[
    METRICS_ADDR,
    PARTITION,
    SNAPSHOT_INTERVAL_MS,
    EPOCH_CHECK_MS,
    FROM_ARCHIVE,
    REPLAY,
    LEASE_MS,
];

impl Config {
    /// Reads every setting; problems are collected in `settings`.
    pub fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let bus = bus::service::load("aggregator", settings);
        let store = event_store::service::load_optional("lakegauge-aggregator", settings);
        let metrics_addr = settings.parse(&METRICS_ADDR);
        let partition = settings.parse(&PARTITION);
        let snapshot_interval = settings.duration_ms(&SNAPSHOT_INTERVAL_MS);
        let epoch_check = settings.duration_ms(&EPOCH_CHECK_MS);
        let from_archive = settings.switch(&FROM_ARCHIVE);
        let replay = settings.optional::<Run>(&REPLAY);
        if from_archive == Some(true) && replay.as_ref().is_some_and(Option::is_some) {
            settings
                .problem(&FROM_ARCHIVE, "is not for a replay run, which is counted from its own");
        }
        let lease = settings.duration_ms(&LEASE_MS);
        Some(Self {
            bus: bus?,
            store: store?,
            metrics_addr: metrics_addr?,
            partition: partition?,
            snapshot_interval: snapshot_interval?,
            epoch_check: epoch_check?,
            from_archive: from_archive?,
            replay: replay?,
            lease: lease?,
        })
    }
}
