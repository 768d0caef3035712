//! Every command of the documents, typed as it stands beside a pipeline of `up`.
//!
//! What can't be typed here stands in a list with the reason; an entry that no document has any more
//! fails the test, and so does a command that ends with another status than 0.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use integration_tests::documents::{DocumentedCommand, documented_commands};
use integration_tests::executable::{Ended, finish, lakegauge, run, without_settings};
use integration_tests::nats::repository;
use integration_tests::ports::free_port;
use integration_tests::process::Process;
use integration_tests::raw_nats::RawNats;
use integration_tests::up::{FREE_PORTS, scratch};
use integration_tests::waiting::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What is not typed here, by how its script begins or, with a star before it, by what it contains.
const NOT_TYPED: &[(&str, &str)] = &[
    ("./run", "builds a release, and starts what this test has started"),
    ("./test", "is what runs this test"),
    ("docker-compose", "needs Docker; the tests of containers start the services"),
    ("*$(docker-compose", "needs Docker"),
    ("scripts/offline-images", "builds images"),
    ("nats sub", "needs the command line of NATS"),
    ("*lakegauge collect ", "runs until it is stopped; the tests of the collectors start it"),
    ("*nats.example.com", "needs somebody's NATS"),
    ("*supabase.co", "needs somebody's project"),
    ("rest '", "needs the REST of somebody's project"),
    ("cat prod-ca-2021.crt", "needs a project's certificates"),
    ("rm -rf .lakegauge", "ends with all data"),
];
/// What runs until it is stopped, by what its text contains.
const UNTIL_STOPPED: &[&str] = &["lakegauge tail", "lakegauge aggregate --replay"];
/// Needs a terminal, and ends by a key.
const ON_A_TERMINAL: &str = "lakegauge top";
/// Programs that a machine may lack; what names one of them is typed where it is installed.
const MAY_BE_MISSING: [&str; 1] = ["promtool"];
/// The highest number of a dead letter that the documents name.
const LETTERS: usize = 18;

/// A home as the documents suppose it: the checkout in `lakegauge`, a repository in `src/project`.
struct Home {
    folder: tempfile::TempDir,
    up: Process,
    /// Ports of the documents, and those that they have here.
    ports: Vec<(String, String)>,
    has_prometheus: bool,
}

impl Home {
    fn start() -> Result<Self> {
        let folder = scratch()?;
        let checkout = folder.path().join("lakegauge");
        for repository in [checkout.clone(), folder.path().join("src/project")] {
            a_repository(&repository)?;
        }
        for name in ["examples", "prometheus", "docs"] {
            symlink(repository().join(name), checkout.join(name))?;
        }
        let data = checkout.join(".lakegauge").display().to_string();
        let mut arguments = vec!["up", "--rate=100", "--no-grafana", "--log-statements"];
        arguments.extend(["--data-dir", &data]);
        arguments.extend(FREE_PORTS);
        let mut up = Process::start_inheriting(&arguments)?;
        up.wait_for_line("lag ")?;
        let has_prometheus = !up.log().contains("Prometheus  not installed");
        let mut this = Self { folder, up, ports: Vec::new(), has_prometheus };
        this.ports = this.own_ports()?;
        Ok(this)
    }

    fn checkout(&self) -> PathBuf {
        self.folder.path().join("lakegauge")
    }

