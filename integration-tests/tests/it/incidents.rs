//! Incidents on a live pipeline: the right alert fires, and no other; a quiet one fires none.
//!
//! The rules are the tree's with every duration a sixtieth, so that a minute here is an hour there.
//! Minutes long: only with `LAKEGAUGE_TEST_FULL`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use integration_tests::{
    pipeline::{Part, Pipeline},
    process::Process,
    prometheus::{Prometheus, Target},
    waiting::until,
};
use service_kit::Clock;

/// By how much durations are shortened.
const FASTER: u64 = 60;
/// Ages in rules are given as minutes ` * 60`; this many seconds stand for a minute there, and for
/// the minute that an alert waits. More than one: a busy machine may pause for seconds, which is no
/// incident.
const MINUTE_S: &str = " * 4";
/// What stands for a week ago.
const WEEK: &str = "offset 40000ms";
/// Calm before an incident, in evaluations of one second: more than what stands for a week.
const CALM_EVALUATIONS: u32 = 60;
/// An incident begins 15 s after the start and lasts 90 s, silence 45 s (`--scenario`).
const BEGINS_S: u64 = 15;

/// A text of rules or configuration with its durations shortened.
fn shortened(name: &str, text: String) -> String {
    if name == "prometheus.yml" {
        let quick = text
            .replace("scrape_interval: 5s", "scrape_interval: 1s")
            .replace("scrape_timeout: 4s", "scrape_timeout: 1s")
            .replace("evaluation_interval: 15s", "evaluation_interval: 1s");
        assert_ne!(quick, text);
        return quick;
    }
    let text = text.replace("offset 1w", WEEK).replace(" * 60", MINUTE_S);
    let text = text.replace("for: 1m\n", "for: 4s\n");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut short = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, found) = rest.split_at(at);
        short.push_str(before);
        let digits = found.find(|c: char| !c.is_ascii_digit()).unwrap_or(found.len());
        let (number, after) = found.split_at(digits);
        let unit = after.chars().next().and_then(|unit| match unit {
            's' => Some(1),
            'm' => Some(60),
            'h' => Some(3_600),
            'd' => Some(86_400),
            'w' => Some(604_800),
            _ => None,
        });
        let alone = !before.chars().last().or(short.chars().last()).is_some_and(is_word)
            && !after.chars().nth(1).is_some_and(is_word);
        match unit.filter(|_| alone) {
            Some(unit_s) => {
                let seconds: u64 = number.parse::<u64>().unwrap() * unit_s;
                short.push_str(&format!("{}ms", seconds * 1_000 / FASTER));
                rest = &after[1..];
            }
            None => {
                short.push_str(number);
                rest = after;
            }
        }
    }
    short.push_str(rest);
    short
}

fn is_full() -> bool {
    std::env::var_os("LAKEGAUGE_TEST_FULL").is_some()
}

/// The simulators of both sides.
fn simulate(pipeline: &mut Pipeline, scenario: &str) -> [Process; 2] {
    let mut start = |side, rate| {
        let words = ["simulate", side, "--rate", rate, "--daily-peak-over-trough", "1"];
        pipeline.spawn_tool(&[&words[..], &["--scenario", scenario]].concat()).unwrap()
    };
    [start("lake", "1000"), start("warehouse", "200")]
}

/// A Prometheus, and since when it sees everything: before its first scrape all is absent, which
/// five real minutes cover and five seconds do not.
struct Watch {
    prometheus: Prometheus,
    since_s: u64,
}

async fn watched(pipeline: &Pipeline) -> Watch {
    // The simulators are not among them: one that was ended is no incident of the pipeline.
    let admin = |part| pipeline.part(part).unwrap().admin_port();
    let targets = [
        Target { service: "aggregator", port: pipeline.metrics_port(), four: true },
        Target { service: "aggregator", port: admin(Part::Aggregator), four: false },
        Target { service: "archiver", port: admin(Part::Archiver), four: false },
    ];
    let prometheus = Prometheus::start(&targets, shortened).await.unwrap();
    until("first scrapes", async || {
        let up = prometheus.query("sum(up{job=~\"lakegauge.*\"}) == 3")?;
        let firing = prometheus.query("ALERTS{alertstate=\"firing\"}")?;
        Ok(!up.is_empty() && firing.is_empty())
    })
    .await
    .unwrap();
    let since_s = now_s(&prometheus);
    Watch { prometheus, since_s }
}

