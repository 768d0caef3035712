//! The aggregator's settings.

use std::{net::SocketAddr, time::Duration};

use bus::{ReplayRun, backlog::BacklogLimits, service::BusConfig};
use domain::Stream;
use event_store::StoreSettings;
use serde::Serialize;
use service_kit::Settings;

service_kit::settings! {
    /// What the aggregator is told.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub bus: BusConfig = bus::service::load("aggregator"),
        /// The archive, needed only to rebuild a state that no snapshot gives. Where it is `None`, such a
        /// start fails.
        #[settings(event_store::service::table())]
        pub store: Option<StoreSettings> = event_store::service::load_optional("lakegauge-aggregator"),
        /// Address and port of /metrics with the four metrics; 503 until the aggregator has caught up.
        #[setting(METRICS_ADDR, "metrics-addr", default = "127.0.0.1:8000")]
        pub metrics_addr: SocketAddr,
        /// The partition of the lake and of the warehouse that this aggregator counts.
        #[setting(PARTITION, "partition", default = "0")]
        pub partition: u16,
        /// Time between two snapshots. Longer: more to read again after a restart, and the archiver
        /// trims the streams later.
        #[setting(SNAPSHOT_INTERVAL_MS, "snapshot-interval-ms", default = "10000")]
        pub snapshot_interval: Duration = duration_ms,
        /// From when on /readyz says that what was counted could not be stored in a snapshot, and why.
        #[setting(SNAPSHOT_OVERDUE_AFTER_MS, "snapshot-overdue-after-ms", default = "60000")]
        pub snapshot_overdue_after: Duration = duration_ms,
        /// How often the epoch of each stream is looked up: how late it is noticed that another service
        /// found a stream made again.
        #[setting(EPOCH_CHECK_MS, "epoch-check-ms", default = "1000")]
        pub epoch_check: Duration = duration_ms,
        /// How often the lag is asked, and when a stream stands still.
        #[settings(BacklogLimits::table())]
        pub(crate) backlog: BacklogLimits = BacklogLimits::load(),
        /// What is counted.
        #[settings(CountingMode::table())]
        pub(crate) mode: CountingMode = CountingMode::load_together(),
        /// How long the owner of a partition may be silent before a waiting aggregator takes over; it
        /// renews three times as often. Also how long a restart after kill -9 waits.
        #[setting(AGGREGATOR_LEASE_MS, "lease-ms", default = "3000")]
        pub lease: Duration = duration_ms,
        /// From when on the numbers of an owner that can't reach NATS are stale: /metrics and /readyz
        /// say 503 then. An idle lake is not stale. AGGREGATOR_LEASE_MS where that is longer.
        // Longer than brokers take to restart or to elect a leader, which is nothing to look at; short
        // enough that Prometheus, which asks every few seconds, has no minute of numbers that stood
        // still.
        #[setting(AGGREGATOR_STALE_AFTER_MS, "stale-after-ms", default = "30000")]
        pub stale_after: Duration = duration_ms,
        /// Where the page's links lead.
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
        /// Rebuild the state from the archive at start, whatever the snapshot says; needs DATABASE_URL.
        #[setting(AGGREGATOR_FROM_ARCHIVE, "from-archive", default = "false")]
        pub(crate) from_archive: bool = switch,
        /// Count this replay run instead of live, with snapshots of its own and its samples under
        /// replay.<run>.sample; give it ports of its own as well.
        #[setting(AGGREGATOR_REPLAY, "replay")]
        pub(crate) replay: Option<ReplayRun> = optional,
    }
}

impl Config {
    /// The name of what is read of a stream: its own, or that of its replay.
    pub(crate) fn name_of(&self, stream: Stream) -> String {
        match &self.mode.replay {
            Some(run) => run.stream(stream),
            None => stream.to_string(),
        }
    }
}

impl CountingMode {
    fn load_together(settings: &mut Settings<'_>) -> Option<Self> {
        let loaded = Self::load(settings)?;
        if loaded.from_archive && loaded.replay.is_some() {
            let text = "is not for a replay run, which is counted from its own";
            settings.problem(&Self::AGGREGATOR_FROM_ARCHIVE, text);
        }
        Some(loaded)
    }
}

service_kit::settings! {
    /// Where else people look. An address, or a port of the host that the page came from as `:3000`.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct Links {
        /// Where the page's link to Grafana leads: an address, :port of the host that the page was
        /// opened at, or none. Of several with spaces between them the first counts.
        // So that Compose can name the port that it gives Grafana behind what people set themselves.
        #[setting(PAGE_GRAFANA_URL, "page-grafana-url", default = "none")]
        pub(crate) grafana: Option<String> = parse_by(link),
        /// Where the page's link to Prometheus leads, as PAGE_GRAFANA_URL.
        #[setting(PAGE_PROMETHEUS_URL, "page-prometheus-url", default = "none")]
        pub(crate) prometheus: Option<String> = parse_by(link),
        /// Where the page's link to the archive over REST leads, as PAGE_GRAFANA_URL.
        #[setting(PAGE_REST_URL, "page-rest-url", default = "none")]
        pub(crate) rest: Option<String> = parse_by(link),
    }
}

/// A link of the page; `None` for none.
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
        let some = |value: &str| Some(Some(value.to_owned()));
        assert_eq!(read("https://x.supabase.co/rest/v1/"), some("https://x.supabase.co/rest/v1/"));
        assert_eq!(
            (read(":54321"), read("none"), read("")),
            (some(":54321"), Some(None), Some(None))
        );
        assert_eq!(read(" :3001"), some(":3001"), "nothing is set before it");
        assert_eq!(read("https://grafana.example :3001"), some("https://grafana.example"));
        assert_eq!((read("javascript:alert(1)"), read(":x")), (None, None));
    }
}
