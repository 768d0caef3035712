//! The product's executable as a process that is started, watched and signalled.

use std::io::BufReader;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use service_kit::Clock;

use crate::executable::lakegauge;
use crate::http;

/// Longest wait for anything that a healthy process does: a busy machine is slow, not broken.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// Settings that the environment of the tests must not lend to the executable.
const NOT_INHERITED: &[&str] =
    &["NATS_", "DATABASE_", "SUPABASE_", "UP_", "LAKEGAUGE_", "ADMIN_", "LOG_"];

/// A running executable, killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    clock: Clock,
}

impl Running {
    /// Starts it with these arguments and these settings only.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(lakegauge()?);
        command.args(arguments).stdin(Stdio::null());
        Self::start_command(command, environment)
    }

    /// Starts a command that becomes the executable, with these settings only.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start_command(mut command: Command, environment: &[(&str, &str)]) -> Result<Self> {
        for (key, _) in std::env::vars_os() {
            let key = key.to_string_lossy();
            let keep = key == "NATS_SERVER_BIN";
            if !keep && NOT_INHERITED.iter().any(|prefix| key.starts_with(prefix)) {
                command.env_remove(key.as_ref());
            }
        }
        let mut child = command
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't start lakegauge")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let readers = vec![
            collect(BufReader::new(stdout), Arc::clone(&lines)),
            collect(BufReader::new(stderr), Arc::clone(&lines)),
        ];
        Ok(Self { child, lines, readers, clock: Clock::system() })
    }

    /// Everything that it has written to standard output and standard error.
    pub fn said(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits for a line that contains the text, and gives it.
    ///
    /// # Errors
    ///
    /// It ended, or did not say so in time.
    pub fn wait_for_line(&mut self, text: &str) -> Result<String> {
        self.wait_until(text, |this| {
            let lines = this.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Waits until the admin port is open, and gives its address.
    ///
    /// # Errors
    ///
    /// It ended, or did not open it in time.
    pub fn wait_for_admin_port(&mut self) -> Result<SocketAddr> {
        let line = self.wait_for_line("admin port open")?;
        let line: serde_json::Value = serde_json::from_str(&line).context("a log line")?;
        let address = line["address"].as_str().and_then(|address| address.parse().ok());
        address.context("the log names no address")
    }

    /// Waits until the admin port says that the service does its job.
    ///
    /// # Errors
    ///
    /// It ended, or was not ready in time.
    pub fn wait_until_ready(&mut self) -> Result<SocketAddr> {
        let address = self.wait_for_admin_port()?;
        self.wait_until("readiness", |_| {
            get(address, "/readyz").ok().filter(|(status, _)| *status == 200).map(|_| address)
        })
    }

    /// Asks it to drain.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no process id")?;
        kill_process(pid, signal).context("can't send a signal")
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// It did not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = self.clock.monotonic() + PATIENCE;
        while self.clock.monotonic() < deadline {
            if let Some(status) = self.child.try_wait()? {
                for reader in self.readers.drain(..) {
                    reader.join().map_err(|_| anyhow!("a reader of its output failed"))?;
                }
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        bail!("it had not ended after {} s:\n{}", PATIENCE.as_secs(), self.said())
    }

    fn wait_until<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let deadline = self.clock.monotonic() + PATIENCE;
        while self.clock.monotonic() < deadline {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status} before {what:?}:\n{}", self.said());
            }
            std::thread::sleep(POLL);
        }
        bail!("no {what:?} after {} s:\n{}", PATIENCE.as_secs(), self.said())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

/// The status and body of a page.
///
/// # Errors
///
/// Nobody answers, or not in HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    http::get(address, path, PATIENCE)
}

fn collect(
    reader: impl std::io::BufRead + Send + 'static,
    lines: Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
