//! NATS for `up`: its executable, its configuration, and its health.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use service_kit::http_client;

use crate::config::Config;
use crate::datadir::DataDir;
use crate::environment;
use crate::process::Spec;

/// Oldest release that knows every option of our streams.
const VERSION_MIN: (u32, u32) = (2, 12);

/// The nats-server executable: as set, as installed by `./run`, or on PATH.
///
/// # Errors
///
/// There is none, or it is too old; the error contains how to get one.
pub(crate) fn find(config: &Config) -> anyhow::Result<PathBuf> {
    const ADVICE: &str = "`./run` installs it; or name one with --nats-server-bin";
    let found = match &config.nats_server_bin {
        Some(set) => Some(set.clone()).filter(|path| path.is_file()),
        None => installed().or_else(|| crate::on_path("nats-server")),
    };
    let path = found.with_context(|| format!("no nats-server found: {ADVICE}"))?;
    let output = std::process::Command::new(&path)
        .arg("--version")
        .env_clear()
        .envs(environment::base(Path::new("/")))
        .output()
        .with_context(|| format!("{} can't be run: {ADVICE}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.lines().next().unwrap_or_default();
    match version(text) {
        Some(version) if version >= VERSION_MIN => Ok(path),
        _ => anyhow::bail!(
            "{} is {text:?}, but {}.{} or newer is needed: {ADVICE}",
            path.display(),
            VERSION_MIN.0,
            VERSION_MIN.1
        ),
    }
}

/// The newest one that `./run` installed.
fn installed() -> Option<PathBuf> {
    use service_kit::Strings as _;
    let cache = service_kit::Environment
        .get("XDG_CACHE_HOME")
        .filter(|set| !set.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&service_kit::Environment.get("HOME")?).join(".cache")))?;
    let tools = cache.join("lakegauge/tools");
    let mut found: Vec<PathBuf> = std::fs::read_dir(tools)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("nats-server")))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop()
}

/// Major and minor version of `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let numbers = text.rsplit_once('v')?.1;
    let mut parts = numbers.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The configuration file of the repository.
const CONFIGURATION: &str = include_str!("../../../nats/nats-server.conf");

/// The part's specification; also writes its configuration.
pub(crate) fn spec(config: &Config, dir: &DataDir, program: PathBuf) -> anyhow::Result<Spec> {
    dir.write("nats/nats-server.conf", CONFIGURATION)?;
    let mut spec = Spec::server("nats", program, config, dir);
    spec.arguments = vec!["--config".into(), "nats/nats-server.conf".into()];
    spec.set([
        ("NATS_HOST", config.bind.to_string()),
        ("NATS_PORT", config.ports.nats.to_string()),
        // The monitoring port has no login, so it is on loopback only.
        ("NATS_MONITOR", format!("127.0.0.1:{}", config.ports.nats_monitor)),
        // The server parses the value like a line of its configuration. A path relative to its
        // working directory needs no quotes.
        ("NATS_STORE_DIR", "nats".to_owned()),
        ("NATS_SYNC_INTERVAL", "1s".to_owned()),
    ]);
    Ok(spec)
}

/// Checks whether JetStream is healthy; the error contains its answer.
pub(crate) async fn is_up(config: &Config) -> anyhow::Result<()> {
    let monitor = ([127, 0, 0, 1], config.ports.nats_monitor).into();
    http_client::expect_ok(monitor, "/healthz?js-enabled-only=true").await
}

/// How often a starting part is checked.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_and_compared_by_numbers() {
        assert_eq!(version("nats-server: v2.15.1"), Some((2, 15)));
        assert!(version("nats-server: v2.9.10").unwrap() < VERSION_MIN);
        assert_eq!(version("hello"), None);
    }
}
