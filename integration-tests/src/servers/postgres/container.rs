//! PostgreSQL in a container: a server of its own, or one that the tests of a process share.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use anyhow::{Result, bail};

use super::{ADMIN, Database, POLL, roles};
use crate::docker::{Container, Image, Recipe};

/// From creation, with `initdb`, to the first connection; a busy machine is slow, not broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// Its port in the container.
const PORT: u16 = 5432;
/// No test cuts the power; a killed server loses nothing that the system has.
const SETTINGS: [&str; 5] = [
    "fsync=off",
    "shared_buffers=64MB",
    "max_wal_size=1GB",
    "jit=off",
    // Tests that share a server run side by side.
    "max_connections=300",
];

/// The one that is shared, as long as a test uses it.
static SHARED: Mutex<Weak<PgContainer>> = Mutex::new(Weak::new());

/// A server with the roles of Supabase.
#[derive(Debug)]
pub(super) struct PgContainer {
    pub(super) container: Container,
    pub(super) port: u16,
}

impl PgContainer {
    pub(super) fn start(image: &Image) -> Result<Self> {
        let arguments = SETTINGS.into_iter().flat_map(|set| ["-c".to_owned(), set.to_owned()]);
        let environment = [
            ("POSTGRES_USER", ADMIN),
            ("POSTGRES_DB", "postgres"),
            ("POSTGRES_HOST_AUTH_METHOD", "trust"),
            ("POSTGRES_INITDB_ARGS", "-E UTF8 --no-locale --no-sync"),
        ];
        let container = Container::start(Recipe {
            image,
            arguments: arguments.collect(),
            environment: environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ports: vec![PORT],
            folder: None,
            user: None,
        })?;
        let port = container.port(PORT)?;
        let server = Self { container, port };
        server.await_connections()?;
        server.everything().sql(&roles())?;
        Ok(server)
    }

    /// The one that others use as well, or a new one.
    pub(super) fn shared(image: &Image) -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(Self::start(image)?);
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// At once, as a crash would: no transaction ends, no checkpoint is made.
    pub(super) fn stop_immediately(&self) -> Result<()> {
        self.container.kill("QUIT")
    }

    pub(super) fn start_again(&self) -> Result<()> {
        self.container.start_again()?;
        self.await_connections()
    }

    pub(super) fn admin(&self) -> String {
        format!("postgres://{ADMIN}@127.0.0.1:{}", self.port)
    }

    fn everything(&self) -> Database {
        Database { name: "postgres".to_owned(), admin: self.admin() }
    }

    fn await_connections(&self) -> Result<()> {
        let tries = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..tries {
            if self.everything().sql("select 1").is_ok() {
                return Ok(());
            }
            if !self.container.is_running()? {
                bail!("postgres ended:\n{}", self.container.log_end());
            }
            std::thread::sleep(POLL);
        }
        bail!("no connections within {PATIENCE:?}:\n{}", self.container.log_end())
    }
}
