//! The settings of `up`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use service_kit::{Setting, Settings};
use simulator::scenario::Incident;

/// Ports that the parts listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) nats: u16,
    pub(crate) nats_monitor: u16,
    pub(crate) postgres: u16,
    pub(crate) prometheus: u16,
    pub(crate) grafana: u16,
    pub(crate) metrics: u16,
    pub(crate) lake_admin: u16,
    pub(crate) warehouse_admin: u16,
    pub(crate) aggregator_admin: u16,
    pub(crate) archiver_admin: u16,
}

/// Everything that `up` is told.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_for: Option<Duration>,
    pub(crate) summary_json: Option<PathBuf>,
    pub(crate) rate: u64,
    pub(crate) seed: Option<u64>,
    pub(crate) scenario: &'static str,
    pub(crate) simulators: bool,
    pub(crate) adopt: bool,
    pub(crate) prometheus: bool,
    pub(crate) grafana: bool,
    pub(crate) log_statements: bool,
    pub(crate) bind: IpAddr,
    pub(crate) ports: Ports,
    pub(crate) nats_server_bin: Option<PathBuf>,
    pub(crate) postgres_bin_dir: Option<PathBuf>,
    pub(crate) prometheus_bin: Option<PathBuf>,
    pub(crate) grafana_home: Option<PathBuf>,
    pub(crate) drain_max: Duration,
    pub(crate) grace: Duration,
}

const fn setting(
    key: &'static str,
    flag: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { key, flag, default, help, secret: false }
}

/// Where `up` keeps everything; the tools look there for its addresses.
pub const DATA_DIR: Setting = setting(
    "LAKEGAUGE_DATA_DIR",
    "data-dir",
    Some(".lakegauge"),
    "Where `up` keeps everything between runs; a second run goes on where the first ended. The tools \
     look there for the addresses that they are not told.",
);
const RUN_FOR: Setting = setting(
    "UP_FOR",
    "for",
    None,
    "Stop by itself after this time of events (90s, 5m, 1h), drain, and print a summary.",
);
const SUMMARY_JSON: Setting =
    setting("UP_SUMMARY_JSON", "summary-json", None, "Write the summary to this file as well.");
const RATE: Setting = setting(
    "UP_RATE",
    "rate",
    Some("500"),
    "Events per second of both simulators together; four fifths are the lake's.",
);
const SEED: Setting = setting(
    "UP_SEED",
    "seed",
    None,
    "Seed of the simulators, for the same events again; without it each run has its own.",
);
const SCENARIO: Setting = setting(
    "UP_SCENARIO",
    "scenario",
    Some("none"),
    "An incident to look at; `lakegauge simulate lake --help` lists them.",
);
const NO_SIMULATORS: Setting = setting(
    "UP_NO_SIMULATORS",
    "no-simulators",
    Some("false"),
    "Start no simulators: only what others publish flows.",
);
const ADOPT: Setting = setting(
    "UP_ADOPT",
    "adopt",
    Some("false"),
    "Join NATS and PostgreSQL of the data directory where the services would refuse them, as \
     `lakegauge adopt --confirm` does: when one of the two was lost or copied.",
);
const NO_PROMETHEUS: Setting = setting(
    "UP_NO_PROMETHEUS",
    "no-prometheus",
    Some("false"),
    "Start no Prometheus, although it is installed.",
);
const NO_GRAFANA: Setting = setting(
    "UP_NO_GRAFANA",
    "no-grafana",
    Some("false"),
    "Start no Grafana, although it is installed.",
);
const LOG_STATEMENTS: Setting = setting(
    "UP_LOG_STATEMENTS",
    "log-statements",
    Some("false"),
    "PostgreSQL logs every statement with its duration and plan, as JSON, under the data directory: \
     events for `lakegauge publish` (docs/real-input.md). It costs throughput.",
);
const BIND: Setting = setting(
    "UP_BIND",
    "bind",
    Some("127.0.0.1"),
    "Address that NATS, metrics and Prometheus listen on. NATS has no password here, so any other \
     than loopback lets the network publish.",
);
const NATS_PORT: Setting = setting(
    "UP_NATS_PORT",
    "nats-port",
    Some("4222"),
    "Port of NATS; 0 is any free one, as below.",
);
const NATS_MONITOR_PORT: Setting = setting(
    "UP_NATS_MONITOR_PORT",
    "nats-monitor-port",
    Some("8222"),
    "Port of NATS' monitoring, on loopback.",
);
const POSTGRES_PORT: Setting = setting(
    "UP_POSTGRES_PORT",
    "postgres-port",
    Some("54320"),
    "Port of PostgreSQL, on loopback; not the usual one, which the system's own may have.",
);
const PROMETHEUS_PORT: Setting =
    setting("UP_PROMETHEUS_PORT", "prometheus-port", Some("9090"), "Port of Prometheus.");
