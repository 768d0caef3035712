//! What the dashboards and rules ask is answered by a running pipeline: every expression by a real
//! Prometheus, every statement by the archive under the rights of Grafana's role.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use boards::Query;
use integration_tests::http;
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::ports::free_port;
use integration_tests::process::Process;
use integration_tests::prometheus::{Prometheus, Target};
use integration_tests::waiting::until;
use serde_json::json;

/// The login that stands for Grafana's: a member of lakegauge_reader and of nothing else.
const GRAFANA: &str = "lakegauge_test_reader";

/// Expressions that are empty while all is well, and why. By a part of their text.
const EMPTY: [(&str, &str); 5] = [
    ("lakegauge_part_ready{", "every part of every service is well"),
    ("offset 1", "there was no yesterday and no last week"),
    ("ALERTS{environment=~\"$environment\",alertstate=\"firing\"})", "nothing fires"),
    (
        "lakegauge_archive_dead_letters_open{environment=~\"$environment\"}) > 0",
        "there are no dead letters",
    ),
    ("changes(process_start_time_seconds", "nothing was started again"),
];

/// Statements that have no rows while all is well, and why.
const EMPTY_SQL: [(&str, &str); 2] = [
    ("from lakegauge_api.dead_letter ", "there are no dead letters"),
    ("from lakegauge_api.declared_loss ", "nothing was lost"),
];

/// Metrics that neither a board nor a rule uses, and why.
const UNUSED: [(&str, &str); 3] = [
    ("process_threads", "a fixed number"),
    ("process_virtual_memory_max_bytes", "a limit of the system, mostly none"),
    ("process_virtual_memory_bytes", "address space says nothing, resident memory does"),
];

/// What a name of ours begins with: of metrics of the pipeline, of rules, and of Prometheus.
const OURS: [&str; 3] = ["data_", "lakegauge_", "process_"];
const RULES: [&str; 1] = ["lakegauge:"];

/// Every expression of the boards, those of annotations and of variables too.
fn expressions() -> BTreeSet<String> {
    let mut expressions = BTreeSet::new();
    for board in boards::all() {
        let json = board.json();
        for annotation in json["annotations"]["list"].as_array().unwrap() {
            expressions.extend(annotation["target"]["expr"].as_str().map(str::to_owned));
        }
        for variable in &board.variables {
            let inner = variable.query().strip_prefix("label_values(");
            expressions.extend(inner.and_then(|it| Some(it.split_once(',')?.0.to_owned())));
        }
        for panel in board.rows.iter().flat_map(|row| &row.panels) {
            for query in &panel.queries {
                if let Query::Prometheus { expr, .. } = query {
                    expressions.insert(expr.clone());
                }
            }
        }
    }
    expressions
}

fn statements() -> BTreeSet<String> {
    let mut statements = BTreeSet::new();
    for board in boards::all() {
        let json = board.json();
        for annotation in json["annotations"]["list"].as_array().unwrap() {
            statements.extend(annotation["target"]["rawSql"].as_str().map(str::to_owned));
        }
        statements.extend(
            board
                .variables
                .iter()
                .map(|variable| variable.query().to_owned())
                .filter(|query| query.starts_with("select ")),
        );
        for panel in board.rows.iter().flat_map(|row| &row.panels) {
            for query in &panel.queries {
                if let Query::Sql { sql, .. } = query {
                    statements.insert(sql.clone());
                }
            }
        }
    }
    statements
}

/// An expression as Grafana sends it when all is chosen.
fn filled(expr: &str) -> String {
    let expr = expr.replace("$__rate_interval", "10s").replace("\"$environment\"", "\".*\"");
    ["bucket", "warehouse", "tenant"]
        .iter()
        .fold(expr, |expr, name| expr.replace(&format!("\"${name}\""), "\".+\""))
}

