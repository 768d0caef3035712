//! A part of the pipeline as a process of its own: started, watched, restarted, stopped.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use service_kit::{Backoff, Clock, EXIT_CONFIGURATION, EXIT_USAGE, Jitter};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::console::Console;
use crate::datadir::DataDir;
use crate::environment::{self, Variables};

/// First pause before a part that died is restarted.
const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause; a part that keeps dying must not keep the machine busy.
const RESTART_PAUSE_LONGEST: Duration = Duration::from_secs(15);
/// After running this long, a part begins with the first pause again.
const RESTART_FORGIVEN: Duration = Duration::from_secs(30);
/// A part that ran for a shorter time never did its job.
const AT_ONCE: Duration = Duration::from_secs(5);
/// After this many deaths at once in a row, a part is given up, because it would never run.
const DEATHS_AT_ONCE_MAX: u32 = 5;

/// The user of a part's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What happens to a part whose `up` was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orphaned {
    /// It is asked to end; a server closes its files.
    Stopped,
    /// It is killed, which a service survives without loss. Draining would wait for servers that
    /// are gone, and keep the port from the next `up`.
    Killed,
}

/// How a part is started and stopped.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Its complete environment.
    pub(crate) environment: Variables,
    /// Its working directory; ours if it is `None`. Paths in its arguments and files are relative
    /// to it, so that no character of a path above needs quoting.
    pub(crate) directory: Option<PathBuf>,
    /// Set only if we are root.
    pub(crate) user: Option<User>,
    pub(crate) log: PathBuf,
    /// The signal that asks it to end.
    pub(crate) stop: Signal,
    /// The signal that it gets if `up` is killed.
    pub(crate) orphaned: Orphaned,
    /// How long it may take to end.
    pub(crate) grace: Duration,
    /// Whether status 0 means that it has finished its work, and not that it died.
    pub(crate) may_finish: bool,
}

impl Spec {
    /// A server that runs in the data directory, yet without arguments.
    pub(crate) fn server(
        name: &'static str,
        program: PathBuf,
        config: &Config,
        dir: &DataDir,
    ) -> Self {
        Self {
            name,
            program,
            arguments: Vec::new(),
            environment: environment::base(&dir.at("")),
            directory: Some(dir.at("")),
            user: None,
            log: dir.log(name),
            stop: Signal::TERM,
            orphaned: Orphaned::Stopped,
            grace: config.grace,
            may_finish: false,
        }
    }

    /// Sets variables. Addresses with passwords are passed this way, because everybody can see
    /// arguments.
    pub(crate) fn set<const N: usize>(&mut self, variables: [(&str, String); N]) {
        self.environment.extend(variables.map(|(key, value)| (key.to_owned(), value.into())));
    }

    /// The command. It has its own process group, so that Ctrl-C reaches only `up`, and it ends
    /// when `up` is killed, if the system supports that.
    pub(crate) fn command(&self) -> anyhow::Result<Command> {
        let mut command = match tether() {
            Some(tether) => {
                let mut command = std::process::Command::new(tether);
                command.arg("--pdeathsig").arg(self.orphan_signal());
                if let Some(user) = &self.user {
                    command
                        .arg(format!("--reuid={}", user.uid))
                        .arg(format!("--regid={}", user.gid))
                        .arg("--clear-groups");
                }
                command.arg("--").arg(&self.program);
                command
            }
            None => {
                let mut command = std::process::Command::new(&self.program);
                if let Some(user) = &self.user {
                    command.uid(user.uid).gid(user.gid);
                }
                command
            }
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("can't write {}", self.log.display()))?;
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().context("can't share a log")?))
            .stderr(Stdio::from(log));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        Ok(command.into())
    }

    fn orphan_signal(&self) -> &'static str {
        match self.orphaned {
            Orphaned::Killed => "KILL",
            Orphaned::Stopped if self.stop == Signal::INT => "INT",
            Orphaned::Stopped => "TERM",
        }
    }
}

/// How a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartEnd {
    /// With status 0, because it was asked to or was done.
    Well,
    /// With another status, or by a signal, after it was asked to end.
    Badly,
    /// It had to be killed.
    Killed,
    /// It can't run: its settings are wrong, or it can't be started.
    Unusable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WantedState {
    Running,
    Stopped,
}

/// A watched part.
#[derive(Debug)]
pub(crate) struct SupervisedPart {
    pub(crate) name: &'static str,
    wanted: watch::Sender<WantedState>,
    ended: watch::Receiver<Option<PartEnd>>,
    restarts: Arc<AtomicU32>,
    last_words: Arc<Mutex<String>>,
    _watcher: JoinHandle<()>,
}

