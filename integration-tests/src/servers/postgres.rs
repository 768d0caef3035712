//! A real PostgreSQL for each test: a given server, a container, or a private cluster of an installed
//! one.
//!
//! A cluster is a copy of one that was made once per machine and release, so it starts within half a
//! second. Every server has the roles of Supabase, and its databases belong to a role that is no superuser.

mod container;
mod local;

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use event_store::StoreSettings;

use crate::{
    docker::{Container, Image},
    servers::{self, Way},
};
use container::PgContainer;
use local::Private;

/// The superuser of private clusters.
pub const ADMIN: &str = "lakegauge_admin";
/// Who owns the databases, like Supabase's `postgres`: no superuser, may create roles.
pub const OWNER: &str = "lakegauge_owner";
/// Logs in as the archiver does.
pub const ARCHIVER: &str = "lakegauge_test_archiver";
/// Logs in as readers do.
pub const READER: &str = "lakegauge_test_reader";
/// What a server that was asked to stop or start gets.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

const GIVEN: [&str; 2] = ["TEST_DATABASE_URL", "DATABASE_URL"];

/// The roles and the default rights of a Supabase project, as far as they matter here.
const SUPABASE: &str = include_str!("postgres/supabase.sql");

const NOT_PRIVATE: &str = "this server is not of one test alone: use start_private";

static NEXT_DATABASE: AtomicU32 = AtomicU32::new(0);
/// A server. Ends with the value, if it is a private one.
#[derive(Debug)]
pub struct PostgresServer {
    /// `postgres://user@host:port`, without a database.
    admin: String,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    /// Somebody else's.
    Given,
    /// Of all tests of this process.
    Shared(#[expect(dead_code, reason = "held, so that it stays")] Arc<PgContainer>),
    Container(PgContainer),
    Local(Private),
}

/// A migrated database of its own.
#[derive(Clone, Debug)]
pub struct Database {
    name: String,
    admin: String,
}

impl PostgresServer {
    /// The server given by `TEST_DATABASE_URL` or `DATABASE_URL` (of a superuser), a container that
    /// all tests of this process share, or a private one of this machine.
    ///
    /// # Errors
    ///
    /// There is neither; the error says what to provide.
    pub fn start() -> anyhow::Result<Self> {
        match given() {
            Some(url) => {
                let (server, _) =
                    url.rsplit_once('/').context("the given URL names no database")?;
                Ok(Self { admin: server.to_owned(), backing: Backing::Given })
            }
            None => match servers::way()? {
                Way::Containers { postgres, .. } => {
                    let server = PgContainer::shared(&postgres)?;
                    Ok(Self { admin: server.admin(), backing: Backing::Shared(server) })
                }
                Way::Local => Self::start_local(),
            },
        }
    }

    /// A private server, that can be stopped and started again: a container, or of this machine.
    ///
    /// # Errors
    ///
    /// There is neither an image nor a PostgreSQL, or it did not start.
    pub fn start_private() -> anyhow::Result<Self> {
        match servers::way()? {
            Way::Containers { postgres, .. } => Self::start_container(&postgres),
            Way::Local => Self::start_local(),
        }
    }

    /// A container of this image, of its own.
    ///
    /// # Errors
    ///
    /// No Docker engine answers, or it did not start.
    pub fn start_container(image: &Image) -> anyhow::Result<Self> {
        let server = PgContainer::start(image)?;
        Ok(Self { admin: server.admin(), backing: Backing::Container(server) })
    }

    /// A private server of this machine, whose files can be read and written.
    ///
    /// # Errors
    ///
    /// No PostgreSQL is installed, or it did not start.
    pub fn start_local() -> anyhow::Result<Self> {
        let private = Private::of_template()?;
        let port = private.port;
        let admin = format!("postgres://{ADMIN}@127.0.0.1:{port}");
        Ok(Self { admin, backing: Backing::Local(private) })
    }

    /// A new database, migrated by an owner who is no superuser.
    ///
    /// # Errors
    ///
    /// It could not be made or migrated.
    pub async fn database(&self) -> anyhow::Result<Database> {
        let database = self.empty_database()?;
        event_store::migrate(&database.owner(), |_| ()).await?;
        database.logins()?;
        Ok(database)
    }