const GRAFANA_PORT: Setting =
    setting("UP_GRAFANA_PORT", "grafana-port", Some("3000"), "Port of Grafana.");
const METRICS_PORT: Setting =
    setting("UP_METRICS_PORT", "metrics-port", Some("8000"), "Port of the four metrics.");
const LAKE_ADMIN_PORT: Setting = setting(
    "UP_LAKE_ADMIN_PORT",
    "lake-admin-port",
    Some("8011"),
    "Admin port of the lake simulator.",
);
const WAREHOUSE_ADMIN_PORT: Setting = setting(
    "UP_WAREHOUSE_ADMIN_PORT",
    "warehouse-admin-port",
    Some("8012"),
    "Admin port of the warehouse simulator.",
);
const AGGREGATOR_ADMIN_PORT: Setting = setting(
    "UP_AGGREGATOR_ADMIN_PORT",
    "aggregator-admin-port",
    Some("8013"),
    "Admin port of the aggregator.",
);
const ARCHIVER_ADMIN_PORT: Setting = setting(
    "UP_ARCHIVER_ADMIN_PORT",
    "archiver-admin-port",
    Some("8014"),
    "Admin port of the archiver.",
);
const NATS_SERVER_BIN: Setting = setting(
    "NATS_SERVER_BIN",
    "nats-server-bin",
    None,
    "The nats-server executable; otherwise the one of `./run`, otherwise the one on PATH.",
);
const POSTGRES_BIN_DIR: Setting = setting(
    "POSTGRES_BIN_DIR",
    "postgres-bin-dir",
    None,
    "Directory with postgres, initdb and psql; otherwise the newest of the system's packages, \
     otherwise PATH.",
);
const PROMETHEUS_BIN: Setting = setting(
    "PROMETHEUS_BIN",
    "prometheus-bin",
    None,
    "The prometheus executable; otherwise the one on PATH.",
);
const GRAFANA_HOME: Setting = setting(
    "GRAFANA_HOME",
    "grafana-home",
    None,
    "Folder of an unpacked Grafana, with bin/grafana in it; otherwise the grafana on PATH.",
);
const DRAIN_MAX_S: Setting = setting(
    "UP_DRAIN_MAX_S",
    "drain-max-s",
    Some("600"),
    "How long to wait for the rest to be archived and counted after the simulators stopped.",
);
const GRACE_MS: Setting = setting(
    "UP_GRACE_MS",
    "grace-ms",
    Some("40000"),
    "How long each part may take to stop before it is killed; longer than SHUTDOWN_GRACE_MS.",
);

/// Every setting of `up`.
pub const SETTINGS: &[Setting] = &[
    DATA_DIR,
    RUN_FOR,
    SUMMARY_JSON,
    RATE,
    SEED,
    SCENARIO,
    NO_SIMULATORS,
    ADOPT,
    NO_PROMETHEUS,
    NO_GRAFANA,
    LOG_STATEMENTS,
    BIND,
    NATS_PORT,
    NATS_MONITOR_PORT,
    POSTGRES_PORT,
    PROMETHEUS_PORT,
    GRAFANA_PORT,
    METRICS_PORT,
    LAKE_ADMIN_PORT,
    WAREHOUSE_ADMIN_PORT,
    AGGREGATOR_ADMIN_PORT,
    ARCHIVER_ADMIN_PORT,
    NATS_SERVER_BIN,
    POSTGRES_BIN_DIR,
    PROMETHEUS_BIN,
    GRAFANA_HOME,
    DRAIN_MAX_S,
    GRACE_MS,
];

/// One fifth of the rate is the warehouse's: a lake sees many requests for one query.
const WAREHOUSE_SHARE: u64 = 5;

