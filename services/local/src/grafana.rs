//! Grafana for `up`, if it is installed: the same dashboards as with Compose.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use service_kit::{Environment, Strings as _, http_client};

use crate::addresses::DATABASE;
use crate::config::Config;
use crate::datadir::{self, DataDir};
use crate::environment;
use crate::process::Spec;

/// The text if there is none.
pub(crate) const MISSING: &str = "not installed (https://grafana.com/grafana/download, on PATH or named by GRAFANA_HOME) or not \
     wanted";
/// The folder of the dashboards in a container; here they are in the data directory.
const BOARDS_IN_CONTAINER: &str = "/var/lib/grafana/dashboards";
/// Where packages of distributions install Grafana's other files.
const HOME_OF_PACKAGES: &str = "/usr/share/grafana";

/// A file of the repository with its path.
macro_rules! of_tree {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../grafana/", $name)))
    };
}

/// The files of the repository, by their path below `grafana/`.
const FILES: [(&str, &str); 10] = [
    of_tree!("provisioning/datasources/datasources.yml"),
    of_tree!("provisioning/dashboards/providers.yml"),
    of_tree!("provisioning/alerting/contact-points.yml"),
    of_tree!("provisioning/alerting/rules.yml"),
    of_tree!("dashboards/Lakegauge/lakegauge-overview.json"),
    of_tree!("dashboards/Lakegauge/lakegauge-lake.json"),
    of_tree!("dashboards/Lakegauge/lakegauge-warehouse.json"),
    of_tree!("dashboards/Lakegauge/lakegauge-pipeline.json"),
    of_tree!("dashboards/Lakegauge/lakegauge-archive.json"),
    of_tree!("dashboards/Lakegauge/lakegauge-slo.json"),
];
/// The dashboard that is shown first.
const HOME_BOARD: &str = "grafana/dashboards/Lakegauge/lakegauge-overview.json";

/// An installed Grafana.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    program: PathBuf,
    home: PathBuf,
}

/// Grafana, if it is installed and wanted.
///
/// # Errors
///
/// `GRAFANA_HOME` names a folder that does not contain Grafana.
pub(crate) fn find(config: &Config) -> anyhow::Result<Option<Installed>> {
    if !config.grafana {
        return Ok(None);
    }
    if let Some(home) = &config.grafana_home {
        let program = home.join("bin/grafana");
        anyhow::ensure!(
            program.is_file(),
            "--grafana-home names {}, where there is no bin/grafana",
            home.display()
        );
        return Ok(Some(Installed { program, home: home.clone() }));
    }
    Ok(crate::on_path("grafana").map(|program| {
        let packaged = PathBuf::from(HOME_OF_PACKAGES);
        let own = program.canonicalize().ok();
        let own = own.and_then(|program| Some(program.parent()?.parent()?.to_owned()));
        let home = own.filter(|home| home.join("conf/defaults.ini").is_file()).unwrap_or(packaged);
        Installed { program, home }
    }))
}

/// Variables for mail, if alerts are sent by mail.
const OF_MAIL: &[&str] = &[
    "GF_SMTP_ENABLED",
    "GF_SMTP_HOST",
    "GF_SMTP_USER",
    "GF_SMTP_PASSWORD",
    "GF_SMTP_FROM_ADDRESS",
];

