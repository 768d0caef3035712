//! PostgreSQL as an executable of this machine: a cluster of its own, copied from a template.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{ADMIN, Database, PATIENCE, POLL, roles};

/// Oldest release that is supported.
const VERSION_MIN: u32 = 15;

/// Only one test at a time makes the template.
static TEMPLATE: Mutex<()> = Mutex::new(());

/// A cluster and its server. Ends with the value.
#[derive(Debug)]
pub(super) struct Private {
    bin: PathBuf,
    folder: TempDir,
    pub(super) port: u16,
    user: Option<(u32, u32)>,
    child: Option<Child>,
}

impl Private {
    /// A running copy of the template.
    pub(super) fn of_template() -> Result<Self> {
        let bin = installed()?;
        let user = if rustix::process::geteuid().is_root() { Some(server_user()?) } else { None };
        let template = template(&bin, user)?;
        let folder = tempfile::Builder::new().prefix("lakegauge-pg-").tempdir()?;
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        let copied =
            Command::new("cp").arg("-a").arg(&template).arg(folder.path().join("data")).status()?;
        ensure!(copied.success(), "the template cluster could not be copied");
        let port = crate::ports::free_port()?;
        let mut private = Private { bin, folder, port, user, child: None };
        private.start()?;
        Ok(private)
    }

    pub(super) fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let log = std::fs::File::create(self.folder.path().join("log"))?;
        let mut command = Command::new(self.bin.join("postgres"));
        command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        as_user(&mut command, self.user);
        self.child = Some(command.spawn().context("starting postgres")?);
        let probe = Database {
            name: "postgres".to_owned(),
            admin: format!("postgres://{ADMIN}@127.0.0.1:{}", self.port),
        };
        let tries = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..tries {
            if probe.sql("select 1").is_ok() {
                return Ok(());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                let log = std::fs::read_to_string(self.folder.path().join("log"))?;
                bail!("postgres ended with {status}: {log}");
            }
            std::thread::sleep(POLL);
        }
        bail!("postgres did not take connections within {PATIENCE:?}")
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process")?;
        // The immediate shutdown: no transaction ends, no checkpoint is made.
        kill_process(pid, Signal::QUIT)?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "postgres was not stopped");
        }
    }
}

/// Folder of the newest installed release.
fn installed() -> Result<PathBuf> {
    let missing = "no PostgreSQL 15 or newer: install it (Debian: apt-get install postgresql), \
                   start a Docker engine with images (scripts/offline-images), or give \
                   TEST_DATABASE_URL=postgres://superuser@host:port/postgres";
    let releases = std::fs::read_dir("/usr/lib/postgresql").context(missing)?;
    releases
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let release: u32 = path.file_name()?.to_str()?.parse().ok()?;
            let bin = path.join("bin");
            (release >= VERSION_MIN && bin.join("initdb").exists()).then_some((release, bin))
        })
        .max()
        .map(|(_, bin)| bin)
        .context(missing)
}

/// PostgreSQL refuses to run as root: the packages' user, from the list of users.
fn server_user() -> Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let fields = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    let mut numbers = fields.into_iter().flat_map(|fields| fields.split(':').skip(1).take(2));
    match (numbers.next(), numbers.next()) {
        (Some(user), Some(group)) => Ok((user.parse()?, group.parse()?)),
        _ => bail!("PostgreSQL does not run as root, and there is no user postgres"),
    }
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
}

/// A cluster to copy, made once per machine, release and user.
fn template(bin: &Path, user: Option<(u32, u32)>) -> Result<PathBuf> {
    let _only_one = TEMPLATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let release = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let owner = rustix::process::geteuid().as_raw();
    let name = format!("lakegauge-test-cluster-{}-{owner}", release.unwrap_or("0"));
    let ready = std::env::temp_dir().join(name);
    if ready.join("PG_VERSION").exists() {
        return Ok(ready);
    }
    let folder = tempfile::Builder::new().prefix("lakegauge-initdb-").tempdir()?;
    if let Some((user, group)) = user {
        chown(folder.path(), Some(user), Some(group))?;
    }
    let data = folder.path().join("data");
    let mut initdb = Command::new(bin.join("initdb"));
    initdb
        .args(["-U", ADMIN, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
        .arg(&data)
        .current_dir("/")
        .stdout(Stdio::null());
    as_user(&mut initdb, user);
    ensure!(initdb.status().context("running initdb")?.success(), "initdb failed");
    // No test cuts the power; a killed server loses nothing that the system has.
    let settings = "fsync = off\nshared_buffers = 64MB\nmax_wal_size = 1GB\njit = off\n";
    let configuration = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&configuration)? + settings;
    std::fs::write(&configuration, text)?;
    let mut single = Command::new(bin.join("postgres"));
    single
        .args(["--single", "-j", "-D"])
        .arg(&data)
        .arg("postgres")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    as_user(&mut single, user);
    let mut single = single.spawn()?;
    let input = single.stdin.take().context("no input")?;
    std::io::Write::write_all(&mut &input, (roles() + ";\n\n").as_bytes())?;
    drop(input);
    ensure!(single.wait()?.success(), "the roles could not be made");
    // Another process of the same kind may have been faster: its cluster is as good.
    if std::fs::rename(&data, &ready).is_err() {
        ensure!(ready.join("PG_VERSION").exists(), "the template could not be put in place");
    }
    Ok(ready)
}
