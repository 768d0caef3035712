//! Converts state to metrics: the key metrics, and the same metrics with labels. Pure.
//!
//! The number of series is bounded by the labels of the state, whatever events arrive.

use domain::{
    Timestamp,
    lake::{BucketSums, DURATION_BOUNDS_US, LakeState},
    warehouse::{RESPONSE_BOUNDS_US, WarehouseState, WarehouseSums},
};
use prometheus::{
    Encoder, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

/// The content type of the metrics.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
/// Bytes in a gigabyte (SI), as operators of object stores count.
pub(crate) const BYTES_PER_GB: f64 = 1e9;
const MICROS_PER_MS: f64 = 1e3;
const MICROS_PER_SECOND: f64 = 1e6;

/// Families in the text format.
pub(crate) fn encode(mut families: Vec<MetricFamily>) -> String {
    // The encoder refuses a family without a sample.
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&families, &mut text)
        .expect("every family has a name and a sample, and memory takes every write");
    String::from_utf8(text).expect("the text format is UTF-8")
}

/// The lake's metrics.
pub(crate) fn lake_families(lake: &LakeState) -> Vec<MetricFamily> {
    let used = float(lake.used_bytes());
    let per_bucket = |value: &dyn Fn(&BucketSums) -> f64| -> Vec<Metric> {
        lake.buckets().map(|(name, sums)| gauge(&[("bucket", name)], value(sums))).collect()
    };
    let accesses = lake.buckets().flat_map(|(bucket, sums)| {
        sums.accesses.iter().map(move |((operation, outcome), count)| {
            let labels =
                [("bucket", bucket), ("operation", operation.name()), ("outcome", outcome.name())];
            counter(&labels, float(i128::from(*count)))
        })
    });
    let transferred = lake.buckets().flat_map(|(bucket, sums)| {
        sums.transferred.iter().map(move |(operation, bytes)| {
            counter(&[("bucket", bucket), ("operation", operation.name())], unsigned(*bytes))
        })
    });
    vec![
        family(
            "data_lake_espaco_utilizado_gb",
            "Bytes stored in the lake now, over all buckets, in GB (10^9 bytes). The same in bytes \
             and per bucket: data_lake_storage_used_bytes.",
            MetricType::GAUGE,
            vec![gauge(&[], used / BYTES_PER_GB)],
        ),
        family(
            "data_lake_numero_acessos",
            "Lake requests since the first event, whatever their outcome. The same per bucket: \
             data_lake_accesses_total.",
            MetricType::COUNTER,
            vec![counter(&[], float(i128::from(lake.accesses)))],
        ),
        family(
            "data_lake_storage_used_bytes",
            "Bytes stored now, per bucket.",
            MetricType::GAUGE,
            per_bucket(&|sums| float(sums.space.used())),
        ),
        family(
            "data_lake_accesses_total",
            "Lake requests since the first event.",
            MetricType::COUNTER,
            accesses.collect(),
        ),
        family(
            "data_lake_accesses_withdrawn_total",
            "Lake requests that were reported wrongly and withdrawn since the first event. Counters \
             and histograms include them, because a counter never goes back; used space does not.",
            MetricType::COUNTER,
            lake.buckets()
                .map(|(name, sums)| counter(&[("bucket", name)], count_of(sums.withdrawn)))
                .collect(),
        ),
        family(
            "data_lake_transferred_bytes_total",
            "Bytes transferred by lake requests since the first event.",
            MetricType::COUNTER,
            transferred.collect(),
        ),
        family(
            "data_lake_request_duration_seconds",
            "Duration of lake requests, whatever their outcome, where it is known.",
            MetricType::HISTOGRAM,
            lake.buckets().map(|(name, sums)| durations(name, sums)).collect(),
        ),
        family(
            "data_lake_forgotten_objects",
            "Objects whose size was forgotten for want of room; above 0, used space is an \
             estimate until the next inventory.",
            MetricType::GAUGE,
            vec![gauge(&[], float(i128::from(lake.objects.forgotten_objects())))],
        ),
        family(
            "data_lake_tracked_objects",
            "Objects and tombstones whose size is kept for used space.",
            MetricType::GAUGE,
            vec![gauge(&[], count(lake.objects.kept().len()))],
        ),
        family(
            "data_lake_newest_event_timestamp_seconds",
            "When the newest lake event happened.",
            MetricType::GAUGE,
            newest(lake.newest),
        ),
    ]
}

