//! Snapshots: each is an object under a new name in the object store, and a pointer names the
//! newest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::{self, object_store::ObjectMetadata};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use domain::Mark;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use service_kit::FailPoint;

use crate::{
    api::{self, Nanoseconds, named},
    bucket,
    connection::{Bus, server_name},
    error::BusError,
    stored::{Stored, Which},
};

/// The object store of `nats/streams.json`.
const OBJECTS: &str = "LAKEGAUGE_SNAPSHOTS";

/// The field of a pointer that identifies who may store the next snapshot. Each claim has a value
/// of its own. [`Snapshots::store`] removes the field.
const CLAIM: &str = "claim";

/// An upload that has not changed for this long was left behind by a crash. The time is far longer
/// than one piece of an upload may take.
const LEFT_BEHIND_AGE: Duration = Duration::from_secs(600);

static UPLOADED: FailPoint = FailPoint::new("bus.snapshot_uploaded");
static POINTED: FailPoint = FailPoint::new("bus.snapshot_pointed");

/// The snapshots of all streams.
#[derive(Clone, Debug)]
pub struct Snapshots {
    bus: Bus,
    left_behind_age: Duration,
}

/// Which object holds the state of a stream, and at which position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The object's name.
    pub object: String,
    /// The blake3 hash of the object's bytes, in hexadecimal.
    pub digest: String,
    /// The number of bytes.
    pub bytes: u64,
    /// The last message in the state.
    pub mark: Mark,
}

/// What [`Snapshots::load`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The pointer's revision, for [`Snapshots::store`]; 0 if there is no pointer.
    pub revision: u64,
    /// The snapshot, or why there is none.
    pub found: FoundSnapshot,
}

/// A snapshot, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundSnapshot {
    /// No snapshot was stored yet.
    Nothing,
    /// A complete snapshot, with the digest that the pointer names.
    Whole(Pointer, Bytes),
    /// The pointer can't be read, or its object is gone or damaged.
    Damaged(String),
}

/// The pointer as the bucket stores it. Fields are added, never changed.
#[derive(Debug, Serialize, Deserialize)]
struct StoredPointer {
    object: String,
    digest: String,
    bytes: u64,
    stream: String,
    epoch: u32,
    sequence: u64,
    broker_ns: i64,
    created_ns: i64,
}

impl Bus {
    /// The snapshots.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { bus: self.clone(), left_behind_age: LEFT_BEHIND_AGE }
    }
}

impl Snapshots {
    /// The same with another age from which an upload counts as left behind.
    #[must_use]
    pub fn with_left_behind_age(self, left_behind_age: Duration) -> Self {
        Self { left_behind_age, ..self }
    }

    /// The pointer of a stream and its revision, without the snapshot's bytes.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] if the bucket is missing, [`BusError::Garbled`] for a pointer that
    /// can't be read, and any error of a request.
    pub async fn pointer(&self, stream: &str) -> Result<Option<(Pointer, u64)>, BusError> {
        let entry = self.entry(stream).await?;
        let Some(value) = entry.value else { return Ok(None) };
        Ok(pointer(stream, &value)?.map(|pointer| (pointer, entry.revision)))
    }

    /// The newest snapshot of a stream. A damaged snapshot is no error: the caller rebuilds the
    /// state and stores a new snapshot.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] if a bucket is missing, and any error of a request.
    pub async fn load(&self, stream: &str) -> Result<Loaded, BusError> {
        loop {
            let bucket::BucketEntry { value, revision } = self.entry(stream).await?;
            let Some(value) = value else {
                return Ok(Loaded { revision, found: FoundSnapshot::Nothing });
            };
            let pointer = match pointer(stream, &value) {
                Ok(Some(pointer)) => pointer,
                Ok(None) => return Ok(Loaded { revision, found: FoundSnapshot::Nothing }),
                Err(error) => {
                    return Ok(Loaded {
                        revision,
                        found: FoundSnapshot::Damaged(error.to_string()),
                    });
                }
            };
            let found = self.object(pointer).await?;
            // Perhaps another process has stored a newer snapshot meanwhile and deleted this one.
            if matches!(found, FoundSnapshot::Damaged(_))
                && self.entry(stream).await?.revision != revision
            {
                continue;
            }
            return Ok(Loaded { revision, found });
        }
    }

    /// Claims the next snapshot of a stream for the caller. A process that loaded the pointer
    /// before can no longer store a snapshot, even if it slept meanwhile. Returns the new revision.
    /// A crash leaves the snapshot in force as it was.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`] if the pointer's revision has changed; load again.
    /// [`BusError::NoStream`] if the bucket is missing, and any error of a request.
    pub async fn claim(&self, stream: &str, revision: u64) -> Result<u64, BusError> {
        let entry = self.entry(stream).await?;
        let what = pointer_of(stream);
        if entry.revision != revision {
            let detail = format!("expected revision {revision}, found {}", entry.revision);
            return Err(BusError::Superseded { what, detail });
        }
        // A pointer that can't be read was found damaged when it was loaded, so nothing is lost.
        let known = entry.value.as_deref().map(serde_json::from_slice::<Map<String, Value>>);
        let mut claimed = known.and_then(Result::ok).unwrap_or_default();
        claimed.insert(CLAIM.to_owned(), self.bus.unique_name().into());
        let value: Bytes = Value::Object(claimed).to_string().into();
        bucket::compare_and_set(&self.bus, &key(stream), &value, revision, &what).await
    }

