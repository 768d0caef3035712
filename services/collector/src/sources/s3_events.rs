//! Notifications of S3 events, in the JSON format that AWS, MinIO and RustFS share. Pure.
//!
//! A batch is `{"Records": […]}`; MinIO and RustFS add `EventName` and `Key` beside it.
//! Difficulties, found in the vendors' documentation and source code:
//!
//! - Keys are URL-encoded, with `+` for a space.
//! - AWS writes `ObjectCreated:Put`, the others `s3:ObjectCreated:Put`.
//! - Changes of tags, retention and legal hold are "created" events, but write no bytes.
//! - A removal has no size, and with MinIO an object of 0 bytes has none either.
//! - A delete marker frees no bytes, and versions are stored side by side.
//! - The first message of AWS is a test without records. SNS and EventBridge put an envelope around
//!   an event (`sources::aws`).
//! - A notification is delivered at least once, in any order.

use std::borrow::Cow;

use domain::{Event, EventId, Fact, LakeAccess, Operation, Outcome, Reason, Refusal, Side};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    aws::{self, Opened},
    s3_key,
    undecodable::undecodable,
};
use crate::parsed::{Parsed, UnreadableReport};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(rename = "Records", borrow)]
    records: Option<Vec<&'a RawValue>>,
    /// `s3:TestEvent`, with which AWS tests the connection.
    #[serde(rename = "Event")]
    test: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    event_time: Cow<'a, str>,
    #[serde(borrow)]
    event_name: Cow<'a, str>,
    #[serde(borrow, default)]
    user_identity: UserIdentity<'a>,
    #[serde(borrow, default)]
    response_elements: ResponseElements<'a>,
    #[serde(borrow)]
    s3: Entity<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserIdentity<'a> {
    #[serde(borrow, default)]
    principal_id: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct ResponseElements<'a> {
    #[serde(rename = "x-amz-request-id", borrow, default)]
    request_id: Cow<'a, str>,
    /// A number as text; only some versions of MinIO send it.
    #[serde(rename = "content-length", borrow, default)]
    content_length: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Entity<'a> {
    #[serde(borrow)]
    bucket: Bucket<'a>,
    #[serde(borrow)]
    object: Object<'a>,
}

#[derive(Deserialize)]
struct Bucket<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    size: Option<u64>,
    #[serde(borrow, default)]
    version_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    sequencer: Option<Cow<'a, str>>,
}

/// Reads a notification. A record that can't be read is refused and does not affect the others.
///
/// # Errors
///
/// The body is not a notification.
pub fn parse(body: &[u8]) -> Result<Parsed, UnreadableReport> {
    parse_counted(body, |_| true)
}

/// Reads a notification of a store whose reads are collected from audit records. Records of reads
/// are ignored here, so that none counts twice.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_changes(body: &[u8]) -> Result<Parsed, UnreadableReport> {
    parse_counted(body, |name| !name.starts_with("ObjectAccessed:"))
}

fn parse_counted(body: &[u8], counts: impl Fn(&str) -> bool) -> Result<Parsed, UnreadableReport> {
    let read: Body<'_> =
        serde_json::from_slice(body).map_err(|error| no_notification(&error.to_string()))?;
    let mut parsed = Parsed::default();
    match (read.records, aws::open(body)) {
        (Some(records), _) => {
            for raw in records {
                parsed.add(Side::Lake, record(raw, &counts), raw.get().as_bytes());
            }
        }
        (None, _) if read.test.is_some() => parsed.ignore(),
        (None, Opened::Message(message)) => {
            // No system puts an envelope into an envelope, so the message must be a notification.
            let inside: Body<'_> = serde_json::from_str(&message)
                .map_err(|error| no_notification(&error.to_string()))?;
            return match inside.records {
                Some(_) => parse_counted(message.as_bytes(), counts),
                None if inside.test.is_some() => Ok(Parsed { ignored: 1, records: 1, ..parsed }),
                None => Err(no_notification("the message in it has no Records")),
            };
        }
        (None, Opened::Notice(notice)) => {
            parsed.ignore();
            parsed.notices.push(notice);
        }
        (None, Opened::Event(event)) => parsed.add(Side::Lake, event, body),
        (None, Opened::Nothing) => return Err(no_notification("it has no Records")),
    }
    Ok(parsed)
}