/// When the newest event happened; missing before the first.
fn newest(newest: Timestamp) -> Vec<Metric> {
    let happened = newest > Timestamp::default();
    let seconds = || float(i128::from(newest.0)) / MICROS_PER_SECOND;
    happened.then(|| gauge(&[], seconds())).into_iter().collect()
}

/// Mean response time in the window, in milliseconds; 0 before the first query.
pub fn response_ms(queries: u64, response_us: u128) -> f64 {
    if queries == 0 {
        return 0.0;
    }
    unsigned(response_us) / float(i128::from(queries)) / MICROS_PER_MS
}

/// The warehouse's metrics.
pub(crate) fn warehouse_families(warehouse: &WarehouseState) -> Vec<MetricFamily> {
    let (queries, response_us) = warehouse.responses.totals();
    let mut families = vec![
        family(
            "data_warehouse_tempo_resposta_ms",
            "Mean response time (queue and execution), in milliseconds, of the queries that \
             finished in the 60 whole seconds that end with the newest query's second. The \
             distribution: data_warehouse_response_duration_seconds.",
            MetricType::GAUGE,
            vec![gauge(&[], response_ms(queries, response_us))],
        ),
        family(
            "data_warehouse_registros_processados",
            "Rows read or written by finished queries since the first event. The same per \
             warehouse: data_warehouse_records_processed_total.",
            MetricType::COUNTER,
            vec![counter(&[], unsigned(warehouse.records))],
        ),
        family(
            "data_warehouse_response_window_seconds",
            "Sum of the response times behind data_warehouse_tempo_resposta_ms, in seconds.",
            MetricType::GAUGE,
            vec![gauge(&[], unsigned(response_us) / MICROS_PER_SECOND)],
        ),
        family(
            "data_warehouse_response_window_queries",
            "Number of queries behind data_warehouse_tempo_resposta_ms.",
            MetricType::GAUGE,
            vec![gauge(&[], float(i128::from(queries)))],
        ),
        family(
            "data_warehouse_newest_event_timestamp_seconds",
            "When the newest query finished.",
            MetricType::GAUGE,
            newest(warehouse.newest),
        ),
    ];
    families.extend(labelled_warehouse(warehouse));
    families
}

