//! The filters of `examples/`: what they do not understand is an error that counts; and what `./run`
//! refuses.

use std::process::Command;

use integration_tests::executable::{self, Ended, finish};
use integration_tests::nats::repository;

/// What a filter of the examples makes of this text, with these arguments.
fn filtered(filter: &str, arguments: &[&str], input: &str) -> Ended {
    let program = repository().join("examples").join(filter);
    let mut jq = Command::new("jq");
    jq.args(arguments).arg("-f").arg(program);
    finish(jq, input.as_bytes()).expect("jq is installed")
}

fn log_line(severity: &str, message: &str) -> String {
    let line = serde_json::json!({
        "timestamp": "2026-11-28 07:00:00.123 UTC", "user": "u", "dbname": "d", "session_id": "s",
        "line_num": 1, "error_severity": severity, "message": message, "query_id": 12,
    });
    format!("{line}\n")
}

const STATEMENTS: [&str; 6] = ["-cnR", "--arg", "warehouse", "w", "--argjson", "plans"];

#[test]
fn a_log_line_that_is_not_understood_is_an_error_that_counts_lines_and_keeps_the_rest() {
    let good = log_line("LOG", "duration: 0.123 ms  statement: select 1");
    let quiet = [
        log_line("LOG", "checkpoint complete: wrote 3 buffers (0.0%); write=0.201 s"),
        log_line("LOG", "disconnection: session time: 0:00:00.123 user=u database=d"),
        log_line("LOG", "duration: 0.100 ms  parse <unnamed>: select 1"),
        log_line("LOG", "duration: 0.100 ms  bind <unnamed>/c: select 1"),
        log_line("ERROR", "relation \"missing\" does not exist"),
        "\n".to_owned(),
    ]
    .concat();
    let arguments = [&STATEMENTS[..], &["false"]].concat();
    let all = filtered("postgres-log.jq", &arguments, &format!("{quiet}{good}{quiet}"));
    assert_eq!((all.status, all.stderr.as_str(), all.stdout.lines().count()), (Some(0), "", 1));
    for odd in [
        log_line("LOG", "Dauer: 0.123 ms  Anweisung: select 1"),
        log_line("LOG", "durée : 0.123 ms, instruction : select 1"),
        log_line("LOG", "продолжительность: 0.123 мс, оператор: select 1"),
        log_line("LOG", "期間: 0.123 ミリ秒  文: select 1"),
        log_line("LOG", "duração: 0,123 ms  comando: select 1"),
        log_line("FEHLER", "Relation »missing« existiert nicht"),
        log_line("LOG", "duration: 0.123 ms"),
        log_line("LOG", "duration: 0.123 ms  plan:\nQuery Text: select 1"),
        good.replace("UTC", "CET"),
        "{\"message\":1}\n".to_owned(),
        "no JSON\n".to_owned(),
    ] {
        let log = format!("{good}{odd}{quiet}{odd}{good}");
        let some = filtered("postgres-log.jq", &arguments, &log);
        assert_ne!(some.status, Some(0), "{odd}");
        assert_eq!(some.stdout.lines().count(), 2, "{odd}: {}", some.stderr);
        assert!(
            some.stderr.contains("2 of 10 lines were not understood"),
            "{odd}: {}",
            some.stderr
        );
        assert!(some.stderr.contains("line 2: "), "{}", some.stderr);
    }
    let arguments = [&STATEMENTS[..], &["true"]].concat();
    let planless = filtered("postgres-log.jq", &arguments, &good);
    assert_ne!(planless.status, Some(0));
    assert!(planless.stderr.contains("none is a plan"), "{}", planless.stderr);
}

#[test]
fn what_git_says_and_the_filters_do_not_understand_is_an_error_that_counts() {
    let change = "commit 5 me\n\u{1}:000000 100644 aa bb A\na file\n";
    let all = filtered("git-changes.jq", &["-nrR"], change);
    assert_eq!((all.status, all.stdout.lines().count()), (Some(0), 1), "{}", all.stderr);
    for odd in [
        // A rename has two paths, a merge of both sides two colons, and other forms no change.
        ":100644 100644 aa bb R100\nold\nnew",
        "::100644 100644 100644 aa bb cc MM\npath",
        "12\t3\tpath",
        ":100644 100644 aa bb M",
    ] {
        let some = filtered("git-changes.jq", &["-nrR"], &format!("{change}{odd}\n"));
        assert_ne!(some.status, Some(0), "{odd}");
        assert_eq!(some.stdout, all.stdout, "{odd}");
        assert!(some.stderr.contains("not understood"), "{odd}: {}", some.stderr);
    }
    let line = "10 {\"time\":1,\"author\":\"a\",\"operation\":\"write\",\"key\":\"k\"}\n";
    let arguments = ["-cnR", "--arg", "bucket", "b"];
    let all = filtered("git-events.jq", &arguments, line);
    assert_eq!((all.status, all.stdout.lines().count()), (Some(0), 1), "{}", all.stderr);
    for odd in ["aabb missing", "10 no change", ""] {
        let some = filtered("git-events.jq", &arguments, &format!("{line}{odd}\n{line}"));
        assert_ne!(some.status, Some(0), "{odd}");
        assert_eq!(some.stdout.lines().count(), 2, "{odd}");
        assert!(some.stderr.contains("1 of 3 lines were not understood"), "{}", some.stderr);
    }
}

#[test]
fn a_name_that_is_no_scenario_ends_run_before_anything_is_installed_or_built() {
    let run = |words: &[&str], variable: &str| {
        let mut bash = Command::new("bash");
        bash.arg(repository().join("run")).args(words).env_clear();
        // Without a toolchain: what went on would end with another status, and change nothing.
        bash.env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").env("UP_SCENARIO", variable);
        finish(bash, b"").unwrap()
    };
    let wrong: [(&[&str], &str); 3] = [
        (&["--for", "1m", "--scenario", "bogus"], "none"),
        (&["--scenario=bogus"], "none"),
        (&[], "bogus"),
    ];
    for (words, variable) in wrong {
        let ended = run(words, variable);
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(64), ""), "{words:?}");
        assert!(ended.stderr.contains("bogus"), "{}", ended.stderr);
    }
    // The same words as the executable takes, and it refuses others with the same status.
    let script = std::fs::read_to_string(repository().join("run")).unwrap();
    let (_, rest) = script.split_once("\nscenarios=(").unwrap();
    let mut ours: Vec<&str> = rest.split_once(')').unwrap().0.split(' ').collect();
    ours.sort_unstable();
    let refused = executable::run(["up", "--scenario", "bogus"], b"").unwrap();
    assert_eq!(refused.status, Some(64), "{refused:?}");
    let words = |text: &str| -> Vec<String> {
        let is_of_a_name = |letter: char| letter.is_ascii_lowercase() || letter == '-';
        text.split(|letter| !is_of_a_name(letter)).map(str::to_owned).collect()
    };
    let allowed = refused.stderr.lines().find(|line| line.contains("noisy-tenant")).unwrap();
    let allowed = words(allowed);
    assert!(ours.iter().all(|name| allowed.iter().any(|word| word == name)), "{allowed:?}");
    // Every name of an incident is said in the message: as many words with a hyphen.
    let hyphens = |words: &[String]| {
        let mut names: Vec<String> =
            words.iter().filter(|word| word.contains('-')).cloned().collect();
        names.retain(|name| !name.starts_with('-') && !name.ends_with('-'));
        names.sort_unstable();
        names.dedup();
        names
    };
    let ours: Vec<String> = ours.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(hyphens(&ours), hyphens(&allowed));
}
