//! Real NATS servers: started, killed, paused and started again on the same port and directory; an
//! executable of this machine, or a container. Tests that need nothing of that take a given one, too.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bus::{Bus, BusSettings};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::docker::{Container, Image, Recipe};
use crate::ports::free_port;
use crate::raw_nats::RawNats;
use crate::servers::{self, Way};

/// The oldest server that the product accepts.
const VERSION_NEEDED: (u32, u32) = (2, 12);

/// From start to the first greeting. A server that recovers a large store on a busy machine takes
/// seconds.
const START_MAX: Duration = Duration::from_secs(60);

/// To a question of a test. The disk of a busy machine can stand still for seconds.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// The address of a server for tests, as `nats://127.0.0.1:4222`: every stream in it is deleted.
const GIVEN: &str = "TEST_NATS_URL";

/// A given server is one test's at a time: each begins with none of the streams.
static ALONE: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

/// What an acknowledgement of the server promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// All but the last second survives a loss of power.
    Development,
    /// The message survives a loss of power.
    NoLoss,
}

impl Profile {
    const fn sync_interval(self) -> &'static str {
        match self {
            Self::Development => "1s",
            Self::NoLoss => "always",
        }
    }
}

/// A server with its own port and directory. Killed when it is dropped.
#[derive(Debug)]
pub struct NatsServer {
    profile: Profile,
    // Before the directory: it is written to until the server is gone.
    runs: Runs,
    port: u16,
    monitor_port: u16,
    /// Holds configuration, log and store.
    directory: TempDir,
    /// How the tests log in.
    login: BusSettings,
}

/// What the server is.
#[derive(Debug)]
enum Runs {
    /// Somebody else's.
    Given(#[expect(dead_code, reason = "held, so that nobody else uses it")] OwnedMutexGuard<()>),
    /// An executable; none while it does not run.
    Local { binary: PathBuf, child: Option<Child> },
    /// A container that sees the directory.
    Container { container: Container, running: bool },
}

/// Where a container sees the directory.
const INSIDE: &str = "/lakegauge";
/// Its ports in there.
const INSIDE_PORTS: (u16, u16) = (4222, 8222);

impl NatsServer {
    /// Starts a server with the development configuration.
    ///
    /// # Errors
    ///
    /// No usable `nats-server` on this machine, or one that does not come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(Profile::Development, |config| config).await
    }

    /// The server given by `TEST_NATS_URL`, emptied; where none is, one of its own, as
    /// [`NatsServer::start`]. For tests that neither stop it nor read its files.
    ///
    /// # Errors
    ///
    /// As [`NatsServer::start`]; or the given one does not greet on a port of this machine.
    #[expect(clippy::disallowed_methods, reason = "tests take their servers from the environment")]
    pub async fn start_or_given() -> Result<Self> {
        match std::env::var(GIVEN).ok().filter(|url| !url.is_empty()) {
            Some(url) => Self::given(&url).await,
            None => Self::start().await,
        }
    }

