//! Counts the files below a folder. Each entry is examined once, and nothing is changed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirEntry, Metadata, ReadDir};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use domain::{objects::object_key, partition};

/// Maximum number of nested folders that are open at the same time, and so the maximum depth that
/// is read. Each open folder needs a file handle and a buffer of 32 KiB.
const FOLDERS_OPEN_MAX: usize = 256;

/// A folder that is to be counted.
pub(crate) struct Walk<'a> {
    /// Path of the folder.
    pub(crate) root: &'a Path,
    /// The bucket as which the folder is counted.
    pub(crate) bucket: &'a str,
    /// Number of partitions of the lake.
    pub(crate) partitions: u16,
    /// Opens a folder. This is `std::fs::read_dir`, except in tests.
    pub(crate) open: &'a dyn Fn(&Path) -> io::Result<ReadDir>,
    /// Returns whether the walk must stop. Called at each entry.
    pub(crate) is_stopped: &'a dyn Fn() -> bool,
}

/// The result of a walk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// Everything was counted. Contains the share of each partition, in the order of the
    /// partitions.
    Whole(Vec<Share>),
    /// Something could not be read, so the sums are unknown.
    Incomplete(Unreadable),
    /// The walk was stopped.
    Stopped,
}

/// The number and the size of the files of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Number of files.
    pub(crate) objects: u64,
    /// Sum of the file lengths, in bytes.
    pub(crate) bytes: u64,
}

/// The entries that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Number of folders and files that could not be read.
    pub(crate) entries: u64,
    /// Path of the first of them, with the error.
    pub(crate) first: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entries {
            1 => write!(f, "can't read {}", self.first),
            entries => write!(f, "can't read {entries} entries, the first is {}", self.first),
        }
    }
}

impl Walk<'_> {
    /// Counts every regular file below the folder once, even if the file has several names (hard
    /// links). Symbolic links below the folder are not followed. Files and folders that vanish
    /// during the walk are not counted.
    ///
    /// Memory is bounded by the depth of the folder and by the number of files with several names.
    pub(crate) fn run(&self) -> Walked {
        let mut sums = Sums::of(self);
        let before = match sums.root() {
            Ok(identity) => identity,
            Err(error) => return sums.incomplete(self.root, &error),
        };
        let mut open: Vec<(PathBuf, ReadDir)> = Vec::new();
        match (self.open)(self.root) {
            Ok(entries) => open.push((self.root.to_owned(), entries)),
            Err(error) => return sums.incomplete(self.root, &error),
        }
        while let Some((folder, entries)) = open.last_mut() {
            let Some(next) = entries.next() else {
                open.pop();
                continue;
            };
            if (self.is_stopped)() {
                return Walked::Stopped;
            }
            let entry = match next {
                Ok(entry) => entry,
                Err(error) => {
                    sums.unreadable(folder, &error);
                    open.pop();
                    continue;
                }
            };
            match sums.look(&entry, open.len()) {
                Ok(Some(inner)) => open.push((entry.path(), inner)),
                Ok(None) => {}
                Err(error) if has_vanished(&error) => {}
                Err(error) => sums.unreadable(&entry.path(), &error),
            }
        }
        // If another folder took this folder's place, every old entry seems to have vanished,
        // although it still exists elsewhere. The sums would be too low.
        match sums.root() {
            Ok(after) if after == before => sums.end(),
            Ok(_) => {
                let error = io::Error::other("another folder took its place during the walk");
                sums.incomplete(self.root, &error)
            }
            Err(error) => sums.incomplete(self.root, &error),
        }
    }
}

/// The sums of a walk so far.
struct Sums<'a> {
    walk: &'a Walk<'a>,
    shares: Vec<Share>,
    /// Device and inode of each counted file that has several names.
    linked: BTreeSet<(u64, u64)>,
    unreadable: Option<Unreadable>,
}

impl<'a> Sums<'a> {
    fn of(walk: &'a Walk<'a>) -> Self {
        let shares = vec![Share::default(); usize::from(walk.partitions.max(1))];
        Self { walk, shares, linked: BTreeSet::new(), unreadable: None }
    }

    /// Device and inode of the folder itself. Its path may be a symbolic link, which is followed.
    fn root(&self) -> io::Result<(u64, u64)> {
        fs::metadata(self.walk.root).map(|found| (found.dev(), found.ino()))
    }

    /// Counts an entry of a folder at the given depth. If the entry is a folder, it is opened and
    /// returned.
    fn look(&mut self, entry: &DirEntry, depth: usize) -> io::Result<Option<ReadDir>> {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if depth >= FOLDERS_OPEN_MAX {
                let text = format!("is deeper than {FOLDERS_OPEN_MAX} folders");
                return Err(io::Error::other(text));
            }
            return (self.walk.open)(&entry.path()).map(Some);
        }
        if kind.is_file() {
            let file = entry.metadata()?;
            if file.is_file() {
                self.count(&entry.path(), &file);
            }
        }
        Ok(None)
    }

    fn count(&mut self, path: &Path, file: &Metadata) {
        if file.nlink() > 1 && !self.linked.insert((file.dev(), file.ino())) {
            return;
        }
        let Walk { root, bucket, partitions, .. } = self.walk;
        let key = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
        let partition = partition::of_object(&object_key(bucket, &key), *partitions);
        if let Some(share) = self.shares.get_mut(usize::from(partition)) {
            share.objects = share.objects.saturating_add(1);
            share.bytes = share.bytes.saturating_add(file.len());
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let found = self.unreadable.get_or_insert_with(|| Unreadable {
            entries: 0,
            first: format!("{}: {error}", path.display()),
        });
        found.entries = found.entries.saturating_add(1);
    }

    fn incomplete(mut self, path: &Path, error: &io::Error) -> Walked {
        self.unreadable(path, error);
        self.end()
    }

    fn end(self) -> Walked {
        match self.unreadable {
            Some(unreadable) => Walked::Incomplete(unreadable),
            None => Walked::Whole(self.shares),
        }
    }
}

/// Whether an entry was removed, or is no longer a folder.
fn has_vanished(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
