//! The position in each log file, stored in a file that survives crashes.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The id of a log file: its inode number and a hash of its first line. The inode number alone is
/// not enough, because PostgreSQL overwrites old files (`log_truncate_on_rotation`), and the file
/// system reuses inode numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct LogFileId(pub(super) String);

/// The positions, and a lock that only one process can have at a time.
#[derive(Debug)]
pub(super) struct Positions {
    path: PathBuf,
    /// Number of bytes of each file that were read and published.
    read: BTreeMap<LogFileId, u64>,
    _lock: File,
}

impl Positions {
    /// Locks the positions and reads them, if there are any yet.
    ///
    /// # Errors
    ///
    /// Another process uses the positions, or the file can't be read or written.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let lock_path = beside(path, "lock");
        let lock = File::create(&lock_path).with_context(|| {
            format!("the positions can't be kept: {} (--state-file)", lock_path.display())
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "{} is used by another collector: give each its own --state-file",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| lock_path.display().to_string());
            }
        }
        if let Ok(about) = fs::metadata(path) {
            anyhow::ensure!(about.is_file(), "{} is no file (--state-file)", path.display());
        }
        let read = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                let place = path.display();
                format!("{place} has no positions: remove it, and the logs are read again")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let this = Self { path: path.to_owned(), read, _lock: lock };
        // Writes the positions now, so that a path that can't be written is reported before the
        // first line is published.
        this.store()?;
        Ok(this)
    }

    /// Number of bytes of a file that were read; 0 if the file is unknown.
    pub(super) fn of(&self, file: &LogFileId) -> u64 {
        self.read.get(file).copied().unwrap_or(0)
    }

    /// Stores a position, and removes the positions of files that no longer exist.
    ///
    /// # Errors
    ///
    /// The file can't be written; it still contains the previous positions.
    pub(super) fn keep(
        &mut self,
        file: &LogFileId,
        bytes: u64,
        there: &[LogFileId],
    ) -> anyhow::Result<()> {
        self.read.retain(|known, _| there.contains(known));
        self.read.insert(file.clone(), bytes);
        self.store()
    }

    fn store(&self) -> anyhow::Result<()> {
        let new = beside(&self.path, "new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string(&self.read)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().with_context(|| {
            format!("the positions can't be kept in {} (--state-file)", self.path.display())
        })
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> LogFileId {
        LogFileId(name.to_owned())
    }

    #[test]
    fn positions_are_there_again_and_those_of_gone_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let mut positions = Positions::open(&path).unwrap();
        assert_eq!(positions.of(&id("a")), 0);
        positions.keep(&id("a"), 7, &[id("a")]).unwrap();
        positions.keep(&id("b"), 9, &[id("b")]).unwrap();
        drop(positions);
        let positions = Positions::open(&path).unwrap();
        assert_eq!((positions.of(&id("a")), positions.of(&id("b"))), (0, 9));
    }

    #[test]
    fn one_process_has_them_and_what_is_no_position_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let first = Positions::open(&path).unwrap();
        let error = Positions::open(&path).unwrap_err();
        assert!(error.to_string().contains("--state-file"), "{error}");
        drop(first);
        fs::write(&path, "cut o").unwrap();
        let error = Positions::open(&path).unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
        let nowhere = folder.path().join("missing/positions");
        Positions::open(&nowhere).unwrap_err();
        let error = Positions::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("is no file"), "{error}");
    }
}
