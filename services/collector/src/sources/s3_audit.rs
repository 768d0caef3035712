//! Audit records of MinIO and RustFS, one for each request. Pure.
//!
//! They contain facts that notifications lack: the duration and the outcome of a request, reads and
//! lists. Difficulties, found in the vendors' documentation and source code:
//!
//! - Times to the response are texts, in nanoseconds. A `tx` of -1 means "not known".
//! - An upload that is signed in chunks is longer on the wire than the object.
//! - The records of an upload in parts and of a copy do not contain the size of the object.
//! - Headers and queries contain signatures and encryption keys. None of these may leave this
//!   module.
//! - A store sends `{}` to test the connection before it sends records.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use domain::{Event, Fact, LakeAccess, Operation, Outcome, Reason, Refusal, Side, Timestamp};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{decimal::scaled, s3_key, split, undecodable::undecodable};
use crate::parsed::{Parsed, UnreadableReport};

/// The fields of a record that a dead letter keeps. Any other field might contain a secret of the
/// request.
const KEPT: &[&str] = &[
    "version",
    "deploymentid",
    "time",
    "event",
    "type",
    "trigger",
    "api",
    "remotehost",
    "requestID",
    "userAgent",
    "accessKey",
    "parentUser",
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, rename = "deploymentid")]
    deployment: Cow<'a, str>,
    #[serde(borrow, rename = "requestID")]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    api: Api<'a>,
    #[serde(borrow, rename = "accessKey")]
    access_key: Cow<'a, str>,
    #[serde(borrow, rename = "parentUser")]
    parent_user: Cow<'a, str>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(rename = "requestQuery")]
    query: Named,
    #[serde(rename = "requestHeader")]
    request_headers: Named,
    #[serde(rename = "responseHeader")]
    response_headers: Named,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Api<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    bucket: Cow<'a, str>,
    #[serde(borrow)]
    object: Cow<'a, str>,
    objects: Vec<ObjectVersion>,
    status_code: Option<u16>,
    rx: Option<i64>,
    tx: Option<i64>,
    #[serde(borrow)]
    time_to_response: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "timeToResponseInNS")]
    time_to_response_ns: Option<Cow<'a, str>>,
}

/// One of the objects of a request that deletes several objects.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectVersion {
    object_name: String,
    version_id: Option<String>,
}

/// Headers, or parameters of a query. Only the few values that are read by name leave this type.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Named(BTreeMap<String, Value>);

impl Named {
    /// The value with this name, in any case; `None` if it is missing or empty.
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        value.as_str().filter(|value| !value.is_empty())
    }
}

/// The records that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// All records.
    Everything,
    /// All records except those of successful requests that the store also reports as
    /// notifications.
    NotNotified,
}

/// Reads audit records of a store whose notifications are not collected.
///
/// # Errors
///
/// The body is not JSON, is empty, or contains values that are not objects.
pub fn parse(body: &[u8]) -> Result<Parsed, UnreadableReport> {
    parse_counted(body, Counted::Everything)
}

/// Reads audit records of a store whose changes are collected from notifications. Successful
/// changes are ignored here, so that none counts twice.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_reads(body: &[u8]) -> Result<Parsed, UnreadableReport> {
    parse_counted(body, Counted::NotNotified)
}

fn parse_counted(body: &[u8], counted: Counted) -> Result<Parsed, UnreadableReport> {
    let records = split::objects(body)
        .map_err(|why| UnreadableReport(format!("this is no audit record of S3: {why}")))?;
    let mut parsed = Parsed::default();
    for raw in records {
        let read = events(raw, counted);
        // Only the bytes of dead letters are copied.
        let bytes = if read.is_err() { without_secrets(raw) } else { String::new() };
        parsed.add_all(Side::Lake, read, bytes.as_bytes());
    }
    Ok(parsed)
}

/// The events of a record: none if it is not a request to a bucket, one for each object if the
/// request deletes several objects, and one otherwise.
fn events(raw: &RawValue, counted: Counted) -> Result<Vec<Event>, Refusal> {
    let record: Record<'_> =
        serde_json::from_str(raw.get()).map_err(|error| undecodable(&error))?;
    let api = &record.api;
    if api.bucket.is_empty() || api.name.is_empty() {
        return Ok(Vec::new());
    }
    let occurred_at = wire::json::parse_time(&record.time).ok_or_else(|| {
        let detail = format!("{} is no time of RFC 3339", record.time);
        Refusal::of_field(Reason::WrongField, "time", detail)
    })?;
    let outcome = outcome(&record);
    let is_notified = outcome == Outcome::Ok && is_notified(&api.name);
    if is_notified && counted == Counted::NotNotified {
        return Ok(Vec::new());
    }
    if api.objects.is_empty() {
        let version = record.response_headers.get("x-amz-version-id");
        let version = version.or_else(|| record.query.get("versionId"));
        return Ok(vec![event(&record, occurred_at, &api.object, version)]);
    }
    let objects = api.objects.iter();
    Ok(objects
        .map(|object| {
            event(&record, occurred_at, &object.object_name, object.version_id.as_deref())
        })
        .collect())
}

