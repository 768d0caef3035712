//! SIGTERM and SIGINT end every subcommand, in a container as well, where it is process 1 and the
//! kernel passes over what has no handler.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use integration_tests::executable::{self, lakegauge};
use integration_tests::up::FREE_PORTS;
use integration_tests::waiting::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use service_kit::Clock;

const POLL: Duration = Duration::from_millis(5);
/// Done, as it is meant to end.
const DONE: i32 = 0;
/// Left in the middle, and said so.
const STOPPED: i32 = 1;

/// Every subcommand, where it waits for something that does not come, and the status with which it
/// then leaves.
const CASES: &[(&str, i32)] = &[
    ("up", STOPPED),
    ("publish -", STOPPED),
    ("publish FIFO", STOPPED),
    ("replay friday", STOPPED),
    ("replay --verify", STOPPED),
    ("replay --remove friday", STOPPED),
    ("top --once", STOPPED),
    ("tail", STOPPED),
    ("decode", STOPPED),
    ("schema", STOPPED),
    ("migrate", STOPPED),
    ("streams", STOPPED),
    ("audit", STOPPED),
    ("adopt", STOPPED),
    ("adopt --confirm", STOPPED),
    ("dead-letters list", STOPPED),
    ("dead-letters show 1", STOPPED),
    ("dead-letters retry 1", STOPPED),
    ("dead-letters retry 1 --replace -", STOPPED),
    ("dead-letters drop 1 --note x", STOPPED),
    ("withdraw sim", STOPPED),
    ("withdraw sim --confirm --reason x", STOPPED),
    ("doctor", STOPPED),
    ("healthcheck", STOPPED),
    ("rest-key anon", STOPPED),
    ("settings", STOPPED),
    ("completions bash", STOPPED),
    ("simulate lake", DONE),
    ("simulate warehouse", DONE),
    ("simulate lake --describe", STOPPED),
    ("aggregate", DONE),
    ("archive", DONE),
    ("collect http", DONE),
    ("collect folder --path .", DONE),
    ("collect postgres-log", DONE),
];

/// What keeps the subcommands waiting: a server that takes connections and says nothing, an input
/// that does not end, an output that nobody reads, a pipe that nobody opens.
struct Silence {
    server: TcpListener,
    folder: tempfile::TempDir,
}

impl Silence {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = Command::new("mkfifo").arg(folder.path().join("fifo")).status()?;
        anyhow::ensure!(made.success(), "no named pipe");
        Ok(Self { server: TcpListener::bind("127.0.0.1:0")?, folder })
    }

    /// The command of a case, behind another one.
    fn command(&self, before: &[&str], case: &str) -> Result<Command> {
        let program = lakegauge()?;
        let mut words = before.iter().map(Path::new).chain([program.as_path()]);
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).env_clear();
        let fifo = self.folder.path().join("fifo");
        for word in case.split(' ') {
            if word == "FIFO" {
                command.arg(&fifo)
            } else {
                command.arg(word)
            };
        }
        if case == "up" {
            command.args(FREE_PORTS).args(["--no-prometheus", "--no-grafana"]);
            if let Some(nats) = std::env::var_os("NATS_SERVER_BIN") {
                command.env("NATS_SERVER_BIN", nats);
            }
        }
        let at = self.server.local_addr()?.to_string();
        let is_service =
            ["simulate", "aggregate", "archive"].contains(&case.split(' ').next().unwrap_or(""));
        // A tool is left where it waits; a service looks up when its server has not answered.
        let wait_ms = if is_service { "300" } else { "600000" };
        command
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("NATS_URL", format!("nats://{at}"))
            .env("NATS_CONNECT_TIMEOUT_MS", wait_ms)
            .env("DATABASE_URL", format!("postgres://u:p@{at}/d"))
            .env("DATABASE_CONNECT_TIMEOUT_MS", wait_ms)
            .env("TOP_METRICS_ADDR", &at)
            .env("TOP_ARCHIVER_ADDR", &at)
            .env("METRICS_ADDR", "127.0.0.1:0")
            .env("COLLECT_POSTGRES_LOG", self.folder.path())
            .env("COLLECT_POSTGRES_STATE_FILE", self.folder.path().join("positions"))
            .env("ADMIN_ADDR", if case == "healthcheck" { &at } else { "127.0.0.1:0" })
            .env("LAKEGAUGE_DATA_DIR", self.folder.path().join("data"));
        Ok(command)
    }
}

