//! Real NATS servers: started, killed, paused and started again on the same port and directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bus::{Bus, BusSettings};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use crate::ports::free_port;

/// The oldest server that the product accepts.
const VERSION_NEEDED: (u32, u32) = (2, 12);

/// From start to the first greeting. A server that recovers a large store on a busy machine takes
/// seconds.
const START_MAX: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Which of the product's configurations the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `nats/nats-server.conf`.
    Development,
    /// `nats/nats-server.no-loss.conf`.
    NoLoss,
}

/// A server with its own port and directory. Killed when it is dropped.
#[derive(Debug)]
pub struct NatsServer {
    binary: PathBuf,
    port: u16,
    monitor_port: u16,
    /// Holds configuration, log and store.
    directory: TempDir,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts a server with the development configuration.
    ///
    /// # Errors
    ///
    /// No usable `nats-server` on this machine, or one that does not come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(Profile::Development, |config| config).await
    }

    /// Starts a server with one of the product's configurations, changed by a function.
    ///
    /// # Errors
    ///
    /// As [`NatsServer::start`].
    pub async fn start_with(
        profile: Profile,
        change: impl FnOnce(String) -> String,
    ) -> Result<Self> {
        let name = match profile {
            Profile::Development => "nats-server.conf",
            Profile::NoLoss => "nats-server.no-loss.conf",
        };
        let source = repository().join("nats").join(name);
        let config = fs::read_to_string(&source)
            .with_context(|| format!("can't read {}", source.display()))?;
        let directory = tempfile::Builder::new().prefix("lakegauge-nats-").tempdir()?;
        fs::write(directory.path().join("nats-server.conf"), change(config))?;
        let mut server = Self {
            binary: binary()?,
            port: free_port()?,
            monitor_port: free_port()?,
            directory,
            child: None,
        };
        server.restart().await?;
        Ok(server)
    }

    /// Its address for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its port for people and exporters.
    pub fn monitor_port(&self) -> u16 {
        self.monitor_port
    }

    /// Where it keeps streams.
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// A copy of everything it keeps, as a backup of the directory is one. It must not be running.
    ///
    /// # Errors
    ///
    /// It is running, or can't be copied.
    pub fn copy_store(&self) -> Result<TempDir> {
        ensure!(self.child.is_none(), "a copy of a store in use is none");
        let copy = tempfile::Builder::new().prefix("lakegauge-store-").tempdir()?;
        copy_folder(&self.store(), copy.path())?;
        Ok(copy)
    }

    /// Puts a copy in the place of what it keeps. It must not be running.
    ///
    /// # Errors
    ///
    /// It is running, or can't be copied.
    pub fn put_store(&self, copy: &TempDir) -> Result<()> {
        ensure!(self.child.is_none(), "it is running");
        fs::remove_dir_all(self.store())?;
        copy_folder(copy.path(), &self.store())
    }

    /// Settings for a connection to it, with timeouts short enough for tests of outages.
    pub fn settings(&self, name: &str) -> BusSettings {
        BusSettings {
            url: self.url(),
            name: name.to_owned(),
            request_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(1),
            ..BusSettings::default()
        }
    }

    /// A connection to it.
    ///
    /// # Errors
    ///
    /// What [`Bus::connect`] says.
    pub async fn bus(&self, name: &str) -> Result<Bus> {
        Ok(Bus::connect(&self.settings(name)).await?)
    }

    /// Starts it if it is not running, on the same port and directory, and waits for its greeting.
    ///
    /// # Errors
    ///
    /// It does not come up; the end of its log is in the text.
    pub async fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let child = Command::new(&self.binary)
            .arg("-c")
            .arg(self.directory.path().join("nats-server.conf"))
            .env("NATS_HOST", "127.0.0.1")
            .env("NATS_PORT", self.port.to_string())
            .env("NATS_MONITOR", format!("127.0.0.1:{}", self.monitor_port))
            .env("NATS_STORE_DIR", format!("\"{}\"", self.store().display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {}", self.binary.display()))?;
        self.child = Some(child);
        match tokio::time::timeout(START_MAX, self.greeting()).await {
            Ok(greeting) => greeting,
            Err(_) => bail!("nats-server did not greet within {START_MAX:?}:\n{}", self.log_end()),
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either it is running and dies, or it is dead already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Ends it as an operator would, and waits until it has.
    ///
    /// # Errors
    ///
    /// It can't be signalled or waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// `kill -STOP`: connections stand, nothing answers.
    ///
    /// # Errors
    ///
    /// It can't be signalled.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // Its threads stop one by one: only then is it certain that nothing more is answered.
        let child = self.child.as_ref().context("the server is not running")?;
        waitpid(Some(Pid::from_child(child)), WaitOptions::UNTRACED)?;
        Ok(())
    }

    /// `kill -CONT`.
    ///
    /// # Errors
    ///
    /// It can't be signalled.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("the server is not running")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Waits until the server sends `INFO` to a client: JetStream stands before that.
    async fn greeting(&mut self) -> Result<()> {
        loop {
            if let Some(status) = self.child.as_mut().context("not running")?.try_wait()? {
                self.child = None;
                bail!("nats-server ended with {status}:\n{}", self.log_end());
            }
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)).await {
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).await?;
                if line.starts_with("INFO ") {
                    return Ok(());
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(20);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The `nats-server` to test with: `NATS_SERVER_BIN`, or the first on the `PATH`.
///
/// # Errors
///
/// There is none, or it is too old; the text says what to provide.
pub fn binary() -> Result<PathBuf> {
    const HOW: &str = "./test installs one; or set NATS_SERVER_BIN to a nats-server from 2.12 on";
    let given = std::env::var_os("NATS_SERVER_BIN").map(PathBuf::from);
    let binary = match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => path,
        None => on_path(OsStr::new("nats-server"))
            .with_context(|| format!("no nats-server on the PATH; {HOW}"))?,
    };
    let output = Command::new(&binary)
        .arg("--version")
        .output()
        .with_context(|| format!("can't run {}; {HOW}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = version(&text)
        .with_context(|| format!("{} says no version but {text:?}; {HOW}", binary.display()))?;
    ensure!(
        version >= VERSION_NEEDED,
        "{} is version {}.{}; {HOW}",
        binary.display(),
        version.0,
        version.1
    );
    Ok(binary)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn on_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The numbers in `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit('v').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The root of the repository, where `nats/` and `migrations/` are.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
