//! `lakegauge up` where people start it: any environment, any umask, any directory.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use integration_tests::executable::{Ended, finish, lakegauge, without_settings};
use integration_tests::http;
use integration_tests::process::Process;
use integration_tests::up::{FREE_PORTS, scratch};
use serde_json::Value;

/// Starts `up` in this directory, by a shell that does this first.
fn up(
    first: &str,
    data: &Path,
    flags: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<Process> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{first}; exec \"$@\"")).arg("sh").arg(lakegauge()?);
    command.arg("up").arg("--data-dir").arg(data).args(flags).args(FREE_PORTS);
    without_settings(&mut command).envs(environment.iter().copied());
    Process::start_command(command)
}

const SHORT: &[&str] = &["--for=2s", "--rate=200", "--no-prometheus", "--no-grafana"];

#[test]
fn up_heeds_no_variable_that_is_meant_for_other_programs() {
    let scratch = scratch().unwrap();
    let others = [
        ("PGSSLMODE", "require"),
        ("PGHOST", "203.0.113.1"),
        ("PGHOSTADDR", "203.0.113.1"),
        ("PGPORT", "1"),
        ("PGUSER", "nobody"),
        ("PGDATABASE", "nothing"),
        ("PGPASSWORD", "wrong"),
        ("PGOPTIONS", "-c no_such_setting=1"),
        ("PGSERVICE", "none"),
        ("PGDATA", "/nowhere"),
        ("PGCLIENTENCODING", "LATIN1"),
        ("PGSSLROOTCERT", "/nowhere"),
        ("DATABASE_URL", "postgres://nobody@203.0.113.1/nothing"),
        ("SUPABASE_DB_URL", "postgres://nobody@203.0.113.1/nothing"),
        ("MIGRATION_DATABASE_URL", "postgres://nobody@203.0.113.1/nothing"),
        ("NATS_URL", "nats://203.0.113.1:1"),
        ("NATS_USER", "nobody"),
        ("NATS_CREDS", "/nowhere"),
        ("NATS_SUBJECT_PREFIX", "elsewhere"),
        ("NATS_INBOX_PREFIX", "_ELSEWHERE"),
        ("NATS_STORE_DIR", "/nowhere"),
        ("ADMIN_ADDR", "203.0.113.1:1"),
        ("METRICS_ADDR", "203.0.113.1:1"),
        ("GF_PATHS_DATA", "/nowhere"),
        ("GF_DATABASE_TYPE", "postgres"),
        ("GF_SERVER_PROTOCOL", "https"),
        ("LC_ALL", "de_DE.UTF-8"),
        ("LANG", "no_such_language"),
        ("LANGUAGE", "de"),
        ("TZ", "Nowhere/Nothing"),
        ("http_proxy", "http://203.0.113.1:1"),
        ("HTTP_PROXY", "http://203.0.113.1:1"),
        ("HTTPS_PROXY", "http://203.0.113.1:1"),
        ("ALL_PROXY", "http://203.0.113.1:1"),
        ("HOME", "/nowhere"),
    ];
    let flags = ["--for=2s", "--rate=200"];
    let mut up = up(":", &scratch.path().join("data"), &flags, &others).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0), "{}", up.log());
    assert!(up.log().contains("ignored, because"), "{}", up.log());
    assert!(!up.log().contains("203.0.113.1"), "{}", up.log());
}

#[test]
fn what_is_published_beside_the_simulators_leaves_their_sums_in_agreement() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join("data");
    let flags = ["--rate=200", "--no-prometheus", "--no-grafana"];
    let mut up = up(":", &data, &flags, &[]).unwrap();
    up.wait_for_line("lag ").unwrap();
    let mut publish = Command::new(lakegauge().unwrap());
    publish.args(["publish", "--source", "my-log", "--data-dir"]).arg(&data);
    let event = r#"{"type":"lake.access","occurred_at":"2026-01-01T00:00:00Z","bucket":"mine","key":"k","operation":"write","bytes":7,"duration_us":2,"outcome":"ok","principal":"p"}"#;
    let input = format!("{event}\n{event}\n{}\n", event.replace("mine", "mine-too"));
    let ended = finish(without_settings_of(publish), input.as_bytes()).unwrap();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    up.terminate().unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0), "{}", up.log());
    let log = up.log();
    assert!(log.contains("3 events of another source (my-log) were published beside"), "{log}");
    assert!(log.contains("the sums agree"), "{log}");
}

fn without_settings_of(mut command: Command) -> Command {
    without_settings(&mut command);
    command
}

