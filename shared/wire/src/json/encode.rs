//! Events to JSON, appended to a reused buffer: no intermediate values, no allocation.

use domain::{
    Event, EventId, Fact, LakeAccess, LakeAccessRestored, LakeAccessWithdrawn, LakeInventory,
    Timestamp, WarehouseQuery, WarehouseQueryWithdrawn,
};
use uuid::Uuid;

use super::{
    field::{EventType, Field},
    rfc3339::write_time,
};

/// Bytes to reserve per event; most events are shorter.
const EVENT_BYTES_HINT: usize = 384;

/// An event as one JSON object, without a line break.
pub fn encode_line(event: &Event) -> String {
    let mut line = Vec::with_capacity(EVENT_BYTES_HINT);
    write_line(&mut line, event);
    String::from_utf8(line).expect("made of texts")
}

/// Events as JSON lines. No events give an empty array, because an empty body would not be valid.
pub fn encode_lines(events: &[Event]) -> Vec<u8> {
    if events.is_empty() {
        return b"[]".to_vec();
    }
    let mut lines = Vec::with_capacity(events.len() * EVENT_BYTES_HINT);
    for event in events {
        write_line(&mut lines, event);
        lines.push(b'\n');
    }
    lines
}

/// Appends an event as one JSON object, without a line break.
pub fn write_line(line: &mut Vec<u8>, event: &Event) {
    match &event.fact {
        Fact::LakeAccess(access) => {
            begin(line, EventType::LakeAccess, event.id);
            time(line, Field::OccurredAt, event.occurred_at);
            lake_access(line, access);
        }
        Fact::LakeInventory(inventory) => {
            begin(line, EventType::LakeInventory, event.id);
            lake_inventory(line, inventory);
            time(line, Field::AsOf, event.occurred_at);
        }
        Fact::WarehouseQuery(query) => {
            begin(line, EventType::WarehouseQuery, event.id);
            time(line, Field::OccurredAt, event.occurred_at);
            warehouse_query(line, query);
        }
        Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, access }) => {
            begin(line, EventType::LakeAccessWithdrawn, event.id);
            time(line, Field::OccurredAt, event.occurred_at);
            uuid(line, Field::OfId, *of);
            lake_access(line, access);
        }
        Fact::LakeAccessRestored(LakeAccessRestored { of, access }) => {
            begin(line, EventType::LakeAccessRestored, event.id);
            time(line, Field::OccurredAt, event.occurred_at);
            uuid(line, Field::OfId, of.1);
            time(line, Field::OfOccurredAt, of.0);
            lake_access(line, access);
        }
        Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, query }) => {
            begin(line, EventType::WarehouseQueryWithdrawn, event.id);
            time(line, Field::OccurredAt, event.occurred_at);
            uuid(line, Field::OfId, *of);
            warehouse_query(line, query);
        }
    }
    line.push(b'}');
}

/// Appends an event with the number of its verdict as one JSON object, without a line break.
pub fn write_verdict(line: &mut Vec<u8>, number: u64, event: &Event) {
    write_line(line, event);
    line.pop();
    quantity(line, Field::Verdict, number);
    line.push(b'}');
}

fn lake_access(line: &mut Vec<u8>, access: &LakeAccess) {
    text(line, Field::Bucket, &access.bucket);
    text(line, Field::Key, &access.key);
    word(line, Field::Operation, access.operation.name());
    quantity(line, Field::Bytes, access.bytes);
    if let Some(object_bytes) = access.object_bytes {
        quantity(line, Field::ObjectBytes, object_bytes);
    }
    if let Some(sequencer) = &access.sequencer {
        text(line, Field::Sequencer, sequencer);
    }
    quantity(line, Field::DurationUs, access.duration_us);
    word(line, Field::Outcome, access.outcome.name());
    text(line, Field::Principal, &access.principal);
}

fn lake_inventory(line: &mut Vec<u8>, inventory: &LakeInventory) {
    text(line, Field::Bucket, &inventory.bucket);
    quantity(line, Field::Objects, inventory.objects);
    quantity(line, Field::Bytes, inventory.bytes);
}