fn no_notification(why: &str) -> UnreadableReport {
    let form = "this is no notification of S3 events ({\"Records\": […]})";
    UnreadableReport(format!("{form}: {why}"))
}

/// The event of a record; `None` if its kind is not a request to an object, or is not counted.
fn record(raw: &RawValue, counts: impl Fn(&str) -> bool) -> Result<Option<Event>, Refusal> {
    let record: Record<'_> =
        serde_json::from_str(raw.get()).map_err(|error| undecodable(&error))?;
    let name = record.event_name.strip_prefix("s3:").unwrap_or(&record.event_name);
    let Some(change) = Change::of(name).filter(|_| counts(name)) else { return Ok(None) };
    let occurred_at = wire::json::parse_time(&record.event_time).ok_or_else(|| {
        let detail = format!("{} is no time of RFC 3339", record.event_time);
        Refusal::of_field(Reason::WrongField, "eventTime", detail)
    })?;
    let object = &record.s3.object;
    let fact = LakeAccess {
        bucket: record.s3.bucket.name.to_string(),
        key: s3_key::of_version(&decoded(&object.key)?, object.version_id.as_deref()),
        operation: change.operation,
        bytes: transferred(&record, change),
        object_bytes: change.writes.then(|| object.size.unwrap_or(0)),
        sequencer: object.sequencer.as_deref().map(str::to_ascii_lowercase),
        // Notifications contain no duration; 0 means "not known".
        duration_us: 0,
        outcome: Outcome::Ok,
        principal: record.user_identity.principal_id.to_string(),
    };
    Ok(Some(Event { id: id(&record, name), occurred_at, fact: Fact::LakeAccess(fact) }))
}

/// The effect of a kind of event on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    operation: Operation,
    /// Whether bytes were stored.
    writes: bool,
}

impl Change {
    /// The effect of the event with this name; `None` if the event is not a request to an object.
    fn of(name: &str) -> Option<Self> {
        let (kind, detail) = name.split_once(':').unwrap_or((name, ""));
        let (operation, writes) = match (kind, detail) {
            ("ObjectCreated", "Put" | "Post" | "CompleteMultipartUpload") => {
                (Operation::Write, true)
            }
            ("ObjectCreated", "Copy") => (Operation::Copy, true),
            // Tags, retention and legal hold do not change the object's bytes.
            ("ObjectCreated", _) => (Operation::Other, false),
            ("ObjectAccessed", "Get") => (Operation::Read, false),
            ("ObjectAccessed", "Head") => (Operation::Head, false),
            ("ObjectAccessed", _) => (Operation::Other, false),
            ("ObjectRemoved" | "LifecycleExpiration", _) => (Operation::Delete, false),
            _ => return None,
        };
        Some(Self { operation, writes })
    }
}

/// Bytes that were transferred. For a read of a part of an object, some stores report the size of
/// the whole object, so `content-length` is preferred if it is there.
fn transferred(record: &Record<'_>, change: Change) -> u64 {
    match change.operation {
        Operation::Write => record.s3.object.size.unwrap_or(0),
        Operation::Read => {
            let length = record.response_elements.content_length.as_deref();
            let length = length.and_then(|length| length.parse().ok());
            length.or(record.s3.object.size).unwrap_or(0)
        }
        // A copy is made inside the store.
        Operation::Copy
        | Operation::Head
        | Operation::List
        | Operation::Delete
        | Operation::Other => 0,
    }
}

/// The key without URL-encoding.
fn decoded(key: &str) -> Result<String, Refusal> {
    let spaced = key.replace('+', " ");
    let key = percent_decode_str(&spaced).decode_utf8().map_err(|_| {
        let detail = "its percent-encoding is no UTF-8";
        Refusal::of_field(Reason::WrongField, "s3.object.key", detail)
    })?;
    Ok(key.into_owned())
}

