//! Waiting for what a healthy process does sooner or later.

use std::time::Duration;

use anyhow::{Result, bail};
use service_kit::Clock;

/// Longest wait for a condition. Far above what any takes: a busy machine is slow, not broken.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Waits for a condition.
///
/// # Errors
///
/// It does not come true in time, or can't be looked at.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let clock = Clock::system();
    let deadline = clock.monotonic() + PATIENCE;
    while clock.monotonic() < deadline {
        if condition().await? {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("no {what} after {} s", PATIENCE.as_secs())
}
