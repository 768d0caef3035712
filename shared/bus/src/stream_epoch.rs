//! The epoch of one stream, for a service that reads the stream.

use std::sync::{Mutex, PoisonError};

use domain::Mark;
use tokio_util::sync::CancellationToken;

use crate::{answer::until_answered, connection::Bus, epochs::Epochs, error::BusError};

/// The epoch of one stream, and how far the stream was seen to reach: the messages between that and
/// the checkpoint are lost when the epoch ends.
#[derive(Debug)]
pub struct StreamEpoch {
    epochs: Epochs,
    stream: String,
    high_water: HighWaterMark,
}

impl StreamEpoch {
    /// The epoch of a stream of which nothing was seen yet.
    pub fn new(bus: &Bus, stream: &str) -> Self {
        let high_water = HighWaterMark::default();
        Self { epochs: bus.epochs(), stream: stream.to_owned(), high_water }
    }

    /// Records that a message of an epoch was seen, or that the broker reported it.
    pub fn saw(&self, epoch: u32, sequence: u64) {
        self.high_water.saw(epoch, sequence);
    }

    /// The epoch in force. It is at least the one of the mark, since the entry may be gone with a
    /// lost bucket, and at least 1.
    ///
    /// # Errors
    ///
    /// The errors of [`Epochs::raise`].
    pub async fn in_force(&self, mark: Option<&Mark>) -> Result<u32, BusError> {
        let above = mark.map_or(0, |mark| mark.epoch.saturating_sub(1));
        self.epochs.raise(&self.stream, above).await
    }

    /// Reports how far an ended epoch was seen to reach, because those who ended it may not have
    /// known that.
    ///
    /// # Errors
    ///
    /// The errors of [`Epochs::report`].
    pub async fn tell_of_ended(&self, in_force: u32) -> Result<(), BusError> {
        let (epoch, newest) = self.high_water.last();
        if epoch < in_force {
            self.epochs.report(&self.stream, epoch, newest).await?;
        }
        Ok(())
    }

    /// Ends an epoch, because the stream is not the one that was read in it. Returns the epoch that
    /// is in force afterwards. `newest` is a sequence that the epoch is known to have had, in
    /// addition to what was seen here, or 0.
    ///
    /// # Errors
    ///
    /// The errors of [`Epochs::report`].
    pub async fn end(&self, epoch: u32, newest: u64, why: &str) -> Result<u32, BusError> {
        tracing::error!(stream = self.stream, epoch, why, "the stream is another");
        self.report(epoch, newest).await
    }

    /// The same as [`StreamEpoch::end`], repeated until the broker has answered. Without this
    /// report, the stream could look the same from the checkpoint or the snapshot. `None` if
    /// `drain` was cancelled first.
    ///
    /// # Errors
    ///
    /// An error that no retry can correct.
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

    /// The last message that an epoch is known to have had, from all reports; 0 if it is not known.
    ///
    /// # Errors
    ///
    /// The errors of [`Epochs::get`].
    pub async fn newest_of(&self, epoch: u32) -> Result<u64, BusError> {
        let reported = self.epochs.newest(&self.stream, epoch).await?;
        Ok(self.high_water.of(epoch).max(reported.unwrap_or(0)))
    }
}

/// The last message that this process saw of a stream, with its epoch.
#[derive(Debug, Default)]
struct HighWaterMark(Mutex<(u32, u64)>);

impl HighWaterMark {
    fn saw(&self, epoch: u32, sequence: u64) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = (epoch, sequence).max(*newest);
    }

    /// The last message of an epoch; 0 if none was seen.
    fn of(&self, epoch: u32) -> u64 {
        let (seen_in, sequence) = self.last();
        if seen_in == epoch { sequence } else { 0 }
    }

    /// The epoch and sequence of the last message of all.
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