/// An id from the fields that distinguish a request from all others, so that a redelivery of a
/// notification has the same id.
fn id(record: &Record<'_>, name: &str) -> EventId {
    let object = &record.s3.object;
    let parts = [
        name,
        &record.s3.bucket.name,
        &object.key,
        object.version_id.as_deref().unwrap_or_default(),
        object.sequencer.as_deref().unwrap_or_default(),
        &record.response_elements.request_id,
        &record.event_time,
    ];
    wire::derived::of_record("s3 event", &parts)
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn record_of(name: &str) -> Value {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
            "eventTime": "2026-11-28T06:43:00.123Z", "eventName": name,
            "userIdentity": { "principalId": "spark" },
            "requestParameters": { "sourceIPAddress": "203.0.113.7" },
            "responseElements": { "x-amz-request-id": "R1", "x-amz-id-2": "I1" },
            "s3": {
                "s3SchemaVersion": "1.0", "configurationId": "all",
                "bucket": { "name": "raw", "arn": "arn:aws:s3:::raw" },
                "object": {
                    "key": "a+b/%C3%A9%2B.parquet", "size": 1_500, "eTag": "x",
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        })
    }

    fn read(records: &[Value]) -> Parsed {
        parse(json!({ "Records": records }).to_string().as_bytes()).unwrap()
    }

    fn access(record: &Value) -> (Event, LakeAccess) {
        let mut notification = read(std::slice::from_ref(record));
        assert_eq!((notification.ignored, &notification.refused[..]), (0, &[][..]));
        let event = notification.events.remove(0);
        let Fact::LakeAccess(access) = event.fact.clone() else { panic!("{event:?}") };
        (event, access)
    }

    #[test]
    fn a_put_is_a_write_of_the_decoded_key() {
        let (event, put) = access(&record_of("ObjectCreated:Put"));
        assert_eq!(event.occurred_at, Timestamp(1_795_848_180_123_000));
        assert_eq!((put.bucket.as_str(), put.key.as_str()), ("raw", "a b/é+.parquet"));
        assert_eq!((put.operation, put.outcome), (Operation::Write, Outcome::Ok));
        assert_eq!((put.bytes, put.object_bytes), (1_500, Some(1_500)));
        assert_eq!(put.sequencer.as_deref(), Some("0055aed6dcd90281e5"));
        assert_eq!(put.principal, "spark");
        assert_eq!(event.id.kind(), domain::IdKind::Derived);
    }

    #[test]
    fn every_kind_of_event_is_what_it_does_to_the_object() {
        for (name, operation, object_bytes) in [
            ("s3:ObjectCreated:Put", Operation::Write, Some(1_500)),
            ("ObjectCreated:Post", Operation::Write, Some(1_500)),
            ("s3:ObjectCreated:CompleteMultipartUpload", Operation::Write, Some(1_500)),
            ("ObjectCreated:Copy", Operation::Copy, Some(1_500)),
            ("s3:ObjectCreated:PutTagging", Operation::Other, None),
            ("s3:ObjectCreated:PutRetention", Operation::Other, None),
            ("s3:ObjectCreated:PutLegalHold", Operation::Other, None),
            ("s3:ObjectAccessed:Get", Operation::Read, None),
            ("s3:ObjectAccessed:Head", Operation::Head, None),
            ("s3:ObjectAccessed:Attributes", Operation::Other, None),
            ("ObjectRemoved:Delete", Operation::Delete, None),
            ("s3:ObjectRemoved:DeleteMarkerCreated", Operation::Delete, None),
            ("LifecycleExpiration:Delete", Operation::Delete, None),
        ] {
            let (_, found) = access(&record_of(name));
            assert_eq!((found.operation, found.object_bytes), (operation, object_bytes), "{name}");
        }
        for name in ["s3:Replication:OperationCompletedReplication", "s3:Scanner:ManyVersions"] {
            assert_eq!(read(&[record_of(name)]).ignored, 1, "{name}");
        }
    }

    #[test]
    fn where_audit_records_tell_of_reads_only_changes_count() {
        let names = ["ObjectCreated:Put", "s3:ObjectAccessed:Get", "s3:ObjectRemoved:Delete"];
        let records: Vec<Value> = names.into_iter().map(record_of).collect();
        let body = json!({ "Records": records }).to_string();
        let parsed = parse_changes(body.as_bytes()).unwrap();
        assert_eq!((parsed.events.len(), parsed.ignored), (2, 1));
    }

    #[test]
    fn an_object_of_nothing_and_a_removal_have_no_size() {
        let mut empty = record_of("s3:ObjectCreated:Put");
        empty["s3"]["object"].as_object_mut().unwrap().remove("size");
        assert_eq!(access(&empty).1.object_bytes, Some(0));
        let mut removed = record_of("s3:ObjectRemoved:Delete");
        removed["s3"]["object"].as_object_mut().unwrap().remove("size");
        assert_eq!(access(&removed).1.bytes, 0);
    }

    #[test]
    fn a_read_of_a_part_counts_the_part_where_its_length_is_said() {
        let mut part = record_of("s3:ObjectAccessed:Get");
        assert_eq!(access(&part).1.bytes, 1_500);
        part["responseElements"]["content-length"] = json!("20");
        assert_eq!(access(&part).1.bytes, 20);
    }

    #[test]
    fn versions_are_objects_of_their_own_and_a_marker_frees_nothing() {
        let key = |name: &str, version: &str| {
            let mut record = record_of(name);
            record["s3"]["object"]["versionId"] = json!(version);
            access(&record).1.key
        };
        let stored = key("ObjectCreated:Put", "v1");
        assert_eq!(stored, "a b/é+.parquet?versionId=v1");
        assert_ne!(key("ObjectRemoved:DeleteMarkerCreated", "m1"), stored);
        assert_eq!(key("ObjectRemoved:Delete", "v1"), stored);
        // The version of an object in a bucket without versions.
        assert_eq!(key("ObjectCreated:Put", "null"), "a b/é+.parquet");
    }

    #[test]
    fn what_comes_again_has_the_same_id_and_everything_else_another() {
        let of = |change: fn(&mut Value)| {
            let mut record = record_of("ObjectCreated:Put");
            change(&mut record);
            access(&record).0.id
        };
        let id = of(|_| {});
        // These fields may differ in a redelivery.
        assert_eq!(id, of(|record| record["eventVersion"] = json!("2.3")));
        assert_eq!(id, of(|record| record["eventName"] = json!("s3:ObjectCreated:Put")));
        let changes: [fn(&mut Value); 7] = [
            |record| record["eventName"] = json!("ObjectCreated:Copy"),
            |record| record["eventTime"] = json!("2026-11-28T06:43:00.124Z"),
            |record| record["s3"]["bucket"]["name"] = json!("raw2"),
            |record| record["s3"]["object"]["key"] = json!("a"),
            |record| record["s3"]["object"]["versionId"] = json!("v1"),
            |record| record["s3"]["object"]["sequencer"] = json!("0055"),
            |record| record["responseElements"]["x-amz-request-id"] = json!("R2"),
        ];
        for change in changes {
            assert_ne!(id, of(change));
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_hinders_no_other_and_keeps_its_bytes() {
        let mut timeless = record_of("ObjectCreated:Put");
        timeless["eventTime"] = json!("yesterday");
        let records = [record_of("ObjectCreated:Put"), json!({"what": 1}), timeless];
        let notification = read(&records);
        assert_eq!(notification.events.len(), 1);
        let refused: Vec<_> =
            notification.refused.iter().map(|one| (one.index, one.refusal.to_string())).collect();
        assert_eq!(refused[0].0, 1);
        assert!(refused[0].1.contains("missing field"), "{refused:?}");
        let wrong = "wrong_field: eventTime: yesterday is no time of RFC 3339";
        assert_eq!(refused[1], (2, wrong.to_owned()));
        assert_eq!(&notification.refused[0].bytes[..], br#"{"what":1}"#);
    }

    #[test]
    fn a_test_of_the_way_is_no_event_and_no_error() {
        let test = br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"raw"}"#;
        let notification = parse(test).unwrap();
        assert_eq!((notification.events.len(), notification.ignored), (0, 1));
        for wrong in ["", "[]", "{}", "{\"Records\":7}", "\u{0}"] {
            parse(wrong.as_bytes()).unwrap_err();
        }
        let empty = parse(b"{\"Records\":[]}").unwrap();
        assert_eq!((empty.events.len(), empty.ignored), (0, 0));
    }

    #[test]
    fn the_form_of_minio_and_rustfs_is_the_same_with_names_beside() {
        let mut record = record_of("s3:ObjectCreated:Put");
        record["eventSource"] = json!("rustfs:s3");
        let body = json!({
            "EventName": "s3:ObjectCreated:Put", "Key": "raw/a b", "Records": [record],
        });
        assert_eq!(parse(body.to_string().as_bytes()).unwrap().events.len(), 1);
    }
}