impl SupervisedPart {
    /// Starts the process and watches it.
    ///
    /// # Errors
    ///
    /// The process can't be started.
    pub(crate) fn start(spec: Spec, console: &Console, clock: &Clock) -> anyhow::Result<Self> {
        let child = spawn(&spec)?;
        let (wanted, wanted_seen) = watch::channel(WantedState::Running);
        let (tell_ended, ended) = watch::channel(None);
        let restarts = Arc::new(AtomicU32::new(0));
        let last_words = Arc::new(Mutex::new(String::new()));
        let name = spec.name;
        let watcher = Watcher {
            jitter: Jitter::seeded(clock.now_us().unsigned_abs()),
            spec,
            console: console.clone(),
            clock: clock.clone(),
            wanted: wanted_seen,
            restarts: Arc::clone(&restarts),
            last_words: Arc::clone(&last_words),
        };
        let watcher = tokio::spawn(async move {
            let ended = watcher.watch(child).await;
            // Nobody listens if `up` itself is ending.
            tell_ended.send(Some(ended)).unwrap_or_default();
        });
        Ok(Self { name, wanted, ended, restarts, last_words, _watcher: watcher })
    }

    /// How often it died and was restarted.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::SeqCst)
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn ended(&self) -> Option<PartEnd> {
        *self.ended.borrow()
    }

    /// Why it can't run.
    pub(crate) fn last_words(&self) -> String {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Completes when it has ended for good.
    pub(crate) async fn finished(&self) -> PartEnd {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.unwrap_or(PartEnd::Badly),
            Err(_) => PartEnd::Badly,
        }
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(&self) -> PartEnd {
        self.wanted.send(WantedState::Stopped).unwrap_or_default();
        self.finished().await
    }
}

struct Watcher {
    spec: Spec,
    console: Console,
    clock: Clock,
    jitter: Jitter,
    wanted: watch::Receiver<WantedState>,
    restarts: Arc<AtomicU32>,
    last_words: Arc<Mutex<String>>,
}

impl Watcher {
    async fn watch(mut self, mut child: Child) -> PartEnd {
        let Ok(mut backoff) = Backoff::new(RESTART_PAUSE_FIRST, RESTART_PAUSE_LONGEST) else {
            return PartEnd::Unusable;
        };
        let mut deaths_at_once = 0;
        loop {
            let started = self.clock.monotonic();
            let status = tokio::select! {
                status = child.wait() => status,
                () = stop_wanted(&mut self.wanted) => return self.end(&mut child).await,
            };
            let how = match &status {
                Ok(status) => describe(*status),
                Err(error) => error.to_string(),
            };
            let code = status.ok().and_then(|status| status.code());
            if self.spec.may_finish && code == Some(0) {
                return PartEnd::Well;
            }
            if [EXIT_USAGE, EXIT_CONFIGURATION].map(|code| Some(i32::from(code))).contains(&code) {
                self.remember(&how);
                return PartEnd::Unusable;
            }
            let lived = self.clock.monotonic().saturating_sub(started);
            if lived >= RESTART_FORGIVEN {
                backoff.reset();
            }
            deaths_at_once = if lived < AT_ONCE { deaths_at_once + 1 } else { 0 };
            if deaths_at_once >= DEATHS_AT_ONCE_MAX {
                self.remember(&format!("{how}, {deaths_at_once} times in a row at once"));
                return PartEnd::Unusable;
            }
            let pause = backoff.next(&mut self.jitter);
            self.restarts.fetch_add(1, Ordering::SeqCst);
            self.console.say(&format!(
                "! {} {how}; starting it again in {:.1} s (log: {})",
                self.spec.name,
                pause.as_secs_f64(),
                self.spec.log.display()
            ));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop_wanted(&mut self.wanted) => return PartEnd::Badly,
            }
            child = match spawn(&self.spec) {
                Ok(child) => child,
                Err(error) => {
                    self.remember(&format!("{error:#}"));
                    return PartEnd::Unusable;
                }
            };
            self.console.say(&format!("  {} started again", self.spec.name));
        }
    }

    async fn end(&self, child: &mut Child) -> PartEnd {
        send(child, self.spec.stop);
        match tokio::time::timeout(self.spec.grace, child.wait()).await {
            Ok(Ok(status)) if status.success() => PartEnd::Well,
            Ok(Ok(status)) => {
                self.remember(&describe(status));
                PartEnd::Badly
            }
            Ok(Err(error)) => {
                self.remember(&error.to_string());
                PartEnd::Badly
            }
            Err(_) => {
                send(child, Signal::KILL);
                // It can't refuse; wait until it is gone, before its files are used.
                let killed = child.wait().await;
                self.remember(&format!(
                    "had not stopped after {} s and was killed{}",
                    self.spec.grace.as_secs(),
                    killed.map_or_else(|error| format!(" ({error})"), |_| String::new())
                ));
                PartEnd::Killed
            }
        }
    }

    fn remember(&self, how: &str) {
        let words = format!("{} {how} (log: {})", self.spec.name, self.spec.log.display());
        *self.last_words.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }
}

