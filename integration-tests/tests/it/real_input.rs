//! Events from the world: files, git's history, PostgreSQL's log, a client that no one here wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bus::{Bus, Delivery, Read, ReaderSettings, Topology, TopologyOverrides};
use domain::{EventIdentity, Rules, SideMetrics, Stream, StreamState};
use integration_tests::executable::{self, Ended};
use integration_tests::nats::{NatsServer, repository};
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::postgres::{Database, PostgresServer};
use integration_tests::raw_nats::RawNats;
use serde_json::Value;
use wire::{Item, Subjects};

/// Far above what any condition here takes, and below what a person waits for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server with the product's streams.
async fn server() -> (NatsServer, Bus) {
    let server = NatsServer::start_or_given().await.expect("a server");
    let bus = server.bus("test").await.expect("a connection");
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    bus.apply_topology(&topology).await.expect("the streams");
    (server, bus)
}

fn publish(server: &NatsServer, arguments: &[&str], input: &str) -> Ended {
    let url = server.url();
    let arguments = ["publish", "--nats-url", &url].into_iter().chain(arguments.iter().copied());
    executable::run(arguments, input.as_bytes()).expect("it runs")
}

/// Every message of a stream.
async fn messages(bus: &Bus, stream: Stream) -> Vec<Delivery> {
    let name = stream.to_string();
    let last = bus.stream(&name).await.expect("the stream").last_sequence;
    let mut reader = bus.reader(ReaderSettings::new(&name, "test", 0));
    let mut all = Vec::new();
    while all.last().map_or(0, |delivery: &Delivery| delivery.sequence) < last {
        match tokio::time::timeout(DEADLINE, reader.next()).await.expect("in time") {
            Ok(Read::Message(delivery)) => all.push(delivery),
            Ok(Read::Subscribed(_)) => {}
            other @ (Ok(Read::Deleted { .. } | Read::Changed(_)) | Err(_)) => panic!("{other:?}"),
        }
    }
    all
}

/// Every item of a stream, as both services read it.
async fn items(bus: &Bus, stream: Stream) -> Vec<Item> {
    let read = |delivery: Delivery| {
        wire::read(stream, &delivery.message(&Subjects::default()), &Rules::default()).items
    };
    messages(bus, stream).await.into_iter().flat_map(read).collect()
}

/// The state that the aggregator has after the stream, and how many events came.
async fn fold(bus: &Bus, stream: Stream) -> (StreamState, usize) {
    let mut state = StreamState::new(stream, Rules::default());
    let items = items(bus, stream).await;
    for item in &items {
        match item {
            Item::Event(event) => drop(state.apply(event)),
            other @ (Item::Verdict(_) | Item::Refused(_)) => panic!("{other:?}"),
        }
    }
    (state, items.len())
}

