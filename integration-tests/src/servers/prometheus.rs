//! A real Prometheus that scrapes what a test started, with the rules of the tree.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;
use crate::ports::free_port;
use crate::waiting::until;

/// What is scraped: the service's name, its port, and whether it is the page of the four metrics.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// `service` of its series.
    pub service: &'static str,
    /// Where it listens.
    pub port: u16,
    /// The four metrics, or a service's own.
    pub four: bool,
}

/// A server. Killed when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one with the tree's configuration, which `rewrite` may change: file name and text.
    ///
    /// # Errors
    ///
    /// Prometheus is not installed, refuses the configuration, or does not start.
    pub async fn start(
        targets: &[Target],
        rewrite: impl Fn(&str, String) -> String,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lakegauge-prometheus-").tempdir()?;
        let port = free_port()?;
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prometheus");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("rules"))?;
        fs::create_dir_all(at("targets"))?;
        for name in [
            "prometheus.yml",
            "rules/settings.yml",
            "rules/recording.yml",
            "rules/slo.yml",
            "rules/alerts.yml",
        ] {
            let text = fs::read_to_string(tree.join(name)).with_context(|| name.to_owned())?;
            fs::write(at(name), rewrite(name, text))?;
        }
        let groups = |four: bool| -> Value {
            let of = targets.iter().filter(|target| target.four == four);
            of.map(|target| {
                json!({
                    "targets": [format!("127.0.0.1:{}", target.port)],
                    "labels": { "service": target.service },
                })
            })
            .collect()
        };
        fs::write(at("targets/metrics.json"), groups(true).to_string())?;
        fs::write(at("targets/admin.json"), groups(false).to_string())?;
        let own = json!([{
            "targets": [format!("127.0.0.1:{port}")], "labels": { "service": "prometheus" },
        }]);
        fs::write(at("targets/prometheus.json"), own.to_string())?;
        let log = File::create(at("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("Prometheus is missing: install the package prometheus")?;
        let server = Self { child, port, folder };
        let ready = until("Prometheus", async || {
            Ok(server.get("/-/ready").is_ok_and(|(status, _)| status == 200))
        });
        ready.await.with_context(|| server.log())?;
        Ok(server)
    }

    /// The samples of an expression now.
    ///
    /// # Errors
    ///
    /// The expression is none, or the server does not answer.
    pub fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let answer = self.api(&format!("/api/v1/query?query={}", encoded(expr)))?;
        let result = answer["result"].as_array().context("no result")?;
        // A scalar's result is a pair, not a list of series.
        Ok(if answer["resultType"] == "scalar" { vec![json!(result)] } else { result.clone() })
    }

    /// Every name of a metric that it has.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.api("/api/v1/label/__name__/values")?)?)
    }

    /// Pages that could not be scraped, with why.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn failures(&self) -> Result<Vec<String>> {
        let targets = self.api("/api/v1/targets?state=active")?;
        let active = targets["activeTargets"].as_array().context("no targets")?;
        let bad = active.iter().filter(|target| target["health"] != "up");
        Ok(bad.map(|target| format!("{}: {}", target["scrapeUrl"], target["lastError"])).collect())
    }

    fn api(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        let mut answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        ensure!(status == 200 && answer["status"] == "success", "{status}: {body}");
        Ok(answer["data"].take())
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.port, path)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn encoded(text: &str) -> String {
    let one = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(one).collect()
}
