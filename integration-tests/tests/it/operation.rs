//! The executable as an operator meets it: settings, shutdown, and the pipeline by one command.

use integration_tests::nats::NatsServer;
use integration_tests::postgres::PostgresServer;
use integration_tests::process::Process;
use integration_tests::up::{FREE_PORTS, scratch};
use serde_json::Value;

#[test]
fn wrong_settings_are_all_named_at_once_and_leave_with_64() {
    let environment = [("ADMIN_ADDR", "here"), ("LOG_FORMAT", "json"), ("METRICS_ADDR", "there")];
    let mut aggregator = Process::start(&["aggregate"], &environment).unwrap();
    assert_eq!(aggregator.wait().unwrap().code(), Some(64));
    let said = aggregator.log();
    for key in ["ADMIN_ADDR (--admin-addr)", "METRICS_ADDR (--metrics-addr)"] {
        assert!(said.contains(key), "{said}");
    }
    assert!(!said.contains("there"), "a value may be a secret: {said}");
}

#[test]
fn a_wrong_command_line_leaves_with_64_and_help_with_0() {
    let status =
        |arguments: &[&str]| Process::start(arguments, &[]).unwrap().wait().unwrap().code();
    assert_eq!(status(&["no-such-thing"]), Some(64));
    assert_eq!(status(&["up", "--no-such-flag"]), Some(64));
    assert_eq!(status(&["up", "--help"]), Some(0));
    assert_eq!(status(&["--version"]), Some(0));
    assert_eq!(status(&["completions", "bash"]), Some(0));
}

#[tokio::test]
async fn every_service_drains_on_sigterm_and_says_0() {
    let nats = NatsServer::start().await.unwrap();
    let postgres = PostgresServer::start().unwrap();
    let database = postgres.database().await.unwrap();
    let (archiver_url, reader_url, nats_url) =
        (database.archiver_url(), database.reader_url(), nats.url());
    let settings = |database: &'static str| -> Vec<(&str, &str)> {
        let database = match database {
            "archiver" => Some(("DATABASE_URL", archiver_url.as_str())),
            "reader" => Some(("DATABASE_URL", reader_url.as_str())),
            _ => None,
        };
        [("NATS_URL", nats_url.as_str()), ("METRICS_ADDR", "127.0.0.1:0"), ("LOG_FORMAT", "json")]
            .into_iter()
            .chain(database)
            .collect()
    };
    let mut services = vec![
        Process::start(&["archive"], &settings("archiver")).unwrap(),
        Process::start(&["aggregate"], &settings("reader")).unwrap(),
        Process::start(&["simulate", "lake", "--rate", "50"], &settings("none")).unwrap(),
        Process::start(&["simulate", "warehouse", "--rate", "50"], &settings("none")).unwrap(),
    ];
    for service in &mut services {
        service.wait_until_ready().unwrap();
        assert_eq!(service.get("/livez").unwrap().0, 200);
        let metrics = service.get("/metrics").unwrap().1;
        assert!(metrics.contains("lakegauge_build_info{"), "{metrics}");
    }
    // Producers first, as anybody stops a pipeline.
    for service in services.iter_mut().rev() {
        service.terminate().unwrap();
        let status = service.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", service.log());
        assert!(service.log().contains("\"drained\""), "{}", service.log());
    }
}

#[test]
fn the_pipeline_by_one_command_agrees_with_the_simulators_and_goes_on_where_it_ended() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join("data").display().to_string();
    let summary = scratch.path().join("summary.json");
    let summary_path = summary.display().to_string();
    for run in 0..2 {
        let mut arguments = vec!["up", "--for=4s", "--rate=400", "--no-prometheus"];
        arguments.extend(["--data-dir", &data, "--summary-json", &summary_path]);
        arguments.extend(FREE_PORTS);
        let mut up = Process::start_inheriting(&arguments).unwrap();
        let status = up.wait().unwrap();
        assert_eq!(status.code(), Some(0), "run {run}: {}", up.log());
        let text = std::fs::read_to_string(&summary).unwrap();
        let summary: Value = serde_json::from_str(&text).unwrap();
        let number = |name: &str| summary[name].as_u64().unwrap();
        assert!(number("published") > 400, "{text}");
        assert_eq!(number("published"), number("archived") + number("dead_lettered"), "{text}");
        assert_eq!((number("duplicates_in_archive"), number("lag")), (0, 0), "{text}");
        for counter in ["data_lake_numero_acessos", "data_warehouse_registros_processados"] {
            assert_eq!(summary["metrics"][counter], summary["model"][counter], "{text}");
        }
    }
}

#[test]
fn ports_of_parts_that_are_not_started_may_be_in_use() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join("data").display().to_string();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let flags = ["prometheus", "grafana", "lake-admin", "warehouse-admin"];
    let flags = flags.map(|part| format!("--{part}-port"));
    let is_free = |flag: &&&str| !flags.iter().any(|taken| flag.starts_with(taken));
    let in_use: Vec<String> = flags.iter().map(|flag| format!("{flag}={port}")).collect();
    let mut arguments = vec!["up", "--no-simulators", "--no-prometheus", "--no-grafana"];
    arguments.extend(["--data-dir", &data]);
    arguments.extend(FREE_PORTS.iter().filter(is_free));
    arguments.extend(in_use.iter().map(String::as_str));
    let mut up = Process::start_inheriting(&arguments).unwrap();
    up.wait_for_line("lag ").unwrap();
    up.terminate().unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0), "{}", up.log());
}

#[test]
fn a_data_directory_in_use_is_refused_by_name() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join("data").display().to_string();
    let mut arguments = vec!["up", "--no-simulators", "--no-prometheus", "--data-dir", &data];
    arguments.extend(FREE_PORTS);
    let mut first = Process::start_inheriting(&arguments).unwrap();
    first.wait_for_line("lag ").unwrap();
    let mut second = Process::start_inheriting(&arguments).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert!(second.log().contains("another `up` is using"), "{}", second.log());
    first.terminate().unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0), "{}", first.log());
}
