//! Reads complete lines from log files that grow, are rotated and are overwritten.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::positions::{LogFileId, Positions};

/// Number of bytes that are read at once. A longer line becomes a dead letter without its bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Number of bytes of the first line that identify a file. They contain the time, the process and
/// the session.
const NAME_BYTES: usize = 512;

/// Complete lines of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    file: LogFileId,
    /// Position in the file behind the lines.
    end: u64,
    /// The lines; `None` if the next line is longer than `CHUNK_BYTES`.
    pub(super) lines: Option<Vec<u8>>,
}

/// A log file, or the log files of a folder.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    positions: Positions,
    /// The files that existed when they were last listed.
    there: Vec<LogFileId>,
}

impl Follower {
    /// Opens the stored positions, at which reading resumes.
    ///
    /// # Errors
    ///
    /// Another process uses the positions, or they can't be read or written.
    pub(super) fn open(path: &Path, state_file: &Path) -> anyhow::Result<Self> {
        let positions = Positions::open(state_file)?;
        Ok(Self { path: path.to_owned(), positions, there: Vec::new() })
    }

    /// The next lines of the least recently changed file that has unread lines; `None` if
    /// everything is read. Returns the same lines again until they are given to
    /// [`Follower::passed`].
    ///
    /// # Errors
    ///
    /// There is no file, or a file can't be read.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        self.there.clear();
        let mut next = None;
        for path in self.files()? {
            let file = match File::open(&path) {
                Ok(file) => file,
                // The file was removed after it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            };
            // A file can't be identified before its first line is written.
            let Some((id, length)) = identify(&file)? else { continue };
            if next.is_none() {
                let position = self.positions.of(&id);
                let position = if position > length { 0 } else { position };
                if position < length {
                    next = lines_after(&file, &id, position)
                        .with_context(|| path.display().to_string())?;
                }
            }
            self.there.push(id);
        }
        Ok(next)
    }

    /// Stores the position behind the lines of a chunk.
    ///
    /// # Errors
    ///
    /// The position can't be stored.
    pub(super) fn passed(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        self.positions.keep(&chunk.file, chunk.end, &self.there)
    }

    /// The paths of the files, the least recently changed file first.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let place = || self.path.display().to_string();
        let about = fs::metadata(&self.path).with_context(place)?;
        if about.is_file() {
            return Ok(vec![self.path.clone()]);
        }
        // Opening a named pipe would block until another process writes to it.
        anyhow::ensure!(about.is_dir(), "{} is neither a file nor a folder", place());
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).with_context(place)? {
            let path = entry.with_context(place)?.path();
            if path.extension() != Some(OsStr::new("json")) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(about) if about.is_file() => files.push((about.modified()?, path)),
                Ok(_) => {}
                // The file was removed after it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        anyhow::ensure!(
            !files.is_empty(),
            "{} has no file *.json: is log_destination = 'jsonlog' set?",
            self.path.display()
        );
        files.sort();
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }
}

/// The id and the length of a file. `None` until its first line, or the first `NAME_BYTES` bytes of
/// it, are written.
fn identify(mut file: &File) -> io::Result<Option<(LogFileId, u64)>> {
    let about = file.metadata()?;
    let mut beginning = vec![0; NAME_BYTES];
    file.seek(SeekFrom::Start(0))?;
    let length = read_full(file, &mut beginning)?;
    beginning.truncate(length);
    let line = match beginning.iter().position(|byte| *byte == b'\n') {
        Some(end) => beginning.get(..end),
        None => Some(&*beginning).filter(|line| line.len() == NAME_BYTES),
    };
    Ok(line.map(|line| {
        let hash = blake3::hash(line).to_hex();
        (LogFileId(format!("{:x}-{:.16}", about.ino(), hash)), about.len())
    }))
}

/// The complete lines behind a position, at most [`CHUNK_BYTES`] bytes of them.
fn lines_after(mut file: &File, id: &LogFileId, position: u64) -> io::Result<Option<Chunk>> {
    file.seek(SeekFrom::Start(position))?;
    let mut bytes = vec![0; CHUNK_BYTES];
    let length = read_full(file, &mut bytes)?;
    bytes.truncate(length);
    let chunk = |lines: Option<Vec<u8>>, length: u64| {
        Some(Chunk { file: id.clone(), end: position.saturating_add(length), lines })
    };
    if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
        bytes.truncate(last.saturating_add(1));
        let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        return Ok(chunk(Some(bytes), length));
    }
    if bytes.len() < CHUNK_BYTES {
        return Ok(None);
    }
    Ok(end_of_line(file)?
        .and_then(|more| chunk(None, u64::try_from(CHUNK_BYTES).ok()?.saturating_add(more))))
}

