//! The bucket that holds pointers, epochs and owners: small values that change hands by
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

/// What stands under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BucketEntry {
    /// None: nothing was put, or it was deleted since.
    pub(crate) value: Option<Bytes>,
    /// To be given to [`compare_and_set`]; 0 where nothing ever was.
    pub(crate) revision: u64,
}

/// The value under a key, by the server's leader.
///
/// # Errors
///
/// [`BusError::NoStream`] where the bucket is missing, and what any request may meet.
pub(crate) async fn entry(bus: &Bus, key: &str) -> Result<BucketEntry, BusError> {
    let bucket = server_name(&bus.settings().subject_prefix, BUCKET);
    let subject = format!("$KV.{bucket}.{key}");
    let stored = bus.stored(&format!("KV_{bucket}"), Which::Last(&subject)).await?;
    Ok(stored.map_or_else(BucketEntry::default, |stored| BucketEntry {
        revision: stored.sequence,
        value: (!is_tombstone(&stored.block)).then_some(stored.payload),
    }))
}

/// Whether a message says that its key has no value. One whose headers can't be read says nothing.
fn is_tombstone(block: &[u8]) -> bool {
    let says = |name| headers::value(block, name).ok().flatten();
    says("Nats-Marker-Reason").is_some()
        || says("KV-Operation").is_some_and(|operation| operation != "PUT")
}

/// Puts a value, provided that the key still has the revision; returns the new one. The value must
/// differ from every other that was ever put there: a lost answer is told from another's change by
/// what stands there then.
///
/// # Errors
///
/// [`BusError::Superseded`] if somebody else changed it first, and as [`entry`]; then the same may
/// be tried again.
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

/// Deletes a key without a tombstone, which would stand in the way of a new value.
///
/// # Errors
///
/// As [`entry`].
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
