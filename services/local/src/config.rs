//! The settings of `up`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use service_kit::Setting;
use simulator::scenario::Incident;

service_kit::settings! {
    /// Settings of `up`.
    #[derive(Clone, Debug)]
    pub(crate) struct Config {
        /// Where `up` keeps everything between runs; a second run continues where the first one
        /// ended. The tools read addresses that are not set from there.
        #[setting(LAKEGAUGE_DATA_DIR, "data-dir", default = ".lakegauge")]
        pub(crate) data_dir: PathBuf,
        /// Stop by itself after this time of events (90s, 5m, 1h), drain, and print a summary.
        #[setting(UP_FOR, "for")]
        pub(crate) run_for: Option<Duration> = optional_by(duration),
        /// Write the summary to this file as well.
        #[setting(UP_SUMMARY_JSON, "summary-json")]
        pub(crate) summary_json: Option<PathBuf> = optional,
        /// Events per second of both simulators together; four fifths are the lake's.
        // Beyond ten million a second no machine follows, and shares would overflow.
        #[setting(UP_RATE, "rate", default = "20")]
        pub(crate) rate: u64 = in_range(2..=10_000_000),
        /// Seed of the simulators, to get the same events again; without it each run has its own.
        #[setting(UP_SEED, "seed")]
        pub(crate) seed: Option<u64> = optional,
        /// An incident to simulate; `lakegauge simulate lake --help` lists them.
        // Read here, before anything is created, and not by the simulator at its start.
        #[setting(UP_SCENARIO, "scenario", default = "none")]
        pub(crate) scenario: &'static str = choice(&incidents()),
        /// Start no simulators: only events that others publish are processed.
        #[setting(UP_NO_SIMULATORS, "no-simulators", default = "false")]
        pub(crate) simulators: bool = left_on,
        /// Join NATS and PostgreSQL of the data directory if the services would refuse them, as
        /// `lakegauge adopt --confirm` does: when one of the two was lost or copied.
        #[setting(UP_ADOPT, "adopt", default = "false")]
        pub(crate) adopt: bool = switch,
        /// Start no Prometheus, even if it is installed.
        #[setting(UP_NO_PROMETHEUS, "no-prometheus", default = "false")]
        pub(crate) prometheus: bool = left_on,
        /// Start no Grafana, even if it is installed.
        #[setting(UP_NO_GRAFANA, "no-grafana", default = "false")]
        pub(crate) grafana: bool = left_on,
        /// PostgreSQL logs every statement with its duration and plan, as JSON, under the data
        /// directory: events for `lakegauge publish` (docs/real-input.md). It costs throughput.
        #[setting(UP_LOG_STATEMENTS, "log-statements", default = "false")]
        pub(crate) log_statements: bool = switch,
        /// Address on which NATS, metrics and Prometheus listen. NATS has no password here, so with
        /// any other address than loopback the network can publish.
        #[setting(UP_BIND, "bind", default = "127.0.0.1")]
        pub(crate) bind: IpAddr,
        /// Ports of the parts.
        #[settings(Ports::table())]
        pub(crate) ports: Ports = Ports::load(),
        /// The nats-server executable; otherwise the one installed by `./run`, otherwise the one on
        /// PATH.
        #[setting(NATS_SERVER_BIN, "nats-server-bin")]
        pub(crate) nats_server_bin: Option<PathBuf> = optional,
        /// Directory with postgres, initdb and psql; otherwise the newest of the system's packages,
        /// otherwise PATH.
        #[setting(POSTGRES_BIN_DIR, "postgres-bin-dir")]
        pub(crate) postgres_bin_dir: Option<PathBuf> = optional,
        /// The prometheus executable; otherwise the one on PATH.
        #[setting(PROMETHEUS_BIN, "prometheus-bin")]
        pub(crate) prometheus_bin: Option<PathBuf> = optional,
        /// Folder of an unpacked Grafana, which contains bin/grafana; otherwise the grafana on
        /// PATH.
        #[setting(GRAFANA_HOME, "grafana-home")]
        pub(crate) grafana_home: Option<PathBuf> = optional,
        /// How long to wait for the rest to be archived and counted after the simulators stopped.
        #[setting(UP_DRAIN_MAX_S, "drain-max-s", default = "600")]
        pub(crate) drain_max: Duration = duration_s,
        /// How long each part may take to stop before it is killed; longer than SHUTDOWN_GRACE_MS.
        #[setting(UP_GRACE_MS, "grace-ms", default = "40000")]
        pub(crate) grace: Duration = duration_ms,
    }
}

