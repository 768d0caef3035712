//! The product's executable as a process that is started, asked, watched and signalled.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use service_kit::Clock;
use tempfile::TempDir;

use crate::executable::{lakegauge, without_settings};
use crate::http;
use crate::ports::free_port;
use crate::waiting::{PATIENCE, POLL, until};

/// How many lines of a log a failure shows.
const LINES_SHOWN: usize = 15;

/// A process that runs, or ran. Killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    command: Command,
    child: Child,
    log: PathBuf,
    admin_port: u16,
    /// Where the log is, unless it was named.
    _folder: Option<TempDir>,
}

impl Process {
    /// Starts the executable with these arguments, these settings and no others, and an admin port
    /// of its own.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start(words: &[&str], settings: &[(&str, &str)]) -> Result<Self> {
        let admin_port = free_port()?;
        let mut command = Command::new(lakegauge()?);
        command.args(words).env_clear().env("ADMIN_ADDR", format!("127.0.0.1:{admin_port}"));
        command.envs(settings.iter().copied());
        let (folder, log) = own_log()?;
        Self::spawn(command, log, admin_port, Some(folder))
    }

    /// Starts the executable with these arguments and without settings, but otherwise with the
    /// environment of the tests, as `up` needs it.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start_inheriting(words: &[&str]) -> Result<Self> {
        let mut command = Command::new(lakegauge()?);
        without_settings(command.args(words));
        Self::start_command(command)
    }

    /// Starts a command that becomes the executable.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn start_command(command: Command) -> Result<Self> {
        let (folder, log) = own_log()?;
        Self::spawn(command, log, 0, Some(folder))
    }

    /// Starts a command that writes to this log and opens this admin port.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub(crate) fn start_with(command: Command, log: PathBuf, admin_port: u16) -> Result<Self> {
        Self::spawn(command, log, admin_port, None)
    }

    fn spawn(
        mut command: Command,
        log: PathBuf,
        admin_port: u16,
        folder: Option<TempDir>,
    ) -> Result<Self> {
        let output = File::options().append(true).create(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("can't start lakegauge")?;
        Ok(Self { command, child, log, admin_port, _folder: folder })
    }

    /// Starts it again after it ended, with the same settings and port.
    ///
    /// # Errors
    ///
    /// It runs, or can't be started.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(!self.is_running()?, "it runs already");
        self.child = self.command.spawn().context("can't start lakegauge")?;
        Ok(())
    }

    /// Everything that it has written to standard output and standard error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n")
    }

    /// Waits for a line that contains the text, and gives it.
    ///
    /// # Errors
    ///
    /// It ended, or did not say so in time.
    pub fn wait_for_line(&mut self, text: &str) -> Result<String> {
        self.wait_until(text, |this| {
            let log = this.log();
            // The last line may be half written.
            let (lines, _) = log.rsplit_once('\n')?;
            lines.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// The port of its `/livez`, `/readyz` and `/metrics`.
    pub const fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Asks its admin port: status and body.
    ///
    /// # Errors
    ///
    /// Nobody answers.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.admin_port, path)
    }

    /// One series of its admin port, by name and labels as they stand on the page.
    pub fn metric(&self, series: &str) -> Option<f64> {
        http::metric(self.admin_port, series)
    }

    /// What `/readyz` answers; none if nobody does.
    pub fn readiness(&self) -> Option<(u16, String)> {
        self.get("/readyz?verbose").ok()
    }

    /// Whether it says that it does its job.
    pub fn is_ready(&self) -> bool {
        self.readiness().is_some_and(|(status, _)| status == 200)
    }

    /// Waits until it is ready: some of what makes it so is asked for in its own time, and comes
    /// after what it has done already.
    ///
    /// # Errors
    ///
    /// It is not in time; what it says is in the text.
    pub async fn ready(&self) -> Result<()> {
        let ready = until("readiness", async || Ok(self.is_ready()));
        ready.await.with_context(|| format!("{:?}", self.readiness()))
    }

    /// As [`Process::ready`], where nothing else has to run meanwhile.
    ///
    /// # Errors
    ///
    /// It ended, or was not ready in time.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_until("readiness", |this| this.is_ready().then_some(()))
    }

    /// Sends a signal: TERM asks it to drain, after STOP its connections stand and it does nothing
    /// until CONT.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("can't send a signal")
    }

    /// Asks it to drain.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// `kill -9`: ends it at once, without a chance to finish anything.
    ///
    /// # Errors
    ///
    /// It had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(self.is_running()?, "it had ended by itself:\n{}", self.log());
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it has not ended.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.exit_status()?.is_none())
    }

    /// How it ended; none while it runs.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It does not end in time; what it wrote last is in the text.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let mut ended = None;
        let waited = until("its end", async || {
            ended = self.exit_status()?;
            Ok(ended.is_some())
        })
        .await;
        waited.with_context(|| self.log_end())?;
        ended.context("it has not ended")
    }

    /// As [`Process::ended`], where nothing else has to run meanwhile.
    ///
    /// # Errors
    ///
    /// It did not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let clock = Clock::system();
        let deadline = clock.monotonic() + PATIENCE;
        while clock.monotonic() < deadline {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        bail!("it had not ended after {} s:\n{}", PATIENCE.as_secs(), self.log())
    }

    fn wait_until<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let clock = Clock::system();
        let deadline = clock.monotonic() + PATIENCE;
        while clock.monotonic() < deadline {
            // In this order: the last line of one that ended is whole.
            let ended = self.exit_status()?;
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("it ended with {status} before {what:?}:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
        bail!("no {what:?} after {} s:\n{}", PATIENCE.as_secs(), self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A log in a folder of its own.
fn own_log() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new().prefix("lakegauge-process-").tempdir()?;
    let log = folder.path().join("log");
    Ok((folder, log))
}
