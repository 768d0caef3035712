//! The data directory: its paths, and a lock so that only one `up` uses it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::addresses::SECRETS;

/// Only the owner may read the contents.
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Others may pass through but not list the folder. As root, we need this for PostgreSQL's user on
/// the way to its files.
const PASSABLE_DIR: u32 = 0o711;
/// Bytes of randomness in a generated password.
const PASSWORD_BYTES: usize = 18;
/// A larger log is renamed at the next start, and replaces the previous renamed one.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The file that marks a directory as ours and is locked while it is in use.
const LOCK: &str = "lock";

/// A data directory that this process has locked until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it does not exist, and takes its lock.
    ///
    /// The modes of what is created here do not depend on the umask, and wrong modes are corrected.
    ///
    /// # Errors
    ///
    /// Another `up` uses the directory, it can't be written, or its path is not allowed.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        real_path(path)?;
        let is_new = !path.exists();
        fs::create_dir_all(path).with_context(|| format!("can't make {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("can't find {}", path.display()))?;
        let is_ours = is_new || path.join(LOCK).exists();
        let lock = open_private(&path.join(LOCK), OpenOptions::new().write(true))?;
        // The kernel releases the lock however the process ends.
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |_| {
                anyhow::anyhow!(
                    "another `up` is using {}: stop it, or give this one a --data-dir of its own",
                    path.display()
                )
            },
        )?;
        if is_ours && rustix::process::geteuid().is_root() {
            give_mode(&path, PASSABLE_DIR)?;
        } else if is_new {
            give_mode(&path, PRIVATE_DIR)?;
        }
        let dir = Self { path, _lock: lock };
        for name in ["logs", "expected", "nats", "prometheus", SECRETS] {
            private_dir(&dir.at(name))?;
        }
        for name in ["prometheus/targets", "prometheus/rules"] {
            private_dir(&dir.at(name))?;
        }
        Ok(dir)
    }

    /// A path in the data directory.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The log of a part. A long log is renamed first.
    pub(crate) fn log(&self, part: &str) -> PathBuf {
        let log = self.at("logs").join(format!("{part}.log"));
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            // If a log can't be renamed, the part appends to it.
            fs::rename(&log, log.with_extension("log.1")).unwrap_or_default();
        }
        log
    }

    /// The password of this name, created at the first use.
    pub(crate) fn password(&self, name: &str) -> anyhow::Result<String> {
        let path = self.at(SECRETS).join(name);
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

    /// Writes a file that only the owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        write_private(&self.at(name), text)
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = open_private(path, OpenOptions::new().write(true).truncate(true))?;
    file.write_all(text.as_bytes()).with_context(|| format!("can't write {}", path.display()))
}

/// Opens a file of ours and creates it if necessary. Only the owner may read it, whatever the umask
/// and its earlier mode.
fn open_private(path: &Path, how: &mut OpenOptions) -> anyhow::Result<File> {
    let file = how
        .create(true)
        .mode(PRIVATE_FILE)
        .open(path)
        .with_context(|| format!("can't write {}", path.display()))?;
    file.set_permissions(fs::Permissions::from_mode(PRIVATE_FILE))
        .with_context(|| format!("can't protect {}", path.display()))?;
    Ok(file)
}

/// Creates a folder if necessary, and allows only its owner to enter it.
pub(crate) fn private_dir(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("can't make {}", path.display()))?;
    give_mode(path, PRIVATE_DIR)
}

/// Creates a folder if necessary, and allows others to pass through it.
pub(crate) fn passable_dir(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("can't make {}", path.display()))?;
    give_mode(path, PASSABLE_DIR)
}

fn give_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("can't set the mode of {}", path.display()))
}

/// The real path of a data directory that exists or will be created; links are followed.
///
/// # Errors
///
/// The path contains characters that can't be used in a setting, a log line or a database's
/// address. All other characters are allowed: no path is written into a file, since the parts run
/// in the directory.
pub(crate) fn real_path(path: &Path) -> anyhow::Result<PathBuf> {
    let absolute = std::path::absolute(path).context("the data directory has no path")?;
    let mut existing = absolute.as_path();
    while let (false, Some(parent)) = (existing.exists(), existing.parent()) {
        existing = parent;
    }
    let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
    let real = existing.canonicalize().with_context(|| format!("{}", existing.display()))?;
    let real = real.join(rest);
    for path in [&absolute, &real] {
        let text = path.to_str();
        anyhow::ensure!(
            text.is_some_and(|text| !text.contains(char::is_control)),
            "--data-dir: {path:?} has characters that no setting can have (line breaks and other \
             control characters, or bytes that are not UTF-8): choose another"
        );
    }
    Ok(real)
}

/// Whether a user who owns none of the folders above the path can enter all of them.
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
        assert_eq!(mode(&dir.at("secrets/archiver")), PRIVATE_FILE);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_mode_of_ours_that_is_wrong_is_mended() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("data");
        drop(DataDir::open(&path).unwrap());
        for (name, wrong) in [("secrets", 0o777), ("logs", 0o000), ("lock", 0o666)] {
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(wrong)).unwrap();
        }
        fs::write(path.join("secrets/archiver"), "known").unwrap();
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(mode(&dir.at("secrets")), PRIVATE_DIR);
        assert_eq!(mode(&dir.at("logs")), PRIVATE_DIR);
        assert_eq!(mode(&dir.at("lock")), PRIVATE_FILE);
        dir.write("secrets/archiver", "new").unwrap();
        assert_eq!(mode(&dir.at("secrets/archiver")), PRIVATE_FILE);
    }

    #[test]
    fn a_path_that_no_setting_can_have_is_refused_before_anything_is_made() {
        use std::os::unix::ffi::OsStrExt as _;
        let scratch = tempfile::tempdir().unwrap();
        for name in [&b"a\nb"[..], b"a\x1b[2Jb", b"a\xffb", b"a\xc2\x85b"] {
            let path = scratch.path().join(std::ffi::OsStr::from_bytes(name));
            let error = DataDir::open(&path.join("data")).unwrap_err().to_string();
            assert!(error.contains("--data-dir") && !error.contains('\n'), "{error}");
            assert!(!path.exists());
            // The same applies behind a link, or above one.
            fs::create_dir(&path).unwrap();
            std::os::unix::fs::symlink(&path, scratch.path().join("link")).unwrap();
            assert!(DataDir::open(&scratch.path().join("link/data")).is_err());
            fs::remove_file(scratch.path().join("link")).unwrap();
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        }
    }
}