/// A statement as Grafana sends it for the last hour when all is chosen.
fn expanded(sql: &str) -> String {
    let (from, to) = ("(now() - interval '1 hour')", "now()");
    let mut sql = sql.replace("$__timeFrom()", from).replace("$__timeTo()", to);
    while let Some((before, rest)) = sql.split_once("$__timeFilter(") {
        let (column, after) = rest.split_once(')').unwrap();
        sql = format!("{before}{column} between {from} and {to}{after}");
    }
    for name in ["bucket", "warehouse", "tenant"] {
        sql = sql.replace(&format!("${{{name}:regex}}"), ".+");
    }
    assert!(!sql.contains("$_") && !sql.contains("${"), "an unknown macro: {sql}");
    sql
}

/// The names of metrics in a text of PromQL.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_name(c)).map(|word| word.trim_end_matches(':'));
    let known = |word: &&str| OURS.iter().chain(&RULES).any(|prefix| word.starts_with(prefix));
    words.filter(known).map(str::to_owned).collect()
}

/// The rules of the tree without comments and texts for people.
fn rules() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prometheus/rules");
    let mut text = String::new();
    for file in fs::read_dir(folder).unwrap() {
        let file = fs::read_to_string(file.unwrap().path()).unwrap();
        let mut is_text = false;
        for line in file.lines() {
            let word = line.trim_start();
            is_text =
                word.starts_with("description:") || (is_text && !word.contains("runbook_url"));
            if !is_text && !word.starts_with('#') && !word.starts_with("- name:") {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// Names that are asked for and that nobody gives.
fn unknown(asked: &BTreeSet<String>, given: &BTreeSet<String>) -> Vec<String> {
    asked.difference(given).cloned().collect()
}

/// Names that are given and that nobody asks for.
fn unused(asked: &BTreeSet<String>, given: &BTreeSet<String>) -> Vec<String> {
    let base = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        base.unwrap_or(name).to_owned()
    };
    let asked: BTreeSet<String> = asked.iter().map(|name| base(name)).collect();
    let idle = |name: &&String| {
        !asked.contains(&base(name)) && !UNUSED.iter().any(|(unused, _)| unused == name)
    };
    given.iter().filter(idle).cloned().collect()
}

/// A pipeline with traffic of now, and the simulators that make it.
async fn running() -> (Pipeline, [Process; 2]) {
    // With a limit, so that its metrics are there.
    let settings = [
        ("ARCHIVER_LEDGER_INTERVAL_MS", "500"),
        ("ARCHIVER_ROLLUP_INTERVAL_MS", "500"),
        ("ARCHIVER_DATABASE_LIMIT_BYTES", "500000000"),
    ];
    let mut pipeline = Pipeline::start(&settings).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let lake = ["simulate", "lake", "--rate", "300", "--failure-share", "0.05", "--seed", "7"];
    let writes = ["--mix", "read=50,write=40,copy=10"];
    let lake = pipeline.spawn_tool(&[&lake[..], &writes].concat()).unwrap();
    let warehouse = ["simulate", "warehouse", "--rate", "100", "--failure-share", "0.05"];
    let warehouse = pipeline.spawn_tool(&[&warehouse[..], &["--seed", "7"]].concat()).unwrap();
    (pipeline, [lake, warehouse])
}

/// A collector that took one record and refused another: what it counts by outcome is there then.
async fn collector(pipeline: &mut Pipeline) -> Process {
    let port = free_port().unwrap();
    let address = format!("127.0.0.1:{port}");
    let collector = pipeline.spawn_tool(&["collect", "http", "--http-addr", &address]).unwrap();
    collector.ready().await.unwrap();
    let record = json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "eventTime": "2026-11-28T06:43:00.000Z",
        "userIdentity": { "principalId": "spark" },
        "responseElements": { "x-amz-request-id": "R1" },
        "s3": { "bucket": { "name": "raw" }, "object": { "key": "a", "size": 1 } },
    });
    let body = json!({ "Records": [record, { "eventName": 7 }] }).to_string();
    let answer = http::post(port, "/s3-events", &[], body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    collector
}

fn targets(pipeline: &Pipeline, simulators: &[Process; 2]) -> Vec<Target> {
    let admin = |service, port| Target { service, port, four: false };
    vec![
        Target { service: "aggregator", port: pipeline.metrics_port(), four: true },
        admin("aggregator", pipeline.part(Part::Aggregator).unwrap().admin_port()),
        admin("archiver", pipeline.part(Part::Archiver).unwrap().admin_port()),
        admin("lake-simulator", simulators[0].admin_port()),
        admin("warehouse-simulator", simulators[1].admin_port()),
    ]
}

/// Scrapes and evaluates every second instead of every five and fifteen.
fn quick(name: &str, text: String) -> String {
    if name != "prometheus.yml" {
        return text;
    }
    let quick = text
        .replace("scrape_interval: 5s", "scrape_interval: 1s")
        .replace("scrape_timeout: 4s", "scrape_timeout: 1s")
        .replace("evaluation_interval: 15s", "evaluation_interval: 1s");
    assert_ne!(quick, text);
    quick
}

#[tokio::test]
async fn everything_that_boards_and_rules_ask_is_answered() {
    let (mut pipeline, simulators) = running().await;
    let collector = collector(&mut pipeline).await;
    let mut targets = targets(&pipeline, &simulators);
    targets.push(Target { service: "collector", port: collector.admin_port(), four: false });
    let prometheus = Prometheus::start(&targets, quick).await.unwrap();

    let expressions = expressions();
    let healthy = |expr: &str| EMPTY.iter().any(|(part, _)| expr.contains(part));
    let mut silent: Vec<String> = expressions.iter().filter(|it| !healthy(it)).cloned().collect();
    let answered = until("answer to every expression", async || {
        silent.retain(|expr| prometheus.query(&filled(expr)).unwrap().is_empty());
        Ok(silent.is_empty())
    })
    .await;
    assert!(answered.is_ok(), "{silent:#?}\n{:#?}", prometheus.failures());
    // Those that may be empty are PromQL all the same, and each reason is needed.
    for (part, reason) in EMPTY {
        let of_it: Vec<&String> = expressions.iter().filter(|expr| expr.contains(part)).collect();
        assert!(!of_it.is_empty(), "no expression has {part} any more ({reason})");
        for expr in of_it {
            prometheus.query(&filled(expr)).unwrap();
        }
    }

    let mut silent = statements();
    silent.retain(|sql| !EMPTY_SQL.iter().any(|(part, _)| sql.contains(part)));
    let ask = |sql: &str| pipeline.database.sql_as(Some(GRAFANA), &expanded(sql));
    let answered = until("rows for every statement", async || {
        silent.retain(|sql| ask(sql).unwrap_or_else(|error| panic!("{sql}\n{error}")).is_empty());
        Ok(silent.is_empty())
    })
    .await;
    assert!(answered.is_ok(), "{silent:#?}");
    for (part, reason) in EMPTY_SQL {
        let statements = statements();
        let mut of_it = statements.iter().filter(|sql| sql.contains(part)).peekable();
        assert!(of_it.peek().is_some(), "no statement has {part} any more ({reason})");
        for sql in of_it {
            ask(sql).unwrap();
        }
    }
    assert!(ask("delete from lakegauge.sample").is_err(), "Grafana's role can write");

    let all: BTreeSet<String> = prometheus.names().unwrap().into_iter().collect();
    let mut asked: BTreeSet<String> = expressions.iter().flat_map(|expr| names(expr)).collect();
    asked.extend(names(&rules()));
    assert_eq!(unknown(&asked, &all), Vec::<String>::new());
    let given: BTreeSet<String> = all
        .into_iter()
        .filter(|name| OURS.iter().any(|prefix| name.starts_with(prefix)) && !name.contains(':'))
        .collect();
    assert_eq!(unused(&asked, &given), Vec::<String>::new());
}

#[test]
fn a_name_that_nobody_gives_or_asks_for_is_found() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let asked = names("rate(data_lake_such_total{bucket=~\".+\"}[5m]) / lakegauge:x:ratio > up");
    assert_eq!(asked, set(&["data_lake_such_total", "lakegauge:x:ratio"]));
    let given = set(&["data_lake_such_total", "data_new_bucket", "process_threads"]);
    assert_eq!(unknown(&asked, &given), ["lakegauge:x:ratio"]);
    assert_eq!(unused(&asked, &given), ["data_new_bucket"]);
    assert!(rules().contains("lakegauge:slo_objective:ratio") && !rules().contains("humanize"));
}
