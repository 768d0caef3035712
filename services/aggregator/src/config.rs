//! The aggregator's settings.

use std::{net::SocketAddr, time::Duration};

use bus::{Run, backlog::BacklogLimits, service::BusConfig};
use event_store::StoreSettings;
use service_kit::{Setting, Settings};

use crate::page::Links;

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
const SNAPSHOT_OVERDUE_AFTER_MS: Setting = Setting {
    key: "SNAPSHOT_OVERDUE_AFTER_MS",
    flag: "snapshot-overdue-after-ms",
    default: Some("60000"),
    help: "From when on /readyz says that what was counted could not be stored in a snapshot, and \
           why.",
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
const PAGE_GRAFANA_URL: Setting = Setting {
    key: "PAGE_GRAFANA_URL",
    flag: "page-grafana-url",
    default: Some(":3000"),
    help: "Where the page's link to Grafana leads: an address, :port of the host that the page was \
           opened at, or none.",
    secret: false,
};
const PAGE_PROMETHEUS_URL: Setting = Setting {
    key: "PAGE_PROMETHEUS_URL",
    flag: "page-prometheus-url",
    default: Some(":9090"),
    help: "Where the page's link to Prometheus leads, as PAGE_GRAFANA_URL.",
    secret: false,
};
const PAGE_REST_URL: Setting = Setting {
    key: "PAGE_REST_URL",
    flag: "page-rest-url",
    default: Some("none"),
    help: "Where the page's link to the archive over REST leads, as PAGE_GRAFANA_URL.",
    secret: false,
};
const PAGE_GRAIN_S: Setting = Setting {
    key: "PAGE_GRAIN_S",
    flag: "page-grain-s",
    default: Some("10"),
    help: "Time between two points of the page's plots of the last hour, from 1 to 60 s. Samples \
           are published every 10 s unless the rules of the streams say otherwise.",
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

/// Longer than brokers take to restart or to elect a leader, which is nothing to look at; short enough
/// that Prometheus, which asks every few seconds, has no minute of numbers that stood still.
const STALE_AFTER_MS: Setting = Setting {
    key: "AGGREGATOR_STALE_AFTER_MS",
    flag: "stale-after-ms",
    default: Some("30000"),
    help: "From when on the numbers of an owner that can't reach NATS are stale: /metrics and \
           /readyz say 503 then. An idle lake is not stale. AGGREGATOR_LEASE_MS where that is longer.",
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
    /// From when on it is told that no snapshot could be stored.
    pub snapshot_overdue_after: Duration,
    /// Time between two looks at the epoch.
    pub epoch_check: Duration,
    /// Whether the state is rebuilt from the archive at start, whatever the snapshot says.
    pub from_archive: bool,
    /// The replay run that is counted instead of live.
    pub replay: Option<Run>,
    /// How long the owner of the partition may be silent.
    pub lease: Duration,
    /// From when on numbers are stale whose owner can't reach the broker.
    pub stale_after: Duration,
    /// What the page shows besides the numbers.
    pub(crate) page: PageConfig,
    /// How often the lag is asked, and when a stream stands still.
    pub(crate) backlog: BacklogLimits,
}

/// What the page is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageConfig {
    /// Where else people look.
    pub(crate) links: Links,
    /// Seconds between two points.
    pub(crate) grain_s: u32,
}

impl PageConfig {
    fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let grafana = link(settings, &PAGE_GRAFANA_URL);
        let prometheus = link(settings, &PAGE_PROMETHEUS_URL);
        let rest = link(settings, &PAGE_REST_URL);
        let grain_s = settings.in_range(&PAGE_GRAIN_S, 1..=60);
        let links = Links { grafana: grafana?, prometheus: prometheus?, rest: rest? };
        Some(Self { links, grain_s: grain_s? })
    }
}

/// A link of the page: inner nothing for none.
fn link(settings: &mut Settings<'_>, setting: &Setting) -> Option<Option<String>> {
    let value = settings.text(setting)?;
    if value == "none" {
        return Some(None);
    }
    let is_port = value.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if is_port || ["http://", "https://"].iter().any(|scheme| value.starts_with(scheme)) {
        return Some(Some(value));
    }
    settings.problem(setting, "must begin with http:// or https://, or be :port or none");
    None
}

/// The aggregator's own settings; those of bus and archive stand with them.
pub const SETTINGS: &[Setting] = &[
    METRICS_ADDR,
    PARTITION,
    SNAPSHOT_INTERVAL_MS,
    SNAPSHOT_OVERDUE_AFTER_MS,
    EPOCH_CHECK_MS,
    BacklogLimits::LAG_CHECK_MS,
    BacklogLimits::STALLED_AFTER_MS,
    FROM_ARCHIVE,
    REPLAY,
    LEASE_MS,
    STALE_AFTER_MS,
    PAGE_GRAFANA_URL,
    PAGE_PROMETHEUS_URL,
    PAGE_REST_URL,
    PAGE_GRAIN_S,
];

impl Config {
    /// Reads every setting; problems are collected in `settings`.
    pub fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let bus = bus::service::load("aggregator", settings);
        let store = event_store::service::load_optional("lakegauge-aggregator", settings);
        let metrics_addr = settings.parse(&METRICS_ADDR);
        let partition = settings.parse(&PARTITION);
        let snapshot_interval = settings.duration_ms(&SNAPSHOT_INTERVAL_MS);
        let snapshot_overdue_after = settings.duration_ms(&SNAPSHOT_OVERDUE_AFTER_MS);
        let epoch_check = settings.duration_ms(&EPOCH_CHECK_MS);
        let backlog = BacklogLimits::load(settings);
        let from_archive = settings.switch(&FROM_ARCHIVE);
        let replay = settings.optional::<Run>(&REPLAY);
        if from_archive == Some(true) && replay.as_ref().is_some_and(Option::is_some) {
            settings
                .problem(&FROM_ARCHIVE, "is not for a replay run, which is counted from its own");
        }
        let lease = settings.duration_ms(&LEASE_MS);
        let stale_after = settings.duration_ms(&STALE_AFTER_MS);
        let page = PageConfig::load(settings);
        Some(Self {
            bus: bus?,
            store: store?,
            metrics_addr: metrics_addr?,
            partition: partition?,
            snapshot_interval: snapshot_interval?,
            snapshot_overdue_after: snapshot_overdue_after?,
            epoch_check: epoch_check?,
            backlog: backlog?,
            from_archive: from_archive?,
            replay: replay?,
            lease: lease?,
            // Between two renewals of a long lease nothing is stale.
            stale_after: stale_after?.max(lease?),
            page: page?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::Flags;

    use super::*;

    #[test]
    fn links_are_addresses_ports_or_none() {
        let read = |value| {
            let (flags, environment) =
                (Flags::default(), BTreeMap::from([("PAGE_REST_URL", value)]));
            let mut settings = Settings::new(&flags, &environment);
            PageConfig::load(&mut settings).map(|page| page.links.rest)
        };
        let some = |value: &str| Some(Some(value.to_owned()));
        assert_eq!(read("https://x.supabase.co/rest/v1/"), some("https://x.supabase.co/rest/v1/"));
        assert_eq!(
            (read(":54321"), read("none"), read("")),
            (some(":54321"), Some(None), Some(None))
        );
        assert_eq!((read("javascript:alert(1)"), read(":x")), (None, None));
    }
}