fn event(
    record: &Record<'_>,
    occurred_at: Timestamp,
    object: &str,
    version: Option<&str>,
) -> Event {
    let api = &record.api;
    let request = Request::of(record);
    let version = version.filter(|version| *version != "null");
    let parts = [
        record.deployment.as_ref(),
        &record.request_id,
        &record.time,
        &api.name,
        &api.bucket,
        object,
        version.unwrap_or_default(),
    ];
    let id = wire::derived::of_record("s3 audit", &parts);
    let fact = LakeAccess {
        bucket: api.bucket.to_string(),
        // The object of a list request is a prefix, not an object.
        key: match request.operation {
            Operation::List => String::new(),
            Operation::Read
            | Operation::Head
            | Operation::Write
            | Operation::Copy
            | Operation::Delete
            | Operation::Other => s3_key::of_version(object, version),
        },
        operation: request.operation,
        bytes: request.bytes,
        object_bytes: request.object_bytes,
        sequencer: None,
        duration_us: duration_us(api),
        outcome: outcome(record),
        principal: if record.parent_user.is_empty() {
            record.access_key.to_string()
        } else {
            record.parent_user.to_string()
        },
    };
    Event { id, occurred_at, fact: Fact::LakeAccess(fact) }
}

/// The operation of a request, and its bytes.
struct Request {
    operation: Operation,
    bytes: u64,
    object_bytes: Option<u64>,
}

impl Request {
    fn of(record: &Record<'_>) -> Self {
        let api = &record.api;
        let known = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let (sent, received) = (known(api.tx).unwrap_or(0), known(api.rx));
        let (operation, bytes) = match api.name.as_ref() {
            "GetObject" | "SelectObjectContent" | "GetObjectLambda" => (Operation::Read, sent),
            "HeadObject" => (Operation::Head, 0),
            name if name.starts_with("ListObject") => (Operation::List, sent),
            "PutObject" | "PostPolicyBucket" => {
                let decoded = record.request_headers.get("x-amz-decoded-content-length");
                let decoded = decoded.and_then(|length| length.parse().ok());
                (Operation::Write, decoded.or(received).unwrap_or(0))
            }
            "DeleteObject" | "DeleteMultipleObjects" => (Operation::Delete, 0),
            // The last arm also takes the completion of an upload in parts, and copies. They change
            // the used space by bytes that no record contains, so they count as requests only.
            "PutObjectPart" => (Operation::Other, received.unwrap_or(0)),
            _ => (Operation::Other, 0),
        };
        let object_bytes = (operation == Operation::Write).then_some(bytes);
        Self { operation, bytes, object_bytes }
    }
}

/// Whether a successful request of this kind is also reported as a notification.
fn is_notified(name: &str) -> bool {
    const PUT: [&str; 4] =
        ["PutObject", "PostPolicyBucket", "CompleteMultipartUpload", "CopyObject"];
    const DELETED: [&str; 2] = ["DeleteObject", "DeleteMultipleObjects"];
    const MARKED: [&str; 4] =
        ["PutObjectTagging", "DeleteObjectTagging", "PutObjectRetention", "PutObjectLegalHold"];
    PUT.contains(&name) || DELETED.contains(&name) || MARKED.contains(&name)
}

fn outcome(record: &Record<'_>) -> Outcome {
    match record.api.status_code.unwrap_or(0) {
        // No status was recorded, so only the error text can show a failure.
        0 if record.error.as_deref().is_some_and(|error| !error.is_empty()) => Outcome::ServerError,
        0 | 200..=399 => Outcome::Ok,
        401 | 403 => Outcome::Denied,
        404 => Outcome::NotFound,
        408 | 504 => Outcome::Timeout,
        // The client closed the connection.
        499 => Outcome::Cancelled,
        // S3 reports `SlowDown` as 503.
        429 | 503 => Outcome::Throttled,
        400..=498 => Outcome::ClientError,
        _ => Outcome::ServerError,
    }
}

/// Microseconds until the response; 0 if the record does not contain them.
fn duration_us(api: &Api<'_>) -> u64 {
    let in_ns = api.time_to_response_ns.as_deref().and_then(|text| scaled(text, -3));
    let as_text = || {
        let text = api.time_to_response.as_deref()?;
        scaled(text.strip_suffix("ns")?, -3)
    };
    let us = in_ns.or_else(as_text).unwrap_or(0);
    u64::try_from(us).unwrap_or(0)
}

/// The record without headers, query and path.
fn without_secrets(raw: &RawValue) -> String {
    match serde_json::from_str(raw.get()) {
        Ok(Value::Object(mut fields)) => {
            fields.retain(|name, _| KEPT.contains(&name.as_str()));
            Value::Object(fields).to_string()
        }
        // The record is nested too deeply to be read, so its content is unknown.
        Ok(_) | Err(_) => String::new(),
    }
}
