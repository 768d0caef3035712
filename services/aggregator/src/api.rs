//! The answers of `/api/now` and `/api/history`. The aggregator writes them, and `lakegauge top`
//! reads them.
//!
//! A missing field gets its default value, so that sender and receiver may be of different
//! releases.

mod pipeline;

use serde::{Deserialize, Serialize};

pub use pipeline::{
    EndedIncident, Incident, IncidentKind, LedgerCheck, PartState, PipelinePart, Severity,
};

use crate::config::Links;

/// The numbers of one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Now {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Version of the aggregator.
    pub version: String,
    /// Other addresses for people; ignored by readers.
    #[serde(skip_deserializing)]
    pub links: Links,
    /// Whether the numbers are complete and current.
    pub ready: bool,
    /// Since when the numbers have not moved, in milliseconds since 1970; `None` while they move.
    pub stale_since_ms: Option<i64>,
    /// Every part of the pipeline that this aggregator knows; empty if it counts a replay.
    pub parts: Vec<PipelinePart>,
    /// What is wrong now, the worst first.
    pub incidents: Vec<Incident>,
    /// The last incident that ended, if that is not long ago.
    pub last_incident: Option<EndedIncident>,
    /// The latest sums of the archive's ledger; `None` before they were first read.
    pub ledger: Option<LedgerCheck>,
    /// The health of the aggregator and its streams.
    pub health: Health,
    /// The numbers, if they may be shown.
    #[serde(flatten)]
    pub numbers: Option<Numbers>,
}

/// The health of the aggregator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// The conditions of readiness.
    pub parts: Vec<Part>,
    /// The streams that are counted.
    pub streams: Vec<CountedStream>,
}

/// One condition of readiness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Name of the condition.
    pub name: String,
    /// Whether it is met.
    pub ok: bool,
    /// More about it, for people.
    pub detail: String,
}

/// One stream that is counted. The numbers are those of the metrics with the same names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CountedStream {
    /// Name of the stream.
    pub name: String,
    /// Stored messages that are not counted yet.
    pub lag_messages: f64,
    /// Sequence of the last message that was counted.
    pub position: f64,
    /// Events that were counted.
    pub counted: f64,
    /// Events that were delivered again.
    pub duplicates: f64,
    /// Events that were too old to judge.
    pub too_old: f64,
    /// Events that became dead letters.
    pub dead_letters: f64,
    /// Epoch of the stream.
    pub epoch: f64,
    /// Age of the last snapshot in seconds; `None` before the first.
    pub snapshot_age_s: Option<f64>,
}

/// The numbers that may be shown once everything is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// The key metrics.
    #[serde(rename = "four")]
    pub key_metrics: KeyMetrics,
    /// How fast they grow.
    #[serde(default)]
    pub rates: Rates,
    /// The distribution of the response times.
    #[serde(default)]
    pub responses: Responses,
    /// Whether used space is an estimate.
    #[serde(default)]
    pub used_is_estimate: bool,
    /// When the newest events happened.
    #[serde(default)]
    pub newest_ms: NewestEvents,
    /// The buckets that use the most space.
    #[serde(default)]
    pub buckets: List<Bucket>,
    /// The warehouses with the most queries.
    #[serde(default)]
    pub warehouses: List<Warehouse>,
}

/// The four key metrics, exactly as `/metrics` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyMetrics {
    /// Used space of the lake, in GB of 10⁹ bytes.
    #[serde(rename = "data_lake_espaco_utilizado_gb")]
    pub used_gb: f64,
    /// Requests to the lake.
    #[serde(rename = "data_lake_numero_acessos")]
    pub accesses: f64,
    /// Mean response time of the warehouse over the last seconds, in milliseconds.
    #[serde(rename = "data_warehouse_tempo_resposta_ms")]
    pub response_ms: f64,
    /// Rows that the warehouse has processed.
    #[serde(rename = "data_warehouse_registros_processados")]
    pub records: f64,
}

/// Growth per second; `None` before there is an earlier number to compare with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Used space of the lake, in bytes.
    pub used_bytes: Option<f64>,
    /// Requests to the lake.
    pub accesses: Option<f64>,
    /// Rows that the warehouse has processed.
    pub records: Option<f64>,
    /// Queries of the warehouse.
    pub queries: Option<f64>,
}

/// When the newest event of each side happened, in milliseconds since 1970; `None` before the
/// first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewestEvents {
    /// The newest event of the lake.
    pub lake: Option<i64>,
    /// The newest event of the warehouse.
    pub warehouse: Option<i64>,
}

/// The distribution of the response times of the last minutes. Shares are between 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Responses {
    /// Length of the time that was looked at, in seconds.
    pub span_s: u64,
    /// Queries in that time.
    pub queries: u64,
    /// Median in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95th percentile in milliseconds.
    pub p95_ms: Option<f64>,
    /// 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
    /// Share of the response time that was spent in the queue.
    pub queued_share: Option<f64>,
    /// Share of the queries that failed.
    pub failed_share: Option<f64>,
    /// Share of the queries that were answered from a cache.
    pub cache_hit_share: Option<f64>,
}

/// The first entries of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    /// The number of all entries, including those that are not listed.
    pub total: usize,
    /// The first entries.
    pub top: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { total: 0, top: Vec::new() }
    }
}

/// A bucket. Rates are those of the last minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Name of the bucket.
    pub name: String,
    /// Bytes that its objects use.
    pub used_bytes: f64,
    /// Requests per second.
    pub accesses_per_s: Option<f64>,
    /// Bytes read and written per second.
    pub transferred_bytes_per_s: Option<f64>,
    /// Share of the requests that failed.
    pub failed_share: Option<f64>,
}

/// A warehouse. Rates are those of the last minute, the other numbers those of the last minutes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warehouse {
    /// Name of the warehouse.
    pub name: String,
    /// Queries per second.
    pub queries_per_s: Option<f64>,
    /// Rows processed per second.
    pub records_per_s: Option<f64>,
    /// 95th percentile of the response times, in milliseconds.
    pub p95_ms: Option<f64>,
    /// Share of the queries that failed.
    pub failed_share: Option<f64>,
}

/// The last hour: for each side, the time in milliseconds since 1970, and two numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Length of the history, in seconds.
    pub span_s: i64,
    /// Time between two points, in seconds.
    pub grain_s: i64,
    /// Used space in bytes, and requests since the first event.
    pub lake: Vec<(i64, f64, u64)>,
    /// Response time in milliseconds, and rows since the first event.
    pub warehouse: Vec<(i64, f64, f64)>,
}