    fn addresses(&self) -> Result<BTreeMap<String, Value>> {
        let text = fs::read_to_string(self.checkout().join(".lakegauge/addresses.json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn port(&self, name: &str) -> Result<u16> {
        let addresses = self.addresses()?;
        let url = addresses[name].as_str().context("an address")?;
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        Ok(host.parse::<SocketAddr>().with_context(|| url.to_owned())?.port())
    }

    fn own_ports(&self) -> Result<Vec<(String, String)>> {
        let mut usual = vec![
            (8000, self.port("metrics")?),
            (8222, self.port("nats_monitor")?),
            (8013, self.port("aggregator_admin")?),
            (8014, self.port("archiver_admin")?),
        ];
        if self.has_prometheus {
            usual.push((9090, self.port("prometheus")?));
        }
        let at = |host: &str, usual: u16, here: u16| {
            (format!("{host}:{usual}"), format!("{host}:{here}"))
        };
        let mut ports: Vec<_> =
            usual.into_iter().map(|(usual, here)| at("localhost", usual, here)).collect();
        for usual in [9000, 9013] {
            ports.push(at("127.0.0.1", usual, free_port()?));
        }
        Ok(ports)
    }

    /// The ports of this run in the place of the usual ones, which others may have.
    fn here(&self, text: &str) -> String {
        let replaced = |text: String, (usual, here): &(String, String)| text.replace(usual, here);
        self.ports.iter().fold(text.to_owned(), replaced)
    }

    fn shell(&self, script: &str) -> Result<Command> {
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c"]).arg(self.here(script));
        self.place(&mut shell)?;
        Ok(shell)
    }

    /// As somebody stands there who has `lakegauge` on PATH.
    fn place(&self, command: &mut Command) -> Result<()> {
        let tools = lakegauge()?.parent().context("a folder")?.to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([tools].into_iter().chain(std::env::split_paths(&path)))?;
        without_settings(command).current_dir(self.checkout());
        command.env("PATH", path).env("HOME", self.folder.path()).env("TERM", "xterm");
        Ok(())
    }

    fn to_the_end(&self, script: &str) -> Result<Ended> {
        finish(self.shell(script)?, b"")
    }

    /// Letters with the numbers that the documents name, a corrected event, and a log of PostgreSQL
    /// whose lines are whole.
    async fn furnish(&self) -> Result<()> {
        let mut nats = RawNats::connect(self.port("nats")?).await?;
        for number in 0..LETTERS {
            nats.publish("lake.access.0.by-hand", &format!("no event {number}")).await?;
        }
        until("letters", async || {
            let list = self.to_the_end("lakegauge dead-letters list")?;
            Ok(list.stdout.lines().count() == LETTERS)
        })
        .await?;
        let corrected = r#"{"type":"lake.access","occurred_at":"2026-01-01T00:00:00Z","bucket":"mended","key":"k","operation":"read","bytes":1,"duration_us":2,"outcome":"ok","principal":"p"}"#;
        fs::write(self.checkout().join("corrected.json"), corrected)?;
        let log = "cat .lakegauge/postgres/log/postgresql-*.json";
        let log = self.to_the_end(log)?.stdout;
        let (whole, _) = log.rsplit_once('\n').context("a line of the log")?;
        fs::write(self.checkout().join("postgresql-Mon.json"), format!("{whole}\n"))?;
        Ok(())
    }

    async fn typed(&self, command: &DocumentedCommand) -> Result<()> {
        let script = command.script();
        if UNTIL_STOPPED.iter().any(|text| command.text.contains(text)) {
            return self.until_stopped(&script).await;
        }
        if command.text == ON_A_TERMINAL {
            return self.on_a_terminal(&script).await;
        }
        let ended = self.to_the_end(&script)?;
        ensure!(ended.status == Some(0), "{ended:?}");
        Ok(())
    }

    /// Starts it, waits until it shows something, and ends it as Ctrl-C does.
    async fn until_stopped(&self, script: &str) -> Result<()> {
        let (output, errors) = (self.output("output")?, self.output("errors")?);
        let is_service = script.contains("aggregate");
        let script = match script.rsplit_once('\n') {
            Some((before, last)) => format!("{before}\n{}", exec(last)),
            None => exec(script),
        };
        let mut shell = self.shell(&script)?;
        shell.stdin(Stdio::null()).stdout(fs::File::create(&output)?);
        shell.stderr(fs::File::create(&errors)?);
        let mut child = shell.spawn()?;
        let shown = until("something that is shown", async || {
            ensure!(child.try_wait()?.is_none(), "{}", fs::read_to_string(&errors)?);
            if is_service {
                let port = self.ports.iter().find(|(usual, _)| usual.ends_with(":9000"));
                let port = port.and_then(|(_, here)| here.rsplit(':').next()?.parse().ok());
                let answer = integration_tests::http::get(port.context("a port")?, "/metrics");
                return Ok(answer.is_ok_and(|(status, _)| status == 200));
            }
            Ok(fs::metadata(&output)?.len() > 0)
        });
        shown.await?;
        interrupt(&mut child).await
    }

    async fn on_a_terminal(&self, script: &str) -> Result<()> {
        let output = self.output("screen")?;
        let mut terminal = Command::new("script");
        let command = format!("stty rows 40 cols 120; {}", self.here(script));
        terminal.args(["--quiet", "--flush", "--return", "--command", &command]).arg(&output);
        self.place(&mut terminal)?;
        terminal.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = terminal.spawn()?;
        let shown = until("a screen", async || {
            let shown = fs::read(&output).unwrap_or_default();
            Ok(String::from_utf8_lossy(&shown).contains("data_lake_espaco_utilizado_gb"))
        });
        shown.await?;
        std::io::Write::write_all(child.stdin.as_mut().context("a keyboard")?, b"q")?;
        ended(&mut child).await
    }

    fn output(&self, name: &str) -> Result<PathBuf> {
        let file = tempfile::Builder::new().prefix(name).tempfile_in(self.folder.path())?;
        Ok(file.into_temp_path().keep()?)
    }
}

/// The shell makes room for what it starts, so that a signal comes there.
fn exec(command: &str) -> String {
    let assignments = command.split(' ').take_while(|word| word.contains('=')).count();
    let words: Vec<&str> = command.split(' ').collect();
    let (variables, rest) = words.split_at(assignments);
    [variables, &["exec"], rest].concat().join(" ")
}

async fn interrupt(child: &mut Child) -> Result<()> {
    kill_process(Pid::from_child(child), Signal::INT)?;
    ended(child).await
}

async fn ended(child: &mut Child) -> Result<()> {
    until("its end", async || Ok(child.try_wait()?.is_some())).await?;
    let status = child.wait()?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// A repository with one file.
fn a_repository(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("file"), "seven b")?;
    let identity = ["-c", "user.name=me", "-c", "user.email=me@localhost"];
    let commit = ["commit", "-q", "-m", "first"];
    for words in [&["init", "-q"][..], &["add", "file"], &[&identity[..], &commit].concat()] {
        let mut git = Command::new("git");
        git.args(words).current_dir(folder).env("HOME", folder);
        let ended = finish(git, b"")?;
        ensure!(ended.status == Some(0), "{words:?}: {ended:?}");
    }
    Ok(())
}

/// Why a command is not typed here: the entry of the list.
fn reason(command: &DocumentedCommand) -> Option<&'static str> {
    let script = command.script();
    let fits = |pattern: &str| match pattern.strip_prefix('*') {
        Some(part) => script.contains(part),
        None => command.text.starts_with(pattern),
    };
    NOT_TYPED.iter().map(|(pattern, _)| *pattern).find(|pattern| fits(pattern))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_documents_does_what_it_says_beside_a_running_pipeline() {
    let commands = documented_commands().unwrap();
    let home = Home::start().unwrap();
    home.furnish().await.unwrap();
    let (mut typed, mut failures) = (0, Vec::new());
    for command in commands.iter().filter(|command| reason(command).is_none()) {
        let missing = |program: &&str| command.text.starts_with(*program) && !on_path(program);
        let needs_prometheus = command.text.contains("localhost:9090");
        if MAY_BE_MISSING.iter().any(missing) || needs_prometheus && !home.has_prometheus {
            continue;
        }
        typed += 1;
        if let Err(error) = home.typed(command).await {
            failures.push(format!("{}: {}\n    {error:#}", command.page, command.text));
        }
    }
    assert!(failures.is_empty(), "{} of {typed}:\n{}", failures.len(), failures.join("\n"));
    assert!(typed >= 60, "{typed}");
    let Home { mut up, .. } = home;
    up.terminate().unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0), "{}", up.log());
}