    /// A new database without anything of ours.
    ///
    /// # Errors
    ///
    /// It could not be made.
    pub fn empty_database(&self) -> anyhow::Result<Database> {
        let number = NEXT_DATABASE.fetch_add(1, Ordering::Relaxed);
        let name = format!("lakegauge_test_{}_{number}", std::process::id());
        let database = Database { name, admin: self.admin.clone() };
        let all = Database { name: "postgres".to_owned(), admin: self.admin.clone() };
        all.sql(&format!("drop database if exists {} with (force)", database.name))?;
        if matches!(self.backing, Backing::Given) {
            all.sql(&roles())?;
        }
        all.sql(&format!("create database {} owner {OWNER}", database.name))?;
        database.sql(SUPABASE)?;
        Ok(database)
    }

    /// A new database of another encoding, without anything of ours.
    ///
    /// # Errors
    ///
    /// It could not be made.
    pub fn database_of_encoding(&self, encoding: &str) -> anyhow::Result<Database> {
        let name = format!("lakegauge_test_{}", encoding.to_lowercase());
        let all = Database { name: "postgres".to_owned(), admin: self.admin.clone() };
        all.sql(&format!(
            "create database {name} encoding '{encoding}' locale 'C' template template0 \
             owner {OWNER}"
        ))?;
        Ok(Database { name, admin: self.admin.clone() })
    }

    /// The port of a private server.
    ///
    /// # Errors
    ///
    /// It is not private.
    pub fn port(&self) -> anyhow::Result<u16> {
        match &self.backing {
            Backing::Local(private) => Ok(private.port),
            Backing::Container(server) => Ok(server.port),
            Backing::Given | Backing::Shared(_) => bail!(NOT_PRIVATE),
        }
    }

    /// The container that it is, for what only a network can do.
    ///
    /// # Errors
    ///
    /// It is none of its own.
    pub fn container(&self) -> anyhow::Result<&Container> {
        match &self.backing {
            Backing::Container(server) => Ok(&server.container),
            Backing::Local(_) | Backing::Given | Backing::Shared(_) => {
                bail!("this server is no container of its own")
            }
        }
    }

    /// An address of a private server through another port.
    ///
    /// # Errors
    ///
    /// It is not private.
    pub fn url_through(&self, url: &str, port: u16) -> anyhow::Result<String> {
        Ok(url.replacen(&format!(":{}/", self.port()?), &format!(":{port}/"), 1))
    }

    /// Stops a private server at once, as a crash would: what was not committed is gone.
    ///
    /// # Errors
    ///
    /// It is not private, or did not end.
    pub fn stop_immediately(&mut self) -> anyhow::Result<()> {
        match &mut self.backing {
            Backing::Local(private) => private.stop(),
            Backing::Container(server) => server.stop_immediately(),
            Backing::Given | Backing::Shared(_) => bail!(NOT_PRIVATE),
        }
    }

    /// Starts a private server again, at the same address.
    ///
    /// # Errors
    ///
    /// It is not private, or did not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        match &mut self.backing {
            Backing::Local(private) => private.start(),
            Backing::Container(server) => server.start_again(),
            Backing::Given | Backing::Shared(_) => bail!(NOT_PRIVATE),
        }
    }
}

impl Database {
    /// As the owner, who migrates.
    pub fn owner(&self) -> StoreSettings {
        self.settings(OWNER)
    }

    /// As the archiver.
    pub fn archiver(&self) -> StoreSettings {
        self.settings(ARCHIVER)
    }

    /// As a reader.
    pub fn reader(&self) -> StoreSettings {
        self.settings(READER)
    }

    /// The address as a role.
    pub fn url_as(&self, role: &str) -> String {
        match self.admin.split_once("://") {
            Some((scheme, rest)) => {
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                format!("{scheme}://{role}@{host}/{}?sslmode=disable", self.name)
            }
            None => self.admin.clone(),
        }
    }

    /// Address of the archiver's login.
    pub fn archiver_url(&self) -> String {
        self.url_as(ARCHIVER)
    }

    /// Address of a reader's login.
    pub fn reader_url(&self) -> String {
        self.url_as(READER)
    }

    /// Everything but our two schemas, as `pg_dump` writes it with rows, rights and the database's
    /// own settings; with `whole`, everything.
    ///
    /// # Errors
    ///
    /// `pg_dump` is missing or older than the server.
    pub fn dump(&self, whole: bool) -> anyhow::Result<String> {
        let others = ["--exclude-schema=lakegauge", "--exclude-schema=lakegauge_api"];
        let others = others.into_iter().filter(|_| !whole);
        let mut command = Command::new("pg_dump");
        command.arg("--create").args(others).args(["-d", &self.url_as(ADMIN)]);
        text_of(command)
    }