impl Config {
    /// Reads every setting; problems are recorded in the settings.
    pub(crate) fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let data_dir = settings.parse(&DATA_DIR);
        let run_for = settings.optional::<Span>(&RUN_FOR);
        let summary_json = settings.optional(&SUMMARY_JSON);
        // Beyond ten million a second no machine follows, and shares would overflow.
        let rate = settings.in_range(&RATE, 2..=10_000_000);
        let seed = settings.optional(&SEED);
        // Asked here, before anything is made, and not by the simulator at its start.
        let named: Vec<_> = Incident::choices().into_iter().map(|(name, _)| (name, name)).collect();
        let scenario = settings.choice(&SCENARIO, &named);
        let no_simulators = settings.switch(&NO_SIMULATORS);
        let adopt = settings.switch(&ADOPT);
        let no_prometheus = settings.switch(&NO_PROMETHEUS);
        let no_grafana = settings.switch(&NO_GRAFANA);
        let log_statements = settings.switch(&LOG_STATEMENTS);
        let bind = settings.parse(&BIND);
        let ports = ports(settings);
        let nats_server_bin = settings.optional(&NATS_SERVER_BIN);
        let postgres_bin_dir = settings.optional(&POSTGRES_BIN_DIR);
        let prometheus_bin = settings.optional(&PROMETHEUS_BIN);
        let grafana_home = settings.optional(&GRAFANA_HOME);
        let drain_max_s = settings.parse(&DRAIN_MAX_S);
        let grace = settings.duration_ms(&GRACE_MS);
        Some(Self {
            data_dir: data_dir?,
            run_for: run_for?.map(|Span(duration)| duration),
            summary_json: summary_json?,
            rate: rate?,
            seed: seed?,
            scenario: scenario?,
            simulators: !no_simulators?,
            adopt: adopt?,
            prometheus: !no_prometheus?,
            grafana: !no_grafana?,
            log_statements: log_statements?,
            bind: bind?,
            ports: ports?,
            nats_server_bin: nats_server_bin?,
            postgres_bin_dir: postgres_bin_dir?,
            prometheus_bin: prometheus_bin?,
            grafana_home: grafana_home?,
            drain_max: Duration::from_secs(drain_max_s?),
            grace: grace?,
        })
    }

    /// Events per second of the lake simulator.
    pub(crate) fn lake_rate(&self) -> u64 {
        self.rate - self.warehouse_rate()
    }

    /// Events per second of the warehouse simulator.
    pub(crate) fn warehouse_rate(&self) -> u64 {
        (self.rate / WAREHOUSE_SHARE).max(1)
    }

    /// Where one reaches a port that is bound to [`Config::bind`].
    pub(crate) fn reach(&self, port: u16) -> SocketAddr {
        let ip = match self.bind {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            IpAddr::V4(_) | IpAddr::V6(_) => self.bind,
        };
        SocketAddr::new(ip, port)
    }

    /// Every port with its flag and the address it is bound to, in the order of starting.
    pub(crate) fn ports_mut(&mut self) -> [(&'static Setting, IpAddr, &mut u16); 10] {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let (bind, ports) = (self.bind, &mut self.ports);
        [
            (&NATS_PORT, bind, &mut ports.nats),
            (&NATS_MONITOR_PORT, loopback, &mut ports.nats_monitor),
            (&POSTGRES_PORT, loopback, &mut ports.postgres),
            (&ARCHIVER_ADMIN_PORT, bind, &mut ports.archiver_admin),
            (&AGGREGATOR_ADMIN_PORT, bind, &mut ports.aggregator_admin),
            (&METRICS_PORT, bind, &mut ports.metrics),
            (&PROMETHEUS_PORT, bind, &mut ports.prometheus),
            (&GRAFANA_PORT, bind, &mut ports.grafana),
            (&LAKE_ADMIN_PORT, bind, &mut ports.lake_admin),
            (&WAREHOUSE_ADMIN_PORT, bind, &mut ports.warehouse_admin),
        ]
    }
}

fn ports(settings: &mut Settings<'_>) -> Option<Ports> {
    // All are read before the first missing one ends this, so that every problem is reported.
    let read = [
        &NATS_PORT,
        &NATS_MONITOR_PORT,
        &POSTGRES_PORT,
        &PROMETHEUS_PORT,
        &GRAFANA_PORT,
        &METRICS_PORT,
        &LAKE_ADMIN_PORT,
        &WAREHOUSE_ADMIN_PORT,
        &AGGREGATOR_ADMIN_PORT,
        &ARCHIVER_ADMIN_PORT,
    ]
    .map(|setting| settings.parse::<u16>(setting));
    let [
        nats,
        monitor,
        postgres,
        prometheus,
        grafana,
        metrics,
        lake,
        warehouse,
        aggregator,
        archiver,
    ] = read;
    Some(Ports {
        nats: nats?,
        nats_monitor: monitor?,
        postgres: postgres?,
        prometheus: prometheus?,
        grafana: grafana?,
        metrics: metrics?,
        lake_admin: lake?,
        warehouse_admin: warehouse?,
        aggregator_admin: aggregator?,
        archiver_admin: archiver?,
    })
}

/// A duration as people write it: `90s`, `5m`, `1h`, `1500ms`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Duration);

impl std::str::FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
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
        number.checked_mul(milliseconds).map(Duration::from_millis).map(Self).ok_or(FORM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service_kit::Flags;
    use std::collections::BTreeMap;

    #[test]
    fn times_are_read_as_people_write_them() {
        let read = |text: &str| text.parse().map(|Span(duration)| duration.as_millis());
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
        assert_eq!(config.warehouse_rate(), 100);
        assert!(config.simulators && config.prometheus && config.grafana);
    }

    #[test]
    fn ports_that_are_none_are_all_reported() {
        let flags = Flags::default();
        let environment = BTreeMap::from([("UP_NATS_PORT", "70000"), ("UP_METRICS_PORT", "x")]);
        let mut settings = Settings::new(&flags, &environment);
        assert!(Config::load(&mut settings).is_none());
        assert_eq!(settings.finish().unwrap_err().0.len(), 2);
    }
}