    /// Stores a snapshot and puts it in force, if the pointer still has the given revision (0:
    /// there must be none); then deletes the older objects. Returns the new revision. A crash
    /// leaves the old or the new snapshot in force, and at most some bytes that a later call
    /// deletes.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`] if somebody else claimed or stored a snapshot: another process owns
    /// this stream. [`BusError::NoStream`] if a bucket is missing, and any error of a request; the
    /// caller may repeat the call with the same revision after those.
    pub async fn store(
        &self,
        stream: &str,
        bytes: &[u8],
        mark: &Mark,
        revision: u64,
    ) -> Result<u64, BusError> {
        let object =
            format!("{stream}.{}.{}.{}", mark.epoch, mark.sequence, self.bus.unique_name());
        self.make_room(stream).await;
        self.put(&object, bytes).await?;
        UPLOADED.pass();
        let stored = StoredPointer {
            object,
            digest: blake3::hash(bytes).to_hex().to_string(),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            stream: stream.to_owned(),
            epoch: mark.epoch,
            sequence: mark.sequence,
            broker_ns: mark.broker_ns,
            created_ns: mark.created_ns,
        };
        let what = pointer_of(stream);
        let value: Bytes = serde_json::to_vec(&stored)
            .map_err(|error| BusError::Garbled { what: what.clone(), detail: error.to_string() })?
            .into();
        let revision =
            bucket::compare_and_set(&self.bus, &key(stream), &value, revision, &what).await?;
        POINTED.pass();
        // Old objects cost only room, and the next call tries again. Any other upload for this
        // stream has lost the race by now, so its age does not matter.
        if let Err(error) = self.sweep(stream, &stored.object, Duration::ZERO).await {
            tracing::warn!(stream, %error, "can't delete old snapshots yet");
        }
        Ok(revision)
    }

    /// Deletes the snapshots of a stream and their pointer, because the stream is no longer
    /// counted.
    ///
    /// # Errors
    ///
    /// Any error of a request; the next call deletes what is left.
    pub async fn forget(&self, stream: &str) -> Result<(), BusError> {
        bucket::forget(&self.bus, &key(stream)).await?;
        self.sweep(stream, "", Duration::ZERO).await
    }

    /// Deletes what crashes left behind: the bucket has room for the old snapshot and the new one,
    /// not for a third. Errors are only logged, because the upload may succeed all the same.
    async fn make_room(&self, stream: &str) {
        let kept = match self.pointer(stream).await {
            Ok(pointer) => pointer.map_or(String::new(), |(pointer, _)| pointer.object),
            // The object in force is not known, so every object may be in use.
            Err(_) => return,
        };
        if let Err(error) = self.sweep(stream, &kept, self.left_behind_age).await {
            tracing::warn!(stream, %error, "can't delete what crashes left behind yet");
        }
    }

    async fn put(&self, object: &str, bytes: &[u8]) -> Result<(), BusError> {
        let what = format!("snapshot {object}");
        let metadata = ObjectMetadata {
            name: object.to_owned(),
            // Larger than the client's own 128 KiB, because each chunk is acknowledged before the
            // next one is sent.
            chunk_size: Some(self.bus.message_bytes_max()),
            ..ObjectMetadata::default()
        };
        let mut rest = bytes;
        self.objects()
            .await?
            .put(metadata, &mut rest)
            .await
            .map(|_| ())
            .map_err(|error| api::client_error(&error, &what))
    }

    /// Reads the object of a pointer and checks it. Each piece is read by a request of its own, so
    /// that the call does not wait for a piece that is gone.
    async fn object(&self, pointer: Pointer) -> Result<FoundSnapshot, BusError> {
        let (what, bucket) = (format!("snapshot {}", pointer.object), self.bucket());
        let name = format!("OBJ_{bucket}");
        let named = format!("$O.{bucket}.M.{}", URL_SAFE.encode(&pointer.object));
        let Some(entry) = self.bus.stored(&name, Which::Last(&named)).await? else {
            return Ok(FoundSnapshot::Damaged(format!("{what} is gone")));
        };
        let object: StoredObject = match serde_json::from_slice(&entry.payload) {
            Ok(object) => object,
            Err(error) => {
                let why = format!("{what} is described wrongly: {error}");
                return Ok(FoundSnapshot::Damaged(why));
            }
        };
        let pieces = format!("$O.{bucket}.C.{}", object.nuid);
        let (mut bytes, mut from) = (Vec::new(), 1);
        while let Some(piece) = self.bus.stored(&name, Which::From(from, &pieces)).await? {
            bytes.extend_from_slice(&piece.payload);
            from = piece.sequence.saturating_add(1);
        }
        let digest = blake3::hash(&bytes).to_hex().to_string();
        if digest != pointer.digest {
            let (has, of) = (bytes.len(), pointer.bytes);
            let why = format!("{what} does not have the bytes that were stored ({has} of {of})");
            return Ok(FoundSnapshot::Damaged(why));
        }
        Ok(FoundSnapshot::Whole(pointer, bytes.into()))
    }

