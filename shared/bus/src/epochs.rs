//! Epochs: one number per stream, raised by compare-and-set when the stream is found to be another
//! one.

use std::{fmt::Display, str::FromStr, time::Duration};

use service_kit::FailPoint;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    bucket::{self, compare_and_set},
    connection::Bus,
    error::BusError,
};

/// Another process may win the race to raise an epoch, so this one tries again; each round has a
/// winner.
const RAISE_ATTEMPTS_MAX: u32 = 16;

static RAISED: FailPoint = FailPoint::new("bus.epoch_raised");

/// The epochs of all streams.
#[derive(Clone, Debug)]
pub struct Epochs {
    bus: Bus,
}

/// Waits for the end of the epoch in which a stream is read.
#[derive(Debug)]
pub struct EpochWatch {
    epoch: u32,
    in_force: watch::Receiver<Option<u32>>,
    _task: AbortOnDropHandle<()>,
}

impl EpochWatch {
    /// Waits until another epoch than the one that is read is in force, and returns that epoch.
    /// Cancelling the call loses nothing.
    ///
    /// # Errors
    ///
    /// [`BusError::Ended`] if the task of the watch is gone.
    pub async fn superseded(&mut self) -> Result<u32, BusError> {
        let is_other = |now: &Option<u32>| now.is_some_and(|now| now != self.epoch);
        let now = self.in_force.wait_for(is_other).await;
        now.ok()
            .and_then(|now| *now)
            .ok_or(BusError::Ended { what: "watching an epoch".to_owned() })
    }
}

impl Bus {
    /// The epochs.
    pub fn epochs(&self) -> Epochs {
        Epochs { bus: self.clone() }
    }
}

impl Epochs {
    /// The epoch of a stream; `None` if none was set yet, which means 0.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] if the bucket is missing, and any error of a request.
    pub async fn get(&self, stream: &str) -> Result<Option<u32>, BusError> {
        Ok(self.number(&key(stream), &format!("epoch of stream {stream}")).await?.0)
    }

    /// Reports that a stream is no longer the one that was read in an epoch, and raises the epoch.
    /// `newest` is the last sequence that the epoch is known to have had (0 if unknown). It is
    /// stored for [`Epochs::newest`] first, so that the service that closes the epoch can report
    /// what was lost. Returns the epoch that is in force afterwards.
    ///
    /// # Errors
    ///
    /// The errors of [`Epochs::get`]. After an error the epoch may not be raised: report it again.
    pub async fn report(&self, stream: &str, epoch: u32, newest: u64) -> Result<u32, BusError> {
        self.bus.same_pipeline().await?;
        if newest > 0 {
            self.keep_newest(stream, epoch, newest).await?;
        }
        self.raise(stream, epoch).await
    }

    /// The last sequence that an epoch is known to have had, as reported by those who saw it end.
    ///
    /// # Errors
    ///
    /// The errors of [`Epochs::get`].
    pub async fn newest(&self, stream: &str, epoch: u32) -> Result<Option<u64>, BusError> {
        Ok(self.number(&newest_key(stream, epoch), "newest message of an epoch").await?.0)
    }

    /// Sets an epoch above the given one, unless somebody else has done so already. Returns the
    /// epoch that is in force afterwards. Two services that find the same problem agree on one
    /// epoch.
    ///
    /// # Errors
    ///
    /// [`BusError::Mismatch`] if the broker is not the one that this connection began with, because
    /// there the stream belongs to another pipeline. Also the errors of [`Epochs::get`].
    pub async fn raise(&self, stream: &str, above: u32) -> Result<u32, BusError> {
        self.bus.same_pipeline().await?;
        let what = format!("epoch of stream {stream}");
        let raise = |current: u32| (current <= above).then(|| above.saturating_add(1));
        let in_force = self.change(&key(stream), &what, raise).await?;
        RAISED.pass();
        Ok(in_force)
    }

    /// Forgets the epoch of a stream that no longer exists.
    ///
    /// # Errors
    ///
    /// The errors of [`Epochs::get`].
    pub async fn forget(&self, stream: &str) -> Result<(), BusError> {
        bucket::forget(&self.bus, &key(stream)).await
    }

    /// Watches for the end of the epoch in which a stream is read. It reads the entry again and
    /// again, because the client's own watch can be lost without an error. A change is noticed
    /// after at most `interval`.
    pub fn watch(&self, stream: &str, epoch: u32, interval: Duration) -> EpochWatch {
        let (sender, in_force) = watch::channel(None);
        let (epochs, stream) = (self.clone(), stream.to_owned());
        let task = tokio::spawn(async move {
            loop {
                match epochs.get(&stream).await {
                    Ok(epoch) => drop(sender.send_replace(epoch)),
                    Err(error) => tracing::debug!(%error, "can't read the epoch"),
                }
                tokio::time::sleep(interval).await;
            }
        });
        EpochWatch { epoch, in_force, _task: AbortOnDropHandle::new(task) }
    }

    async fn keep_newest(&self, stream: &str, epoch: u32, newest: u64) -> Result<u64, BusError> {
        let what = format!("newest message of epoch {epoch} of stream {stream}");
        let larger = |known: u64| (known < newest).then_some(newest);
        self.change(&newest_key(stream, epoch), &what, larger).await
    }

    /// Changes a number as long as `change` returns a new value for the current one. Returns the
    /// number that is stored afterwards.
    async fn change<T>(
        &self,
        key: &str,
        what: &str,
        change: impl Fn(T) -> Option<T>,
    ) -> Result<T, BusError>
    where
        T: FromStr + Display + Default + Copy,
    {
        for _ in 0..RAISE_ATTEMPTS_MAX {
            let (current, revision) = self.number(key, what).await?;
            let current = current.unwrap_or_default();
            let Some(next) = change(current) else { return Ok(current) };
            let value = next.to_string().into();
            match compare_and_set(&self.bus, key, &value, revision, what).await {
                Ok(_) => return Ok(next),
                Err(BusError::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let detail = "others kept changing it".to_owned();
        Err(BusError::Superseded { what: what.to_owned(), detail })
    }

    /// A number and its revision.
    async fn number<T: FromStr>(
        &self,
        key: &str,
        what: &str,
    ) -> Result<(Option<T>, u64), BusError> {
        let entry = bucket::entry(&self.bus, key).await?;
        let Some(value) = entry.value else { return Ok((None, entry.revision)) };
        let text = String::from_utf8_lossy(&value);
        let number = text.parse().map_err(|_| BusError::Garbled {
            what: what.to_owned(),
            detail: format!("{text:?} is no number; set {key} with `nats kv put`"),
        })?;
        Ok((Some(number), entry.revision))
    }
}

/// One small entry per epoch; epochs are rare.
fn newest_key(stream: &str, epoch: u32) -> String {
    format!("newest.{stream}.{epoch}")
}

fn key(stream: &str) -> String {
    format!("epoch.{stream}")
}
