//! Notifications that the filer of SeaweedFS sends to a webhook. Pure.
//!
//! The formats and difficulties were observed with SeaweedFS 4.48:
//!
//! - An event is `{"key": path, "event_type": …, "message": {"old_entry", "new_entry", …}}`.
//!   Buckets are the folders in `/buckets`.
//! - A notification does not contain its own time. An entry contains the time at which its bytes
//!   were written (`modified_ts_ns` of its chunks, else `mtime`); a deletion contains only that of
//!   the deleted entry.
//! - Events are delivered in any order, and again if an answer was lost.
//! - An overwrite is one update with both entries, and so is a change of attributes only.
//! - Parts of uploads are in `.uploads` until they are joined; versions are in `NAME.versions`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use domain::{Event, Fact, LakeAccess, Operation, Outcome, Reason, Refusal, Side, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{s3_key, split, undecodable::undecodable};
use crate::parsed::{Parsed, UnreadableReport};

/// The folder of the buckets.
const BUCKETS: &str = "/buckets/";
/// The folder of the parts of uploads, in each bucket.
const UPLOADS: &str = ".uploads/";
/// Suffix of an object's name, which makes the name of the folder of its versions.
const VERSIONS: &str = ".versions/";
/// Prefix of the id of a version, in the name of its file.
const VERSION: &str = "v_";
/// Attribute of an entry that is a delete marker.
const DELETE_MARKER: &str = "Seaweed-X-Amz-Delete-Marker";

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    message: Message,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    old_entry: Option<Entry>,
    new_entry: Option<Entry>,
    new_parent_path: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    name: String,
    is_directory: bool,
    attributes: Attributes,
    chunks: Vec<Chunk>,
    extended: BTreeMap<String, IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Attributes {
    file_size: u64,
    mtime: i64,
    mtime_ns: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk {
    modified_ts_ns: i64,
}

impl Entry {
    /// The time at which the entry's bytes were written, in nanoseconds since 1970.
    fn written_ns(&self) -> i64 {
        let chunks = self.chunks.iter().map(|chunk| chunk.modified_ts_ns).max();
        let Attributes { mtime, mtime_ns, .. } = self.attributes;
        chunks
            .filter(|ns| *ns > 0)
            .unwrap_or_else(|| mtime.saturating_mul(1_000_000_000).saturating_add(mtime_ns))
    }

    /// Time and size of the entry's bytes. They differ if other bytes were written.
    fn bytes(&self) -> (i64, u64) {
        (self.written_ns(), self.attributes.file_size)
    }
}

/// Reads notifications: one object, several objects (separated by line breaks or not), or an array.
///
/// # Errors
///
/// The body is not JSON, is empty, or contains values that are not objects.
pub fn parse(body: &[u8]) -> Result<Parsed, UnreadableReport> {
    let records = split::objects(body)
        .map_err(|why| UnreadableReport(format!("this is no notification of SeaweedFS: {why}")))?;
    let mut parsed = Parsed::default();
    for raw in records {
        parsed.add_all(Side::Lake, events(raw), raw.get().as_bytes());
    }
    Ok(parsed)
}

/// The events of a notification: none for folders, parts of uploads and attributes, two for a
/// rename.
fn events(raw: &RawValue) -> Result<Vec<Event>, Refusal> {
    let Notification { key: path, message } =
        serde_json::from_str(raw.get()).map_err(|error| undecodable(&error))?;
    let is_file = |entry: &&Entry| !entry.is_directory;
    let old = message.old_entry.as_ref().filter(is_file);
    let new = message.new_entry.as_ref().filter(is_file);
    let new_path = new.map(|entry| match message.new_parent_path.as_deref() {
        Some(parent) if !entry.name.is_empty() => {
            format!("{}/{}", parent.trim_end_matches('/'), entry.name)
        }
        Some(_) | None => path.to_string(),
    });
    let is_renamed = old.is_some() && new_path.as_deref().is_some_and(|new| new != path);
    let mut events = Vec::new();
    // An overwrite replaces the old bytes and deletes no object.
    if let Some(old) = old.filter(|_| new.is_none() || is_renamed) {
        events.extend(deleted(&path, old)?);
    }
    if let (Some(new), Some(new_path)) = (new, &new_path)
        && (is_renamed || old.is_none_or(|old| old.bytes() != new.bytes()))
    {
        events.extend(written(new_path, new, is_renamed)?);
    }
    Ok(events)
}

/// The event of a deletion. Its time is 1 µs after the time of the deleted bytes. It therefore
/// never undoes a later write of the same object, whichever of the two arrives first.
fn deleted(path: &str, old: &Entry) -> Result<Option<Event>, Refusal> {
    let Some(object) = Object::of(path) else { return Ok(None) };
    let at = moment(old, 1)?;
    let written = old.written_ns().to_string();
    Ok(Some(object.event(Operation::Delete, None, at, ["delete", path, &written])))
}

fn written(path: &str, new: &Entry, is_renamed: bool) -> Result<Option<Event>, Refusal> {
    let Some(object) = Object::of(path) else { return Ok(None) };
    let written = new.written_ns().to_string();
    if new.extended.contains_key(DELETE_MARKER) {
        let at = moment(new, 0)?;
        return Ok(Some(object.event(Operation::Delete, None, at, ["marker", path, &written])));
    }
    // A rename does not change the time of the bytes. The event of the new name gets a time after
    // the deletion of the old name.
    let (operation, kind, later_us) =
        if is_renamed { (Operation::Copy, "rename", 2) } else { (Operation::Write, "write", 0) };
    let at = moment(new, later_us)?;
    let size = Some(new.attributes.file_size);
    Ok(Some(object.event(operation, size, at, [kind, path, &written])))
}

fn moment(entry: &Entry, later_us: i64) -> Result<Timestamp, Refusal> {
    let ns = entry.written_ns();
    if ns <= 0 {
        let detail = "neither its chunks nor mtime say when its bytes were written";
        return Err(Refusal::of_field(Reason::MissingField, "attributes.mtime", detail));
    }
    Ok(Timestamp(Timestamp::from_nanos(ns).0.saturating_add(later_us)))
}

/// An object of a bucket.
struct Object<'a> {
    bucket: &'a str,
    key: String,
}

