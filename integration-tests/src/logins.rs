//! Logins that are rotated while servers and services run.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use crate::postgres::Database;

/// A file that is replaced as Kubernetes and careful people do: written beside it, then renamed.
#[derive(Debug)]
pub struct SecretFile {
    folder: TempDir,
}

impl SecretFile {
    /// A file with this text, in a folder of its own.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub fn with(text: &str) -> Result<Self> {
        let file = Self { folder: tempfile::tempdir()? };
        file.replace(text)?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// The same as text.
    pub fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// Another text, whole at once.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub fn replace(&self, text: &str) -> Result<()> {
        let new = self.folder.path().join("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.path())?)
    }
}

/// What nats-server is told: one user for the services, and one for the tests that is nobody's to
/// rotate.
pub fn users(of_services: &str) -> String {
    format!(
        "authorization {{ users: [ {of_services}, {{ user: test, password: test }} ] }}\n\
         no_auth_user: test\n"
    )
}

/// The same, with the user `lake` for the services.
pub fn user(password: &str) -> String {
    users(&format!("{{ user: lake, password: \"{password}\" }}"))
}

/// A configuration with this part behind a mark in the place of what stands there.
pub fn with(part: &str) -> impl FnOnce(String) -> String {
    const MARK: &str = "# Logins of a test.\n";
    move |config| {
        let kept = config.split(MARK).next().unwrap_or_default();
        format!("{kept}\n{MARK}{part}")
    }
}

/// Gives a login of the database another password, and ends every connection of it.
///
/// # Errors
///
/// What the server answered.
pub fn rotate(database: &Database, login: &str, password: &str) -> Result<()> {
    database.sql(&format!(
        "alter role {login} password '{password}'; \
         select pg_terminate_backend(pid) from pg_stat_activity where usename = '{login}'"
    ))?;
    Ok(())
}
