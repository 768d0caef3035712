//! Epochs: one number per stream, raised by compare-and-set when the stream is another one.

use std::time::Duration;

use async_nats::jetstream::kv;
use service_kit::FailPoint;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api,
    connection::{Bus, server_name},
    error::BusError,
};

/// The bucket of `nats/streams.json` that holds pointers and epochs.
pub(crate) const BUCKET: &str = "LAKEGAUGE";

/// Another process may win the race to raise; each round one of them does.
const RAISE_ATTEMPTS_MAX: u32 = 16;

static RAISED: FailPoint = FailPoint::new("bus.epoch_raised");

/// The epochs of all streams.
#[derive(Clone, Debug)]
pub struct Epochs {
    bus: Bus,
}

/// Follows the epoch of one stream until it is dropped.
#[derive(Debug)]
pub struct EpochWatch {
    values: watch::Receiver<Option<u32>>,
    _task: AbortOnDropHandle<()>,
}

impl EpochWatch {
    /// The epoch as it was seen last; nothing if none is set, or none was seen yet.
    pub fn current(&self) -> Option<u32> {
        *self.values.borrow()
    }

    /// Waits for another epoch than the one given last.
    ///
    /// # Errors
    ///
    /// [`BusError::Ended`] if its task is gone.
    pub async fn changed(&mut self) -> Result<Option<u32>, BusError> {
        self.values
            .changed()
            .await
            .map_err(|_| BusError::Ended { what: "watching an epoch".to_owned() })?;
        Ok(*self.values.borrow_and_update())
    }
}

impl Bus {
    /// The epochs.
    pub fn epochs(&self) -> Epochs {
        Epochs { bus: self.clone() }
    }
}

impl Epochs {
    /// The epoch of a stream; nothing if none was set yet, which stands for 0.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] where the bucket is missing, and what any request may meet.
    pub async fn get(&self, stream: &str) -> Result<Option<u32>, BusError> {
        Ok(self.entry(stream).await?.map(|(epoch, _revision)| epoch))
    }

    /// Sets an epoch above the given one, unless somebody else has done so already; returns what
    /// is in force then. Two that find the same trouble agree on one epoch.
    ///
    /// # Errors
    ///
    /// As [`Epochs::get`].
    pub async fn raise(&self, stream: &str, above: u32) -> Result<u32, BusError> {
        let what = format!("epoch of stream {stream}");
        let store = bucket(&self.bus).await?;
        for _ in 0..RAISE_ATTEMPTS_MAX {
            let (current, revision) = match self.entry(stream).await? {
                Some((current, _)) if current > above => return Ok(current),
                Some((current, revision)) => (current, revision),
                None => (0, 0),
            };
            let next = current.max(above).saturating_add(1);
            match store.update(key(stream), next.to_string().into(), revision).await {
                Ok(_) => {
                    RAISED.pass();
                    return Ok(next);
                }
                Err(error) => match error.kind() {
                    // A lost answer looks the same: what is in force says which it was.
                    kv::UpdateErrorKind::WrongLastRevision => {}
                    kv::UpdateErrorKind::InvalidKey
                    | kv::UpdateErrorKind::TimedOut
                    | kv::UpdateErrorKind::Other => return Err(api::client_error(&error, &what)),
                },
            }
        }
        Err(BusError::Superseded { what, detail: "others kept changing it".to_owned() })
    }

    /// Forgets the epoch of a stream that is no more.
    ///
    /// # Errors
    ///
    /// As [`Epochs::get`].
    pub async fn forget(&self, stream: &str) -> Result<(), BusError> {
        forget(&self.bus, &key(stream)).await
    }

    /// Follows the epoch of a stream by asking for it: a watch of the client can be lost without
    /// an error, a question can't. `interval` is the longest time in which a change is noticed.
    pub fn watch(&self, stream: &str, interval: Duration) -> EpochWatch {
        let (sender, values) = watch::channel(None);
        let (epochs, stream) = (self.clone(), stream.to_owned());
        let task = tokio::spawn(async move {
            loop {
                match epochs.get(&stream).await {
                    Ok(epoch) => {
                        sender.send_if_modified(|value| {
                            let is_new = *value != epoch;
                            *value = epoch;
                            is_new
                        });
                    }
                    Err(error) => tracing::debug!(%error, "can't ask for the epoch"),
                }
                tokio::time::sleep(interval).await;
            }
        });
        EpochWatch { values, _task: AbortOnDropHandle::new(task) }
    }

    async fn entry(&self, stream: &str) -> Result<Option<(u32, u64)>, BusError> {
        let what = format!("epoch of stream {stream}");
        let store = bucket(&self.bus).await?;
        let entry =
            store.entry(key(stream)).await.map_err(|error| api::client_error(&error, &what))?;
        let Some(entry) = entry else { return Ok(None) };
        if entry.operation != kv::Operation::Put {
            return Ok(Some((0, entry.revision)));
        }
        let text = String::from_utf8_lossy(&entry.value);
        let epoch = text.parse().map_err(|_| BusError::Garbled {
            what,
            detail: format!("{text:?} is no number; set it with `nats kv put`"),
        })?;
        Ok(Some((epoch, entry.revision)))
    }
}

fn key(stream: &str) -> String {
    format!("epoch.{stream}")
}

/// Deletes a key without a tombstone, which would stand in the way of a new value.
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

/// The bucket that holds pointers and epochs.
pub(crate) async fn bucket(bus: &Bus) -> Result<kv::Store, BusError> {
    let name = server_name(&bus.settings().subject_prefix, BUCKET);
    let what = format!("bucket {name}");
    bus.context.get_key_value(&name).await.map_err(|error| {
        crate::stream::named(api::client_error(&error, &what), &format!("KV_{name}"))
    })
}