/// Number of bytes from the file's current position to the end of the line; `None` if the end of
/// the line is not written yet.
fn end_of_line(mut file: &File) -> io::Result<Option<u64>> {
    let mut block = vec![0; CHUNK_BYTES];
    let mut passed = 0_u64;
    loop {
        let length = read_full(&mut file, &mut block)?;
        let Some(read) = block.get(..length).filter(|read| !read.is_empty()) else {
            return Ok(None);
        };
        let end = read.iter().position(|byte| *byte == b'\n');
        let more = end.map_or(length, |end| end.saturating_add(1));
        passed = passed.saturating_add(u64::try_from(more).map_err(io::Error::other)?);
        if end.is_some() {
            return Ok(Some(passed));
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(mut file: impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Logs {
        folder: tempfile::TempDir,
    }

    impl Logs {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("log")).unwrap();
            Self { folder }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join("log").join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = File::options().create(true).append(true).open(self.file(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn follower(&self) -> Follower {
            let path = self.folder.path();
            Follower::open(&path.join("log"), &path.join("positions")).unwrap()
        }
    }

    /// Everything that can be read, as text.
    fn all(follower: &mut Follower) -> String {
        let mut text = String::new();
        while let Some(chunk) = follower.next().unwrap() {
            let lines = chunk.lines.clone().unwrap_or_else(|| b"<long>\n".to_vec());
            text.push_str(&String::from_utf8(lines).unwrap());
            follower.passed(&chunk).unwrap();
        }
        text
    }

    #[test]
    fn only_whole_lines_are_read_each_once_also_by_the_next_process() {
        let logs = Logs::new();
        logs.append("a.json", "1\n2\n3");
        logs.append("a.log", "no log in JSON\n");
        let mut follower = logs.follower();
        assert_eq!(all(&mut follower), "1\n2\n");
        logs.append("a.json", "3\n");
        assert_eq!(all(&mut follower), "33\n");
        drop(follower);
        logs.append("a.json", "4\n");
        assert_eq!(all(&mut logs.follower()), "4\n");
    }

    #[test]
    fn what_was_not_passed_is_read_again() {
        let logs = Logs::new();
        logs.append("a.json", "1\n");
        let mut follower = logs.follower();
        let chunk = follower.next().unwrap();
        assert_eq!(follower.next().unwrap(), chunk);
        drop(follower);
        assert_eq!(logs.follower().next().unwrap(), chunk);
    }

    #[test]
    fn a_file_that_is_written_over_is_another_file_and_a_renamed_one_is_the_same() {
        let logs = Logs::new();
        logs.append("mon.json", "first\n1\n");
        let mut follower = logs.follower();
        assert_eq!(all(&mut follower), "first\n1\n");
        // PostgreSQL overwrites a file like this with `log_truncate_on_rotation`. The new content
        // is longer than the old one.
        fs::write(logs.file("mon.json"), "second\n2\n3\n4\n").unwrap();
        assert_eq!(all(&mut follower), "second\n2\n3\n4\n");
        fs::rename(logs.file("mon.json"), logs.file("old.json")).unwrap();
        logs.append("mon.json", "third\n");
        assert_eq!(all(&mut follower), "third\n");
        fs::remove_file(logs.file("old.json")).unwrap();
        assert_eq!(all(&mut follower), "");
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_once_it_is_whole() {
        let logs = Logs::new();
        logs.append("a.json", "1\n");
        logs.append("a.json", &"x".repeat(CHUNK_BYTES * 2));
        let mut follower = logs.follower();
        assert_eq!(all(&mut follower), "1\n");
        logs.append("a.json", "x\n2\n");
        assert_eq!(all(&mut follower), "<long>\n2\n");
    }

    #[test]
    fn a_folder_without_logs_and_a_path_that_is_not_there_say_so() {
        let logs = Logs::new();
        let error = logs.follower().next().unwrap_err();
        assert!(error.to_string().contains("log_destination"), "{error}");
        let path = logs.folder.path();
        let mut missing = Follower::open(&path.join("nowhere"), &path.join("other")).unwrap();
        assert!(missing.next().unwrap_err().to_string().contains("nowhere"));
        let mut device = Follower::open(Path::new("/dev/null"), &path.join("third")).unwrap();
        assert!(device.next().unwrap_err().to_string().contains("neither"));
    }
}