#[test]
fn a_healthy_pipeline_logs_no_warning() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join("data");
    // In ten seconds as many snapshots, sweeps of what is old, trims and looks as in an hour.
    let often = [
        ("SNAPSHOT_INTERVAL_MS", "50"),
        ("ARCHIVER_TRIM_INTERVAL_MS", "50"),
        ("ARCHIVER_STREAM_KEEP_S", "0"),
        ("ARCHIVER_LEDGER_INTERVAL_MS", "50"),
        ("ARCHIVER_RETENTION_INTERVAL_MS", "50"),
    ];
    let flags = ["--for=10s", "--rate=500", "--no-prometheus", "--no-grafana"];
    let mut up = up(":", &data, &flags, &often).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0), "{}", up.log());
    assert!(up.log().contains("  page        http://127.0.0.1:"), "{}", up.log());
    for service in ["lake-simulator", "warehouse-simulator", "aggregator", "archiver"] {
        let log = std::fs::read_to_string(data.join(format!("logs/{service}.log"))).unwrap();
        assert!(log.contains("\"level\":\"INFO\""), "{service}: {log}");
        let is_loud = |line: &&str| ["WARN", "ERROR"].iter().any(|level| line.contains(level));
        assert_eq!(log.lines().find(is_loud), None, "{service}");
    }
}

#[test]
fn up_refuses_a_scenario_that_there_is_not_before_it_makes_anything() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join("data");
    let mut up = up(":", &data, &["--scenario=bogus"], &[]).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(64), "{}", up.log());
    assert!(up.log().contains("noisy-tenant"), "what there is: {}", up.log());
    assert!(!data.exists(), "a directory was made");
}

#[test]
fn up_works_in_a_directory_with_any_name_that_can_be_printed() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join(r#"a"b \d'c $HOME ${x} %41%(s)s #? [a-z]* {e} ;&|<> `ü ~"#);
    // Prometheus too, where it is installed: its paths are patterns to it.
    let mut up = up(":", &data, &["--no-simulators", "--no-grafana"], &[]).unwrap();
    up.wait_for_line("lag ").unwrap();
    let addresses = std::fs::read_to_string(data.join("addresses.json")).unwrap();
    let addresses: Value = serde_json::from_str(&addresses).unwrap();
    if !up.log().contains("Prometheus  not installed") {
        let prometheus = addresses["prometheus"].as_str().unwrap().rsplit_once(':').unwrap().1;
        let prometheus = prometheus.parse().unwrap();
        let pools = http::get(prometheus, "/api/v1/targets?state=active").unwrap().1;
        assert!(pools.contains("lakegauge-admin"), "{pools}");
        let rules = http::get(prometheus, "/api/v1/rules").unwrap().1;
        assert!(rules.contains("alerts.yml"), "{rules}");
    }
    assert!(data.join("nats/jetstream").is_dir());
    up.terminate().unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0), "{}", up.log());
    let beside: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
}

#[test]
fn a_directory_that_no_setting_can_name_is_refused_before_anything_is_made() {
    use std::os::unix::ffi::OsStrExt as _;
    let scratch = scratch().unwrap();
    for name in [&b"a\nb"[..], b"a\xffb", b"a\x07b"] {
        let data = scratch.path().join(std::ffi::OsStr::from_bytes(name));
        let mut by_flag = up(":", &data, SHORT, &[]).unwrap();
        assert!(matches!(by_flag.wait().unwrap().code(), Some(1 | 64)), "{}", by_flag.log());
        assert!(by_flag.log().contains("--data-dir"), "{}", by_flag.log());
        let mut command = Command::new(lakegauge().unwrap());
        command.arg("up").args(SHORT).args(FREE_PORTS).env("LAKEGAUGE_DATA_DIR", &data);
        let by_environment = finish(command, b"").unwrap();
        assert!(matches!(by_environment.status, Some(1 | 64)), "{by_environment:?}");
        assert!(by_environment.stderr.contains("--data-dir"), "{by_environment:?}");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_part_that_dies_at_once_for_ever_ends_up_with_its_last_lines() {
    let scratch = scratch().unwrap();
    let program = scratch.path().join("nats-server");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'nats-server: v2.99.0' && exit 0\n\
                  echo 'the very last line'; exit 3\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.display().to_string();
    let flags = [SHORT, &["--nats-server-bin", &program]].concat();
    let mut up = up(":", &scratch.path().join("data"), &flags, &[]).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(1), "{}", up.log());
    assert!(
        up.log().contains("nats ended with status 3, 5 times in a row at once"),
        "{}",
        up.log()
    );
    assert!(up.log().contains("the very last line"), "{}", up.log());
}

/// Whether anybody but the owner may do anything with what is in a folder.
fn open_to_others(folder: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let about = std::fs::symlink_metadata(&path)?;
        if about.is_symlink() {
            continue;
        }
        if about.mode() & 0o077 != 0 {
            found.push(format!("{} {:o}", path.display(), about.mode()));
        } else if about.is_dir() {
            open_to_others(&path, found)?;
        }
    }
    Ok(())
}

#[test]
fn up_works_under_any_umask_and_keeps_what_it_makes_to_its_owner() {
    for umask in ["000", "022", "077", "0777"] {
        let scratch = scratch().unwrap();
        let data = scratch.path().join("data");
        for run in 0..2 {
            let mut up = up(&format!("umask {umask}"), &data, SHORT, &[]).unwrap();
            let status = up.wait().unwrap().code();
            assert_eq!(status, Some(0), "umask {umask}, run {run}: {}", up.log());
        }
        let mut found = Vec::new();
        open_to_others(&data, &mut found).unwrap();
        assert_eq!(found, Vec::<String>::new(), "umask {umask}");
    }
}

