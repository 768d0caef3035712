//! The aggregator's settings.

use std::{net::SocketAddr, time::Duration};

use bus::{ReplayRun, backlog::BacklogLimits, service::BusConfig};
use domain::Stream;
use event_store::StoreSettings;
use serde::Serialize;
use service_kit::{Settings, settings::Recorded};

service_kit::settings! {
    /// Settings of the aggregator.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub bus: BusConfig = bus::service::load("aggregator"),
        /// The archive. It is needed only to rebuild a state without a usable snapshot; if it is
        /// `None`, such a start fails.
        #[settings(event_store::service::table())]
        pub store: Option<StoreSettings> = event_store::service::load_optional("lakegauge-aggregator"),
        /// Address and port of /metrics with the four metrics; 503 until the aggregator has caught up.
        #[setting(METRICS_ADDR, "metrics-addr", default = "127.0.0.1:8000")]
        pub metrics_addr: SocketAddr,
        /// The partition of the lake and of the warehouse that this aggregator counts.
        #[setting(PARTITION, "partition", default = "0")]
        pub partition: u16,
        /// Time between two snapshots. With a longer time, more messages are read again after a
        /// restart, and the archiver trims the streams later.
        #[setting(SNAPSHOT_INTERVAL_MS, "snapshot-interval-ms", default = "10000")]
        pub snapshot_interval: Duration = duration_ms,
        /// Time after which /readyz reports that counted events could not be stored in a snapshot,
        /// and why.
        #[setting(SNAPSHOT_OVERDUE_AFTER_MS, "snapshot-overdue-after-ms", default = "60000")]
        pub snapshot_overdue_after: Duration = duration_ms,
        /// How often the epoch of each stream is read. Another service may find that a stream was
        /// created again; the aggregator notices that after at most this time.
        #[setting(EPOCH_CHECK_MS, "epoch-check-ms", default = "1000")]
        pub epoch_check: Duration = duration_ms,
        /// How often the lag is read, and after which time a stream counts as stalled.
        #[settings(BacklogLimits::table())]
        pub(crate) backlog: BacklogLimits = BacklogLimits::load(),
        /// What is counted.
        #[settings(CountingMode::table())]
        pub(crate) mode: CountingMode = CountingMode::load_together(),
        /// How long the owner of a partition may be silent before a waiting aggregator takes over;
        /// the owner renews three times as often. After kill -9, a restart waits this long too.
        #[setting(AGGREGATOR_LEASE_MS, "lease-ms", default = "3000")]
        pub lease: Duration = duration_ms,
        /// Time after which the numbers of an owner that can't reach NATS are stale: /metrics and
        /// /readyz answer 503 then. An idle lake is not stale. If AGGREGATOR_LEASE_MS is longer,
        /// that time counts.
        // This is longer than brokers take to restart or to elect a leader, which needs no
        // attention. And it is short enough that Prometheus, which scrapes every few seconds, does
        // not record a minute of numbers that did not move.
        #[setting(AGGREGATOR_STALE_AFTER_MS, "stale-after-ms", default = "30000")]
        pub stale_after: Duration = duration_ms,
        /// Targets of the page's links.
        #[settings(Links::table())]
        pub(crate) links: Links = Links::load(),
        /// Time between two points of the page's plots of the last hour, from 1 to 60 s. Samples are
        /// published every 10 s unless the rules of the streams say otherwise.
        #[setting(PAGE_GRAIN_S, "page-grain-s", default = "10")]
        pub(crate) page_grain_s: u32 = in_range(1..=60),
    }
}

service_kit::settings! {
    /// What is counted, and where its state comes from.
    #[derive(Clone, Debug)]
    pub(crate) struct CountingMode {
        /// Rebuild the state from the archive at the start, even if there is a usable snapshot;
        /// needs DATABASE_URL.
        #[setting(AGGREGATOR_FROM_ARCHIVE, "from-archive", default = "false")]
        pub(crate) from_archive: bool = switch,
        /// Count this replay run instead of the live streams. The run gets its own snapshots, and
        /// its samples get the subject replay.<run>.sample. This aggregator needs ports of its own
        /// too.
        #[setting(AGGREGATOR_REPLAY, "replay")]
        pub(crate) replay: Option<ReplayRun> = optional,
    }
}

impl Config {
    /// The name of the stream that is read: the live stream, or that of the replay run.
    pub(crate) fn name_of(&self, stream: Stream) -> String {
        match &self.mode.replay {
            Some(run) => run.stream(stream),
            None => stream.to_string(),
        }
    }
}

impl CountingMode {
    fn load_together(settings: &mut Settings<'_>) -> Result<Self, Recorded> {
        let loaded = Self::load(settings)?;
        if loaded.from_archive && loaded.replay.is_some() {
            let text = "can't be used with a replay run, which is counted from its own stream";
            return Err(settings.problem(&Self::AGGREGATOR_FROM_ARCHIVE, text));
        }
        Ok(loaded)
    }
}

service_kit::settings! {
    /// Other addresses for people: a full address, or a port of the page's host as `:3000`.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct Links {
        /// Target of the page's link to Grafana: an address, :port of the host that served the
        /// page, or none. If several are given, separated by spaces, the first one counts.
        // Compose appends its own port of Grafana after a value that people may have set.
        #[setting(PAGE_GRAFANA_URL, "page-grafana-url", default = "none")]
        pub(crate) grafana: Option<String> = parse_by(link),
        /// Target of the page's link to Prometheus, in the form of PAGE_GRAFANA_URL.
        #[setting(PAGE_PROMETHEUS_URL, "page-prometheus-url", default = "none")]
        pub(crate) prometheus: Option<String> = parse_by(link),
        /// Target of the page's link to the archive over REST, in the form of PAGE_GRAFANA_URL.
        #[setting(PAGE_REST_URL, "page-rest-url", default = "none")]
        pub(crate) rest: Option<String> = parse_by(link),
    }
}

/// A link of the page; `None` for `none`.
fn link(value: &str) -> Result<Option<String>, &'static str> {
    let value = value.split_whitespace().next().unwrap_or_default();
    if value == "none" {
        return Ok(None);
    }
    let is_port = value.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if is_port || ["http://", "https://"].iter().any(|scheme| value.starts_with(scheme)) {
        return Ok(Some(value.to_owned()));
    }
    Err("must begin with http:// or https://, or be :port or none")
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
            Links::load(&mut settings).map(|links| links.rest)
        };
        let some = |value: &str| Ok(Some(value.to_owned()));
        assert_eq!(read("https://x.supabase.co/rest/v1/"), some("https://x.supabase.co/rest/v1/"));
        assert_eq!((read(":54321"), read("none"), read("")), (some(":54321"), Ok(None), Ok(None)));
        assert_eq!(read(" :3001"), some(":3001"), "nothing is set before it");
        assert_eq!(read("https://grafana.example :3001"), some("https://grafana.example"));
        assert_eq!((read("javascript:alert(1)"), read(":x")), (Err(Recorded), Err(Recorded)));
    }
}
