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
mod tests;
