//! What was read at one moment. Pure.

use serde::Deserialize;

use super::spark::Point;

/// Everything that the screen shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Readings {
    /// The aggregator's numbers, or why there are none.
    pub(super) now: Result<Now, String>,
    /// The last hour.
    pub(super) history: History,
    /// The archiver, if it answers.
    pub(super) archiver: Option<Archiver>,
    /// The newest dead letters, or why they are not known.
    pub(super) letters: Result<Vec<String>, String>,
}

/// What the archiver says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Archiver {
    /// Messages that are not archived yet.
    pub(super) lag: Option<f64>,
    /// Events a second.
    pub(super) events_per_s: Option<f64>,
    /// Dead letters that are open.
    pub(super) letters_open: Option<f64>,
}

/// The aggregator's `/api/now`, as far as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Now {
    pub(super) at_ms: i64,
    pub(super) version: String,
    pub(super) ready: bool,
    /// Since when the numbers stand still.
    pub(super) stale_since_ms: Option<i64>,
    pub(super) health: Health,
    pub(super) four: Option<Four>,
    pub(super) rates: Rates,
    pub(super) responses: Responses,
    pub(super) buckets: List<Bucket>,
    pub(super) warehouses: List<Warehouse>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    pub(super) parts: Vec<Part>,
    pub(super) streams: Vec<Stream>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) ok: bool,
    pub(super) detail: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) lag_messages: f64,
    pub(super) duplicates: f64,
    pub(super) dead_letters: f64,
}

/// The four metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Four {
    #[serde(rename = "data_lake_espaco_utilizado_gb")]
    pub(super) used_gb: f64,
    #[serde(rename = "data_lake_numero_acessos")]
    pub(super) accesses: f64,
    #[serde(rename = "data_warehouse_tempo_resposta_ms")]
    pub(super) response_ms: f64,
    #[serde(rename = "data_warehouse_registros_processados")]
    pub(super) records: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Rates {
    pub(super) used_bytes: Option<f64>,
    pub(super) accesses: Option<f64>,
    pub(super) records: Option<f64>,
    pub(super) queries: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Responses {
    pub(super) p50_ms: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct List<T> {
    pub(super) total: u64,
    pub(super) top: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { total: 0, top: Vec::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) used_bytes: f64,
    pub(super) accesses_per_s: Option<f64>,
    pub(super) failed_share: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Warehouse {
    pub(super) name: String,
    pub(super) queries_per_s: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) records_per_s: Option<f64>,
}

/// The aggregator's `/api/history`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) span_s: i64,
    pub(super) grain_s: i64,
    lake: Vec<(i64, f64, f64)>,
    warehouse: Vec<(i64, f64, f64)>,
}

impl History {
    /// Used space in GB.
    pub(super) fn used_gb(&self) -> Vec<Point> {
        self.lake.iter().map(|(at, used, _)| (*at, used / 1e9)).collect()
    }

    /// Requests since the first event.
    pub(super) fn accesses(&self) -> Vec<Point> {
        self.lake.iter().map(|(at, _, accesses)| (*at, *accesses)).collect()
    }

    /// Response time in milliseconds.
    pub(super) fn response_ms(&self) -> Vec<Point> {
        self.warehouse.iter().map(|(at, response, _)| (*at, *response)).collect()
    }

    /// Rows since the first event.
    pub(super) fn records(&self) -> Vec<Point> {
        self.warehouse.iter().map(|(at, _, records)| (*at, *records)).collect()
    }
}
