//! The data directory: where things are, and that only one `up` uses it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Only its owner may read what is in here.
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Bytes of randomness in a generated password.
const PASSWORD_BYTES: usize = 18;
/// A log that has grown beyond this is put aside at the next start, over the one before.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where there is none, and takes its lock.
    ///
    /// # Errors
    ///
    /// Another `up` has it, or it can't be written.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("can't make {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("can't find {}", path.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .with_context(|| format!("can't write in {}", path.display()))?;
        // The kernel gives the lock back however the process ends.
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |_| {
                anyhow::anyhow!(
                    "another `up` is using {}: stop it, or give this one a --data-dir of its own",
                    path.display()
                )
            },
        )?;
        let dir = Self { path, _lock: lock };
        for name in ["logs", "books", "nats", "prometheus/targets", "prometheus/rules"] {
            fs::create_dir_all(dir.at(name)).with_context(|| format!("can't make {name}"))?;
        }
        fs::create_dir_all(dir.at("secrets")).context("can't make secrets")?;
        fs::set_permissions(dir.at("secrets"), fs::Permissions::from_mode(PRIVATE_DIR))
            .context("can't protect secrets")?;
        Ok(dir)
    }

    /// A path in here.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The log of a part, put aside first where it has grown long.
    pub(crate) fn log(&self, part: &str) -> PathBuf {
        let log = self.at("logs").join(format!("{part}.log"));
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            // A log that can't be put aside is written on.
            fs::rename(&log, log.with_extension("log.1")).unwrap_or_default();
        }
        log
    }

    /// The password of this name, made on first use.
    pub(crate) fn password(&self, name: &str) -> anyhow::Result<String> {
        let path = self.at("secrets").join(name);
        if let Ok(password) = fs::read_to_string(&path) {
            return Ok(password.trim().to_owned());
        }
        let mut random = [0_u8; PASSWORD_BYTES];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut random))
            .context("no randomness for a password")?;
        let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&path, &password)?;
        Ok(password)
    }

    /// Writes a file for people and scripts.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.at(name);
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_private(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.at(name);
        write_private(&path, text)?;
        Ok(path)
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(PRIVATE_FILE)
        .open(path)
        .with_context(|| format!("can't write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("can't write {}", path.display()))
}

/// Whether every folder above the path can be entered by somebody who owns none of them.
pub(crate) fn is_reachable_by_others(path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .all(|folder| fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & 0o001 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_belongs_to_one() {
        let scratch = tempfile::tempdir().unwrap();
        let first = DataDir::open(&scratch.path().join("data")).unwrap();
        let error = DataDir::open(&scratch.path().join("data")).unwrap_err().to_string();
        assert!(error.contains("another `up` is using"), "{error}");
        drop(first);
        DataDir::open(&scratch.path().join("data")).unwrap();
    }

    #[test]
    fn a_password_is_made_once_and_private() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let password = dir.password("archiver").unwrap();
        assert_eq!(password.len(), 2 * PASSWORD_BYTES);
        assert_eq!(dir.password("archiver").unwrap(), password);
        assert_ne!(dir.password("aggregator").unwrap(), password);
        let mode = fs::metadata(dir.at("secrets/archiver")).unwrap().mode();
        assert_eq!(mode & 0o777, PRIVATE_FILE);
    }
}
