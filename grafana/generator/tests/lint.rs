//! The dashboards as files: up to date, valid by Grafana's schema, and by rules of good boards.
//! What they ask is asked of a running pipeline in `integration-tests`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use boards::{Board, Query, Variable};
use serde_json::{Value, json};

/// Columns of a board.
const COLUMNS: u64 = 24;
/// Shorter ones say nothing about what to do.
const DESCRIPTION_CHARS_MIN: usize = 40;
/// Kinds of panels whose options have a schema; that of the heat map is not published.
const WITH_SCHEMA: [&str; 5] = ["timeseries", "stat", "bargauge", "barchart", "table"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema(name: &str) -> jsonschema::Validator {
    let schema = read(&folder("schemas").join(format!("{name}.json")));
    jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap()
}

/// What the schemas have against a board.
fn against_schema(board: &Value) -> Vec<String> {
    let problems = |validator: &jsonschema::Validator, value: &Value| -> Vec<String> {
        let name = |error: jsonschema::ValidationError<'_>| {
            format!("{}: {error}", error.instance_path()).chars().take(300).collect()
        };
        validator.iter_errors(value).map(name).collect()
    };
    let mut found = problems(&schema("dashboard"), board);
    let options: BTreeMap<&str, jsonschema::Validator> =
        WITH_SCHEMA.iter().map(|kind| (*kind, schema(kind))).collect();
    for panel in panels(board) {
        if let Some(validator) = options.get(panel["type"].as_str().unwrap()) {
            found.extend(problems(validator, &panel["options"]));
        }
    }
    found
}

/// The panels of a board, without the headlines.
fn panels(board: &Value) -> Vec<&Value> {
    let all = board["panels"].as_array().unwrap();
    all.iter().filter(|panel| panel["type"] != "row").collect()
}

fn units() -> BTreeSet<String> {
    read(&folder("schemas").join("units.txt")).lines().map(str::to_owned).collect()
}

/// What the rules have against a panel.
fn against_panel(panel: &Value, units: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let defaults = &panel["fieldConfig"]["defaults"];
    let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
    let own = overrides.iter().map(|one| &one["properties"][0]["value"]);
    for unit in std::iter::once(&defaults["unit"]).chain(own) {
        if !unit.as_str().is_some_and(|unit| units.contains(unit)) {
            found.push(format!("the unit {unit} is none of Grafana's"));
        }
    }
    if panel["title"].as_str().is_none_or(str::is_empty) {
        found.push("it has no title".to_owned());
    }
    let description = panel["description"].as_str().unwrap_or_default();
    if description.chars().count() < DESCRIPTION_CHARS_MIN {
        found.push("its description does not say what to do".to_owned());
    }
    let targets = panel["targets"].as_array().unwrap();
    if targets.is_empty() {
        found.push("it asks nothing".to_owned());
    }
    for target in targets {
        let source = target["datasource"]["uid"].as_str().unwrap_or_default();
        if !["${datasource}", "${archive}"].contains(&source) {
            found.push(format!("the data source {source:?} is no variable"));
        }
        if let Some(expr) = target["expr"].as_str() {
            found.extend(against_expression(expr));
        }
        if let Some(sql) = target["rawSql"].as_str() {
            let bounded = ["$__timeFilter(", "$__timeTo()", " limit "];
            if !bounded.iter().any(|bound| sql.contains(bound)) {
                found.push(format!("nothing bounds {sql}"));
            }
        }
    }
    found
}

fn against_expression(expr: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in expr.split("rate(").skip(1) {
        let range = part.split_once('[').map(|(_, rest)| rest).unwrap_or_default();
        if !range.starts_with("$__rate_interval]") {
            found.push(format!("a rate without $__rate_interval: {expr}"));
        }
    }
    found
}

/// What the rules have against a board.
fn against_board(board: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let units = units();
    let uid = board["uid"].as_str().unwrap();
    if !(8..=40).contains(&uid.len()) {
        found.push(format!("the uid {uid} has not 8 to 40 characters"));
    }
    if board.get("id").is_some() || board["schemaVersion"] != 42 || board["editable"] != false {
        found.push("id, schemaVersion or editable is wrong".to_owned());
    }
    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap_or_default();
        if !ids.insert(panel["id"].as_u64()) {
            found.push(format!("{title}: the id is taken"));
        }
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        if at("x") + at("w") > COLUMNS {
            found.push(format!("{title}: it stands out on the right"));
        }
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                if !cells.insert((x, y)) {
                    found.push(format!("{title}: it lies over another"));
                }
            }
        }
    }
    for panel in panels(board) {
        let title = panel["title"].as_str().unwrap_or_default();
        if !titles.insert(title) {
            found.push(format!("{title}: the title is taken"));
        }
        found.extend(against_panel(panel, &units).into_iter().map(|one| format!("{title}: {one}")));
    }
    found.extend(against_variables(board));
    found
}

