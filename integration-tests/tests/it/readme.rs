//! What both READMEs tell people to type.

use std::collections::BTreeSet;
use std::process::Command;

use integration_tests::executable::{finish, run};
use integration_tests::nats::repository;

const PAGES: [&str; 2] = ["README.md", "README.pt-BR.md"];

fn page(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).expect(name)
}

/// The lines of a page's shell blocks; one that ends with a backslash goes on in the next.
fn commands(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("\n```").next().unwrap_or_default().replace("\\\n", " ");
        lines.extend(block.lines().map(|line| line.trim().to_owned()));
    }
    lines
}

/// The words of a command as a shell reads them, without its comment.
fn words(command: &str) -> Vec<String> {
    let mut shell = Command::new("bash");
    // Only split: nothing is expanded or run.
    shell.arg("-c").arg(
        r#"set -f; eval "words=($(sed 's/[$`<>|&;]/\\&/g' <<<"$1")"$'\n'")"; printf '%s\0' "${words[@]}""#,
    );
    shell.arg("bash").arg(command);
    let split = finish(shell, b"").expect("bash");
    split.stdout.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The calls of our executable: words behind `lakegauge`, up to a pipe or the end.
fn calls(page: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for command in commands(page) {
        let words = words(&command);
        let Some(at) = words.iter().position(|word| word == "lakegauge") else { continue };
        let behind_docker = words[..at].iter().any(|word| word.starts_with("docker"));
        let ends = |word: &&String| ["|", "&", ">"].contains(&word.as_str());
        let call: Vec<String> =
            words[at + 1..].iter().take_while(|word| !ends(word)).cloned().collect();
        assert!(behind_docker || !call.is_empty(), "{command}");
        calls.push(call);
    }
    calls
}

#[test]
fn every_call_of_our_executable_has_flags_and_values_that_exist() {
    for name in PAGES {
        let calls = calls(&page(name));
        assert!(calls.len() > 8, "{name}: {calls:?}");
        for call in calls {
            // Everything before is read before the help is printed.
            let asked = run(call.iter().map(String::as_str).chain(["--help"]), b"").unwrap();
            assert_eq!(asked.status, Some(0), "{name}: lakegauge {call:?}: {}", asked.stderr);
        }
    }
}

#[test]
fn every_service_port_and_variable_of_the_readmes_exists() {
    let compose = page("docker-compose.yml") + &page("docker-compose.override.yml");
    let example = page(".env.example");
    let others = page("docs/compose.md") + &page("docs/supabase.md") + &compose;
    for name in PAGES {
        let page = page(name);
        for command in commands(&page).iter().map(|command| words(command)) {
            let is_compose = command.first().is_some_and(|word| word == "docker-compose");
            let service = command
                .iter()
                .rev()
                .find(|word| !word.starts_with('-') && word.parse::<u32>().is_err());
            let named = ["logs"].iter().any(|verb| command.iter().any(|word| word == verb));
            if is_compose && named {
                let service = service.expect("a service");
                assert!(compose.contains(&format!("\n  {service}:\n")), "{name}: {service}");
            }
        }
        let is_key = |word: &&str| {
            word.len() > 6
                && word.contains('_')
                && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        let keys: BTreeSet<&str> =
            page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(is_key).collect();
        assert!(keys.contains("DATABASE_URL"), "{keys:?}");
        for key in keys {
            // A secret may stand in a file, which the variable with `_FILE` behind its key names.
            let exists = [key, key.trim_end_matches("_FILE")]
                .iter()
                .any(|key| example.contains(&format!("#{key}=")) || others.contains(key));
            assert!(exists, "{name}: {key}");
        }
        for file in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(file.contains("://") || repository().join(file).exists(), "{name}: {file}");
        }
    }
}

#[test]
fn the_portuguese_page_has_what_people_of_the_first_project_look_for() {
    let page = page("README.pt-BR.md");
    for wanted in [
        "docker-compose up -d",
        "http://localhost:3000",
        "`admin`",
        "http://localhost:9090",
        "`SUPABASE_URL`",
        "`SUPABASE_KEY`",
        "`DATABASE_URL`",
        "## Solução de problemas",
        "localhost:9090/api/v1/targets",
        "docker-compose logs",
        "curl -i localhost:8000/metrics",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
}
