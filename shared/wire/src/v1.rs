//! Version 1 of the binary form. This version is frozen: another layout is another version byte and
//! another module.
//!
//! A payload is one version byte, then the bincode (standard configuration: little endian, variable
//! length integers) of a list of byte strings, each the bincode of one event. An event that cannot
//! be read therefore does not affect the others.

use bincode::{BorrowDecode, Encode, config};
use domain::{
    Event, EventId, Fact, LakeAccess, LakeAccessRestored, LakeAccessWithdrawn, LakeInventory,
    Operation, Outcome, Reason, Refusal, Statement, Timestamp, WarehouseQuery,
    WarehouseQueryWithdrawn,
};

use crate::json::{Decoded, Undecoded};

/// The first byte of a payload.
pub(crate) const VERSION: u8 = 1;
/// The most memory that a payload may claim, in bytes: a few times the broker's limit of 1 MiB per
/// message. Without this bound, nine bytes can ask for terabytes.
const CLAIM_BYTES_MAX: usize = 8 << 20;
/// Longest encoding of the version and the number of events, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 10;
/// Longest encoding of an event's length, in bytes.
pub(crate) const LENGTH_BYTES_MAX: usize = 9;
/// Size of a payload besides its events, with the length of one more event, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = HEAD_BYTES_MAX + LENGTH_BYTES_MAX;
/// Bytes to reserve per event; most events are shorter.
const EVENT_BYTES_HINT: usize = 160;

const CONFIG: config::Configuration<
    config::LittleEndian,
    config::Varint,
    config::Limit<CLAIM_BYTES_MAX>,
> = config::standard().with_limit::<CLAIM_BYTES_MAX>();

/// Writes events as one payload.
pub(crate) fn encode(events: &[Event]) -> Vec<u8> {
    let mut items = Vec::with_capacity(events.len() * EVENT_BYTES_HINT);
    let mut item = Vec::with_capacity(EVENT_BYTES_HINT);
    for event in events {
        item.clear();
        write_item(&mut item, event);
        append_item(&mut items, &item);
    }
    payload(events.len(), &items)
}

/// Appends the bytes of one event.
pub(crate) fn write_item(item: &mut Vec<u8>, event: &Event) {
    bincode::encode_into_std_write(EventV1::from(event), item, config::standard())
        .expect("numbers and texts into memory");
}

/// Appends the length and the bytes of an event to those of other events.
pub(crate) fn append_item(items: &mut Vec<u8>, item: &[u8]) {
    write_length(items, item.len());
    items.extend_from_slice(item);
}

/// The payload of `count` appended events.
pub(crate) fn payload(count: usize, items: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(items.len() + HEAD_BYTES_MAX);
    payload.push(VERSION);
    write_length(&mut payload, count);
    payload.extend_from_slice(items);
    payload
}

fn write_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u64::try_from(length).expect("a length fits into 64 bits");
    bincode::encode_into_std_write(length, bytes, config::standard())
        .expect("a number into memory");
}

/// Splits a payload into the bytes of its events.
pub(crate) fn split(payload: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    let Some((version, list)) = payload.split_first() else {
        return Err(undecodable("the payload is empty"));
    };
    if *version != VERSION {
        return Err(undecodable(format!("version {version} of the binary form is not known")));
    }
    whole(list)
}

/// Reads the bytes of one event.
pub(crate) fn decode(item: &[u8]) -> Result<Decoded, Undecoded> {
    whole::<EventV1<'_>>(item)
        .and_then(Decoded::try_from)
        .map_err(|refusal| Undecoded { refusal, identity: None })
}

/// Decodes a value that must use all of the bytes.
fn whole<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    let (value, used) = bincode::borrow_decode_from_slice::<T, _>(bytes, CONFIG)
        .map_err(|error| undecodable(error.to_string()))?;
    if used != bytes.len() {
        return Err(undecodable(format!("{} bytes follow its end", bytes.len() - used)));
    }
    Ok(value)
}

fn undecodable(detail: impl Into<String>) -> Refusal {
    Refusal::whole(Reason::Undecodable, detail)
}

#[derive(Debug, Encode, BorrowDecode)]
struct EventV1<'a> {
    id: [u8; 16],
    occurred_at_us: i64,
    fact: FactV1<'a>,
}