    /// Deletes the objects of a stream that are at least this old, except one, and pieces that
    /// belong to no object and were left behind by a crash. Leaves no tombstones.
    async fn sweep(&self, stream: &str, keep: &str, age: Duration) -> Result<(), BusError> {
        let bucket = self.bucket();
        let (name, what) = (format!("OBJ_{bucket}"), format!("objects of bucket {bucket}"));
        let info: Listing = api::request(
            &self.bus.context,
            format!("STREAM.INFO.{name}"),
            &json!({ "subjects_filter": format!("$O.{bucket}.>") }),
            &what,
        )
        .await
        .map_err(|error| named(error, &name))?;
        let (ours, pieces) = (format!("{stream}."), format!("$O.{bucket}.C."));
        let subjects: Vec<String> = info.state.subjects.unwrap_or_default().into_keys().collect();
        let mut known = BTreeSet::new();
        let is_old = |stored: &Stored, age: Duration| {
            u128::try_from(info.ts.0 - stored.broker_ns).is_ok_and(|ns| ns >= age.as_nanos())
        };
        for subject in subjects.iter().filter(|subject| !subject.starts_with(&pieces)) {
            // An object that is gone was deleted by a sweep for the other stream.
            let Some(entry) = self.bus.stored(&name, Which::Last(subject)).await? else { continue };
            // What is not an object of the bucket is not ours, whoever put it there.
            let Ok(object) = serde_json::from_slice::<StoredObject>(&entry.payload) else {
                tracing::debug!(name, subject, "this is no object");
                continue;
            };
            let piece = format!("{pieces}{}", object.nuid);
            if is_old(&entry, age) && object.name.starts_with(&ours) && object.name != keep {
                // The name is deleted last: without it, nobody would find the pieces until they are
                // old.
                self.purge(&name, &piece).await?;
                self.purge(&name, subject).await?;
            }
            known.insert(piece);
        }
        for piece in subjects.iter().filter(|subject| subject.starts_with(&pieces)) {
            if !known.contains(piece)
                && let Some(stored) = self.bus.stored(&name, Which::Last(piece)).await?
                && is_old(&stored, self.left_behind_age)
            {
                self.purge(&name, piece).await?;
            }
        }
        Ok(())
    }

    async fn purge(&self, name: &str, subject: &str) -> Result<(), BusError> {
        let _purged: serde_json::Value = api::request(
            &self.bus.context,
            format!("STREAM.PURGE.{name}"),
            &json!({ "filter": subject }),
            &format!("deleting an old snapshot from {name}"),
        )
        .await?;
        Ok(())
    }

    async fn entry(&self, stream: &str) -> Result<bucket::BucketEntry, BusError> {
        bucket::entry(&self.bus, &key(stream)).await
    }

    fn bucket(&self) -> String {
        server_name(&self.bus.settings().subject_prefix, OBJECTS)
    }

    async fn objects(&self) -> Result<jetstream::object_store::ObjectStore, BusError> {
        let bucket = self.bucket();
        self.bus.context.get_object_store(&bucket).await.map_err(|error| {
            named(api::client_error(&error, &format!("bucket {bucket}")), &format!("OBJ_{bucket}"))
        })
    }
}

#[derive(Deserialize)]
struct Listing {
    /// The server's time.
    ts: Nanoseconds,
    state: SubjectsState,
}

#[derive(Deserialize)]
struct SubjectsState {
    subjects: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct StoredObject {
    name: String,
    nuid: String,
}

fn key(stream: &str) -> String {
    format!("snapshot.{stream}")
}

fn pointer_of(stream: &str) -> String {
    format!("pointer to the snapshot of stream {stream}")
}

/// The contents of a pointer; `None` if it was claimed and no snapshot was stored since.
fn pointer(stream: &str, value: &[u8]) -> Result<Option<Pointer>, BusError> {
    let garbled = |detail: String| BusError::Garbled { what: pointer_of(stream), detail };
    let fields: Map<String, Value> =
        serde_json::from_slice(value).map_err(|error| garbled(error.to_string()))?;
    if fields.keys().eq([CLAIM]) {
        return Ok(None);
    }
    let stored: StoredPointer = serde_json::from_value(Value::Object(fields))
        .map_err(|error| garbled(error.to_string()))?;
    if stored.stream != stream {
        return Err(garbled(format!("it is of stream {}", stored.stream)));
    }
    Ok(Some(Pointer {
        object: stored.object,
        digest: stored.digest,
        bytes: stored.bytes,
        mark: Mark {
            epoch: stored.epoch,
            sequence: stored.sequence,
            broker_ns: stored.broker_ns,
            created_ns: stored.created_ns,
        },
    }))
}