/// The time of the server, in seconds since 1970.
fn now_s(prometheus: &Prometheus) -> u64 {
    let now = prometheus.query("vector(time())").unwrap();
    let now = now[0]["value"][1].as_str().unwrap();
    now.split('.').next().unwrap().parse().unwrap()
}

async fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    pipeline
}

/// Every alert that fired since the watch began.
fn fired(watch: &Watch) -> BTreeSet<String> {
    let seconds = (now_s(&watch.prometheus) - watch.since_s).max(1);
    let ever = format!(
        "count by (alertname) (count_over_time(ALERTS{{alertstate=\"firing\"}}[{seconds}s]))"
    );
    let series = watch.prometheus.query(&ever).unwrap();
    series.iter().map(|one| one["metric"]["alertname"].as_str().unwrap().to_owned()).collect()
}

/// Waits for so many evaluations of what needs queries of both sides.
async fn evaluated(watch: &Watch, times: u32) {
    let expr = "count_over_time(lakegauge:warehouse_response_seconds:p50_15m[30m])";
    let enough = until("evaluations", async || {
        let series = watch.prometheus.query(&format!("{expr} >= {times}"))?;
        Ok(!series.is_empty())
    });
    enough.await.unwrap();
}

/// Calm, then an incident: exactly this alert fires, before the incident is over.
async fn exactly(scenario: &str, alert: &str, lasts_s: u64) {
    if !is_full() {
        return;
    }
    let mut pipeline = pipeline().await;
    let calm = simulate(&mut pipeline, "none");
    let watch = watched(&pipeline).await;
    evaluated(&watch, CALM_EVALUATIONS).await;
    assert_eq!(fired(&watch), BTreeSet::new(), "before {scenario}");
    drop(calm);

    let clock = Clock::system();
    let over = clock.monotonic() + Duration::from_secs(BEGINS_S + lasts_s);
    let _incident = simulate(&mut pipeline, scenario);
    until("end of the incident", async || Ok(clock.monotonic() >= over)).await.unwrap();
    assert_eq!(fired(&watch), BTreeSet::from([alert.to_owned()]), "{scenario}");
}

#[tokio::test]
async fn two_quiet_minutes_fire_nothing() {
    if !is_full() {
        return;
    }
    let mut pipeline = pipeline().await;
    let _calm = simulate(&mut pipeline, "none");
    let watch = watched(&pipeline).await;
    evaluated(&watch, 60).await;
    evaluated(&watch, 120).await;
    assert_eq!(fired(&watch), BTreeSet::new());
}

#[tokio::test]
async fn queries_that_become_slow_are_told_by_the_baseline() {
    exactly("latency-regression", "LakegaugeResponseTimeAboveBaseline", 90).await;
}

#[tokio::test]
async fn a_storm_of_failures_burns_the_budget() {
    exactly("failure-storm", "LakegaugeErrorBudgetBurn", 90).await;
}

#[tokio::test]
async fn a_lake_that_grows_is_soon_full() {
    exactly("storage-growth", "LakegaugeStorageFullSoon", 90).await;
}

#[tokio::test]
async fn silence_is_stale_data() {
    exactly("silence", "LakegaugeDataStale", 45).await;
}

#[test]
fn durations_are_shortened_and_names_are_not() {
    let short = |text: &str| shortened("rules/x.yml", text.to_owned());
    assert_eq!(short("for: 5m\n"), "for: 5000ms\n");
    assert_eq!(short("rate(x_bucket[15m])"), "rate(x_bucket[15000ms])");
    assert_eq!(
        short("lakegauge:x:ratio_rate5m{le=~\"10\"}[3d]"),
        "lakegauge:x:ratio_rate5m{le=~\"10\"}[4320000ms]"
    );
    assert_eq!(short("x:p50_15m[1h] offset 1w"), format!("x:p50_15m[60000ms] {WEEK}"));
    assert_eq!(short("> 5 * 60"), "> 5 * 4");
    assert_eq!(short("> 14.4 * y:ratio"), "> 14.4 * y:ratio");
}
