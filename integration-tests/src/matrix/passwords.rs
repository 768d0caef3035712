//! Passwords of the services: rotated on a server first, and in the file of the services later.

use anyhow::Result;

use crate::logins::{self, SecretFile};
use crate::matrix::faults::Server;
use crate::pipeline::{Networks, Part, Pipeline};

/// Who archives. The roles of the migrations have no password.
const ARCHIVER: &str = "lakegauge_matrix_archiver";

/// What stands in the files of the services, and how often each server's was rotated.
#[derive(Debug)]
pub(crate) struct Passwords {
    nats: SecretFile,
    nats_rotated: u32,
    /// The address of the archive, with its password.
    postgres: SecretFile,
    postgres_rotated: u32,
}

fn password(rotated: u32) -> String {
    format!("matrix-{rotated}-secret")
}

impl Passwords {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            nats: SecretFile::with(&password(0))?,
            nats_rotated: 0,
            postgres: SecretFile::with("")?,
            postgres_rotated: 0,
        })
    }

    /// What nats-server is told.
    pub(crate) fn of_nats(&self) -> impl FnOnce(String) -> String + use<> {
        let user = logins::user(&password(self.nats_rotated));
        move |config| logins::with(&user)(config)
    }

    /// Lets the services that are started from now on log in with them.
    pub(crate) fn give(&self, pipeline: &mut Pipeline, networks: &Networks) -> Result<()> {
        pipeline.set("NATS_USER", "lake");
        pipeline.set("NATS_PASSWORD_FILE", &self.nats.shown());
        let address = pipeline.database.demand_password(ARCHIVER, &password(0))?;
        pipeline.database.sql(&format!("grant lakegauge_archiver to {ARCHIVER}"))?;
        self.postgres
            .replace(&pipeline.postgres.url_through(&address, networks.postgres.port())?)?;
        pipeline.database_url_in(Part::Archiver, &self.postgres.path());
        Ok(())
    }

    /// Another password on the server only.
    pub(crate) fn rotate(&mut self, server: Server, pipeline: &Pipeline) -> Result<()> {
        match server {
            Server::Nats => {
                self.nats_rotated += 1;
                pipeline.nats.reload_with(self.of_nats())
            }
            Server::Postgres => {
                self.postgres_rotated += 1;
                let password = password(self.postgres_rotated);
                logins::rotate(&pipeline.database, ARCHIVER, &password)
            }
        }
    }

    /// The same password in the file.
    pub(crate) fn tell(&self, server: Server) -> Result<()> {
        match server {
            Server::Nats => self.nats.replace(&password(self.nats_rotated)),
            Server::Postgres => {
                let address = std::fs::read_to_string(self.postgres.path())?;
                let rotated = self.postgres_rotated;
                let (before, now) = (password(rotated - 1), password(rotated));
                self.postgres.replace(&address.replace(&before, &now))
            }
        }
    }
}
