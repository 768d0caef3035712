//! Alerts are complete: each says how bad it is, what it means and where to read on, is tested for
//! its quiet and its firing moment, and has its section in the runbook.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The address of the runbook, from `prometheus/rules/settings.yml`.
const RUNBOOK: &str =
    "{{ with query \"lakegauge:runbook:info\" }}{{ . | first | label \"url\" }}{{ end }}";
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// Every file of a folder, one after the other.
fn all(folder: &str) -> String {
    let mut files: Vec<PathBuf> =
        fs::read_dir(tree(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// The text of each alert's rules, by name: those of one name together.
fn alerts(rules: &str) -> BTreeMap<String, Vec<String>> {
    let mut alerts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in rules.split("\n      - ").skip(1) {
        if let Some(rest) = rule.strip_prefix("alert: ") {
            let (name, body) = rest.split_once('\n').unwrap();
            let body = body.split("\n  - name: ").next().unwrap();
            alerts.entry(name.to_owned()).or_default().push(body.to_owned());
        }
    }
    alerts
}

fn problems(rules: &str, tests: &str, runbook: &str) -> Vec<String> {
    let alerts = alerts(rules);
    let mut problems = Vec::new();
    for (name, bodies) in &alerts {
        let anchor = name.to_lowercase();
        for body in bodies {
            let severity = SEVERITIES
                .iter()
                .any(|severity| body.contains(&format!("labels: {{ severity: {severity} }}")));
            if !severity {
                problems.push(format!("{name} has no severity of {SEVERITIES:?}"));
            }
            for part in ["          summary: ", "          description: "] {
                if !body.contains(part) {
                    problems.push(format!("{name} has no {}", part.trim()));
                }
            }
            let link = format!("runbook_url: '{RUNBOOK}#{anchor}'");
            if !body.lines().any(|line| line.trim() == link) {
                problems.push(format!("{name} does not point to docs/runbook.md#{anchor}"));
            }
        }
        if !runbook.lines().any(|line| line == format!("## {name}")) {
            problems.push(format!("{name} has no section in docs/runbook.md"));
        }
        if !tests.contains(&format!("alertname: {name}, exp_alerts: []")) {
            problems.push(format!("{name} has no test of a quiet moment in prometheus/tests"));
        }
        if !tests.contains(&format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}")) {
            problems.push(format!("{name} has no test of a firing moment in prometheus/tests"));
        }
    }
    let sections: BTreeSet<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for section in sections.iter().filter(|section| !alerts.contains_key(**section)) {
        problems.push(format!("docs/runbook.md explains {section}, which is no alert"));
    }
    problems
}

#[test]
fn every_alert_is_explained_and_tested() {
    let (rules, tests) = (all("prometheus/rules"), all("prometheus/tests"));
    let runbook = fs::read_to_string(tree("docs/runbook.md")).unwrap();
    assert!(alerts(&rules).len() > 20, "{:?}", alerts(&rules).keys());
    assert_eq!(problems(&rules, &tests, &runbook), Vec::<String>::new());
}

#[test]
fn an_alert_without_a_test_or_a_section_is_named() {
    let (rules, tests) = (all("prometheus/rules"), all("prometheus/tests"));
    let runbook = fs::read_to_string(tree("docs/runbook.md")).unwrap();
    let without = |text: &str, what: &str| text.replace(what, "something else");
    let found = |rules: &str, tests: &str, runbook: &str| problems(rules, tests, runbook).len();
    assert_eq!(found(&without(&rules, "severity: info"), &tests, &runbook), 1);
    assert_eq!(found(&without(&rules, "#lakegaugedatastale"), &tests, &runbook), 1);
    assert_eq!(found(&rules, &without(&tests, "alertname: LakegaugeDataStale"), &runbook), 1);
    assert_eq!(
        found(&rules, &without(&tests, "ALERTS{alertname=\"LakegaugeDataStale\""), &runbook),
        1
    );
    // A section that is gone, and one that explains nothing.
    assert_eq!(found(&rules, &tests, &without(&runbook, "## LakegaugeDataStale")), 1);
    assert_eq!(found(&rules, &tests, &format!("{runbook}\n## NoSuchAlert\n")), 1);
}