fn labelled_warehouse(warehouse: &WarehouseState) -> Vec<MetricFamily> {
    let per_warehouse = |value: &dyn Fn(&WarehouseSums) -> f64| -> Vec<Metric> {
        let warehouses = warehouse.warehouses();
        warehouses.map(|(name, sums)| counter(&[("warehouse", name)], value(sums))).collect()
    };
    let queries = warehouse.warehouses().flat_map(|(name, sums)| {
        sums.queries.iter().map(move |((statement, outcome), count)| {
            let labels =
                [("warehouse", name), ("statement", statement.name()), ("outcome", outcome.name())];
            counter(&labels, float(i128::from(*count)))
        })
    });
    vec![
        family(
            "data_warehouse_response_duration_seconds",
            "Response time (queue and execution) of finished queries.",
            MetricType::HISTOGRAM,
            warehouse.warehouses().map(|(name, sums)| responses(name, sums)).collect(),
        ),
        family(
            "data_warehouse_queries_total",
            "Finished queries since the first event; an outcome other than ok is a failure.",
            MetricType::COUNTER,
            queries.collect(),
        ),
        family(
            "data_warehouse_queries_withdrawn_total",
            "Queries that were reported wrongly and withdrawn since the first event. Counters and \
             histograms include them, because a counter never goes back; the mean response time \
             does not.",
            MetricType::COUNTER,
            per_warehouse(&|sums| count_of(sums.withdrawn)),
        ),
        family(
            "data_warehouse_records_withdrawn_total",
            "Rows of queries that were withdrawn since the first event.",
            MetricType::COUNTER,
            per_warehouse(&|sums| unsigned(sums.withdrawn_records)),
        ),
        family(
            "data_warehouse_queued_seconds_total",
            "Time that queries waited before they ran, since the first event.",
            MetricType::COUNTER,
            per_warehouse(&|sums| unsigned(sums.queued_us) / MICROS_PER_SECOND),
        ),
        family(
            "data_warehouse_records_processed_total",
            "Rows read or written by finished queries since the first event.",
            MetricType::COUNTER,
            per_warehouse(&|sums| unsigned(sums.records)),
        ),
        family(
            "data_warehouse_bytes_scanned_total",
            "Bytes read from storage by queries since the first event.",
            MetricType::COUNTER,
            per_warehouse(&|sums| unsigned(sums.scanned)),
        ),
        family(
            "data_warehouse_cache_hits_total",
            "Queries answered from a cache since the first event.",
            MetricType::COUNTER,
            per_warehouse(&|sums| float(i128::from(sums.cache_hits))),
        ),
    ]
}

fn durations(bucket: &str, sums: &BucketSums) -> Metric {
    let label = [("bucket", bucket)];
    histogram(&label, &DURATION_BOUNDS_US, &sums.durations, sums.duration_us)
}

fn responses(warehouse: &str, sums: &WarehouseSums) -> Metric {
    let label = [("warehouse", warehouse)];
    histogram(&label, &RESPONSE_BOUNDS_US, &sums.responses, sums.response_us)
}

/// A histogram in seconds. Each count is for values up to its bound and above the previous one; the
/// last count is for values above all bounds.
fn histogram(labels: &[(&str, &str)], bounds_us: &[u64], counts: &[u64], sum_us: u128) -> Metric {
    let mut histogram = Histogram::default();
    let mut passed = 0;
    let mut buckets = Vec::with_capacity(bounds_us.len());
    for (bound_us, count) in bounds_us.iter().zip(counts) {
        passed += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(float(i128::from(*bound_us)) / MICROS_PER_SECOND);
        bucket.set_cumulative_count(passed);
        buckets.push(bucket);
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(unsigned(sum_us) / MICROS_PER_SECOND);
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

fn count_of(value: u64) -> f64 {
    float(i128::from(value))
}

#[expect(
    clippy::as_conversions,
    reason = "Prometheus values are floating-point: above 2^53 they round, and nothing is stored"
)]
pub(crate) const fn float(value: i128) -> f64 {
    value as f64
}

/// A number as a metric shows it: exact up to 2^53, then rounded.
#[expect(
    clippy::as_conversions,
    reason = "Prometheus values are floating-point: above 2^53 they round, and nothing is stored"
)]
pub const fn unsigned(value: u128) -> f64 {
    value as f64
}

fn count(length: usize) -> f64 {
    float(i128::try_from(length).unwrap_or(i128::MAX))
}

/// The metrics of both sides as text.
#[cfg(test)]
pub(crate) fn page(lake: &LakeState, warehouse: &WarehouseState) -> String {
    encode(lake_families(lake).into_iter().chain(warehouse_families(warehouse)).collect())
}

#[cfg(test)]
mod tests {
    use domain::{
        Event, EventId, Fact, LakeAccess, Operation, Rules, Run, Timestamp, WarehouseQuery,
        accept::QUANTITY_MAX,
    };

    use super::*;