/// What the process does with signals, as the kernel says: the number of the mask's bits.
fn caught(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn handles_both(pid: u32) -> bool {
    let bit = |signal: Signal| 1_u64 << (signal.as_raw() - 1);
    let both = bit(Signal::TERM) | bit(Signal::INT);
    caught(pid).is_some_and(|caught| caught & both == both)
}

fn wait_until<T>(child: &mut Child, what: &str, look: impl Fn(u32) -> Option<T>) -> Result<T> {
    let clock = Clock::system();
    let deadline = clock.monotonic() + PATIENCE;
    while clock.monotonic() < deadline {
        if let Some(found) = look(child.id()) {
            return Ok(found);
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status} before {what}");
        }
        std::thread::sleep(POLL);
    }
    bail!("no {what} in {} s", PATIENCE.as_secs())
}

/// Starts a case, sends the signal when it waits, and gives how it ended.
fn stopped_by(
    silence: &Silence,
    case: &str,
    signal: Signal,
    before: &[&str],
) -> Result<ExitStatus> {
    // A pipe that is full before anything is started, and that nobody reads.
    let (unread, mut full) = std::io::pipe()?;
    full.write_all(&vec![b'x'; rustix::pipe::fcntl_getpipe_size(&full)?])?;
    let mut child = silence
        .command(before, case)?
        .stdin(Stdio::piped())
        .stdout(full)
        .stderr(Stdio::null())
        .spawn()?;
    let input = child.stdin.take();
    let outcome = (|| {
        let pid = if before.is_empty() {
            child.id()
        } else {
            wait_until(&mut child, "a process 1", |parent| {
                let file = format!("/proc/{parent}/task/{parent}/children");
                std::fs::read_to_string(file).ok()?.split_whitespace().next()?.parse().ok()
            })?
        };
        wait_until(&mut child, "handlers of both signals", |_| handles_both(pid).then_some(()))?;
        kill_process(Pid::from_raw(i32::try_from(pid)?).context("no id")?, signal)?;
        let clock = Clock::system();
        let deadline = clock.monotonic() + PATIENCE;
        while clock.monotonic() < deadline {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        bail!("{signal:?} did not end it in {} s", PATIENCE.as_secs())
    })();
    // Also what is in a namespace of its own ends with its process 1.
    child.kill().unwrap_or_default();
    child.wait()?;
    drop((input, unread));
    outcome.with_context(|| format!("lakegauge {case}"))
}

#[test]
fn sigterm_and_sigint_end_every_subcommand_with_a_status_that_is_true() {
    for (case, expected) in CASES {
        for signal in [Signal::TERM, Signal::INT] {
            let silence = Silence::new().unwrap();
            let status = stopped_by(&silence, case, signal, &[]).unwrap();
            assert_eq!(status.code(), Some(*expected), "{case}, {signal:?}: {status}");
        }
    }
}

/// What makes a process number 1, with the rights that we have; none where we may not.
fn as_process_1() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [
        &["unshare", "--pid", "--fork", "--mount-proc"],
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"],
    ];
    WAYS.into_iter().find(|way| {
        let tried = Command::new(way[0]).args(&way[1..]).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    })
}

#[test]
fn sigterm_ends_every_subcommand_that_is_process_1() {
    let Some(before) = as_process_1() else {
        // That each has handlers, which is all that the kernel asks, the test above shows.
        println!("NOT RUN: no right to a namespace of processes");
        return;
    };
    for (case, expected) in CASES {
        let silence = Silence::new().unwrap();
        let status = stopped_by(&silence, case, Signal::TERM, before).unwrap();
        assert_eq!(status.code(), Some(*expected), "{case}: {status}");
    }
}

#[test]
fn every_subcommand_is_among_those_that_are_signalled() {
    let help = executable::run(["--help"], b"").unwrap().stdout;
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let named: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let tried: BTreeSet<&str> =
        CASES.iter().filter_map(|(case, _)| case.split(' ').next()).collect();
    // `help` is the same as `--help`.
    let missing: Vec<_> = named.difference(&tried).filter(|name| **name != "help").collect();
    assert!(named.len() > 10 && missing.is_empty(), "{missing:?} of {named:?}");
}
