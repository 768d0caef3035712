//! The readings as a plain table with one name and value per line, for scripts. Pure.

use aggregator::api::PartState;
use service_kit::terminal::plain;

use super::{banner, readings::Readings};

/// The table. Names don't change, values are not rounded, and an unknown value is `-`. Incidents
/// come last, one line of text each.
pub(super) fn render(readings: &Readings) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: Option<f64>| {
        let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        lines.push((name.to_owned(), value));
    };
    let now = readings.now.as_ref().ok();
    put("ready", Some(if now.is_some_and(|now| now.ready) { 1.0 } else { 0.0 }));
    let numbers = now.and_then(|now| now.numbers.as_ref());
    let metrics = numbers.map(|numbers| numbers.key_metrics);
    put("data_lake_espaco_utilizado_gb", metrics.map(|metrics| metrics.used_gb));
    put("data_lake_numero_acessos", metrics.map(|metrics| metrics.accesses));
    put("data_warehouse_tempo_resposta_ms", metrics.map(|metrics| metrics.response_ms));
    put("data_warehouse_registros_processados", metrics.map(|metrics| metrics.records));
    let rates = numbers.map(|numbers| numbers.rates).unwrap_or_default();
    put("lake_requests_per_s", rates.accesses);
    put("lake_growth_bytes_per_s", rates.used_bytes);
    put("warehouse_queries_per_s", rates.queries);
    put("warehouse_records_per_s", rates.records);
    let responses = numbers.map(|numbers| numbers.responses).unwrap_or_default();
    put("warehouse_response_p50_ms", responses.p50_ms);
    put("warehouse_response_p95_ms", responses.p95_ms);
    put("warehouse_response_p99_ms", responses.p99_ms);
    let archiver = readings.archiver.unwrap_or_default();
    put("archived_events_per_s", archiver.events_per_s);
    put("archiver_lag_messages", archiver.lag);
    put("dead_letters_open", archiver.letters_open);
    for stream in now.map(|now| now.health.streams.as_slice()).unwrap_or_default() {
        put(&format!("aggregator_lag_messages[{}]", stream.name), Some(stream.lag_messages));
        put(&format!("aggregator_duplicates[{}]", stream.name), Some(stream.duplicates));
    }
    // The name of a bucket may contain anything, even a line break.
    for bucket in numbers.map(|numbers| numbers.buckets.top.as_slice()).unwrap_or_default() {
        put(&plain(&format!("bucket_used_bytes[{}]", bucket.name)), Some(bucket.used_bytes));
        put(&plain(&format!("bucket_requests_per_s[{}]", bucket.name)), bucket.accesses_per_s);
    }
    for warehouse in numbers.map(|numbers| numbers.warehouses.top.as_slice()).unwrap_or_default() {
        let name = |what: &str| plain(&format!("warehouse_{what}[{}]", warehouse.name));
        put(&name("queries_per_s"), warehouse.queries_per_s);
        put(&name("response_p95_ms"), warehouse.p95_ms);
    }
    for part in now.map(|now| now.parts.as_slice()).unwrap_or_default() {
        let is_well = if part.state == PartState::Well { "1" } else { "0" };
        let name = plain(&format!("part_well[{}]", part.name));
        match lines.iter_mut().find(|(known, _)| *known == name) {
            // If several parts have one name, all of them must be healthy.
            Some((_, value)) if is_well == "0" => "0".clone_into(value),
            Some(_) => {}
            None => lines.push((name, is_well.to_owned())),
        }
    }
    for incident in now.map(|now| now.incidents.as_slice()).unwrap_or_default() {
        let name = format!("incident[{}]", incident.kind.name());
        lines.push((name, format!("{} {}", banner::told(incident), plain(&incident.todo))));
    }
    if let Err(why) = &readings.now {
        lines.push(("incident[aggregator_silent]".to_owned(), plain(why)));
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}