#[derive(Debug, Encode, BorrowDecode)]
enum FactV1<'a> {
    LakeAccess(LakeAccessV1<'a>),
    LakeInventory(LakeInventoryV1<'a>),
    WarehouseQuery(WarehouseQueryV1<'a>),
    LakeAccessWithdrawn([u8; 16], LakeAccessV1<'a>),
    LakeAccessRestored(i64, [u8; 16], LakeAccessV1<'a>),
    WarehouseQueryWithdrawn([u8; 16], WarehouseQueryV1<'a>),
}

#[derive(Debug, Encode, BorrowDecode)]
struct LakeAccessV1<'a> {
    bucket: &'a str,
    key: &'a str,
    operation: u8,
    bytes: u64,
    object_bytes: Option<u64>,
    sequencer: Option<&'a str>,
    duration_us: u64,
    outcome: u8,
    principal: &'a str,
}

#[derive(Debug, Encode, BorrowDecode)]
struct LakeInventoryV1<'a> {
    bucket: &'a str,
    objects: u64,
    bytes: u64,
}

#[derive(Debug, Encode, BorrowDecode)]
struct WarehouseQueryV1<'a> {
    warehouse: &'a str,
    database: &'a str,
    statement: u8,
    queued_us: u64,
    executed_us: u64,
    rows_processed: u64,
    rows_returned: u64,
    bytes_scanned: u64,
    cache_hit: bool,
    outcome: u8,
    principal: &'a str,
    fingerprint: &'a str,
}

impl<'a> From<&'a Event> for EventV1<'a> {
    fn from(event: &'a Event) -> Self {
        let fact = match &event.fact {
            Fact::LakeAccess(access) => FactV1::LakeAccess(access.into()),
            Fact::LakeInventory(inventory) => FactV1::LakeInventory(inventory.into()),
            Fact::WarehouseQuery(query) => FactV1::WarehouseQuery(query.into()),
            Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, access }) => {
                FactV1::LakeAccessWithdrawn(*of.as_bytes(), access.into())
            }
            Fact::LakeAccessRestored(LakeAccessRestored { of: (at, id), access }) => {
                FactV1::LakeAccessRestored(at.0, *id.as_bytes(), access.into())
            }
            Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, query }) => {
                FactV1::WarehouseQueryWithdrawn(*of.as_bytes(), query.into())
            }
        };
        Self { id: *event.id.as_bytes(), occurred_at_us: event.occurred_at.0, fact }
    }
}

impl<'a> From<&'a LakeAccess> for LakeAccessV1<'a> {
    fn from(access: &'a LakeAccess) -> Self {
        Self {
            bucket: &access.bucket,
            key: &access.key,
            operation: access.operation.code(),
            bytes: access.bytes,
            object_bytes: access.object_bytes,
            sequencer: access.sequencer.as_deref(),
            duration_us: access.duration_us,
            outcome: access.outcome.code(),
            principal: &access.principal,
        }
    }
}

impl<'a> From<&'a LakeInventory> for LakeInventoryV1<'a> {
    fn from(inventory: &'a LakeInventory) -> Self {
        Self { bucket: &inventory.bucket, objects: inventory.objects, bytes: inventory.bytes }
    }
}

impl<'a> From<&'a WarehouseQuery> for WarehouseQueryV1<'a> {
    fn from(query: &'a WarehouseQuery) -> Self {
        Self {
            warehouse: &query.warehouse,
            database: &query.database,
            statement: query.statement.code(),
            queued_us: query.queued_us,
            executed_us: query.executed_us,
            rows_processed: query.rows_processed,
            rows_returned: query.rows_returned,
            bytes_scanned: query.bytes_scanned,
            cache_hit: query.cache_hit,
            outcome: query.outcome.code(),
            principal: &query.principal,
            fingerprint: &query.fingerprint,
        }
    }
}

impl TryFrom<EventV1<'_>> for Decoded {
    type Error = Refusal;

    fn try_from(event: EventV1<'_>) -> Result<Self, Refusal> {
        let fact = match event.fact {
            FactV1::LakeAccess(access) => Fact::LakeAccess(access.try_into()?),
            FactV1::LakeInventory(inventory) => Fact::LakeInventory(LakeInventory {
                bucket: inventory.bucket.to_owned(),
                objects: inventory.objects,
                bytes: inventory.bytes,
            }),
            FactV1::WarehouseQuery(query) => Fact::WarehouseQuery(query.try_into()?),
            FactV1::LakeAccessWithdrawn(of, access) => {
                let (of, access) = (EventId::from_bytes(of), access.try_into()?);
                Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { of, access })
            }
            FactV1::LakeAccessRestored(at, id, access) => {
                let of = (Timestamp(at), EventId::from_bytes(id));
                Fact::LakeAccessRestored(LakeAccessRestored { of, access: access.try_into()? })
            }
            FactV1::WarehouseQueryWithdrawn(of, query) => {
                let (of, query) = (EventId::from_bytes(of), query.try_into()?);
                Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { of, query })
            }
        };
        Ok(Self {
            id: Some(EventId::from_bytes(event.id)),
            occurred_at: Timestamp(event.occurred_at_us),
            fact,
            verdict: None,
            fields_ignored: 0,
        })
    }
}