/// Refuses a path that Grafana would misread: it accepts only absolute paths, replaces variables in
/// them, and puts one into its database's address.
///
/// # Errors
///
/// The path contains such a character.
pub(crate) fn check_path(data_dir: &Path) -> anyhow::Result<()> {
    let odd = data_dir.to_string_lossy().chars().find(|c| {
        !(c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@' | '=' | ',' | ' '))
    });
    if let Some(odd) = odd {
        anyhow::bail!(
            "--data-dir: Grafana can't keep its files below {}, because of the {odd:?}: choose \
             another, or --no-grafana",
            data_dir.display()
        );
    }
    Ok(())
}

/// The part's specification; also writes the dashboards and their provisioning.
pub(crate) fn spec(config: &Config, dir: &DataDir, grafana: Installed) -> anyhow::Result<Spec> {
    // A JSON string is also a YAML string, whatever it contains.
    let boards = serde_json::to_string(&dir.at("grafana/dashboards").display().to_string())?;
    for (name, text) in FILES {
        let text = text.replace(BOARDS_IN_CONTAINER, &boards);
        let folder = dir.at("grafana").join(name);
        datadir::private_dir(folder.parent().context("a file stands in a folder")?)?;
        dir.write(&format!("grafana/{name}"), &text)?;
    }
    // Grafana requires this folder, even if it is empty.
    datadir::private_dir(&dir.at("grafana/provisioning/plugins"))?;
    let at = |name: &str| dir.at(name).display().to_string();
    let given = |key: &str, otherwise: &str| {
        Environment.get(key).filter(|set| !set.is_empty()).unwrap_or_else(|| otherwise.to_owned())
    };
    let ports = &config.ports;
    let mut homepath = OsString::from("--homepath=");
    homepath.push(&grafana.home);
    let mut spec = Spec::server("grafana", grafana.program, config, dir);
    spec.arguments = vec!["server".into(), homepath];
    environment::pass_on(&mut spec.environment, OF_MAIL.iter().copied());
    spec.set([
        ("GF_PATHS_DATA", at("grafana/data")),
        ("GF_PATHS_LOGS", at("grafana/logs")),
        ("GF_PATHS_PLUGINS", at("grafana/plugins")),
        ("GF_PATHS_PROVISIONING", at("grafana/provisioning")),
        ("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH", at(HOME_BOARD)),
        ("GF_SERVER_HTTP_ADDR", config.bind.to_string()),
        ("GF_SERVER_HTTP_PORT", ports.grafana.to_string()),
        ("GF_SECURITY_ADMIN_USER", given("GF_SECURITY_ADMIN_USER", "admin")),
        ("GF_SECURITY_ADMIN_PASSWORD", given("GF_SECURITY_ADMIN_PASSWORD", "admin")),
        ("GF_USERS_ALLOW_SIGN_UP", "false".to_owned()),
        // Grafana sends no requests to the internet.
        ("GF_ANALYTICS_REPORTING_ENABLED", "false".to_owned()),
        ("GF_ANALYTICS_CHECK_FOR_UPDATES", "false".to_owned()),
        ("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false".to_owned()),
        ("GF_NEWS_NEWS_FEED_ENABLED", "false".to_owned()),
        ("GF_PLUGINS_PREINSTALL_DISABLED", "true".to_owned()),
        ("GRAFANA_PROMETHEUS_URL", format!("http://{}", config.reach(ports.prometheus))),
        ("GRAFANA_ARCHIVE_ADDR", format!("127.0.0.1:{}", ports.postgres)),
        ("GRAFANA_ARCHIVE_DATABASE", DATABASE.to_owned()),
        ("GRAFANA_ARCHIVE_USER", "reader".to_owned()),
        ("GRAFANA_ARCHIVE_PASSWORD", dir.password("reader")?),
        ("GRAFANA_ARCHIVE_SSLMODE", "disable".to_owned()),
        // These addresses lead nowhere, because Grafana refuses to start with empty ones.
        ("GRAFANA_ALERT_EMAIL", given("GRAFANA_ALERT_EMAIL", "nobody@localhost")),
        ("GRAFANA_ALERT_WEBHOOK_URL", given("GRAFANA_ALERT_WEBHOOK_URL", "http://127.0.0.1:9/")),
    ]);
    Ok(spec)
}

/// Checks whether Grafana is healthy; the error contains its answer.
pub(crate) async fn is_up(config: &Config) -> anyhow::Result<()> {
    http_client::expect_ok(config.reach(config.ports.grafana), "/api/health").await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use service_kit::{Flags, Settings};

    use super::*;

    fn config() -> Config {
        let (flags, environment) = (Flags::default(), BTreeMap::<&str, &str>::new());
        Config::load(&mut Settings::new(&flags, &environment)).unwrap()
    }

    #[test]
    fn every_file_of_the_tree_is_given_to_grafana() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grafana");
        let mut found = Vec::new();
        for folder in ["provisioning", "dashboards"] {
            for sub in std::fs::read_dir(tree.join(folder)).unwrap() {
                for file in std::fs::read_dir(sub.unwrap().path()).unwrap() {
                    let file = file.unwrap().path();
                    found.push(file.strip_prefix(&tree).unwrap().display().to_string());
                }
            }
        }
        found.retain(|name| !name.ends_with(".gitkeep"));
        found.sort();
        let mut given: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        given.sort_unstable();
        assert_eq!(found, given);
    }

    #[test]
    fn boards_and_sources_point_into_the_data_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let installed =
            Installed { program: "/opt/grafana/bin/grafana".into(), home: "/opt/grafana".into() };
        let spec = spec(&config(), &dir, installed).unwrap();
        let environment: BTreeMap<String, String> = spec
            .environment
            .into_iter()
            .map(|(key, value)| (key, value.into_string().unwrap()))
            .collect();
        assert!(Path::new(&environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file());
        let folder = Path::new(&environment["GF_PATHS_PROVISIONING"]);
        let provider = std::fs::read_to_string(folder.join("dashboards/providers.yml")).unwrap();
        assert!(provider.contains(&dir.at("grafana/dashboards").display().to_string()));
        // Every variable in a file is set, and not empty.
        for (name, text) in FILES.iter().filter(|(name, _)| name.ends_with(".yml")) {
            for part in text.split("${").skip(1) {
                let key = part.split('}').next().unwrap();
                let value = environment.get(key).unwrap_or_else(|| panic!("{name} wants {key}"));
                assert!(!value.is_empty(), "{key}");
            }
        }
    }

    #[test]
    fn a_path_that_grafana_would_read_as_something_else_is_refused_by_name() {
        for name in ["a\"b", "a\\d", "a$HOME", "${HOME}", "%(x)s", "a%41", "a#b", "a?b", "a;b", "`"]
        {
            let error = check_path(&Path::new("/data").join(name)).unwrap_err().to_string();
            assert!(error.contains("--no-grafana"), "{error}");
        }
        for name in ["a b", "ação", ".lakegauge", "a_b-c.d+e@f=g,h"] {
            check_path(&Path::new("/data").join(name)).unwrap();
        }
    }

    #[test]
    fn a_home_without_grafana_is_refused_by_name() {
        let scratch = tempfile::tempdir().unwrap();
        let mut config = config();
        config.grafana_home = Some(scratch.path().to_owned());
        let error = find(&config).unwrap_err().to_string();
        assert!(error.contains("no bin/grafana"), "{error}");
        config.grafana = false;
        assert_eq!(find(&config).unwrap(), None);
    }
}
