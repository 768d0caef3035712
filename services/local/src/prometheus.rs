//! Prometheus for `up`, if it is installed.

use std::path::PathBuf;

use service_kit::http_client;

use crate::config::Config;
use crate::datadir::DataDir;
use crate::process::Spec;

/// The files of the repository; the targets are beside them.
const CONFIGURATION: &str = include_str!("../../../prometheus/prometheus.yml");
const RULES: [(&str, &str); 4] = [
    ("settings.yml", include_str!("../../../prometheus/rules/settings.yml")),
    ("recording.yml", include_str!("../../../prometheus/rules/recording.yml")),
    ("slo.yml", include_str!("../../../prometheus/rules/slo.yml")),
    ("alerts.yml", include_str!("../../../prometheus/rules/alerts.yml")),
];
/// How long Prometheus keeps what it scraped; the archive keeps the events.
const RETENTION: &str = "15d";

/// The executable, if it is installed and wanted.
///
/// # Errors
///
/// The named file does not exist.
pub(crate) fn find(config: &Config) -> anyhow::Result<Option<PathBuf>> {
    if !config.prometheus {
        return Ok(None);
    }
    match &config.prometheus_bin {
        Some(set) if set.is_file() => Ok(Some(set.clone())),
        Some(set) => anyhow::bail!("--prometheus-bin names {}, which is no file", set.display()),
        None => Ok(crate::on_path("prometheus")),
    }
}

/// The part's specification; also writes its configuration and targets.
pub(crate) fn spec(config: &Config, dir: &DataDir, program: PathBuf) -> anyhow::Result<Spec> {
    dir.write("prometheus/prometheus.yml", CONFIGURATION)?;
    for (name, text) in RULES {
        dir.write(&format!("prometheus/rules/{name}"), text)?;
    }
    let ports = &config.ports;
    dir.write(
        "prometheus/targets/prometheus.json",
        &targets(config, &[("prometheus", ports.prometheus)]),
    )?;
    dir.write(
        "prometheus/targets/metrics.json",
        &targets(config, &[("aggregator", ports.metrics)]),
    )?;
    let admins = [
        ("lake-simulator", ports.lake_admin),
        ("warehouse-simulator", ports.warehouse_admin),
        ("aggregator", ports.aggregator_admin),
        ("archiver", ports.archiver_admin),
    ];
    let admins = if config.simulators { &admins[..] } else { &admins[2..] };
    dir.write("prometheus/targets/admin.json", &targets(config, admins))?;
    let listen = std::net::SocketAddr::new(config.bind, ports.prometheus);
    // Relative to the working directory: an absolute path would become part of the patterns for rules
    // and targets.
    let arguments = vec![
        "--config.file=prometheus/prometheus.yml".into(),
        "--storage.tsdb.path=prometheus/data".into(),
        format!("--storage.tsdb.retention.time={RETENTION}").into(),
        format!("--web.listen-address={listen}").into(),
    ];
    Ok(Spec { arguments, ..Spec::server("prometheus", program, config, dir) })
}

/// Checks whether it is ready; the error contains its answer.
pub(crate) async fn is_up(config: &Config) -> anyhow::Result<()> {
    http_client::expect_ok(config.reach(config.ports.prometheus), "/-/ready").await
}

/// Targets in Prometheus' file format, with the service as a label.
fn targets(config: &Config, targets: &[(&str, u16)]) -> String {
    let groups: Vec<serde_json::Value> = targets
        .iter()
        .map(|(service, port)| {
            serde_json::json!({
                "targets": [config.reach(*port).to_string()],
                "labels": { "service": service },
            })
        })
        .collect();
    serde_json::Value::Array(groups).to_string()
}
