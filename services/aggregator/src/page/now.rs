//! The numbers of one moment, as JSON for the page, for `lakegauge top` and for scripts. Pure.

use std::time::Duration;

use domain::Stream;
use service_kit::{
    metrics,
    readiness::{PartHealth, PartState},
};

use super::figures::{BucketFigures, Figures, KEPT_MS, QueryFigures, Recent};
use crate::{
    api::{
        Bucket, CountedStream, Health, KeyMetrics, List, NewestEvents, Now, Numbers, Part, Rates,
        Responses, Warehouse,
    },
    config::Links,
    exposition::{BYTES_PER_GB, float, response_ms, unsigned},
    health::HealthNumbers,
    roster::PipelineView,
};

/// The most buckets and warehouses in a list.
const LISTED_MAX: usize = 10;
/// The period for the rates of the key metrics: short enough to be live.
const RATE_MS: u64 = 10_000;
/// The period for the rates of buckets and warehouses: longer, because small ones are not always
/// active.
const LIST_RATE_MS: u64 = 60_000;
/// Rates over a shorter time are not shown.
const RATE_MS_MIN: u64 = 1_000;
const MICROS_PER_MS: f64 = 1e3;

/// What the health section is made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct HealthFacts {
    pub(crate) parts: Vec<PartState>,
    pub(crate) streams: Vec<(Stream, HealthNumbers)>,
    /// How long ago the broker was last reached, if the numbers are stale.
    pub(crate) stale: Option<Duration>,
    /// The other parts of the pipeline, and what is wrong.
    pub(crate) pipeline: PipelineView,
}

/// Encodes the numbers. Without figures the metrics may not be shown yet.
pub(crate) fn write(
    now_us: i64,
    now_ms: u64,
    links: &Links,
    mut condition: HealthFacts,
    shown: Option<(&Figures, &Recent)>,
) -> String {
    let pipeline = std::mem::take(&mut condition.pipeline);
    let now = Now {
        at_ms: now_us / 1_000,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        links: links.clone(),
        ready: shown.is_some(),
        stale_since_ms: condition.stale.map(|age| now_us / 1_000 - millis(age)),
        parts: pipeline.parts,
        incidents: pipeline.incidents,
        last_incident: pipeline.last_incident,
        ledger: pipeline.ledger,
        health: health(condition, now_us),
        numbers: shown.map(|(figures, recent)| numbers(figures, recent, now_ms)),
    };
    serde_json::to_string(&now).unwrap_or_default()
}

