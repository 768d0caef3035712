//! Formats events for people: one line each.

use domain::{
    EventId, Fact, LakeAccess, LakeAccessRestored, LakeAccessWithdrawn, LakeInventory,
    WarehouseQuery, WarehouseQueryWithdrawn,
};
use service_kit::terminal::plain;
use wire::json::{Decoded, format_time};

/// An event as one line, without line breaks and control characters.
pub(crate) fn line(event: &Decoded) -> String {
    let time = format_time(event.occurred_at).unwrap_or_else(|| event.occurred_at.0.to_string());
    let what = match &event.fact {
        Fact::LakeAccess(access) => lake_access(access),
        Fact::LakeInventory(inventory) => lake_inventory(inventory),
        Fact::WarehouseQuery(query) => warehouse_query(query),
        Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, access }) => {
            format!("withdrawn {of}: {}", lake_access(access))
        }
        Fact::LakeAccessRestored(LakeAccessRestored { of, access }) => {
            format!("restored {}: {}", of.1, lake_access(access))
        }
        Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, query }) => {
            format!("withdrawn {of}: {}", warehouse_query(query))
        }
    };
    let id = event.id.map_or_else(|| "-".to_owned(), |id: EventId| id.to_string());
    let verdict = event.verdict.map_or_else(String::new, |number| format!("  verdict {number}"));
    plain(&format!("{time}  {what}  {id}{verdict}"))
}

fn lake_access(access: &LakeAccess) -> String {
    let object =
        access.object_bytes.map_or_else(String::new, |bytes| format!(" of {}", size(bytes)));
    format!(
        "lake.access      {:<6} {:<12} {:>9}  {}/{}  {}{}  {}",
        access.operation.name(),
        access.outcome.name(),
        duration(access.duration_us),
        access.bucket,
        access.key,
        size(access.bytes),
        object,
        who(&access.principal),
    )
}

fn lake_inventory(inventory: &LakeInventory) -> String {
    format!(
        "lake.inventory   {}  {} objects  {}",
        inventory.bucket,
        inventory.objects,
        size(inventory.bytes)
    )
}

fn warehouse_query(query: &WarehouseQuery) -> String {
    format!(
        "warehouse.query  {:<6} {:<12} {:>9}  {}/{}  queued {}  {} rows, {} returned  scanned {}{}  {}",
        query.statement.name(),
        query.outcome.name(),
        duration(query.executed_us),
        query.warehouse,
        query.database,
        duration(query.queued_us),
        query.rows_processed,
        query.rows_returned,
        size(query.bytes_scanned),
        if query.cache_hit { " (cached)" } else { "" },
        who(&query.principal),
    )
}

fn who(principal: &str) -> &str {
    if principal.is_empty() { "-" } else { principal }
}

/// Bytes with a decimal unit, like used space: `1.0 MB`.
fn size(bytes: u64) -> String {
    with_unit(
        bytes,
        &[(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")],
        "B",
    )
}

/// Microseconds with a fitting unit: `5.2 ms`.
fn duration(micros: u64) -> String {
    with_unit(micros, &[(1_000_000, "s"), (1_000, "ms")], "us")
}

fn with_unit(value: u64, units: &[(u64, &str)], smallest: &str) -> String {
    match units.iter().find(|(unit, _)| value >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", value / unit, value % unit / (unit / 10)),
        None => format!("{value} {smallest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        line(&wire::json::decode_line(text.as_bytes()).unwrap())
    }

    #[test]
    fn an_event_of_each_type_is_one_readable_line() {
        assert_eq!(
            of(
                r#"{"type":"lake.access","id":"01a20724-c520-81a6-aaf3-780000000000","occurred_at":"2026-11-23T06:43:00.123456Z","bucket":"raw","key":"a/b.parquet","operation":"write","bytes":1048576,"object_bytes":1048576,"duration_us":5200,"outcome":"ok","principal":"spark"}"#
            ),
            "2026-11-23T06:43:00.123456Z  lake.access      write  ok              5.2 ms  raw/a/b.parquet  1.0 MB of 1.0 MB  spark  01a20724-c520-81a6-aaf3-780000000000"
        );
        assert_eq!(
            of(
                r#"{"type":"lake.inventory","bucket":"raw","objects":1200,"bytes":98765432,"as_of":0,"verdict":17}"#
            ),
            "1970-01-01T00:00:00.000000Z  lake.inventory   raw  1200 objects  98.7 MB  -  verdict 17"
        );
        assert_eq!(
            of(
                r#"{"type":"warehouse.query","occurred_at":0,"warehouse":"etl","database":"dw","statement":"select","queued_us":999,"executed_us":52000000,"rows_processed":1000,"rows_returned":10,"bytes_scanned":123456,"cache_hit":true,"outcome":"timeout","principal":"","fingerprint":""}"#
            ),
            "1970-01-01T00:00:00.000000Z  warehouse.query  select timeout         52.0 s  etl/dw  queued 999 us  1000 rows, 10 returned  scanned 123.4 kB (cached)  -  -"
        );
    }
}