    const SEEDS: [&str; 4] = [
        "data_lake_espaco_utilizado_gb",
        "data_lake_numero_acessos",
        "data_warehouse_tempo_resposta_ms",
        "data_warehouse_registros_processados",
    ];

    fn event(number: u64, fact: Fact) -> Event {
        let occurred_at = Timestamp(i64::try_from(number).unwrap() * 1_000_000);
        Event { id: EventId::sequenced(Run::new(1, 1), number), occurred_at, fact }
    }

    fn write(number: u64, bucket: &str, bytes: u64) -> Event {
        let fact = Fact::LakeAccess(LakeAccess {
            bucket: bucket.to_owned(),
            operation: Operation::Write,
            bytes,
            duration_us: 10_000,
            ..test_support::lake_access()
        });
        event(number, fact)
    }

    fn query(number: u64, warehouse: &str, executed_us: u64) -> Event {
        let fact = Fact::WarehouseQuery(WarehouseQuery {
            warehouse: warehouse.to_owned(),
            queued_us: 500,
            executed_us,
            rows_processed: 10,
            rows_returned: 1,
            bytes_scanned: 5,
            cache_hit: true,
            ..test_support::warehouse_query()
        });
        event(number, fact)
    }

    fn text(events: &[Event], rules: &Rules) -> String {
        let (mut lake, mut warehouse) = (LakeState::new(rules), WarehouseState::new(rules));
        for event in events {
            lake.apply(event);
            warehouse.apply(event);
        }
        page(&lake, &warehouse)
    }