fn millis(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

fn health(condition: HealthFacts, now_us: i64) -> Health {
    let parts = condition.parts.into_iter();
    let streams = condition.streams.into_iter();
    Health {
        parts: parts
            .map(|part| Part {
                name: part.name.to_owned(),
                ok: part.health == PartHealth::Well,
                detail: part.detail,
            })
            .collect(),
        streams: streams
            .map(|(stream, health)| CountedStream {
                name: stream.to_string(),
                lag_messages: metrics::float(health.lag_messages),
                position: metrics::float(health.position),
                counted: metrics::float(health.counted),
                duplicates: metrics::float(health.duplicates),
                too_old: metrics::float(health.too_old),
                dead_letters: metrics::float(health.dead_letters),
                epoch: f64::from(health.epoch),
                snapshot_age_s: health.snapshot_at_s.map(|at| {
                    let age_s = (now_us / 1_000_000).saturating_sub(at).max(0);
                    float(i128::from(age_s))
                }),
            })
            .collect(),
    }
}

fn numbers(figures: &Figures, recent: &Recent, now_ms: u64) -> Numbers {
    let (lake, warehouse) = (&figures.lake, &figures.warehouse);
    let moment = |us: i64| (us > 0).then_some(us / 1_000);
    Numbers {
        key_metrics: KeyMetrics {
            used_gb: float(lake.used_bytes) / BYTES_PER_GB,
            accesses: float(i128::from(lake.accesses)),
            response_ms: response_ms(warehouse.window.0, warehouse.window.1),
            records: unsigned(warehouse.records),
        },
        rates: rates(figures, recent, now_ms),
        responses: responses(figures, recent, now_ms),
        used_is_estimate: lake.is_estimate,
        newest_ms: NewestEvents {
            lake: moment(lake.newest_us),
            warehouse: moment(warehouse.newest_us),
        },
        buckets: buckets(figures, recent, now_ms),
        warehouses: warehouses(figures, recent, now_ms),
    }
}

/// Earlier figures with the seconds since, if a rate can be computed from them.
fn compared(recent: &Recent, now_ms: u64, age_ms: u64) -> Option<(f64, &Figures)> {
    let (age_ms, figures) = recent.ago(now_ms, age_ms)?;
    (age_ms >= RATE_MS_MIN).then(|| (float(i128::from(age_ms)) / 1e3, figures))
}

fn rates(figures: &Figures, recent: &Recent, now_ms: u64) -> Rates {
    let Some((seconds, before)) = compared(recent, now_ms, RATE_MS) else {
        return Rates::default();
    };
    let (lake, warehouse) = (&figures.lake, &figures.warehouse);
    let growth = |now: u128, then: u128| Some(unsigned(now.saturating_sub(then)) / seconds);
    let queries = |figures: &Figures| u128::from(figures.warehouse.all().queries);
    Rates {
        used_bytes: Some(float(lake.used_bytes - before.lake.used_bytes) / seconds),
        accesses: growth(lake.accesses.into(), before.lake.accesses.into()),
        records: growth(warehouse.records, before.warehouse.records),
        queries: growth(queries(figures), queries(before)),
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| float(i128::from(part)) / float(i128::from(whole)))
}

fn responses(figures: &Figures, recent: &Recent, now_ms: u64) -> Responses {
    let Some((age_ms, before)) = recent.ago(now_ms, KEPT_MS) else { return Responses::default() };
    let queries = figures.warehouse.all().since(&before.warehouse.all());
    let ms = |quantile| queries.quantile_us(quantile).map(|us| us / MICROS_PER_MS);
    Responses {
        span_s: age_ms / 1_000,
        queries: queries.queries,
        p50_ms: ms(0.5),
        p95_ms: ms(0.95),
        p99_ms: ms(0.99),
        queued_share: (queries.response_us > 0)
            .then(|| unsigned(queries.queued_us) / unsigned(queries.response_us)),
        failed_share: share(queries.failed, queries.queries),
        cache_hit_share: share(queries.cache_hits, queries.queries),
    }
}

fn buckets(figures: &Figures, recent: &Recent, now_ms: u64) -> List<Bucket> {
    let before = compared(recent, now_ms, LIST_RATE_MS);
    let mut all: Vec<(&String, &BucketFigures)> = figures.lake.buckets.iter().collect();
    all.sort_by_key(|(name, bucket)| (std::cmp::Reverse(bucket.used_bytes), *name));
    let form = |(name, now): &(&String, &BucketFigures)| {
        let then = before.map(|(seconds, figures)| {
            (seconds, figures.lake.buckets.get(*name).copied().unwrap_or_default())
        });
        let accesses = then.map(|(_, then)| now.accesses.saturating_sub(then.accesses));
        let failed = then.map(|(_, then)| now.failed.saturating_sub(then.failed));
        Bucket {
            name: (*name).clone(),
            used_bytes: float(now.used_bytes),
            accesses_per_s: then
                .zip(accesses)
                .map(|((seconds, _), accesses)| float(i128::from(accesses)) / seconds),
            transferred_bytes_per_s: then.map(|(seconds, then)| {
                unsigned(now.transferred.saturating_sub(then.transferred)) / seconds
            }),
            failed_share: failed.zip(accesses).and_then(|(failed, all)| share(failed, all)),
        }
    };
    List { total: all.len(), top: all.iter().take(LISTED_MAX).map(form).collect() }
}

/// A warehouse: its name, its sums, and the period of the rates in seconds with the sums of that
/// period.
type Active<'a> = (&'a String, &'a QueryFigures, Option<(f64, QueryFigures)>);

fn warehouses(figures: &Figures, recent: &Recent, now_ms: u64) -> List<Warehouse> {
    let before = compared(recent, now_ms, LIST_RATE_MS);
    // Percentiles need more queries than small warehouses have in a minute.
    let long_before = recent.ago(now_ms, KEPT_MS).map(|(_, figures)| figures);
    let earlier = |figures: &Figures, name: &str| {
        figures.warehouse.warehouses.get(name).copied().unwrap_or_default()
    };
    let all = figures.warehouse.warehouses.iter().map(|(name, now)| {
        let minute = before.map(|(seconds, figures)| (seconds, now.since(&earlier(figures, name))));
        (name, now, minute)
    });
    let mut all: Vec<Active<'_>> = all.collect();
    all.sort_by_key(|(name, now, minute)| {
        let queries = minute.map_or(0, |(_, minute)| minute.queries);
        (std::cmp::Reverse((queries, now.queries)), *name)
    });
    let form = |(name, now, minute): &Active<'_>| {
        let long = long_before.map(|figures| now.since(&earlier(figures, name)));
        Warehouse {
            name: (*name).clone(),
            queries_per_s: minute
                .map(|(seconds, minute)| float(i128::from(minute.queries)) / seconds),
            records_per_s: minute.map(|(seconds, minute)| unsigned(minute.records) / seconds),
            p95_ms: long.and_then(|long| long.quantile_us(0.95)).map(|us| us / MICROS_PER_MS),
            failed_share: long.and_then(|long| share(long.failed, long.queries)),
        }
    };
    List { total: all.len(), top: all.iter().take(LISTED_MAX).map(form).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::page::figures::{LakeFigures, WarehouseFigures};

    fn figures(times: u64) -> Figures {
        let bucket = |used_bytes| BucketFigures {
            used_bytes,
            accesses: 100 * times,
            failed: 5 * times,
            transferred: 0,
        };
        let mut queries = QueryFigures { queries: 60 * times, ..QueryFigures::default() };
        (queries.records, queries.response_us, queries.queued_us) =
            (times.into(), 100 * u128::from(times), 25 * u128::from(times));
        queries.responses[3] = 60 * times;
        let lake = LakeFigures {
            used_bytes: 2_500_000_000,
            accesses: 200 * times,
            buckets: [("small".to_owned(), bucket(1)), ("large".to_owned(), bucket(9))].into(),
            ..LakeFigures::default()
        };
        let warehouse = WarehouseFigures {
            window: (4, 10_000),
            records: 1 << 60,
            warehouses: [("etl".to_owned(), queries)].into(),
            ..WarehouseFigures::default()
        };
        Figures { lake, warehouse }
    }

    fn written(shown: Option<(&Figures, &Recent)>, now_ms: u64) -> Value {
        let text = write(1_000_000, now_ms, &Links::default(), HealthFacts::default(), shown);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn no_number_is_shown_before_the_metrics_may_be() {
        let now = written(None, 5);
        assert_eq!((&now["ready"], &now["at_ms"]), (&Value::Bool(false), &Value::from(1_000)));
        assert!(now.get("four").is_none() && now.get("buckets").is_none());
        assert_eq!(now["stale_since_ms"], Value::Null);
    }

    #[test]
    fn numbers_that_stand_still_are_not_shown_and_say_since_when() {
        let condition =
            HealthFacts { stale: Some(Duration::from_secs(40)), ..HealthFacts::default() };
        let text = write(100_000_000, 5, &Links::default(), condition, None);
        let now: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&now["ready"], &now["stale_since_ms"]), (&false.into(), &60_000.into()));
    }

    #[test]
    fn the_numbers_rates_and_shares_follow_from_the_figures() {
        let mut recent = Recent::default();
        let (then, now) = (figures(1), figures(3));
        recent.push(0, &then);
        let at_once = written(Some((&then, &recent)), 0);
        assert_eq!(at_once["rates"]["accesses"], Value::Null, "nothing to compare with");
        let now = written(Some((&now, &recent)), 10_000);
        assert_eq!(now["four"]["data_lake_espaco_utilizado_gb"], 2.5);
        assert_eq!(now["four"]["data_warehouse_tempo_resposta_ms"], 2.5);
        assert_eq!(now["rates"]["accesses"], 40.0);
        assert_eq!(now["rates"]["queries"], 12.0);
        assert_eq!(now["responses"]["p50_ms"], 37.5);
        assert_eq!(now["responses"]["queued_share"], 0.25);
        assert_eq!(now["buckets"]["top"][0]["name"], "large");
        assert_eq!(now["buckets"]["top"][0]["failed_share"], 0.05);
        assert_eq!(now["warehouses"]["top"][0]["queries_per_s"], 12.0);
    }

    #[test]
    fn lists_say_how_many_there_are() {
        let mut many = figures(1);
        many.lake.buckets =
            (0..200).map(|n| (format!("b-{n}"), BucketFigures::default())).collect();
        let now = written(Some((&many, &Recent::default())), 0);
        assert_eq!(now["buckets"]["total"], 200);
        assert_eq!(now["buckets"]["top"].as_array().unwrap().len(), LISTED_MAX);
    }

    #[test]
    fn the_health_of_parts_and_streams_is_told_with_the_age_of_the_last_snapshot() {
        let stream = |snapshot_at_s| HealthNumbers {
            lag_messages: 1,
            position: 2,
            counted: 3,
            duplicates: 4,
            too_old: 5,
            dead_letters: 6,
            epoch: 7,
            snapshot_at_s,
        };
        let part = PartState {
            name: "archive",
            health: PartHealth::Failing,
            detail: "away".to_owned(),
            since_us: 1,
        };
        // The last snapshot was stored in the future, because the clocks of two machines differ.
        let streams = [None, Some(58), Some(200)].map(|at| (Stream::lake(0), stream(at)));
        let condition =
            HealthFacts { parts: vec![part], streams: streams.into(), ..HealthFacts::default() };
        let text = write(100_000_000, 5, &Links::default(), condition, None);
        let now: Value = serde_json::from_str(&text).unwrap();
        let health = &now["health"];
        assert_eq!(health["parts"], json!([{ "name": "archive", "ok": false, "detail": "away" }]));
        assert_eq!(
            health["streams"][1],
            json!({
                "name": "LAKE_0",
                "lag_messages": 1.0,
                "position": 2.0,
                "counted": 3.0,
                "duplicates": 4.0,
                "too_old": 5.0,
                "dead_letters": 6.0,
                "epoch": 7.0,
                "snapshot_age_s": 42.0,
            })
        );
        assert_eq!(health["streams"][0]["snapshot_age_s"], Value::Null);
        assert_eq!(health["streams"][2]["snapshot_age_s"], 0.0);
    }

    #[test]
    fn the_newest_event_of_a_side_is_told_in_milliseconds_and_none_before_the_first() {
        let mut figures = figures(1);
        figures.lake.newest_us = 5_000_000;
        let now = written(Some((&figures, &Recent::default())), 0);
        assert_eq!(now["newest_ms"], json!({ "lake": 5_000, "warehouse": null }));
        figures.warehouse.newest_us = -1;
        let now = written(Some((&figures, &Recent::default())), 0);
        assert_eq!(now["newest_ms"]["warehouse"], Value::Null);
    }

    #[test]
    fn used_space_that_shrinks_has_a_rate_below_zero() {
        let mut recent = Recent::default();
        let (then, mut now) = (figures(1), figures(21));
        recent.push(0, &then);
        now.lake.used_bytes -= 600;
        now.warehouse.records += 50;
        let now = written(Some((&now, &recent)), 10_000);
        assert_eq!(
            now["rates"],
            json!({ "used_bytes": -60.0, "accesses": 400.0, "records": 5.0, "queries": 120.0 })
        );
    }

    #[test]
    fn what_came_in_the_last_minute_is_told_of_each_bucket_and_warehouse() {
        let mut recent = Recent::default();
        let (then, mut now) = (figures(1), figures(3));
        recent.push(0, &then);
        now.lake.buckets.get_mut("large").unwrap().transferred = 500;
        let now = written(Some((&now, &recent)), 10_000);
        assert_eq!(
            now["buckets"]["top"][0],
            json!({
                "name": "large",
                "used_bytes": 9.0,
                "accesses_per_s": 20.0,
                "transferred_bytes_per_s": 50.0,
                "failed_share": 0.05,
            })
        );
        assert_eq!(
            now["warehouses"]["top"],
            json!([{
                "name": "etl",
                "queries_per_s": 12.0,
                "records_per_s": 0.2,
                "p95_ms": 48.75,
                "failed_share": 0.0,
            }])
        );
        assert_eq!(
            (&now["responses"]["span_s"], &now["responses"]["queries"]),
            (&10.into(), &120.into())
        );
    }

    #[test]
    fn a_share_of_nothing_is_none() {
        assert_eq!((share(0, 0), share(1, 4)), (None, Some(0.25)));
        let figures = figures(1);
        let mut recent = Recent::default();
        recent.push(0, &figures);
        let responses = responses(&figures, &recent, 10_000);
        assert_eq!((responses.queries, responses.queued_share), (0, None));
    }
}