impl TryFrom<LakeAccessV1<'_>> for LakeAccess {
    type Error = Refusal;

    fn try_from(access: LakeAccessV1<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            bucket: access.bucket.to_owned(),
            key: access.key.to_owned(),
            operation: named(
                "operation",
                access.operation,
                Operation::from_code,
                Operation::NAMES,
            )?,
            bytes: access.bytes,
            object_bytes: access.object_bytes,
            sequencer: access.sequencer.map(str::to_owned),
            duration_us: access.duration_us,
            outcome: named("outcome", access.outcome, Outcome::from_code, Outcome::NAMES)?,
            principal: access.principal.to_owned(),
        })
    }
}

impl TryFrom<WarehouseQueryV1<'_>> for WarehouseQuery {
    type Error = Refusal;

    fn try_from(query: WarehouseQueryV1<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            warehouse: query.warehouse.to_owned(),
            database: query.database.to_owned(),
            statement: named("statement", query.statement, Statement::from_code, Statement::NAMES)?,
            queued_us: query.queued_us,
            executed_us: query.executed_us,
            rows_processed: query.rows_processed,
            rows_returned: query.rows_returned,
            bytes_scanned: query.bytes_scanned,
            cache_hit: query.cache_hit,
            outcome: named("outcome", query.outcome, Outcome::from_code, Outcome::NAMES)?,
            principal: query.principal.to_owned(),
            fingerprint: query.fingerprint.to_owned(),
        })
    }
}

/// The value of a code. The codes of a list are 0 and up, in the order of its names.
fn named<T>(
    field: &'static str,
    code: u8,
    of: fn(u8) -> Option<T>,
    names: &[&str],
) -> Result<T, Refusal> {
    of(code).ok_or_else(|| {
        let list: Vec<String> =
            names.iter().enumerate().map(|(code, name)| format!("{code} {name}")).collect();
        let detail = format!("{code} is none of {}", list.join(", "));
        Refusal::of_field(Reason::WrongField, field, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    /// Version and number of events, then the three events of the fixtures.
    const GOLDEN: &[&str] = &[
        "0103",
        "5901a20724c52081a6aaf3780000000000fd80ce47cfd7c10c00000372617710612f6220",
        "22c3bc222e7061727175657403fc0000100001fc00001000011230303535414544364443",
        "4439303238314535fb50140005737061726b",
        "2601a20724c52081a6aaf3780000000001fd80ce47cfd7c10c000103726177fbb004fc78",
        "0ae305",
        "3f01a20724c52081a6aaf3780000000002fd80ce47cfd7c10c00020365746c02647700fb",
        "e803fb20cbfbe8030afc40e201000000026269083564343134303261",
    ];

    /// The bytes of version 1, which may never change. If this test fails, the layout was changed:
    /// restore it and make a version 2.
    #[test]
    fn the_bytes_of_version_1_never_change() {
        let hex: String = encode(&fixtures::one_of_each()[..3])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, GOLDEN.concat());
    }

    fn decode_all(payload: &[u8]) -> Result<Vec<Event>, Refusal> {
        let event = |decoded: Decoded| decoded.or_id(|| unreachable!("every event has an id"));
        let decode = |item| decode(item).map(event).map_err(|undecoded| undecoded.refusal);
        split(payload)?.into_iter().map(decode).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let events = fixtures::one_of_each();
        assert_eq!(decode_all(&encode(&events)), Ok(events));
        assert_eq!(decode_all(&encode(&[])), Ok(vec![]));
    }

    #[test]
    fn trailing_bytes_are_refused_after_the_list_and_after_an_event() {
        let mut payload = encode(&fixtures::one_of_each());
        let mut item = split(&payload).unwrap()[0].to_vec();
        item.push(0);
        assert!(decode(&item).unwrap_err().refusal.detail.contains("1 bytes follow"));
        payload.push(0);
        assert!(split(&payload).unwrap_err().detail.contains("1 bytes follow"));
    }

    #[test]
    fn every_cut_of_a_payload_is_refused() {
        let payload = encode(&fixtures::one_of_each());
        for length in 0..payload.len() {
            assert!(split(&payload[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_claim_of_terabytes_is_refused_without_taking_them() {
        let mut payload = vec![VERSION];
        write_length(&mut payload, 1 << 40);
        assert_eq!(split(&payload).unwrap_err().reason, Reason::Undecodable);
    }

    #[test]
    fn a_code_that_is_in_no_list_is_refused_by_name() {
        let mut event = fixtures::one_of_each().remove(0);
        let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
        access.outcome = Outcome::ServerError;
        let after_the_code = access.principal.len() + 2;
        let mut bytes = encode(std::slice::from_ref(&event));
        let last_code = bytes.len() - after_the_code;
        assert_eq!(bytes[last_code], Outcome::ServerError.code());
        bytes[last_code] = 99;
        let refusal = decode_all(&bytes).unwrap_err();
        assert_eq!((refusal.reason, refusal.field), (Reason::WrongField, Some("outcome")));
        assert!(refusal.detail.starts_with("99 is none of 0 ok, 1 not_found, "), "{refusal}");
    }
}