#[test]
fn up_says_how_the_tools_are_called_from_anywhere() {
    let home = Home::start().unwrap();
    let log = home.up.log();
    let line = log.lines().find(|line| line.trim_start().starts_with("tools ")).unwrap();
    let called = line.trim_start().strip_prefix("tools").unwrap().split(" top,").next().unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{called} top --once")]).current_dir("/");
    let ended = finish(shell, b"").unwrap();
    assert_eq!(ended.status, Some(0), "{line}: {ended:?}");
    assert!(ended.stdout.contains("data_lake_numero_acessos"), "{ended:?}");
    // What the runbook says for containers, which have no curl.
    let address = format!("127.0.0.1:{}", home.port("aggregator_admin").unwrap());
    let ended = run(["healthcheck", "--verbose", "--admin-addr", &address], b"").unwrap();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("nats"), "{ended:?}");
}

#[test]
fn the_executable_is_linked_where_nothing_of_its_name_is() {
    let home = tempfile::tempdir().unwrap();
    let (folder, built) = (home.path().join(".local/bin"), home.path().join("built"));
    fs::write(&built, "").unwrap();
    let link = |path: &str| {
        let mut shell = Command::new("bash");
        let script = "source scripts/install.sh && link_lakegauge \"$1\"";
        shell.args(["-euo", "pipefail", "-c", script, "bash"]).arg(&built);
        shell.current_dir(repository()).env("HOME", home.path());
        let path = path.replace('~', &home.path().display().to_string());
        shell.env("PATH", format!("/usr/bin:/bin:{path}"));
        let ended = finish(shell, b"").unwrap();
        assert_eq!(ended.status, Some(0), "{ended:?}");
        ended.stdout
    };
    let linked = folder.join("lakegauge");
    assert_eq!(link("~/.local/bin"), "", "there is no such folder");
    fs::create_dir_all(&folder).unwrap();
    assert_eq!(link("~/elsewhere"), "", "it is not on PATH");
    assert!(!linked.exists());
    assert!(link("~/.local/bin").contains("linked"));
    assert_eq!(fs::read_link(&linked).unwrap(), built);
    assert_eq!(link("~/.local/bin"), "", "it is there");
    fs::remove_file(&linked).unwrap();
    fs::write(&linked, "somebody's").unwrap();
    assert_eq!(link("~/.local/bin"), "");
    assert_eq!(fs::read_to_string(&linked).unwrap(), "somebody's");
}

#[test]
fn what_is_not_typed_stands_in_the_documents() {
    let commands = documented_commands().unwrap();
    for (pattern, why) in NOT_TYPED {
        let stands = commands.iter().any(|command| reason(command) == Some(*pattern));
        assert!(stands, "no document has {pattern} any more ({why})");
    }
    for text in UNTIL_STOPPED.iter().chain([&ON_A_TERMINAL]) {
        assert!(commands.iter().any(|command| command.text.contains(text)), "{text}");
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