fn line(key: &str) -> String {
    format!(
        r#"{{"type":"lake.access","occurred_at":"2026-01-01T00:00:00Z","bucket":"b","key":"{key}","operation":"read","bytes":1,"duration_us":2,"outcome":"ok","principal":"p"}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_does_not_stop_the_rest_unless_it_shall() {
    let (server, bus) = server().await;
    let wrong = line("b").replace("\"read\"", "\"fetch\"");
    let future = line("c").replace("2026-01-01", "2199-01-01");
    let seconds = line("e").replace("\"2026-01-01T00:00:00Z\"", "1795416180");
    let input = format!("{}\n\n{wrong}\nnonsense\n{future}\n{seconds}\n{}\n", line("a"), line("d"));

    let ended = publish(&server, &[], &input);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert_eq!(
        ended.stdout,
        "6 lines, 2 acknowledged, 0 known to the broker from the last two minutes, 4 refused\n"
    );
    for expected in [
        "line 3: wrong_field: operation: \"fetch\" is none of read, head, list, write, copy, \
         delete, other\n",
        "line 4: undecodable: ",
        "line 5: future_dated: occurred_at: ",
        "line 6: out_of_range: occurred_at: 1795416180 looks like seconds: ",
        "4 of 6 lines were refused",
    ] {
        assert!(ended.stderr.contains(expected), "{ended:?}");
    }
    assert_eq!(items(&bus, Stream::lake(0)).await.len(), 2);

    let strict = publish(&server, &["--strict", "--source", "strict"], &input);
    assert_eq!(strict.status, Some(1), "{strict:?}");
    assert_eq!(
        strict.stdout,
        "2 lines, 1 acknowledged, 0 known to the broker from the last two minutes, 1 refused\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_counts_once_whole_shuffled_or_packed() {
    let (server, bus) = server().await;
    // Some lines are identical and mean several requests all the same.
    let lines: Vec<String> = (0..1_000).map(|number| line(&(number % 900).to_string())).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.jsonl");
    std::fs::write(&file, lines.join("\n")).expect("written");
    let file = file.to_str().expect("text");

    let whole = publish(&server, &["--source", "edge", file], "");
    assert_eq!((whole.status, whole.stderr.as_str()), (Some(0), ""));
    assert_eq!(
        whole.stdout,
        "1000 lines, 1000 acknowledged, 0 known to the broker from the last two minutes, 0 refused\n"
    );
    let again = publish(&server, &["--source", "edge", "-"], &lines.join("\n"));
    assert_eq!(
        again.stdout,
        "1000 lines, 1000 acknowledged, 1000 known to the broker from the last two minutes, 0 refused\n"
    );
    let mut shuffled = lines.clone();
    shuffled.reverse();
    shuffled.swap(3, 700);
    let shuffled = publish(&server, &["--source", "edge"], &shuffled.join("\n"));
    assert_eq!(shuffled.status, Some(0));
    let binary = publish(&server, &["--source", "edge", "--format", "bincode", file], "");
    assert_eq!(binary.status, Some(0));

    let (state, events) = fold(&bus, Stream::lake(0)).await;
    assert_eq!(events, 3_000, "the broker knew one of the four by its message ids");
    assert_eq!(accesses(&state), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_published_again_says_how_many_of_its_events_were_known() {
    let mut pipeline = Pipeline::start(&[]).await.expect("a pipeline");
    pipeline.run(Part::Archiver).expect("an archiver");
    pipeline.run(Part::Aggregator).expect("an aggregator");
    let folder = tempfile::tempdir().expect("a folder");
    let publish = |name: &str, lines: &[String], url: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, lines.join("\n")).expect("written");
        let words = ["publish", "--source", "edge", file.to_str().expect("text")];
        let ended = pipeline.tool(words, url).expect("it runs");
        assert_eq!(ended.status, Some(0), "{ended:?}");
        ended.stdout + &ended.stderr
    };
    let url = pipeline.database.reader_url();
    let mut lines: Vec<String> = (0..40).map(|number| line(&number.to_string())).collect();
    assert_eq!(
        publish("a", &lines, &url),
        "40 lines, 40 acknowledged, 0 known already, 0 refused\n"
    );
    pipeline.rest().await.expect("rest");
    // In another order: the broker knows none of these messages.
    lines.reverse();
    lines.push(line("new"));
    assert_eq!(
        publish("b", &lines, &url),
        "41 lines, 41 acknowledged, 40 known already, 0 refused\n"
    );
    pipeline.rest().await.expect("rest");
    assert_eq!(pipeline.shown().await.expect("metrics")[1], 41.0);
    // An archive that does not answer holds nothing up.
    let said = publish("b", &lines[..1], "postgres://nobody@127.0.0.1:1/x");
    assert!(said.starts_with("1 line, 1 acknowledged, 0 known to the broker"), "{said}");
    assert!(said.contains("because it can't be read"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_connects_to_nothing_and_refuses_what_would_be_refused() {
    let input = format!("{}\nnonsense\n", line("a"));
    // Nobody listens there.
    let words = ["publish", "--dry-run", "--nats-url", "nats://127.0.0.1:1"];
    let ended = executable::run(words, input.as_bytes()).expect("it runs");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stdout.starts_with("nothing was sent: 2 lines, 1 event, 1 refused\n"));
    assert!(ended.stdout.contains("bucket b: 1 event, 1 bytes transferred"), "{}", ended.stdout);
    assert!(ended.stderr.contains("line 2: undecodable"), "{}", ended.stderr);
    let ended = executable::run(words, line("a").as_bytes()).expect("it runs");
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_pass_over_settings_that_only_services_read() {
    let (server, _) = server().await;
    let url = server.url();
    let others = [("NATS_STREAM_RULES", "no such rule"), ("NATS_EVENT_STREAM_MAX_BYTES", "large")];
    let mut publish = Command::new(executable::lakegauge().expect("it was built"));
    publish.args(["publish", "--nats-url", &url]).env_clear().envs(others);
    let ended = executable::finish(publish, line("a").as_bytes()).expect("it runs");
    assert_eq!(ended.status, Some(0), "{ended:?}");
    // Its archive may have no pipeline yet, which the rules are for.
    let others_of_replay = &others[1..];
    for (tool, others) in [
        (&["audit"][..], &others[..]),
        (&["dead-letters", "retry", "1"], &others),
        (&["replay", "--dry-run"], others_of_replay),
    ] {
        let mut command = Command::new(executable::lakegauge().expect("it was built"));
        let database = ["--database-url", "postgres://nobody@127.0.0.1:1/none?sslmode=disable"];
        command
            .args(tool)
            .args(["--nats-url", &url])
            .args(database)
            .env_clear()
            .envs(others.to_vec());
        let ended = executable::finish(command, b"").expect("it runs");
        // It came as far as the archive, which there is not.
        assert_eq!(ended.status, Some(1), "{tool:?}: {ended:?}");
        assert!(ended.stderr.contains("can't connect"), "{tool:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pipeline_it_says_so_and_ends() {
    let server = NatsServer::start_or_given().await.expect("a server");
    let ended = publish(&server, &[], &line("a"));
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("is the pipeline running"), "{ended:?}");
    assert_eq!(
        ended.stdout,
        "1 line, 0 acknowledged, 0 known to the broker from the last two minutes, 0 refused\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_is_seen_before_it_ends() {
    let (server, bus) = server().await;
    let mut child = tokio::process::Command::new(executable::lakegauge().expect("built"))
        .args(["publish", "--nats-url", &server.url()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("an input");
    let text = format!("{}\n", line("a"));
    tokio::io::AsyncWriteExt::write_all(&mut stdin, text.as_bytes()).await.expect("written");
    let stored = async {
        while bus.stream("LAKE_0").await.expect("the stream").messages == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, stored).await.expect("stored while the input is open");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_by_a_client_of_another_make_is_counted_and_garbage_is_one_letter() {
    let (server, bus) = server().await;
    let mut client = RawNats::connect(server.port()).await.expect("connected");
    let without_id = line("a");
    for payload in [without_id.as_str(), "garbage\0", &without_id] {
        client.publish("lake.access.0.me", payload).await.expect("published");
    }
    let items = items(&bus, Stream::lake(0)).await;
    let ids: BTreeSet<EventIdentity> = items
        .iter()
        .filter_map(|item| match item {
            Item::Event(event) => Some(event.identity()),
            Item::Verdict(verdict) => panic!("{verdict:?}"),
            Item::Refused(refused) => {
                assert_eq!(refused.bytes, b"garbage\0");
                None
            }
        })
        .collect();
    assert_eq!((items.len(), ids.len()), (3, 2), "sent twice without an id, it is two events");
}

fn accesses(state: &StreamState) -> u64 {
    match state.sample() {
        domain::SampleValues::Lake { accesses, .. } => accesses,
        domain::SampleValues::Warehouse { .. } => unreachable!("the lake's state"),
    }
}

/// Runs a command in a folder and gives back its output.
fn output(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A repository with everything that can go wrong: overwrites, renames, removed and empty files,
/// names that need quoting, links, merges, and commits whose clocks step back.
fn a_repository(folder: &Path) {
    /// For what makes no commit.
    const START: i64 = 1_700_000_000;
    let git = |arguments: &[&str], second: i64| {
        let date = format!("{second} +0200");
        let who = ["-c", "user.name=Ünï \"Q\"", "-c", "user.email=u@example.org"];
        let arguments: Vec<&str> = who.iter().chain(arguments).copied().collect();
        let output = Command::new("git")
            .args(&arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_COMMITTER_DATE", &date)
            .env("GIT_AUTHOR_DATE", &date)
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    git(&["init", "-q", "-b", "main"], START);
    for (name, text) in [
        ("a", "one"),
        ("empty", ""),
        ("two words", "2"),
        ("\"q\" \\ ü\n\t", "odd"),
        (":100644 x", "y"),
    ] {
        write(name, text);
    }
    std::os::unix::fs::symlink("a", folder.join("link")).expect("linked");
    git(&["add", "-A"], START);
    git(&["commit", "-q", "-m", "first"], 1_700_000_000);
    write("a", "one and more");
    git(&["mv", "two words", "renamed"], START);
    git(&["commit", "-q", "-a", "-m", "the clock steps back"], 1_600_000_000);
    git(&["checkout", "-q", "-b", "side"], START);
    write("side", "of the branch");
    git(&["rm", "-q", "empty"], START);
    git(&["add", "-A"], START);
    git(&["commit", "-q", "-m", "side"], 1_700_000_100);
    git(&["checkout", "-q", "main"], START);
    write("main", "of the main line");
    git(&["add", "-A"], START);
    git(&["commit", "-q", "-m", "main"], 1_700_000_200);
    git(&["merge", "-q", "--no-ff", "-m", "merge", "side"], 1_700_000_300);
    git(&["commit", "-q", "--allow-empty", "-m", "nothing"], 1_700_000_400);
}

fn events_of_git(repository_of_git: &Path) -> Vec<String> {
    let script = repository().join("examples/git-history.sh");
    let script = script.to_str().expect("text");
    output(repository_of_git, script, &[".", "history"]).lines().map(str::to_owned).collect()
}

fn bytes_of_head(repository_of_git: &Path) -> i128 {
    let listing = output(repository_of_git, "git", &["ls-tree", "-r", "-l", "HEAD"]);
    let size =
        |line: &str| line.split_whitespace().nth(3).and_then(|size| size.parse::<i128>().ok());
    // A submodule has no size.
    listing.lines().filter_map(size).sum()
}

async fn history_counts_once(folder: &Path) {
    let (server, bus) = server().await;
    let mut lines = events_of_git(folder);
    let first = publish(&server, &["--source", "git"], &lines.join("\n"));
    assert_eq!((first.status, first.stderr.as_str()), (Some(0), ""));
    let third = lines.len() / 3;
    lines.rotate_left(third);
    lines.reverse();
    let second = publish(&server, &["--source", "git"], &lines.join("\n"));
    assert_eq!((second.status, second.stderr.as_str()), (Some(0), ""));

    let (state, events) = fold(&bus, Stream::lake(0)).await;
    assert_eq!(events, 2 * lines.len());
    let SideMetrics::Lake(lake) = state.metrics() else { unreachable!("the lake's stream") };
    assert_eq!(lake.used_bytes(), bytes_of_head(folder));
    assert_eq!(accesses(&state), u64::try_from(lines.len()).expect("a count"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_repository_gives_the_size_of_its_head() {
    let folder = tempfile::tempdir().expect("a folder");
    a_repository(folder.path());
    let lines = events_of_git(folder.path());
    let times: Vec<i64> = lines
        .iter()
        .map(|line| wire::json::decode_line(line.as_bytes()).expect("an event").occurred_at.0)
        .collect();
    assert!(times.is_sorted_by(|before, after| before < after), "{times:?}");
    assert_eq!(lines.len(), 6 + 3 + 1 + 2);
    history_counts_once(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_this_project_gives_the_size_of_its_head() {
    // An archive of the sources has no history.
    if !repository().join(".git").exists() {
        return;
    }
    history_counts_once(repository()).await;
}

/// A server that writes every statement and its plan into a JSON log, as docs/real-input.md says.
pub(crate) fn logging_server() -> PostgresServer {
    let mut server = PostgresServer::start_local().expect("a server");
    let database = server.empty_database().expect("a database");
    let page = std::fs::read_to_string(repository().join("docs/real-input.md")).expect("the page");
    let settings = page.split("```ini\n").nth(1).expect("the settings");
    let settings = settings.split("```").next().expect("their end");
    let folder = database.value("show data_directory").expect("a folder");
    server.stop_immediately().expect("stopped");
    let mut file = std::fs::File::options()
        .append(true)
        .open(Path::new(&folder).join("postgresql.conf"))
        .expect("the settings of the server");
    std::io::Write::write_all(&mut file, settings.as_bytes()).expect("written");
    server.start_again().expect("started");
    server
}

/// The JSON log of its server.
pub(crate) fn log_of(database: &Database) -> PathBuf {
    let folder = database.value("show data_directory").expect("a folder");
    let file = database.value("select pg_current_logfile('jsonlog')").expect("a log");
    Path::new(&folder).join(file)
}

/// Number, rows and microseconds of what the log says, read without jq.
pub(crate) fn totals(log: &str) -> (u64, u64, u64) {
    let mut totals = (0, 0, 0);
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let message = line["message"].as_str().unwrap_or_default();
        let Some(rest) = message.strip_prefix("duration: ") else { continue };
        let (ms, rest) = rest.split_once(" ms  ").expect("a duration");
        let rows = if let Some(plan) = rest.strip_prefix("plan:\n") {
            let plan: Value = serde_json::from_str(plan).expect("a plan");
            leaf_rows(&plan["Plan"])
        } else if rest.contains("COPY ") {
            0
        } else {
            continue;
        };
        let (whole, thousandths) = ms.split_once('.').expect("three digits");
        let micros: u64 = format!("{whole}{thousandths}").parse().expect("digits");
        totals = (totals.0 + 1, totals.1 + rows, totals.2 + micros);
    }
    totals
}

/// Of the plans of this test, whose nodes either read or hand on.
fn leaf_rows(node: &Value) -> u64 {
    let number = |name: &str| node[name].as_u64().unwrap_or_default();
    match node["Plans"].as_array() {
        Some(plans) => plans.iter().map(leaf_rows).sum(),
        None => (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_logged_has_the_number_rows_and_time_of_the_log() {
    let postgres = logging_server();
    let database = postgres.empty_database().expect("a database");
    for statement in [
        "create table t (a int, b text)",
        "insert into t select i, 'x' from generate_series(1, 1000) i",
        "select count(*) from t where a > 500",
        "update t set b = 'y' where a <= 10",
        "delete from t where a = 1",
        "prepare p as select a from t where a < $1; execute p(5)",
        "copy (select 1) to stdout",
    ] {
        database.sql(statement).expect(statement);
    }
    database.sql("select * from missing").expect_err("there is no such table");
    let log = std::fs::read_to_string(log_of(&database)).expect("the log");
    let program = repository().join("examples/postgres-log.jq");
    let program = program.to_str().expect("text");
    let mut jq = Command::new("jq");
    jq.args(["-cnR", "--arg", "warehouse", "archive", "--argjson", "plans", "true", "-f", program]);
    let events = executable::finish(jq, log.as_bytes()).expect("jq is installed");
    assert_eq!((events.status, events.stderr.as_str()), (Some(0), ""));
    assert!(events.stdout.contains(r#""statement":"update""#), "{}", events.stdout);

    let (server, bus) = server().await;
    for _ in 0..2 {
        let ended = publish(&server, &["--source", "postgres"], &events.stdout);
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    }
    let (state, _) = fold(&bus, Stream::warehouse(0)).await;
    let (mut number, mut rows, mut micros) = (0, 0, 0);
    let mut seen = BTreeSet::new();
    for item in items(&bus, Stream::warehouse(0)).await {
        let Item::Event(event) = item else { panic!("{item:?}") };
        let domain::Fact::WarehouseQuery(query) = &event.fact else { panic!("{event:?}") };
        if seen.insert(event.identity()) {
            (number, rows, micros) =
                (number + 1, rows + query.rows_processed, micros + query.response_us());
        }
    }
    assert_eq!((number, rows, micros), totals(&log));
    assert!(rows >= 1_000 + 1_000 + 1_000 + 1_000, "{rows}");
    match state.sample() {
        domain::SampleValues::Warehouse { records, .. } => assert_eq!(records, u128::from(rows)),
        domain::SampleValues::Lake { .. } => unreachable!("the warehouse's state"),
    }
}
