//! What all tasks on one stream share.

use bus::Bus;
use domain::Stream;
use service_kit::Clock;
use tokio_util::sync::CancellationToken;

use crate::metrics::StreamMetrics;

/// What all tasks on one stream share: the name of the stream, and where its state is reported.
#[derive(Clone, Debug)]
pub(super) struct StreamContext {
    pub(super) stream: Stream,
    /// The name of the stream that is read: the live stream, or that of the replay run.
    pub(super) name: String,
    pub(super) bus: Bus,
    pub(super) clock: Clock,
    /// Cancelled when the service drains, or when another process owns the partition.
    pub(super) drain: CancellationToken,
    pub(super) metrics: StreamMetrics,
}
