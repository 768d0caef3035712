//! A private PostgreSQL for `up`: its executables, its cluster, and a login role for each service.

use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::addresses::{self, DATABASE};
use crate::config::Config;
use crate::datadir::{self, DataDir, is_reachable_by_others};
use crate::environment;
use crate::process::{Spec, User};

/// Settings that log every statement, with its duration and the rows that it read.
const LOG_STATEMENTS: &[(&str, &str)] = &[
    ("lc_messages", "C"),
    ("log_timezone", "UTC"),
    ("log_min_duration_statement", "0"),
    ("compute_query_id", "on"),
    ("session_preload_libraries", "auto_explain"),
    ("auto_explain.log_min_duration", "0"),
    ("auto_explain.log_analyze", "on"),
    ("auto_explain.log_buffers", "on"),
    ("auto_explain.log_timing", "off"),
    ("auto_explain.log_format", "json"),
];
/// Oldest supported release; Supabase runs it too.
const VERSION_MIN: u32 = 15;
/// The kernel refuses longer socket paths (108 with the terminating byte).
const SOCKET_PATH_MAX: usize = 100;
/// The folder for clusters of data directories that the server's user can't reach.
const ELSEWHERE: &str = "/var/lib/lakegauge";

/// Login roles, with the group whose privileges they have.
const LOGINS: &[(&str, &str)] = &[
    ("archiver", "lakegauge_archiver"),
    ("aggregator", "lakegauge_reader"),
    ("reader", "lakegauge_reader"),
];

/// Our own PostgreSQL.
#[derive(Debug)]
pub(crate) struct Postgres {
    bin: PathBuf,
    cluster: PathBuf,
    user: Option<User>,
    port: u16,
}

impl Postgres {
    /// Finds the executables, and creates the cluster if there is none.
    ///
    /// # Errors
    ///
    /// The executables are missing or of the wrong version, or the cluster can't be created.
    pub(crate) async fn prepare(config: &Config, dir: &DataDir) -> anyhow::Result<Self> {
        let user = if rustix::process::geteuid().is_root() { Some(server_user()?) } else { None };
        let cluster = cluster_path(dir, user.as_ref())?;
        let made_by = std::fs::read_to_string(cluster.join("PG_VERSION")).ok();
        let made_by = made_by.and_then(|text| text.trim().parse().ok());
        let bin = find(config, made_by)?;
        let this = Self { bin, cluster, user, port: config.ports.postgres };
        if made_by.is_none() {
            this.make_cluster(dir).await?;
        }
        Ok(this)
    }