#[test]
fn what_a_start_left_half_made_or_with_wrong_modes_breaks_no_later_start() {
    let scratch = scratch().unwrap();
    // Nobody but us can enter here: as root, PostgreSQL's files go elsewhere.
    let closed = scratch.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&closed, 0o700);
    let data = closed.join("data");
    std::fs::create_dir(&data).unwrap();
    let elsewhere = Path::new("/var/lib/lakegauge");
    let cluster = if rustix::process::geteuid().is_root() {
        // What a start under a umask of 077 once left: a link to an empty folder that PostgreSQL's
        // user can't reach, and one beside it whose making was cut off.
        let name = data.display().to_string().replace('/', "-");
        let cluster = elsewhere.join(format!("test{name}"));
        std::os::unix::fs::symlink(&cluster, data.join("postgres")).unwrap();
        std::fs::create_dir_all(&cluster).unwrap();
        std::fs::create_dir(elsewhere.join(format!("test{name}.making"))).unwrap();
        mode(elsewhere, 0o700);
        cluster
    } else {
        std::fs::create_dir(data.join("postgres.making")).unwrap();
        data.join("postgres")
    };
    let run = || {
        let mut up = up("umask 077", &data, SHORT, &[]).unwrap();
        (up.wait().unwrap().code(), up.log())
    };
    let first = run();
    for folder in ["logs", "nats", "secrets", "prometheus", "expected"] {
        mode(&data.join(folder), 0o500);
    }
    mode(&cluster, 0o755);
    let second = run();
    std::fs::remove_dir_all(&cluster).unwrap();
    assert_eq!(first.0, Some(0), "{}", first.1);
    assert_eq!(second.0, Some(0), "{}", second.1);
}

/// Runs a tool where the data directory is the usual one, told nothing else.
fn tool(place: &Path, arguments: &[&str], input: &[u8]) -> anyhow::Result<Ended> {
    let mut command = Command::new(lakegauge()?);
    command.args(arguments).current_dir(place).env_clear();
    finish(command, input)
}

#[test]
fn every_tool_finds_an_up_on_other_ports_by_its_data_directory_and_is_quiet() {
    let scratch = scratch().unwrap();
    let place = scratch.path();
    let flags = ["--rate=200", "--no-prometheus", "--no-grafana"];
    let mut up = up(":", &place.join(".lakegauge"), &flags, &[]).unwrap();
    up.wait_for_line("lag ").unwrap();
    let event = r#"{"type":"lake.inventory","bucket":"raw","objects":1,"bytes":2,"as_of":"TIME"}"#;
    let time = wire::json::format_time(domain::Timestamp(service_kit::Clock::system().now_us()));
    let event = event.replace("TIME", &time.unwrap());
    let tools: [(&[&str], &[u8]); 11] = [
        (&["publish", "-"], event.as_bytes()),
        (&["top", "--once"], b""),
        (&["doctor"], b""),
        (&["audit"], b""),
        (&["replay", "--verify"], b""),
        (&["replay", "--dry-run"], b""),
        (&["replay", "--remove", "friday"], b""),
        (&["dead-letters", "list"], b""),
        (&["dead-letters", "retry", "--all"], b""),
        (&["streams"], b""),
        (&["migrate"], b""),
    ];
    for (arguments, input) in tools {
        let ended = tool(place, arguments, input).unwrap();
        assert_eq!(ended.status, Some(0), "{arguments:?}: {} {}", ended.stdout, ended.stderr);
        let log =
            ended.stderr.lines().find(|line| line.contains("\"level\"") || line.contains("WARN"));
        assert_eq!(log, None, "{arguments:?}");
    }
    let doctor = tool(place, &["doctor"], b"").unwrap().stdout;
    assert!(doctor.contains("of the `lakegauge up` in .lakegauge/addresses.json"), "{doctor}");
    let mut tail = Command::new(lakegauge().unwrap());
    tail.arg("tail").current_dir(place).env_clear();
    let mut tail = Process::start_command(tail).unwrap();
    tail.wait_for_line("lake.access").unwrap();
    tail.terminate().unwrap();
    assert_eq!(tail.wait().unwrap().code(), Some(0), "{}", tail.log());

    // What is set goes first, and where it leads nowhere, that is all that is said.
    let elsewhere = ["tail", "--nats-url", "nats://127.0.0.1:1"];
    let ended = tool(place, &elsewhere, b"").unwrap();
    assert!(ended.stderr.contains("127.0.0.1:1"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("addresses.json"), "{}", ended.stderr);

    // With an event that is not the simulators' the sums can't agree; the rest is well.
    up.terminate().unwrap();
    up.wait().unwrap();
    assert!(!up.log().contains("died") && !up.log().contains("error"), "{}", up.log());
    let gone = tool(place, &["audit", "--data-dir", ".lakegauge"], b"").unwrap();
    assert_eq!(gone.status, Some(64), "{}", gone.stderr);
    assert!(gone.stderr.contains("no `lakegauge up` runs there"), "{}", gone.stderr);
}
