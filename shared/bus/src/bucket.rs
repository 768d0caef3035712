//! The bucket with pointers, epochs and lease owners: small values that are replaced by
//! compare-and-set.

use async_nats::jetstream::kv;
use bytes::Bytes;
use wire::headers;

use crate::{
    api::{self, named},
    connection::{Bus, server_name},
    error::BusError,
    stored::Which,
};

/// The bucket of `nats/streams.json`.
const BUCKET: &str = "LAKEGAUGE";

/// The entry of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BucketEntry {
    /// `None` if nothing was put, or the value was deleted since.
    pub(crate) value: Option<Bytes>,
    /// For [`compare_and_set`]; 0 if the key never had a value.
    pub(crate) revision: u64,
}

/// The value of a key, read from the stream's leader.
///
/// # Errors
///
/// [`BusError::NoStream`] if the bucket is missing, and any error of a request.
pub(crate) async fn entry(bus: &Bus, key: &str) -> Result<BucketEntry, BusError> {
    let bucket = server_name(&bus.settings().subject_prefix, BUCKET);
    let subject = format!("$KV.{bucket}.{key}");
    let stored = bus.stored(&format!("KV_{bucket}"), Which::Last(&subject)).await?;
    Ok(stored.map_or_else(BucketEntry::default, |stored| BucketEntry {
        revision: stored.sequence,
        value: (!is_tombstone(&stored.block)).then_some(stored.payload),
    }))
}

/// Whether a message marks its key as deleted. A message whose headers can't be read does not.
fn is_tombstone(block: &[u8]) -> bool {
    let says = |name| headers::value(block, name).ok().flatten();
    says("Nats-Marker-Reason").is_some()
        || says("KV-Operation").is_some_and(|operation| operation != "PUT")
}

/// Puts a value if the key still has the expected revision; returns the new revision. The value
/// must differ from every other value that was ever put under the key: after a lost answer, the
/// stored value shows whether this change or another one succeeded.
///
/// # Errors
///
/// [`BusError::Superseded`] if somebody else changed the value first, and the errors of [`entry`];
/// the call can be repeated after those.
pub(crate) async fn compare_and_set(
    bus: &Bus,
    key: &str,
    value: &Bytes,
    expected: u64,
    what: &str,
) -> Result<u64, BusError> {
    let error = match store(bus).await?.update(key, value.clone(), expected).await {
        Ok(revision) => return Ok(revision),
        Err(error) => error,
    };
    let now = entry(bus, key).await?;
    if now.value.as_ref() == Some(value) {
        return Ok(now.revision);
    }
    match error.kind() {
        kv::UpdateErrorKind::WrongLastRevision => Err(BusError::Superseded {
            what: what.to_owned(),
            detail: format!("expected revision {expected}, found {}", now.revision),
        }),
        kv::UpdateErrorKind::InvalidKey
        | kv::UpdateErrorKind::TimedOut
        | kv::UpdateErrorKind::Other => Err(api::client_error(&error, what)),
    }
}

/// Deletes a key without leaving a tombstone, which would prevent a new value with revision 0.
///
/// # Errors
///
/// The errors of [`entry`].
pub(crate) async fn forget(bus: &Bus, key: &str) -> Result<(), BusError> {
    let bucket = server_name(&bus.settings().subject_prefix, BUCKET);
    let _purged: serde_json::Value = api::request(
        &bus.context,
        format!("STREAM.PURGE.KV_{bucket}"),
        &serde_json::json!({ "filter": format!("$KV.{bucket}.{key}") }),
        &format!("deleting {key} from bucket {bucket}"),
    )
    .await?;
    Ok(())
}

async fn store(bus: &Bus) -> Result<kv::Store, BusError> {
    let name = server_name(&bus.settings().subject_prefix, BUCKET);
    let what = format!("bucket {name}");
    bus.context
        .get_key_value(&name)
        .await
        .map_err(|error| named(api::client_error(&error, &what), &format!("KV_{name}")))
}