/// Variables that are asked for and not declared, and the other way round.
fn against_variables(board: &Value) -> Vec<String> {
    let list = board["templating"]["list"].as_array().unwrap();
    let declared: BTreeSet<&str> = list.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let mut text = board["panels"].to_string();
    text.push_str(&board["annotations"].to_string());
    let mut used = BTreeSet::new();
    for name in ["datasource", "environment", "archive", "bucket", "warehouse", "tenant"] {
        let forms = [format!("${name}"), format!("${{{name}}}"), format!("${{{name}:")];
        if forms.iter().any(|form| text.contains(form)) {
            used.insert(name);
        }
    }
    let missing = used.difference(&declared).map(|name| format!("${name} is not declared"));
    let idle = declared.difference(&used).map(|name| format!("${name} is declared, and not used"));
    missing.chain(idle).collect()
}

#[test]
fn the_files_are_what_the_source_gives() {
    let mut expected = BTreeMap::new();
    for board in boards::all() {
        expected.insert(board.path(), board.text());
    }
    let mut found = BTreeMap::new();
    for sub in fs::read_dir(folder("dashboards")).unwrap() {
        let sub = sub.unwrap().path();
        for file in fs::read_dir(&sub).unwrap() {
            let file = file.unwrap().path();
            let name = file.strip_prefix(folder("dashboards")).unwrap().display().to_string();
            found.insert(name, read(&file));
        }
    }
    let names = |boards: &BTreeMap<String, String>| boards.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, text) in expected {
        assert!(found[&name] == text, "{name} differs from its source: cargo run -p boards");
    }
}

#[test]
fn every_board_is_valid_by_grafanas_schema() {
    for board in boards::all() {
        assert_eq!(against_schema(&board.json()), Vec::<String>::new(), "{}", board.uid);
    }
}

#[test]
fn every_board_keeps_the_rules() {
    let mut uids = BTreeSet::new();
    for board in boards::all() {
        assert!(uids.insert(board.uid), "{} is taken", board.uid);
        assert_eq!(against_board(&board.json()), Vec::<String>::new(), "{}", board.uid);
    }
}

/// A board with one change, and what is found against it.
fn spoilt(pointer: &str, value: Value) -> usize {
    let mut board = boards::all().remove(0).json();
    *board.pointer_mut(pointer).unwrap() = value;
    against_schema(&board).len() + against_board(&board).len()
}

#[test]
fn what_is_wrong_is_found() {
    // The first panel stands behind the first headline.
    assert_eq!(spoilt("/panels/1/fieldConfig/defaults/unit", json!("decgbytes")), 0);
    for (pointer, value) in [
        ("/panels/1/fieldConfig/defaults/unit", json!("furlongs")),
        ("/panels/1/fieldConfig/defaults/thresholds/mode", json!("abs")),
        ("/panels/1/description", json!("Used space")),
        ("/panels/1/title", json!("")),
        ("/panels/1/id", json!(1)),
        ("/panels/1/gridPos/x", json!(20)),
        ("/panels/1/gridPos/w", json!(12)),
        ("/panels/1/options/colorMode", json!("colourful")),
        ("/panels/1/targets", json!([])),
        ("/panels/1/targets/0/expr", json!("rate(x[5m])")),
        ("/panels/1/targets/0/expr", json!("x{bucket=~\"$bucket\"}")),
        ("/panels/1/targets/0/datasource/uid", json!("prometheus")),
        ("/templating/list/0/type", json!("datasrc")),
        ("/templating/list/0/name", json!("other")),
        ("/schemaVersion", json!(41)),
        ("/uid", json!("short")),
    ] {
        assert_ne!(spoilt(pointer, value.clone()), 0, "{pointer} as {value} was not noticed");
    }
}

#[test]
fn home_is_the_overview_and_its_first_panels_are_the_four() {
    let all = boards::all();
    let home: &Board = all.first().unwrap();
    assert_eq!(home.path(), "Lakegauge/lakegauge-overview.json");
    let names = [
        "data_lake_espaco_utilizado_gb",
        "data_lake_numero_acessos",
        "data_warehouse_tempo_resposta_ms",
        "data_warehouse_registros_processados",
    ];
    for (panel, name) in home.rows[0].panels.iter().zip(names) {
        let Query::Prometheus { expr, .. } = &panel.queries[0] else { panic!("SQL for {name}") };
        assert!(expr.contains(name), "{expr}");
    }
    assert!(all.iter().all(|board| board.variables.contains(&Variable::Prometheus)));
}