    /// The part's specification.
    pub(crate) fn spec(&self, config: &Config, dir: &DataDir) -> Spec {
        // The setting is a list with its own syntax, and the kernel limits the length. The socket
        // is optional.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let sockets = self.cluster.to_str().filter(|path| path.chars().all(is_plain));
        let sockets = sockets.filter(|path| path.len() <= SOCKET_PATH_MAX).unwrap_or_default();
        let settings = [
            ("port", self.port.to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            // In the cluster's folder, which only its user can enter.
            ("unix_socket_directories", sockets.to_owned()),
            ("cluster_name", "lakegauge".to_owned()),
            ("max_connections", "40".to_owned()),
            ("shared_buffers", "256MB".to_owned()),
            // Fewer checkpoints, because after each one the next change of a page writes the whole
            // page.
            ("max_wal_size", "4GB".to_owned()),
            ("checkpoint_timeout", "15min".to_owned()),
            ("jit", "off".to_owned()),
            ("logging_collector", "on".to_owned()),
            ("log_destination", "jsonlog".to_owned()),
            // Logs of a week; each day replaces the one of the week before.
            ("log_filename", "postgresql-%a.log".to_owned()),
            ("log_truncate_on_rotation", "on".to_owned()),
        ];
        let settings = settings.into_iter().map(|(name, value)| format!("{name}={value}"));
        let logging = if config.log_statements { LOG_STATEMENTS } else { &[] };
        let logging = logging.iter().map(|(name, value)| format!("{name}={value}"));
        let mut arguments = vec!["-D".into(), self.cluster.clone().into()];
        for setting in settings.chain(logging) {
            arguments.push("-c".into());
            arguments.push(setting.into());
        }
        Spec {
            arguments,
            environment: environment::base(&self.cluster),
            // A folder that the server's user may enter.
            directory: Some("/".into()),
            user: self.user.clone(),
            // The fast shutdown: transactions are aborted, and everything is written.
            stop: Signal::INT,
            ..Spec::server("postgres", self.bin.join("postgres"), config, dir)
        }
    }

    /// Whether a server of an earlier `up` that was killed still runs on the cluster.
    pub(crate) fn has_predecessor(&self) -> bool {
        let pid = std::fs::read_to_string(self.cluster.join("postmaster.pid")).ok();
        let pid = pid.as_deref().and_then(|text| text.lines().next()).and_then(|line| {
            line.trim().parse::<i32>().ok().and_then(rustix::process::Pid::from_raw)
        });
        // Another process may have the number; PostgreSQL itself checks more.
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    }

    /// Checks whether it accepts connections; the error is the output of `pg_isready`.
    pub(crate) async fn is_up(&self) -> anyhow::Result<()> {
        let mut command = self.tool("pg_isready");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).kill_on_drop(true);
        let output = command.output().await.context("pg_isready can't be started")?;
        let said = [output.stdout, output.stderr].concat();
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said).trim());
        Ok(())
    }

    /// Creates the database and its owner, if they are missing.
    pub(crate) async fn make_database(&self, dir: &DataDir) -> anyhow::Result<()> {
        let owner = dir.password("owner")?;
        self.run_sql(
            dir,
            "postgres",
            &format!(
                "select 'create role lakegauge_owner login createrole'
                 where not exists (select from pg_roles where rolname = 'lakegauge_owner') \\gexec
                 alter role lakegauge_owner password '{owner}';
                 select 'create database {DATABASE} owner lakegauge_owner'
                 where not exists (select from pg_database where datname = '{DATABASE}') \\gexec
                 revoke all on database {DATABASE} from public;"
            ),
        )
        .await
    }

    /// Creates a role for each service; must run after the migrations, which create the groups.
    pub(crate) async fn make_logins(&self, dir: &DataDir) -> anyhow::Result<()> {
        let mut sql = String::new();
        for (login, group) in LOGINS {
            let password = dir.password(login)?;
            sql.push_str(&format!(
                "select 'create role {login} login'
                 where not exists (select from pg_roles where rolname = '{login}') \\gexec
                 alter role {login} password '{password}';
                 grant {group} to {login};
                 grant connect on database {DATABASE} to {login};\n"
            ));
        }
        self.run_sql(dir, DATABASE, &sql).await
    }

    /// The address for a role, with its password: never for a log or an argument.
    pub(crate) fn url(&self, dir: &DataDir, role: &str) -> anyhow::Result<String> {
        Ok(addresses::database_url(role, &dir.password(role)?, self.port))
    }

    /// The cluster gets its final name at the end, because an interrupted one would look complete.
    async fn make_cluster(&self, dir: &DataDir) -> anyhow::Result<()> {
        let mut making = self.cluster.clone().into_os_string();
        making.push(".making");
        let making = PathBuf::from(making);
        if making.exists() {
            std::fs::remove_dir_all(&making)
                .with_context(|| format!("can't remove {}", making.display()))?;
        }
        give_folder(&making, self.user.as_ref())?;
        // The file is beside the cluster, because initdb's user can't enter our folder of secrets.
        let beside = making.parent().context("the cluster is in no folder")?;
        let mut password = tempfile::Builder::new()
            .prefix(".password-")
            .tempfile_in(beside)
            .context("no file for a password")?;
        password.write_all(dir.password("superuser")?.as_bytes())?;
        if let Some(user) = &self.user {
            chown(password.path(), Some(user.uid), Some(user.gid))
                .with_context(|| format!("can't give a file to {}", user.name))?;
        }
        let mut command = self.tool("initdb");
        command
            .arg("--pgdata")
            .arg(&making)
            .arg("--pwfile")
            .arg(password.path())
            .args(["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
        feed(command, "").await.context("initdb")?;
        std::fs::rename(&making, &self.cluster).context("can't put the cluster in its place")
    }

    async fn run_sql(&self, dir: &DataDir, database: &str, sql: &str) -> anyhow::Result<()> {
        let mut command = self.tool("psql");
        command
            .env("PGPASSWORD", dir.password("superuser")?)
            .env("PGSSLMODE", "disable")
            .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--host=127.0.0.1"])
            .arg(format!("--port={}", self.port))
            .arg("--username=postgres")
            .arg(format!("--dbname={database}"));
        feed(command, sql).await.context("psql")
    }

    fn tool(&self, name: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.bin.join(name));
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        // The server's user may not be allowed to enter our working directory.
        command.env_clear().envs(environment::base(&self.cluster)).current_dir("/");
        command
    }
}

/// Runs a command with a text as its standard input and returns its error output as an error. It is
/// killed if this process ends.
async fn feed(mut command: tokio::process::Command, text: &str) -> anyhow::Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("can't be started")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await.context("does not read its input")?;
    }
    let output = child.wait_with_output().await.context("can't be waited for")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}: {}", output.status, errors.trim());
    Ok(())
}

/// The server's user if we are root, because PostgreSQL refuses to run as root.
fn server_user() -> anyhow::Result<User> {
    let accounts = std::fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
    ["postgres", "nobody"].into_iter().find_map(|name| account(&accounts, name)).context(
        "PostgreSQL does not run as root, and there is no user postgres or nobody: create one",
    )
}

