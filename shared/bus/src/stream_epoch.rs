//! The epoch of one stream, as a service that reads the stream moves it.

use std::sync::{Mutex, PoisonError};

use domain::Mark;
use tokio_util::sync::CancellationToken;

use crate::{answer::until_answered, connection::Bus, epochs::Epochs, error::BusError};

/// The epoch of one stream, and how far the stream was seen to reach: what stands between that and
/// the checkpoint when the epoch ends is lost.
#[derive(Debug)]
pub struct StreamEpoch {
    epochs: Epochs,
    stream: String,
    high_water: HighWaterMark,
}

impl StreamEpoch {
    /// Of a stream of which nothing was seen yet.
    pub fn new(bus: &Bus, stream: &str) -> Self {
        let high_water = HighWaterMark::default();
        Self { epochs: bus.epochs(), stream: stream.to_owned(), high_water }
    }

    /// A message of an epoch was seen, or said to be there by the broker.
    pub fn saw(&self, epoch: u32, sequence: u64) {
        self.high_water.saw(epoch, sequence);
    }

    /// The epoch in force: at least the one of a mark, since the entry may be gone with a bucket that
    /// was lost, and at least 1.
    ///
    /// # Errors
    ///
    /// As [`Epochs::raise`].
    pub async fn in_force(&self, mark: Option<&Mark>) -> Result<u32, BusError> {
        let above = mark.map_or(0, |mark| mark.epoch.saturating_sub(1));
        self.epochs.raise(&self.stream, above).await
    }

    /// Tells how far an epoch that is over was seen to reach: others may have ended it before they
    /// knew that.
    ///
    /// # Errors
    ///
    /// As [`Epochs::report`].
    pub async fn tell_of_ended(&self, in_force: u32) -> Result<(), BusError> {
        let (epoch, newest) = self.high_water.last();
        if epoch < in_force {
            self.epochs.report(&self.stream, epoch, newest).await?;
        }
        Ok(())
    }

    /// Ends an epoch, because the stream is not the one that was read in it; returns the epoch in
    /// force then. `newest` is a sequence that it is known to have had besides what was seen here,
    /// or 0.
    ///
    /// # Errors
    ///
    /// As [`Epochs::report`].
    pub async fn end(&self, epoch: u32, newest: u64, why: &str) -> Result<u32, BusError> {
        tracing::error!(stream = self.stream, epoch, why, "the stream is another");
        self.report(epoch, newest).await
    }

    /// As [`StreamEpoch::end`], told until the broker has heard it: forgotten, the stream could look
    /// the same from the checkpoint or the snapshot. `None`: `drain` was cancelled before.
    ///
    /// # Errors
    ///
    /// What no retry can mend.
    pub async fn end_until_heard(
        &self,
        epoch: u32,
        why: &str,
        drain: &CancellationToken,
    ) -> Result<Option<u32>, BusError> {
        let stream = &self.stream;
        tracing::error!(stream, epoch, why, "the stream is another");
        let waits = "telling others that the epoch ended";
        until_answered(stream, waits, drain, || self.report(epoch, 0)).await
    }

    async fn report(&self, epoch: u32, newest: u64) -> Result<u32, BusError> {
        let newest = self.high_water.of(epoch).max(newest);
        let in_force = self.epochs.report(&self.stream, epoch, newest).await?;
        tracing::error!(stream = self.stream, ended = epoch, epoch = in_force, "epoch raised");
        Ok(in_force)
    }

    /// The last message that an epoch is known to have had, by anybody; 0 if nobody knows.
    ///
    /// # Errors
    ///
    /// As [`Epochs::get`].
    pub async fn newest_of(&self, epoch: u32) -> Result<u64, BusError> {
        let reported = self.epochs.newest(&self.stream, epoch).await?;
        Ok(self.high_water.of(epoch).max(reported.unwrap_or(0)))
    }
}

/// The last message that a stream is known to have had, with its epoch, as far as this process saw.
#[derive(Debug, Default)]
struct HighWaterMark(Mutex<(u32, u64)>);

impl HighWaterMark {
    fn saw(&self, epoch: u32, sequence: u64) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = (epoch, sequence).max(*newest);
    }

    /// The last of an epoch; 0 if none was seen.
    fn of(&self, epoch: u32) -> u64 {
        let (seen_in, sequence) = self.last();
        if seen_in == epoch { sequence } else { 0 }
    }

    /// The last of all, with its epoch.
    fn last(&self) -> (u32, u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_in_one_epoch_says_nothing_of_another() {
        let newest = HighWaterMark::default();
        newest.saw(1, 50);
        newest.saw(1, 20);
        assert_eq!((newest.of(1), newest.of(2)), (50, 0));
        newest.saw(2, 3);
        assert_eq!((newest.of(1), newest.of(2)), (0, 3));
    }
}
