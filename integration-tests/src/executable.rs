//! The product's executable, as people run it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

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

/// The executable: `LAKEGAUGE_BIN`, or the one that was built beside the tests.
///
/// # Errors
///
/// It was not built.
pub fn lakegauge() -> Result<PathBuf> {
    let given = std::env::var_os("LAKEGAUGE_BIN").map(PathBuf::from);
    let path = match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => path,
        None => {
            // `target/debug/deps/it-…` beside `target/debug/lakegauge`.
            let own = std::env::current_exe()?;
            let folder = own.ancestors().nth(2).context("the tests are in no folder")?;
            folder.join("lakegauge")
        }
    };
    ensure!(path.is_file(), "{} is missing: `cargo build -p lakegauge`", path.display());
    Ok(path)
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