async fn stop_wanted(wanted: &mut watch::Receiver<WantedState>) {
    // If the sender is gone, `up` is ending.
    if wanted.wait_for(|wanted| *wanted == WantedState::Stopped).await.is_err() {
        tracing::debug!("nobody holds the part any more");
    }
}

fn spawn(spec: &Spec) -> anyhow::Result<Child> {
    spec.command()?
        .spawn()
        .with_context(|| format!("can't start {} ({})", spec.name, spec.program.display()))
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended at this moment.
        kill_process(pid, signal).unwrap_or_default();
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// `setpriv` of util-linux, which can make the kernel signal a process when its parent dies.
fn tether() -> Option<PathBuf> {
    ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().map(PathBuf::from).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, grace: Duration) -> (tempfile::TempDir, Spec) {
        let scratch = tempfile::tempdir().unwrap();
        let spec = Spec {
            name: "part",
            program: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            environment: Variables::from([
                ("SCRATCH".to_owned(), scratch.path().into()),
                ("PATH".to_owned(), "/usr/bin:/bin".into()),
            ]),
            directory: None,
            user: None,
            log: scratch.path().join("log"),
            stop: Signal::TERM,
            orphaned: Orphaned::Killed,
            grace,
            may_finish: true,
        };
        (scratch, spec)
    }

    fn start(spec: Spec) -> SupervisedPart {
        SupervisedPart::start(spec, &Console::stdout(), &Clock::system()).unwrap()
    }

    async fn until(what: impl Fn() -> bool) {
        let waiting = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    }

    const GRACE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_part_that_ends_well_when_asked_is_well() {
        let script = "trap 'exit 0' TERM; touch $SCRATCH/up; while :; do sleep 0.05; done";
        let (scratch, spec) = shell(script, GRACE);
        let part = start(spec);
        until(|| scratch.path().join("up").exists()).await;
        assert_eq!(part.stop().await, PartEnd::Well);
        assert_eq!(part.restarts(), 0);
    }

    #[tokio::test]
    async fn a_part_that_ends_badly_when_asked_says_with_what() {
        let script = "trap 'exit 7' TERM; touch $SCRATCH/up; while :; do sleep 0.05; done";
        let (scratch, spec) = shell(script, GRACE);
        let part = start(spec);
        until(|| scratch.path().join("up").exists()).await;
        assert_eq!(part.stop().await, PartEnd::Badly);
        assert!(part.last_words().starts_with("part ended with status 7"), "{}", part.last_words());
    }

    #[tokio::test]
    async fn a_part_that_does_not_end_is_killed() {
        let script = "trap '' TERM; touch $SCRATCH/up; while :; do sleep 0.05; done";
        let (scratch, spec) = shell(script, Duration::from_millis(50));
        let part = start(spec);
        until(|| scratch.path().join("up").exists()).await;
        assert_eq!(part.stop().await, PartEnd::Killed);
    }

    #[tokio::test]
    async fn a_part_that_dies_is_started_again() {
        let (scratch, spec) = shell("echo x >> $SCRATCH/starts; exit 3", GRACE);
        let part = start(spec);
        let starts = || std::fs::read_to_string(scratch.path().join("starts")).unwrap_or_default();
        until(|| starts().lines().count() >= 2).await;
        assert!(part.restarts() >= 1);
        part.stop().await;
    }

    #[tokio::test]
    async fn a_part_that_dies_at_once_five_times_is_given_up_with_how() {
        let (scratch, spec) = shell("echo x >> $SCRATCH/starts; exit 3", GRACE);
        let part = start(spec);
        assert_eq!(part.finished().await, PartEnd::Unusable);
        let starts = std::fs::read_to_string(scratch.path().join("starts")).unwrap();
        assert_eq!(starts.lines().count(), 5);
        let words = part.last_words();
        assert!(words.starts_with("part ended with status 3, 5 times in a row at once"), "{words}");
    }

    #[tokio::test]
    async fn a_part_finds_no_variable_of_ours_but_those_that_it_was_given() {
        let (scratch, spec) = shell("env > $SCRATCH/env", GRACE);
        assert_eq!(start(spec).finished().await, PartEnd::Well);
        let found = std::fs::read_to_string(scratch.path().join("env")).unwrap();
        // A shell sets these itself.
        let own = ["PWD=", "SHLVL=", "_=", "OLDPWD="];
        let given = ["SCRATCH=", "PATH="];
        for line in found.lines() {
            assert!(own.iter().chain(&given).any(|key| line.starts_with(key)), "{line}");
        }
    }

    #[tokio::test]
    async fn a_part_that_is_done_or_can_not_run_is_not_started_again() {
        let (_scratch, done) = shell("exit 0", GRACE);
        assert_eq!(start(done).finished().await, PartEnd::Well);
        for status in [64, 78] {
            let (_scratch, refused) = shell(&format!("exit {status}"), GRACE);
            assert_eq!(start(refused).finished().await, PartEnd::Unusable, "{status}");
        }
    }
}