    fn value<'a>(text: &'a str, series: &str) -> &'a str {
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
    }

    #[test]
    fn the_four_are_there_unlabelled_before_the_first_event() {
        let text = text(&[], &Rules::default());
        for name in SEEDS {
            assert_eq!(value(&text, name), "0");
        }
        assert!(!text.contains("newest_event"), "no event has happened");
    }

    #[test]
    fn the_four_say_what_the_design_says() {
        let events =
            [write(1, "raw", 1_500_000_000), write(2, "raw", 500_000_000), query(3, "etl", 2_500)];
        let text = text(&events, &Rules::default());
        let said: Vec<_> = SEEDS.iter().map(|name| value(&text, name)).collect();
        assert_eq!(said, ["0.5", "2", "3", "10"]);
    }

    #[test]
    fn every_sum_has_a_series_in_the_unit_of_its_name() {
        let mut missed = write(2, "raw", 40);
        let Fact::LakeAccess(access) = &mut missed.fact else { unreachable!() };
        (access.operation, access.outcome) = (Operation::Read, domain::Outcome::NotFound);
        access.duration_us = 200_000_000;
        let events =
            [write(1, "raw", 2_500), missed, query(3, "etl", 2_499_500), query(4, "etl", 500)];
        let text = text(&events, &Rules::default());
        for (series, expected) in [
            ("lake_accesses_total{bucket=\"raw\",operation=\"read\",outcome=\"not_found\"}", "1"),
            ("lake_transferred_bytes_total{bucket=\"raw\",operation=\"read\"}", "40"),
            ("lake_transferred_bytes_total{bucket=\"raw\",operation=\"write\"}", "2500"),
            ("lake_request_duration_seconds_bucket{bucket=\"raw\",le=\"0.005\"}", "0"),
            ("lake_request_duration_seconds_bucket{bucket=\"raw\",le=\"0.01\"}", "1"),
            ("lake_request_duration_seconds_bucket{bucket=\"raw\",le=\"+Inf\"}", "2"),
            ("lake_request_duration_seconds_sum{bucket=\"raw\"}", "200.01"),
            ("lake_forgotten_objects", "0"),
            ("lake_tracked_objects", "1"),
            ("lake_newest_event_timestamp_seconds", "2"),
            ("warehouse_response_window_seconds", "2.501"),
            ("warehouse_response_window_queries", "2"),
            ("warehouse_newest_event_timestamp_seconds", "4"),
            ("warehouse_response_duration_seconds_sum{warehouse=\"etl\"}", "2.501"),
            ("warehouse_response_duration_seconds_count{warehouse=\"etl\"}", "2"),
            ("warehouse_queries_total{warehouse=\"etl\",statement=\"select\",outcome=\"ok\"}", "2"),
            ("warehouse_queued_seconds_total{warehouse=\"etl\"}", "0.001"),
            ("warehouse_records_processed_total{warehouse=\"etl\"}", "20"),
            ("warehouse_bytes_scanned_total{warehouse=\"etl\"}", "10"),
            ("warehouse_cache_hits_total{warehouse=\"etl\"}", "2"),
        ] {
            assert_eq!(value(&text, &format!("data_{series}")), expected, "{series}");
        }
    }

    #[test]
    fn objects_beyond_the_bound_are_said_to_be_forgotten() {
        let events = ["a", "b", "c"].map(|key| {
            let mut event = write(1, "raw", 1);
            let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
            access.key = key.to_owned();
            event
        });
        let rules = Rules { objects_max: 2, ..Rules::default() };
        let text = text(&events, &rules);
        assert_eq!(value(&text, "data_lake_forgotten_objects"), "1");
        assert_eq!(value(&text, "data_lake_tracked_objects"), "2");
    }

    #[test]
    fn used_space_is_right_after_more_bytes_than_64_bits_hold_have_come_and_gone() {
        let mut events = Vec::new();
        for number in 0..2_100 {
            let mut event = write(number, "raw", QUANTITY_MAX);
            let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
            access.key = (number % 1_100).to_string();
            if number >= 1_100 {
                access.operation = Operation::Delete;
            }
            events.push(event);
        }
        let text = text(&events, &Rules::default());
        let expected = float(100 * i128::from(QUANTITY_MAX)).to_string();
        assert_eq!(value(&text, "data_lake_storage_used_bytes{bucket=\"raw\"}"), expected);
        assert_eq!(
            value(&text, SEEDS[0]),
            (float(100 * i128::from(QUANTITY_MAX)) / 1e9).to_string()
        );
    }

    #[test]
    fn the_labelled_metrics_agree_with_the_key_metrics() {
        let events = [write(1, "raw", 7), write(2, "curated", 3), query(3, "etl", 9_500)];
        let text = text(&events, &Rules::default());
        assert_eq!(value(&text, "data_lake_storage_used_bytes{bucket=\"raw\"}"), "7");
        assert_eq!(
            value(
                &text,
                "data_lake_accesses_total{bucket=\"curated\",operation=\"write\",outcome=\"ok\"}"
            ),
            "1"
        );
        let bucket = "data_warehouse_response_duration_seconds_bucket{warehouse=\"etl\",le=";
        assert_eq!(value(&text, &format!("{bucket}\"0.005\"}}")), "0");
        assert_eq!(value(&text, &format!("{bucket}\"0.01\"}}")), "1");
        assert_eq!(value(&text, &format!("{bucket}\"+Inf\"}}")), "1");
        assert_eq!(value(&text, "data_warehouse_cache_hits_total{warehouse=\"etl\"}"), "1");
    }

    #[test]
    fn no_input_makes_the_number_of_series_grow_without_end() {
        let rules = Rules { labels_max: 2, ..Rules::default() };
        let events: Vec<_> = (0..500)
            .map(|number| write(number, &format!("bucket-{number}"), 1))
            .chain((500..900).map(|number| query(number, &format!("warehouse-{number}"), 1)))
            .collect();
        let few = text(&events[..10], &rules).lines().count();
        let text = text(&events, &rules);
        assert_eq!(value(&text, "data_lake_storage_used_bytes{bucket=\"other\"}"), "498");
        assert!(text.lines().count() < few + 120, "{} lines", text.lines().count());
    }
}
