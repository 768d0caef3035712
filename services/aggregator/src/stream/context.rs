//! What every task on one stream shares.

use bus::Bus;
use domain::Stream;
use service_kit::Clock;
use tokio_util::sync::CancellationToken;

use crate::metrics::StreamMetrics;

/// What every task on one stream shares: which stream it is, and where it shows how it is doing.
#[derive(Clone, Debug)]
pub(super) struct StreamContext {
    pub(super) stream: Stream,
    /// The name of what is read: that of the stream, or of its replay.
    pub(super) name: String,
    pub(super) bus: Bus,
    pub(super) clock: Clock,
    /// Cancelled when the service drains, or when the partition is another's.
    pub(super) drain: CancellationToken,
    pub(super) metrics: StreamMetrics,
}