impl<'a> Object<'a> {
    /// The object at a path; `None` if the path is not that of an object.
    fn of(path: &'a str) -> Option<Self> {
        let (bucket, key) = path.strip_prefix(BUCKETS)?.split_once('/')?;
        // `.system` contains the filer's own files.
        if bucket.starts_with('.') || key.is_empty() || key.starts_with(UPLOADS) {
            return None;
        }
        let version = key
            .rsplit_once(VERSIONS)
            .and_then(|(name, file)| Some((name, file.strip_prefix(VERSION)?)));
        let key = match version {
            Some((name, version)) => s3_key::of_version(name, Some(version)),
            None => key.to_owned(),
        };
        Some(Self { bucket, key })
    }

    fn event(
        self,
        operation: Operation,
        object_bytes: Option<u64>,
        occurred_at: Timestamp,
        parts: [&str; 3],
    ) -> Event {
        let fact = LakeAccess {
            bucket: self.bucket.to_owned(),
            key: self.key,
            operation,
            // A rename transfers no bytes.
            bytes: object_bytes.filter(|_| operation == Operation::Write).unwrap_or(0),
            object_bytes,
            sequencer: None,
            duration_us: 0,
            outcome: Outcome::Ok,
            principal: String::new(),
        };
        let id = wire::derived::of_record("seaweedfs", &parts);
        Event { id, occurred_at, fact: Fact::LakeAccess(fact) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT_NS: i64 = 1_795_944_161_434_292_784;
    const AT_US: i64 = AT_NS / 1_000;

    fn entry(name: &str, size: u64, at_ns: i64) -> Value {
        json!({
            "name": name,
            "attributes": { "file_size": size, "mtime": at_ns / 1_000_000_000, "file_mode": 432 },
            "chunks": [{ "size": size, "modified_ts_ns": at_ns }],
            "extended": { "Seaweed-X-Amz-ETag": "eA==" },
        })
    }

    fn notification(path: &str, old: Option<Value>, new: Option<Value>, parent: &str) -> Value {
        let mut message = json!({ "delete_chunks": true, "signatures": [331_683_257] });
        for (name, value) in [("old_entry", old), ("new_entry", new)] {
            if let Some(value) = value {
                message[name] = value;
            }
        }
        if !parent.is_empty() {
            message["new_parent_path"] = json!(parent);
        }
        json!({ "key": path, "event_type": "update", "message": message })
    }

    /// Each event as operation, bucket, key, size, and microseconds after the time of the bytes.
    fn read(notification: &Value) -> Vec<(Operation, String, String, Option<u64>, i64)> {
        let parsed = parse(notification.to_string().as_bytes()).unwrap();
        assert!(parsed.refused.is_empty(), "{parsed:?}");
        let seen = parsed.events.into_iter().map(|event| {
            let Fact::LakeAccess(access) = event.fact else { panic!() };
            let behind = event.occurred_at.0 - AT_US;
            (access.operation, access.bucket, access.key, access.object_bytes, behind)
        });
        seen.collect()
    }

    const PATH: &str = "/buckets/raw/a b/1.parquet";
    const PARENT: &str = "/buckets/raw/a b";

    fn event(
        operation: Operation,
        key: &str,
        size: Option<u64>,
        behind: i64,
    ) -> (Operation, String, String, Option<u64>, i64) {
        (operation, "raw".to_owned(), key.to_owned(), size, behind)
    }

    #[test]
    fn a_create_an_overwrite_and_a_delete_are_what_they_do_to_the_object() {
        let (first, second) =
            (entry("1.parquet", 1_500, AT_NS), entry("1.parquet", 200, AT_NS + 7_000));
        let created = notification(PATH, None, Some(first.clone()), PARENT);
        assert_eq!(read(&created), [event(Operation::Write, "a b/1.parquet", Some(1_500), 0)]);
        let updated = notification(PATH, Some(first), Some(second.clone()), PARENT);
        assert_eq!(read(&updated), [event(Operation::Write, "a b/1.parquet", Some(200), 7)]);
        let deleted = notification(PATH, Some(second), None, "");
        assert_eq!(read(&deleted), [event(Operation::Delete, "a b/1.parquet", None, 8)]);
    }

    #[test]
    fn an_empty_object_has_no_chunks_and_no_size() {
        let empty = json!({ "name": "e", "attributes": { "mtime": AT_NS / 1_000_000_000 } });
        let created = notification("/buckets/raw/e", None, Some(empty), "/buckets/raw");
        let whole = AT_US / 1_000_000 * 1_000_000 - AT_US;
        assert_eq!(read(&created), [event(Operation::Write, "e", Some(0), whole)]);
    }

    #[test]
    fn a_rename_deletes_the_old_name_and_writes_the_new_one() {
        let (old, new) = (entry("1.parquet", 9, AT_NS), entry("2.parquet", 9, AT_NS));
        let renamed = notification(PATH, Some(old), Some(new), "/buckets/raw/c");
        assert_eq!(
            read(&renamed),
            [
                event(Operation::Delete, "a b/1.parquet", None, 1),
                event(Operation::Copy, "c/2.parquet", Some(9), 2),
            ]
        );
    }

    #[test]
    fn versions_are_objects_of_their_own_and_a_marker_frees_nothing() {
        let path = "/buckets/raw/v.versions/v_67138";
        let stored =
            notification(path, None, Some(entry("v_67138", 5, AT_NS)), "/buckets/raw/v.versions");
        assert_eq!(read(&stored), [event(Operation::Write, "v?versionId=67138", Some(5), 0)]);
        let mut marker = entry("v_67139", 0, AT_NS);
        marker["extended"] = json!({ "Seaweed-X-Amz-Delete-Marker": "dHJ1ZQ==" });
        let path = "/buckets/raw/v.versions/v_67139";
        let marked = notification(path, None, Some(marker), "/buckets/raw/v.versions");
        assert_eq!(read(&marked), [event(Operation::Delete, "v?versionId=67139", None, 0)]);
    }

    #[test]
    fn folders_parts_attributes_and_the_filers_own_files_are_ignored() {
        let file = || entry("f", 5, AT_NS);
        let mut folder = file();
        folder["is_directory"] = json!(true);
        let mut tagged = file();
        tagged["extended"] = json!({ "X-Amz-Tagging-a": "Yg==" });
        for ignored in [
            notification("/buckets/raw/f", None, Some(folder.clone()), "/buckets/raw"),
            notification("/buckets/raw/f", Some(folder), None, ""),
            notification("/buckets/raw/f", Some(file()), Some(tagged), "/buckets/raw"),
            notification(
                "/buckets/raw/.uploads/u/f",
                None,
                Some(file()),
                "/buckets/raw/.uploads/u",
            ),
            notification("/buckets/.system/f", None, Some(file()), "/buckets/.system"),
            notification("/etc/f", None, Some(file()), "/etc"),
            notification("/buckets/f", None, Some(file()), "/buckets"),
            json!({ "key": "/buckets/raw/f", "message": {} }),
        ] {
            let parsed = parse(ignored.to_string().as_bytes()).unwrap();
            assert_eq!((parsed.ignored, parsed.records), (1, 1), "{ignored}");
        }
    }

    #[test]
    fn what_comes_again_has_the_same_identity_and_other_bytes_another() {
        let identity = |size, at_ns| {
            let created = notification(PATH, None, Some(entry("1.parquet", size, at_ns)), PARENT);
            parse(created.to_string().as_bytes()).unwrap().events[0].identity()
        };
        assert_eq!(identity(5, AT_NS), identity(5, AT_NS));
        assert_ne!(identity(5, AT_NS), identity(5, AT_NS + 1));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let timeless = json!({ "name": "f", "attributes": { "file_size": 5 } });
        let refused = [
            notification("/buckets/raw/f", None, Some(timeless), "/buckets/raw"),
            json!({ "event_type": "create" }),
            json!({ "key": 7, "message": {} }),
        ];
        let parsed = parse(json!(refused).to_string().as_bytes()).unwrap();
        assert_eq!(parsed.refused.len(), 3);
        for wrong in ["", "7", "{"] {
            parse(wrong.as_bytes()).unwrap_err();
        }
    }
}
