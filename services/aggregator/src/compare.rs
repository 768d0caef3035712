//! Whether a stream is still the one that a mark speaks of, however long the answer takes.

use std::time::Duration;

use bus::{Bus, BusError, Comparison};
use domain::Mark;
use service_kit::{Lifecycle, News};

/// Between two questions, while the broker does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Compares a stream with a mark. None: the service drains.
///
/// # Errors
///
/// What no retry can mend.
pub(crate) async fn compare(
    bus: &Bus,
    stream: &str,
    mark: &Mark,
    lifecycle: &Lifecycle,
) -> Result<Option<Comparison>, BusError> {
    let mut news = News::default();
    loop {
        let error = match bus.compare(stream, mark).await {
            Ok(compared) => return Ok(Some(compared)),
            Err(error) if error.recovery() == bus::Recovery::Retry => error.to_string(),
            Err(error) => return Err(error),
        };
        if news.is_new(&error) {
            tracing::warn!(stream, error, "counting waits: the stream can't be compared yet");
        }
        tokio::select! {
            () = lifecycle.draining() => return Ok(None),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