service_kit::settings! {
    /// Ports of the parts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Ports {
        /// Port of NATS; 0 means any free port, also for the other ports.
        #[setting(UP_NATS_PORT, "nats-port", default = "4222")]
        pub(crate) nats: u16,
        /// Port of NATS' monitoring, on loopback.
        #[setting(UP_NATS_MONITOR_PORT, "nats-monitor-port", default = "8222")]
        pub(crate) nats_monitor: u16,
        /// Port of PostgreSQL, on loopback; not the usual one, which the system's own server may
        /// use.
        #[setting(UP_POSTGRES_PORT, "postgres-port", default = "54320")]
        pub(crate) postgres: u16,
        /// Port of Prometheus.
        #[setting(UP_PROMETHEUS_PORT, "prometheus-port", default = "9090")]
        pub(crate) prometheus: u16,
        /// Port of Grafana.
        #[setting(UP_GRAFANA_PORT, "grafana-port", default = "3000")]
        pub(crate) grafana: u16,
        /// Port of the four metrics.
        #[setting(UP_METRICS_PORT, "metrics-port", default = "8000")]
        pub(crate) metrics: u16,
        /// Admin port of the lake simulator.
        #[setting(UP_LAKE_ADMIN_PORT, "lake-admin-port", default = "8011")]
        pub(crate) lake_admin: u16,
        /// Admin port of the warehouse simulator.
        #[setting(UP_WAREHOUSE_ADMIN_PORT, "warehouse-admin-port", default = "8012")]
        pub(crate) warehouse_admin: u16,
        /// Admin port of the aggregator.
        #[setting(UP_AGGREGATOR_ADMIN_PORT, "aggregator-admin-port", default = "8013")]
        pub(crate) aggregator_admin: u16,
        /// Admin port of the archiver.
        #[setting(UP_ARCHIVER_ADMIN_PORT, "archiver-admin-port", default = "8014")]
        pub(crate) archiver_admin: u16,
    }
}

/// The data directory, in which the tools find addresses that are not set.
pub const DATA_DIR: Setting = Config::LAKEGAUGE_DATA_DIR;

/// One fifth of the rate is the warehouse's, because a lake gets many requests per query.
const WAREHOUSE_SHARE: u64 = 5;

impl Config {
    /// Events per second of the lake simulator.
    pub(crate) fn lake_rate(&self) -> u64 {
        self.rate - self.warehouse_rate()
    }

    /// Events per second of the warehouse simulator.
    pub(crate) fn warehouse_rate(&self) -> u64 {
        (self.rate / WAREHOUSE_SHARE).max(1)
    }

    /// The address for connections to a port that is bound to [`Config::bind`].
    pub(crate) fn reach(&self, port: u16) -> SocketAddr {
        let ip = match self.bind {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            IpAddr::V4(_) | IpAddr::V6(_) => self.bind,
        };
        SocketAddr::new(ip, port)
    }

    /// Every port with its setting and the address it is bound to, in the order of starting.
    pub(crate) fn ports_mut(&mut self) -> [(&'static Setting, IpAddr, &mut u16); 10] {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let (bind, ports) = (self.bind, &mut self.ports);
        [
            (&Ports::UP_NATS_PORT, bind, &mut ports.nats),
            (&Ports::UP_NATS_MONITOR_PORT, loopback, &mut ports.nats_monitor),
            (&Ports::UP_POSTGRES_PORT, loopback, &mut ports.postgres),
            (&Ports::UP_ARCHIVER_ADMIN_PORT, bind, &mut ports.archiver_admin),
            (&Ports::UP_AGGREGATOR_ADMIN_PORT, bind, &mut ports.aggregator_admin),
            (&Ports::UP_METRICS_PORT, bind, &mut ports.metrics),
            (&Ports::UP_PROMETHEUS_PORT, bind, &mut ports.prometheus),
            (&Ports::UP_GRAFANA_PORT, bind, &mut ports.grafana),
            (&Ports::UP_LAKE_ADMIN_PORT, bind, &mut ports.lake_admin),
            (&Ports::UP_WAREHOUSE_ADMIN_PORT, bind, &mut ports.warehouse_admin),
        ]
    }
}

fn incidents() -> Vec<(&'static str, &'static str)> {
    Incident::choices().into_iter().map(|(name, _)| (name, name)).collect()
}

/// A duration as people write it: `90s`, `5m`, `1h`, `1500ms`; a number without a unit means
/// seconds.
fn duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "must be a time such as 90s, 5m, 1h or 1500ms";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| FORM)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(FORM),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use service_kit::{Flags, Settings};
    use std::collections::BTreeMap;

    #[test]
    fn times_are_read_as_people_write_them() {
        let read = |text: &str| duration(text).map(|read| read.as_millis());
        assert_eq!(read("90s"), Ok(90_000));
        assert_eq!(read("90"), Ok(90_000));
        assert_eq!(read("5m"), Ok(300_000));
        assert_eq!(read("1500ms"), Ok(1_500));
        assert!(read("soon").is_err());
        assert!(read("s").is_err());
        assert!(read("5 minutes").is_err());
    }

    #[test]
    fn the_defaults_load() {
        let (flags, environment) = (Flags::default(), BTreeMap::<&str, &str>::new());
        let mut settings = Settings::new(&flags, &environment);
        let config = Config::load(&mut settings).unwrap();
        assert_eq!(settings.finish(), Ok(()));
        assert_eq!(config.lake_rate() + config.warehouse_rate(), config.rate);
        assert_eq!(config.warehouse_rate(), 4);
        assert!(config.simulators && config.prometheus && config.grafana);
    }

    #[test]
    fn ports_that_are_none_are_all_reported() {
        let flags = Flags::default();
        let environment = BTreeMap::from([("UP_NATS_PORT", "70000"), ("UP_METRICS_PORT", "x")]);
        let mut settings = Settings::new(&flags, &environment);
        assert!(Config::load(&mut settings).is_err());
        assert_eq!(settings.finish().unwrap_err().0.len(), 2);
    }
}
