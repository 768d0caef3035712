//! A service of the product as a process of its own: started, asked, ended in every way.

use std::{
    fs::File,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::http;
use crate::ports::free_port;

/// Longest answer of an admin port.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A running service. Killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    words: Vec<String>,
    settings: Vec<(String, String)>,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Service {
    /// Starts `lakegauge` with these words, these settings and no others.
    ///
    /// # Errors
    ///
    /// The executable was not built, or does not start.
    pub fn start(words: &[&str], settings: &[(&str, &str)]) -> Result<Self> {
        let mut service = Self {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            settings: settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            port: free_port()?,
            folder: tempfile::Builder::new().prefix("lakegauge-service-").tempdir()?,
            child: None,
        };
        service.start_again()?;
        Ok(service)
    }

    /// Starts it again after it ended, with the same settings and port.
    ///
    /// # Errors
    ///
    /// As [`Service::start`].
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let log = File::options().append(true).create(true).open(self.log_path())?;
        let child = Command::new(executable()?)
            .args(&self.words)
            .env_clear()
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .env("ADMIN_ADDR", format!("127.0.0.1:{}", self.port))
            .env("LOG_FORMAT", "human")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting lakegauge")?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends it at once, without a chance to finish anything.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to drain and waits for its end.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("it does not run")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process")?;
        kill_process(pid, Signal::TERM)?;
        Ok(child.wait()?)
    }

    /// `kill -STOP`: its connections stand, and it does nothing.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// `kill -CONT`.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// One series of its admin port, by name and labels as they stand on the page.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics").ok()?;
        http::value(&page, series)
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn has_ended(&mut self) -> Result<bool> {
        match &mut self.child {
            None => Ok(true),
            Some(child) => Ok(child.try_wait()?.is_some()),
        }
    }

    /// Asks its admin port: status and body.
    ///
    /// # Errors
    ///
    /// Nobody answers.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(SocketAddr::from(([127, 0, 0, 1], self.port)), path, ANSWER_MAX)
    }

    /// Whether it says that it does its job.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// What it wrote so far.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.log_path())?)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.kill()
        {
            tracing::warn!(%error, "a service was not ended");
        }
    }
}

/// `LAKEGAUGE_BIN`, or what was built beside the tests.
fn executable() -> Result<PathBuf> {
    let given = std::env::var_os("LAKEGAUGE_BIN").map(PathBuf::from);
    let path = match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => path,
        None => {
            let own = std::env::current_exe()?;
            own.ancestors().nth(2).context("the tests are in no folder")?.join("lakegauge")
        }
    };
    ensure!(path.is_file(), "{} is missing: `cargo build -p lakegauge`", path.display());
    Ok(path)
}