    /// Every role of the server, with its settings and memberships, as `pg_dumpall` writes it;
    /// without what has to do with the two that are ours.
    ///
    /// # Errors
    ///
    /// `pg_dumpall` is missing or older than the server.
    pub fn other_roles(&self) -> anyhow::Result<String> {
        let mut command = Command::new("pg_dumpall");
        command.args(["--roles-only", "-d", &self.url_as(ADMIN)]);
        let text = text_of(command)?;
        let ours = ["lakegauge_archiver", "lakegauge_reader"];
        let theirs = text.lines().filter(|line| !ours.iter().any(|role| line.contains(role)));
        Ok(theirs.collect::<Vec<_>>().join("\n"))
    }

    /// A login that must give this password, and whose address is this with it.
    ///
    /// # Errors
    ///
    /// It could not be made, or the server goes on letting it in without.
    pub fn demand_password(&self, login: &str, password: &str) -> anyhow::Result<String> {
        self.sql(&format!(
            "create role {login} login password '{password}'; \
             copy (select 'host all {login} all scram-sha-256' union all \
                 select 'host all all all trust') to '{}'; \
             select pg_reload_conf()",
            self.value("show hba_file")?
        ))?;
        let tries = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..tries {
            let address = self.url_as(&format!("{login}:not-{password}"));
            if psql(&address, "select 1").is_err() {
                return Ok(self.url_as(&format!("{login}:{password}")));
            }
            std::thread::sleep(POLL);
        }
        bail!("the server does not ask {login} for a password")
    }

    fn settings(&self, role: &str) -> StoreSettings {
        StoreSettings::new(self.url_as(role), format!("test {role}"))
    }

    /// Runs SQL as superuser, by `psql`: eyes of their own. Gives back rows, fields by `|`.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub fn sql(&self, sql: &str) -> anyhow::Result<Vec<String>> {
        self.sql_as(None, sql)
    }

    /// Runs SQL under the rights of a role.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub fn sql_as(&self, role: Option<&str>, sql: &str) -> anyhow::Result<Vec<String>> {
        let set = role.map(|role| format!("set role {role};\n")).unwrap_or_default();
        psql(&format!("{}/{}", self.admin, self.name), &format!("{set}{sql}"))
    }

    /// Runs SQL after logging in as a role.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub fn sql_by(&self, login: &str, sql: &str) -> anyhow::Result<Vec<String>> {
        psql(&self.url_as(login), sql)
    }

    /// One value, as text.
    ///
    /// # Errors
    ///
    /// What the server answered, or no row.
    pub fn value(&self, sql: &str) -> anyhow::Result<String> {
        self.sql(sql)?.into_iter().next().context("no row")
    }

    /// One number.
    ///
    /// # Errors
    ///
    /// What the server answered, or no number.
    pub fn number(&self, sql: &str) -> anyhow::Result<i64> {
        Ok(self.value(sql)?.parse()?)
    }

    /// Puts the logins into the groups that migrations made.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub fn logins(&self) -> anyhow::Result<()> {
        self.sql(&format!(
            "grant lakegauge_archiver to {ARCHIVER}; grant lakegauge_reader to {READER}"
        ))?;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "tests take their servers from the environment")]
fn given() -> Option<String> {
    GIVEN.iter().find_map(|key| std::env::var(key).ok()).filter(|url| !url.is_empty())
}

fn roles() -> String {
    let mut sql = String::from("do $$ begin\n");
    let roles = [
        ("anon", "nologin"),
        ("authenticated", "nologin"),
        ("service_role", "nologin bypassrls"),
        (OWNER, "login createdb createrole"),
        (ARCHIVER, "login"),
        (READER, "login"),
    ];
    for (role, options) in roles {
        sql.push_str(&format!(
            "if not exists (select from pg_roles where rolname = '{role}') then \
             create role {role} {options}; end if;\n"
        ));
    }
    sql.push_str("end $$");
    sql
}

/// What a command writes, without the lines that hold a random word.
fn text_of(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("can't start {command:?}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    let random = |line: &str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
    Ok(text.lines().filter(|line| !random(line)).collect::<Vec<_>>().join("\n"))
}

fn psql(address: &str, sql: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", address, "-c", sql])
        .env("PGCONNECT_TIMEOUT", "10")
        .output()
        .context("psql is not installed: install postgresql-client")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