    async fn given(url: &str) -> Result<Self> {
        let port = url
            .strip_prefix("nats://127.0.0.1:")
            .or_else(|| url.strip_prefix("nats://localhost:"))
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("{GIVEN} is {url}: it must be nats://127.0.0.1:PORT"))?;
        let alone = Arc::clone(&ALONE).lock_owned().await;
        let directory = tempfile::Builder::new().prefix("lakegauge-nats-").tempdir()?;
        let (runs, login) = (Runs::Given(alone), BusSettings::default());
        let profile = Profile::Development;
        let mut server = Self { profile, runs, port, monitor_port: 0, directory, login };
        server.await_greeting().await?;
        let mut operator = RawNats::connect(port).await?;
        let streams = operator.demand("STREAM.NAMES", &json!({})).await?;
        for name in streams["streams"].as_array().into_iter().flatten() {
            let name = name.as_str().context("a stream has no name")?;
            operator.demand(&format!("STREAM.DELETE.{name}"), &json!({})).await?;
        }
        Ok(server)
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
        match servers::way()? {
            Way::Containers { nats, .. } => {
                Self::in_container(&nats, profile, configured(change)?).await
            }
            Way::Local => Self::start_local_with(profile, change).await,
        }
    }

    /// An executable of this machine, whose configuration may name files of this machine.
    ///
    /// # Errors
    ///
    /// As [`NatsServer::start`].
    pub async fn start_local_with(
        profile: Profile,
        change: impl FnOnce(String) -> String,
    ) -> Result<Self> {
        let mut server = Self {
            runs: Runs::Local { binary: binary()?, child: None },
            port: free_port()?,
            monitor_port: free_port()?,
            profile,
            directory: configured(change)?,
            login: BusSettings::default(),
        };
        server.restart().await?;
        Ok(server)
    }

    /// A container of this image, with the development configuration.
    ///
    /// # Errors
    ///
    /// No Docker engine answers, or it does not come up.
    pub async fn start_container(image: &Image) -> Result<Self> {
        Self::in_container(image, Profile::Development, configured(|config| config)?).await
    }

    async fn in_container(image: &Image, profile: Profile, directory: TempDir) -> Result<Self> {
        let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let container = Container::start(Recipe {
            image,
            arguments: ["-c", &format!("{INSIDE}/nats-server.conf")].map(str::to_owned).into(),
            environment: [
                ("NATS_HOST", "0.0.0.0".to_owned()),
                ("NATS_PORT", INSIDE_PORTS.0.to_string()),
                ("NATS_MONITOR", format!("0.0.0.0:{}", INSIDE_PORTS.1)),
                ("NATS_STORE_DIR", format!("\"{INSIDE}/store\"")),
                ("NATS_SYNC_INTERVAL", profile.sync_interval().to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
            ports: vec![INSIDE_PORTS.0, INSIDE_PORTS.1],
            folder: Some((directory.path().display().to_string(), INSIDE.to_owned())),
            // What it writes can be removed with the directory.
            user: Some(format!("{}:{}", user.0, user.1)),
        })?;
        let (port, monitor_port) =
            (container.port(INSIDE_PORTS.0)?, container.port(INSIDE_PORTS.1)?);
        let runs = Runs::Container { container, running: true };
        let login = BusSettings::default();
        let mut server = Self { profile, runs, port, monitor_port, directory, login };
        server.await_greeting().await?;
        Ok(server)
    }

    /// The container that it is, for what only a network can do.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn container(&self) -> Result<&Container> {
        match &self.runs {
            Runs::Container { container, .. } => Ok(container),
            Runs::Given(_) | Runs::Local { .. } => bail!("this server is no container"),
        }
    }

    const fn is_running(&self) -> bool {
        match &self.runs {
            Runs::Local { child, .. } => child.is_some(),
            Runs::Container { running, .. } => *running,
            Runs::Given(_) => true,
        }
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
        ensure!(!self.is_running(), "a copy of a store in use is none");
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
        ensure!(!self.is_running(), "it is running");
        fs::remove_dir_all(self.store())?;
        copy_folder(copy.path(), &self.store())
    }

    /// Takes the login of these settings for the tests' own connections.
    pub fn log_in(&mut self, login: BusSettings) {
        self.login = login;
    }

    /// Changes the configuration of a server of this machine that runs, and has it read again.
    ///
    /// # Errors
    ///
    /// It is none, or does not run.
    pub fn reload_with(&self, change: impl FnOnce(String) -> String) -> Result<()> {
        let Runs::Local { child: Some(child), .. } = &self.runs else {
            bail!("it is no executable of this machine that runs");
        };
        self.reconfigure(change)?;
        Ok(kill_process(Pid::from_child(child), Signal::HUP)?)
    }

    /// Settings for a connection to it that notices an outage soon, and waits for answers as long
    /// as a busy machine needs.
    pub fn settings(&self, name: &str) -> BusSettings {
        BusSettings {
            url: self.url().into(),
            name: name.to_owned(),
            request_timeout: ANSWER_MAX,
            ping_interval: Duration::from_secs(1),
            ..self.login.clone()
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
        if self.is_running() {
            return Ok(());
        }
        let (store, log_path) = (self.store(), self.log_path());
        match &mut self.runs {
            Runs::Given(_) => return Ok(()),
            Runs::Container { container, running } => {
                container.start_again()?;
                *running = true;
            }
            Runs::Local { binary, child } => {
                let log = File::options().create(true).append(true).open(log_path)?;
                let started = Command::new(&*binary)
                    .arg("-c")
                    .arg(self.directory.path().join("nats-server.conf"))
                    .env("NATS_HOST", "127.0.0.1")
                    .env("NATS_PORT", self.port.to_string())
                    .env("NATS_MONITOR", format!("127.0.0.1:{}", self.monitor_port))
                    .env("NATS_STORE_DIR", format!("\"{}\"", store.display()))
                    .env("NATS_SYNC_INTERVAL", self.profile.sync_interval())
                    .stdin(Stdio::null())
                    .stdout(log.try_clone()?)
                    .stderr(log)
                    .spawn()
                    .with_context(|| format!("can't start {}", binary.display()))?;
                *child = Some(started);
            }
        }
        self.await_greeting().await
    }

    async fn await_greeting(&mut self) -> Result<()> {
        match tokio::time::timeout(START_MAX, self.greeting()).await {
            Ok(greeting) => greeting,
            Err(_) => bail!("nats-server did not greet within {START_MAX:?}:\n{}", self.log_end()),
        }
    }

    /// `kill -9`.
    ///
    /// # Panics
    ///
    /// It is a given one, whose test may not kill it.
    pub fn kill(&mut self) {
        assert!(!matches!(self.runs, Runs::Given(_)), "a given server is not ours to kill");
        match &mut self.runs {
            Runs::Given(_) => {}
            Runs::Local { child, .. } => {
                if let Some(mut child) = child.take() {
                    // Either it is running and dies, or it is dead already.
                    drop(child.kill());
                    drop(child.wait());
                }
            }
            Runs::Container { container, running } => {
                if std::mem::replace(running, false) {
                    drop(container.kill("KILL"));
                }
            }
        }
    }

    /// Ends it as an operator would, and waits until it has.
    ///
    /// # Errors
    ///
    /// It can't be signalled or waited for.
    pub fn stop(&mut self) -> Result<()> {
        match &mut self.runs {
            Runs::Local { child, .. } => {
                let mut child = child.take().context("the server is not running")?;
                kill_process(Pid::from_child(&child), Signal::TERM)?;
                child.wait()?;
            }
            Runs::Given(_) => bail!("a given server is not ours to stop"),
            Runs::Container { container, running } => {
                container.stop()?;
                *running = false;
            }
        }
        Ok(())
    }

    /// Changes its configuration, which holds from its next start on.
    ///
    /// # Errors
    ///
    /// The file can't be read or written.
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) -> Result<()> {
        let file = self.directory.path().join("nats-server.conf");
        let config = fs::read_to_string(&file)?;
        Ok(fs::write(&file, change(config))?)
    }

    /// Lets no file of the running server grow beyond this many bytes: its writes fail as on a full
    /// disk. A server that is started again has room.
    ///
    /// # Errors
    ///
    /// It is no executable of this machine, or the system refuses.
    pub fn fill_disk(&self, file_bytes_max: u64) -> Result<()> {
        let Runs::Local { child, .. } = &self.runs else { bail!("no process of ours") };
        let child = child.as_ref().context("the server is not running")?;
        let limit = Rlimit { current: Some(file_bytes_max), maximum: None };
        prlimit(Some(Pid::from_child(child)), Resource::Fsize, limit)?;
        Ok(())
    }

    /// `kill -STOP`: connections stand, nothing answers.
    ///
    /// # Errors
    ///
    /// It can't be signalled.
    pub fn pause(&self) -> Result<()> {
        match &self.runs {
            Runs::Local { child, .. } => {
                let child = child.as_ref().context("the server is not running")?;
                kill_process(Pid::from_child(child), Signal::STOP)?;
                // Its threads stop one by one: only then is it certain that nothing more is
                // answered.
                waitpid(Some(Pid::from_child(child)), WaitOptions::UNTRACED)?;
                Ok(())
            }
            Runs::Container { container, .. } => container.pause(),
            Runs::Given(_) => bail!("a given server is not ours to pause"),
        }
    }

    /// `kill -CONT`.
    ///
    /// # Errors
    ///
    /// It can't be signalled.
    pub fn resume(&self) -> Result<()> {
        match &self.runs {
            Runs::Local { child, .. } => {
                let child = child.as_ref().context("the server is not running")?;
                Ok(kill_process(Pid::from_child(child), Signal::CONT)?)
            }
            Runs::Container { container, .. } => container.resume(),
            Runs::Given(_) => bail!("a given server is not ours to resume"),
        }
    }

    /// Waits until the server sends `INFO` to a client: JetStream stands before that.
    async fn greeting(&mut self) -> Result<()> {
        loop {
            let ended = match &mut self.runs {
                Runs::Given(_) => None,
                Runs::Local { child, .. } => {
                    let ended = child.as_mut().context("not running")?.try_wait()?;
                    ended.is_some().then(|| *child = None)
                }
                Runs::Container { container, running } => {
                    (!container.is_running()?).then(|| *running = false)
                }
            };
            if ended.is_some() {
                bail!("nats-server ended:\n{}", self.log_end());
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
        if let Runs::Container { container, .. } = &self.runs {
            return container.log_end();
        }
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(20);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // A container is removed by itself.
        if matches!(self.runs, Runs::Local { .. }) {
            self.kill();
        }
    }
}

/// A directory with the product's configuration, changed by a function.
fn configured(change: impl FnOnce(String) -> String) -> Result<TempDir> {
    let source = repository().join("nats/nats-server.conf");
    let config =
        fs::read_to_string(&source).with_context(|| format!("can't read {}", source.display()))?;
    let directory = tempfile::Builder::new().prefix("lakegauge-nats-").tempdir()?;
    fs::write(directory.path().join("nats-server.conf"), change(config))?;
    Ok(directory)
}

/// The `nats-server` to test with: `NATS_SERVER_BIN`, or the first on the `PATH`.
///
/// # Errors
///
/// There is none, or it is too old; the text says what to provide.
pub fn binary() -> Result<PathBuf> {
    const HOW: &str = "./test installs one; or set NATS_SERVER_BIN to a nats-server from 2.12 on; \
                       or start a Docker engine with images (scripts/offline-images)";
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