fn account(accounts: &str, name: &str) -> Option<User> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { name: name.to_owned(), uid, gid })
    })
}

/// The cluster's folder, created if necessary, and owned by the server's user.
///
/// If that user can't enter the data directory's path (below /root, for example), the data
/// directory contains a link to a folder elsewhere, a new one for each data directory. Incomplete
/// folders or wrong modes from an earlier start are corrected.
fn cluster_path(dir: &DataDir, user: Option<&User>) -> anyhow::Result<PathBuf> {
    let here = dir.at("postgres");
    let Some(user) = user else {
        give_folder(&here, None)?;
        return Ok(here);
    };
    let elsewhere = match std::fs::read_link(&here) {
        Ok(target) => Some(target),
        Err(_) if is_reachable_by_others(&here) => None,
        Err(_) => {
            anyhow::ensure!(
                !here.join("PG_VERSION").exists(),
                "{} can't enter {} any more: run chmod o+x on the folders above it",
                user.name,
                here.display()
            );
            let name = dir.password("cluster")?;
            let elsewhere = Path::new(ELSEWHERE).join(&name[..16]);
            // An empty folder may exist in the place of the link.
            std::fs::remove_dir(&here).unwrap_or_default();
            std::os::unix::fs::symlink(&elsewhere, &here).with_context(|| {
                format!("can't link {} to {}", here.display(), elsewhere.display())
            })?;
            Some(elsewhere)
        }
    };
    if elsewhere.as_ref().is_some_and(|cluster| cluster.starts_with(ELSEWHERE)) {
        datadir::passable_dir(Path::new(ELSEWHERE))?;
    }
    let cluster = elsewhere.unwrap_or(here);
    give_folder(&cluster, Some(user))?;
    Ok(cluster)
}

/// Creates a folder if necessary, for the server's user only.
fn give_folder(folder: &Path, user: Option<&User>) -> anyhow::Result<()> {
    datadir::private_dir(folder).context("the folder of PostgreSQL")?;
    let Some(user) = user else { return Ok(()) };
    chown(folder, Some(user.uid), Some(user.gid))
        .with_context(|| format!("can't give {} to {}", folder.display(), user.name))
}

/// The directory with the executables; of the cluster's version if there is a cluster.
pub(crate) fn find(config: &Config, made_by: Option<u32>) -> anyhow::Result<PathBuf> {
    const ADVICE: &str = "`./run` installs it; or name a directory with --postgres-bin-dir";
    let candidates = match &config.postgres_bin_dir {
        Some(set) => vec![set.clone()],
        None => packaged()
            .into_iter()
            .chain(crate::on_path("initdb").and_then(|path| Some(path.parent()?.to_owned())))
            .collect(),
    };
    let mut seen = Vec::new();
    for bin in candidates {
        let Some(major) = major(&bin) else { continue };
        if major >= VERSION_MIN && made_by.is_none_or(|made_by| made_by == major) {
            return Ok(bin);
        }
        seen.push(format!("{major} in {}", bin.display()));
    }
    let wanted = made_by.map_or(format!("{VERSION_MIN} or newer"), |made_by| {
        format!("{made_by}, whose files are in the data directory")
    });
    let seen =
        if seen.is_empty() { String::new() } else { format!(" (found {})", seen.join(", ")) };
    anyhow::bail!("no PostgreSQL {wanted}{seen}: {ADVICE}")
}

/// Debian's and Ubuntu's packages, the newest first.
fn packaged() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, bin)| bin).collect()
}

fn major(bin: &Path) -> Option<u32> {
    if !["initdb", "psql", "pg_isready"].iter().all(|name| bin.join(name).is_file()) {
        return None;
    }
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .env_clear()
        .envs(environment::base(Path::new("/")))
        .output()
        .ok()?;
    major_of(&String::from_utf8_lossy(&output.stdout))
}

/// 15 for `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major_of(text: &str) -> Option<u32> {
    let number = text.split_once(") ")?.1;
    number.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_logged_as_the_documentation_says() {
        let page = include_str!("../../../docs/real-input.md");
        let block =
            page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let documented: Vec<(&str, &str)> = block
            .lines()
            .map(|line| line.split_once(" = ").unwrap())
            .map(|(name, value)| (name, value.trim_matches('\'')))
            // These are set in any case.
            .filter(|(name, _)| !matches!(*name, "logging_collector" | "log_destination"))
            .collect();
        assert_eq!(documented, LOG_STATEMENTS);
    }

    #[test]
    fn versions_are_read_from_what_the_server_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("hello"), None);
    }

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:9:9::/:\npostgres:x:103:107::/:\n";
        let found = account(accounts, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (103, 107));
        assert_eq!(account(accounts, "nobody"), None);
    }
}
