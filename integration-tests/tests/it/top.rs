//! `lakegauge top` beside a pipeline that runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use domain::Side;
use integration_tests::{
    executable::lakegauge,
    pipeline::{FOUR, Part, Pipeline, Traffic},
    ports::free_port,
    raw_nats::RawNats,
    waiting::until,
};

const TRAFFIC: Traffic = Traffic { events: 1_000, rate: 1_000, format: "bincode" };

/// Names and values of a table.
fn table(text: &str) -> BTreeMap<&str, &str> {
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(k, v)| (k, v.trim())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_is_scraped_and_the_letters_of_the_archive() {
    let mut pipeline = Pipeline::start(&[("ARCHIVER_LEDGER_INTERVAL_MS", "200")]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let lake = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    let warehouse = pipeline.simulate(Side::Warehouse, TRAFFIC).unwrap();
    lake.finish().await.unwrap();
    warehouse.finish().await.unwrap();
    let mut raw = RawNats::connect(pipeline.nats.port()).await.unwrap();
    raw.publish("lake.access.0.by-hand", "no event").await.unwrap();
    pipeline.rest().await.unwrap();

    let metrics = format!("127.0.0.1:{}", pipeline.metrics_port());
    let archiver = format!("127.0.0.1:{}", pipeline.part(Part::Archiver).unwrap().admin_port());
    let addresses = ["--metrics-addr", &metrics, "--archiver-addr", &archiver];
    let url = pipeline.database.reader_url();
    let top = |words: &[&str], url: &str| {
        let words = ["top"].iter().chain(words).chain(&addresses).copied();
        pipeline.tool(words, url).unwrap()
    };
    until("dead letter in the archiver's metrics", async || {
        let once = top(&["--once"], &url);
        assert_eq!(once.status, Some(0), "{}", once.stderr);
        Ok(table(&once.stdout)["dead_letters_open"] == "1")
    })
    .await
    .unwrap();
    let once = top(&["--once"], &url);
    let table = table(&once.stdout);
    for (name, value) in FOUR.into_iter().zip(pipeline.shown().await.unwrap()) {
        assert_eq!(table[name].parse::<f64>().unwrap(), value, "{name}");
    }
    assert_eq!(table["archiver_lag_messages"], "0");
    assert_eq!(table["aggregator_lag_messages[LAKE_0]"], "0");
    assert!(table.keys().any(|name| name.starts_with("bucket_used_bytes[")), "{table:?}");

    let on_screen = async |url: &str, texts: [&str; 2]| {
        let words = [&["top"], &addresses[..]].concat();
        let screen = Screen::start("exec", &words, url, pipeline.folder());
        for text in texts {
            screen.shows(text).await;
        }
    };
    on_screen(&url, ["undecodable", "by-hand"]).await;
    // Without the archive everything else is shown all the same.
    on_screen("", ["DATABASE_URL", FOUR[3]]).await;

    // What scripts read first: is there anything to show?
    pipeline.kill(Part::Aggregator).unwrap();
    let ended = pipeline.tool(["top", "--once", "--metrics-addr", &metrics], &url).unwrap();
    assert_eq!(ended.status, Some(1));
    let values: BTreeMap<&str, &str> =
        ended.stdout.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(values["ready"].trim(), "0");
    assert_eq!(values[FOUR[0]].trim(), "-");
}

/// The process with this among its arguments, apart from what starts it.
fn process_with(program: &Path, argument: &str) -> Option<PathBuf> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path())).find(|process| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0);
        words.next() == Some(program.as_os_str().as_encoded_bytes())
            && words.any(|word| word == argument.as_bytes())
    })
}

/// The executable in a terminal, and what it has written there.
struct Screen {
    terminal: Child,
    written: PathBuf,
}

impl Screen {
    /// Runs it behind these words of the shell.
    fn start(before: &str, words: &[&str], database_url: &str, folder: &Path) -> Self {
        let program = lakegauge().unwrap();
        let words = words.join(" ");
        let command =
            format!("stty rows 40 cols 120; {before} {} {words}", program.to_str().unwrap());
        let written = tempfile::Builder::new().tempfile_in(folder).unwrap().into_temp_path();
        let written = written.keep().unwrap();
        let terminal = Command::new("script")
            .args(["--quiet", "--flush", "--command", &command])
            .arg(&written)
            .env("TERM", "xterm")
            .env("DATABASE_URL", database_url)
            .env("LAKEGAUGE_DATA_DIR", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { terminal, written }
    }

    /// Waits until a text was written that holds no space: the screen's spaces are not written.
    async fn shows(&self, text: &str) {
        let shown = || fs::read(&self.written).unwrap_or_default();
        let waited =
            until(text, async || Ok(String::from_utf8_lossy(&shown()).contains(text))).await;
        waited.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&shown())));
    }

    fn close(&mut self) {
        self.terminal.kill().unwrap();
        self.terminal.wait().unwrap();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// A terminal that ends takes `top` with it, whether or not it is told: in a session of its own a
/// process gets no SIGHUP.
#[tokio::test(flavor = "multi_thread")]
async fn top_ends_with_its_terminal() {
    let (program, folder) = (lakegauge().unwrap(), tempfile::tempdir().unwrap());
    for before in ["exec", "exec setsid --wait"] {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let words = ["top", "--metrics-addr", &address];
        let mut screen = Screen::start(before, &words, "", folder.path());
        screen.shows("answer").await;
        let process = process_with(&program, &address).unwrap();
        screen.close();
        let ended = until("the end of top", async || Ok(!process.exists()));
        ended.await.unwrap_or_else(|error| panic!("{before}: {error}"));
    }
}