fn warehouse_query(line: &mut Vec<u8>, query: &WarehouseQuery) {
    text(line, Field::Warehouse, &query.warehouse);
    text(line, Field::Database, &query.database);
    word(line, Field::Statement, query.statement.name());
    quantity(line, Field::QueuedUs, query.queued_us);
    quantity(line, Field::ExecutedUs, query.executed_us);
    quantity(line, Field::RowsProcessed, query.rows_processed);
    quantity(line, Field::RowsReturned, query.rows_returned);
    quantity(line, Field::BytesScanned, query.bytes_scanned);
    name(line, Field::CacheHit);
    line.extend_from_slice(if query.cache_hit { b"true" } else { b"false" });
    word(line, Field::Outcome, query.outcome.name());
    text(line, Field::Principal, &query.principal);
    text(line, Field::Fingerprint, &query.fingerprint);
}

fn begin(line: &mut Vec<u8>, kind: EventType, id: EventId) {
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.name().as_bytes());
    line.push(b'"');
    uuid(line, Field::Id, id);
}

fn uuid(line: &mut Vec<u8>, field: Field, id: EventId) {
    let mut form = Uuid::encode_buffer();
    let uuid = Uuid::from_bytes(*id.as_bytes()).hyphenated();
    word(line, field, uuid.encode_lower(&mut form));
}

fn name(line: &mut Vec<u8>, field: Field) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(field.name().as_bytes());
    line.extend_from_slice(b"\":");
}

/// Writes a text that needs no escapes.
fn word(line: &mut Vec<u8>, field: Field, value: &str) {
    name(line, field);
    line.push(b'"');
    line.extend_from_slice(value.as_bytes());
    line.push(b'"');
}

fn text(line: &mut Vec<u8>, field: Field, value: &str) {
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        return word(line, field, value);
    }
    name(line, field);
    serde_json::to_writer(line, value).expect("a text into memory");
}

fn quantity(line: &mut Vec<u8>, field: Field, value: u64) {
    name(line, field);
    integer(line, value);
}

fn time(line: &mut Vec<u8>, field: Field, value: Timestamp) {
    name(line, field);
    line.push(b'"');
    if write_time(line, value) {
        line.push(b'"');
        return;
    }
    // RFC 3339 cannot express this time, but the integer form can.
    line.pop();
    if value.0 < 0 {
        line.push(b'-');
    }
    integer(line, value.0.unsigned_abs());
}

fn integer(line: &mut Vec<u8>, mut value: u64) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [b'0'; DIGITS_MAX];
    let mut first = DIGITS_MAX - 1;
    loop {
        digits[first] = b'0' + u8::try_from(value % 10).expect("a digit");
        value /= 10;
        if value == 0 {
            break;
        }
        first -= 1;
    }
    line.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_lines_are_those_of_the_documentation() {
        let expected = [
            r#"{"type":"lake.access","id":"01a20724-c520-81a6-aaf3-780000000000","occurred_at":"2026-11-23T06:43:00.123456Z","bucket":"raw","key":"a/b \"ü\".parquet","operation":"write","bytes":1048576,"object_bytes":1048576,"sequencer":"0055AED6DCD90281E5","duration_us":5200,"outcome":"ok","principal":"spark"}"#,
            r#"{"type":"lake.inventory","id":"01a20724-c520-81a6-aaf3-780000000001","bucket":"raw","objects":1200,"bytes":98765432,"as_of":"2026-11-23T06:43:00.123456Z"}"#,
            r#"{"type":"warehouse.query","id":"01a20724-c520-81a6-aaf3-780000000002","occurred_at":"2026-11-23T06:43:00.123456Z","warehouse":"etl","database":"dw","statement":"select","queued_us":1000,"executed_us":52000,"rows_processed":1000,"rows_returned":10,"bytes_scanned":123456,"cache_hit":false,"outcome":"ok","principal":"bi","fingerprint":"5d41402a"}"#,
        ];
        let events = fixtures::one_of_each();
        let events = &events[..expected.len()];
        for (event, expected) in events.iter().zip(expected) {
            assert_eq!(encode_line(event), expected);
        }
        let lines = expected.map(|line| format!("{line}\n")).concat();
        assert_eq!(encode_lines(events), lines.as_bytes());
    }

    #[test]
    fn every_integer_is_written_whole() {
        for value in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut line = Vec::new();
            integer(&mut line, value);
            assert_eq!(line, value.to_string().into_bytes());
        }
    }
}
