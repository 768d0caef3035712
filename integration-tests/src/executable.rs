//! The product's executable, as people run it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow, ensure};

/// Settings that the environment of the tests must not lend to the executable.
const SETTINGS: &[&str] =
    &["NATS_", "DATABASE_", "SUPABASE_", "UP_", "LAKEGAUGE_", "ADMIN_", "LOG_"];

/// A run of `lakegauge` that ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; nothing if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// The executable: `LAKEGAUGE_BIN`, or the one that was built beside the tests, from the sources as
/// they are: `cargo test --test it` alone builds the tests, and would try an old executable.
///
/// # Errors
///
/// It was not built, or one of its sources was changed since.
pub fn lakegauge() -> Result<PathBuf> {
    // Once: sources that are edited while the tests run are not theirs.
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|why| anyhow!(why))
}

fn find() -> Result<PathBuf> {
    let given = std::env::var_os("LAKEGAUGE_BIN").map(PathBuf::from);
    let path = match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => path,
        None => {
            // `target/debug/deps/it-…` beside `target/debug/lakegauge`.
            let own = std::env::current_exe()?;
            let folder = own.ancestors().nth(2).context("the tests are in no folder")?;
            let path = folder.join("lakegauge");
            ensure!(path.is_file(), "{} is missing: `cargo build -p lakegauge`", path.display());
            // What cargo built it from, as it says beside it.
            let sources = std::fs::read_to_string(folder.join("lakegauge.d")).unwrap_or_default();
            if let Some(newer) = newer(&sources, path.metadata()?.modified()?) {
                let (path, newer) = (path.display(), newer.display());
                anyhow::bail!("{path} is older than {newer}: `cargo build -p lakegauge`");
            }
            path
        }
    };
    ensure!(path.is_file(), "{} is missing: `cargo build -p lakegauge`", path.display());
    Ok(path)
}

/// A source, of those in a line of a makefile, that was changed after a moment.
fn newer(line: &str, built: SystemTime) -> Option<PathBuf> {
    let sources = line.split_once(": ").map_or("", |(_, sources)| sources);
    // A space in a path stands behind a backslash.
    let sources = sources.trim_end().replace("\\ ", "\0");
    let sources = sources.split(' ').map(|source| PathBuf::from(source.replace('\0', " ")));
    sources.into_iter().find(|source| {
        let changed = source.metadata().and_then(|metadata| metadata.modified());
        changed.is_ok_and(|changed| changed > built)
    })
}

/// Runs `lakegauge` with these arguments and this input, without settings from outside.
///
/// # Errors
///
/// It can't be started, or wrote something that is no text.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Result<Ended> {
    let mut command = Command::new(lakegauge()?);
    command.args(arguments).env_clear();
    finish(command, input)
}

/// Runs a command to its end; the input is written while the output is read.
///
/// # Errors
///
/// It can't be started, or wrote something that is no text.
pub fn finish(mut command: Command, input: &[u8]) -> Result<Ended> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("can't start {command:?}"))?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    let output: Output = std::thread::scope(|scope| {
        // A program that stops reading breaks the pipe; its status tells why.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output()
    })?;
    Ok(Ended {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// Takes the settings of the tests' own environment from a command, but the name of the broker's
/// executable.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name != "NATS_SERVER_BIN" && SETTINGS.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&key);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_executable_that_is_older_than_one_of_its_sources_is_noticed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (old, new) = (folder.path().join("a b.rs"), folder.path().join("c.rs"));
        std::fs::write(&old, "")?;
        std::fs::write(&new, "")?;
        let changed = new.metadata()?.modified()?;
        let line = format!(
            "lakegauge: {} {} /no/such/file.rs\n",
            old.display().to_string().replace(' ', "\\ "),
            new.display()
        );
        assert_eq!(newer(&line, changed + Duration::from_secs(1)), None);
        let later = changed + Duration::from_secs(9);
        std::fs::File::options().write(true).open(&old)?.set_modified(later)?;
        assert_eq!(newer(&line, changed + Duration::from_secs(1)), Some(old));
        assert_eq!(newer("", changed), None, "nobody says from what");
        Ok(())
    }
}
