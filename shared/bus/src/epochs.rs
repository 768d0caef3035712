//! Epochs: one number per stream, raised by compare-and-set when the stream is another one.

use std::{
    fmt::Display,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use service_kit::FailPoint;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    bucket::{self, compare_and_set},
    connection::Bus,
    error::BusError,
};

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

/// The last message that a stream is known to have had in an epoch, as far as this process saw:
/// what stands between it and the checkpoint when the epoch ends is lost.
#[derive(Debug, Default)]
pub struct Newest(Mutex<(u32, u64)>);

impl Newest {
    /// A message of an epoch was seen, or said to be there by the broker.
    pub fn saw(&self, epoch: u32, sequence: u64) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = (epoch, sequence).max(*newest);
    }

    /// The last of an epoch; 0 if none was seen.
    pub fn of(&self, epoch: u32) -> u64 {
        let newest = self.last();
        if newest.0 == epoch { newest.1 } else { 0 }
    }

    /// The last of all, with its epoch.
    pub fn last(&self) -> (u32, u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        Ok(self.number(&key(stream), &format!("epoch of stream {stream}")).await?.0)
    }

    /// Reports that a stream is no longer the one that was read in an epoch, and raises it.
    /// `newest` is the last sequence that the epoch is known to have had (0: not known); it is
    /// kept for [`Epochs::newest`] first, so that whoever closes the epoch can say what was lost.
    /// Returns the epoch in force then.
    ///
    /// # Errors
    ///
    /// As [`Epochs::get`]. The epoch may not be raised then: report it again.
    pub async fn report(&self, stream: &str, epoch: u32, newest: u64) -> Result<u32, BusError> {
        self.bus.same_pipeline().await?;
        if newest > 0 {
            self.keep_newest(stream, epoch, newest).await?;
        }
        self.raise(stream, epoch).await
    }

    /// The last sequence that an epoch is known to have had, from those who saw it end.
    ///
    /// # Errors
    ///
    /// As [`Epochs::get`].
    pub async fn newest(&self, stream: &str, epoch: u32) -> Result<Option<u64>, BusError> {
        Ok(self.number(&newest_key(stream, epoch), "newest message of an epoch").await?.0)
    }

    /// Sets an epoch above the given one, unless somebody else has done so already; returns what
    /// is in force then. Two that find the same trouble agree on one epoch.
    ///
    /// # Errors
    ///
    /// [`BusError::Mismatch`] in a broker that is not the one that this connection began with: there
    /// the stream is another pipeline's. And as [`Epochs::get`].
    pub async fn raise(&self, stream: &str, above: u32) -> Result<u32, BusError> {
        self.bus.same_pipeline().await?;
        let what = format!("epoch of stream {stream}");
        let raise = |current: u32| (current <= above).then(|| above.saturating_add(1));
        let in_force = self.change(&key(stream), &what, raise).await?;
        RAISED.pass();
        Ok(in_force)
    }

    /// Forgets the epoch of a stream that is no more.
    ///
    /// # Errors
    ///
    /// As [`Epochs::get`].
    pub async fn forget(&self, stream: &str) -> Result<(), BusError> {
        bucket::forget(&self.bus, &key(stream)).await
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

    async fn keep_newest(&self, stream: &str, epoch: u32, newest: u64) -> Result<u64, BusError> {
        let what = format!("newest message of epoch {epoch} of stream {stream}");
        let larger = |known: u64| (known < newest).then_some(newest);
        self.change(&newest_key(stream, epoch), &what, larger).await
    }

    /// Changes a number for as long as `change` of what stands there says to what; returns what
    /// stands there then.
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

/// One small entry an epoch: epochs are rare.
fn newest_key(stream: &str, epoch: u32) -> String {
    format!("newest.{stream}.{epoch}")
}

fn key(stream: &str) -> String {
    format!("epoch.{stream}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_in_one_epoch_says_nothing_of_another() {
        let newest = Newest::default();
        newest.saw(1, 50);
        newest.saw(1, 20);
        assert_eq!((newest.of(1), newest.of(2)), (50, 0));
        newest.saw(2, 3);
        assert_eq!((newest.of(1), newest.of(2)), (0, 3));
    }
}
