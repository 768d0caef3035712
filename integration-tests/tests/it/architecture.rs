//! The directions between crates, as ARCHITECTURE.md says them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// Which of our crates a crate may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("wire", &["domain"]),
    ("service-kit", &[]),
    ("boards", &[]),
    ("test-support", &["domain"]),
    ("bus", &["domain", "wire", "service-kit"]),
    ("event-store", &["domain", "wire", "service-kit"]),
    ("simulator", &["domain", "wire", "bus", "service-kit"]),
    ("aggregator", &["domain", "wire", "bus", "event-store", "service-kit"]),
    ("archiver", &["domain", "wire", "bus", "event-store", "service-kit"]),
    ("collector", &["domain", "wire", "bus", "service-kit"]),
    ("replay", &["domain", "wire", "bus", "event-store", "service-kit"]),
    ("local", &["aggregator", "bus", "event-store", "service-kit", "simulator"]),
    (
        "lakegauge",
        &[
            "domain",
            "wire",
            "bus",
            "event-store",
            "service-kit",
            "simulator",
            "aggregator",
            "archiver",
            "collector",
            "replay",
            "local",
        ],
    ),
];

/// Packages that only one crate may use.
const OWNERS: &[(&str, &str)] =
    &[("async-nats", "bus"), ("bincode", "wire"), ("nkeys", "bus"), ("sqlx", "event-store")];

/// Crates that do no I/O, and what they therefore never use.
const PURE: &[&str] = &["domain", "wire"];
const IMPURE: &[&str] =
    &["tokio", "tracing", "rand", "rand_chacha", "hyper", "axum", "async-nats", "sqlx", "rustix"];

/// Normal dependencies of every crate of ours, by name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
            (text(&package["name"]), normal.map(|dependency| text(&dependency["name"])).collect())
        })
        .collect()
}

#[test]
fn crates_depend_only_in_the_allowed_directions() {
    let dependencies = dependencies();
    let ours: BTreeSet<&String> = dependencies.keys().collect();
    let mut problems = Vec::new();
    for (name, used) in &dependencies {
        if name == "integration-tests" {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| crate_name == name) else {
            problems.push(format!("{name} has no line in the table of directions"));
            continue;
        };
        for other in used {
            if ours.contains(other) && !allowed.contains(&other.as_str()) {
                problems.push(format!("{name} -> {other} is not an allowed direction"));
            }
            if OWNERS.iter().any(|(package, owner)| package == other && owner != name) {
                problems.push(format!("{name} -> {other}: another crate owns it"));
            }
            if PURE.contains(&name.as_str()) && IMPURE.contains(&other.as_str()) {
                problems.push(format!("{name} -> {other}: the core is pure"));
            }
        }
    }
    assert_eq!(problems, Vec::<String>::new());
}
