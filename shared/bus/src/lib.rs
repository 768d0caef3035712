//! JetStream: streams, the publisher, the one reader, snapshots and epochs. The only user of
//! async-nats.
//!
//! Bytes in, bytes out: what a message means is for `wire` and `domain`. What this crate promises:
//!
//! - a message whose publish was acknowledged is stored, and a retry of it sends the same bytes
//!   under the same id ([`Publisher`]);
//! - a reader gives every message after a position once and in ascending order, and a sequence is
//!   left out only if the server says that it was deleted ([`Reader`]);
//! - snapshots and epochs change hands by compare-and-set ([`Snapshots`], [`Epochs`]);
//! - streams are what the declarations in `nats/streams.json` say ([`Topology`]).

mod api;
mod bucket;
mod connection;
mod epochs;
mod error;
mod owners;
mod publisher;
mod reader;
mod replay;
pub mod service;
pub mod settings;
mod snapshots;
mod stream;
mod subscription;
mod topology;
mod watch;

pub use connection::Bus;
pub use epochs::{EpochWatch, Epochs, Newest};
pub use error::{BusError, Recovery};
pub use owners::{Claim, Owner, Owners};
pub use publisher::{Acknowledged, Confirmed, PublishProgress, Publisher, PublisherLimits};
pub use reader::{Read, Reader, ReaderProgress, ReaderSettings};
pub use replay::Run;
pub use settings::BusSettings;
pub use snapshots::{Found, Loaded, Pointer, Snapshots};
pub use stream::{Comparison, Delivery, StreamStatus};
pub use topology::{Applied, Topology, TopologyOverrides};
pub use watch::{Seen, Watch};
