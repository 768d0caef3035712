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

mod addresses;
mod adoption;
mod answer;
mod api;
mod apply;
pub mod backlog;
mod bucket;
mod connection;
mod delivery;
mod epochs;
mod error;
mod feed;
mod leases;
mod login;
mod offer;
mod outage;
mod pipeline;
mod progress;
mod publisher;
pub mod publishing;
mod read;
mod reader;
mod replay;
mod room;
pub mod service;
pub mod settings;
mod snapshots;
pub mod status;
mod stored;
mod stream;
mod stream_epoch;
mod subscription;
mod topology;
mod unconfirmed;
mod watch;

pub use apply::StreamChange;
pub use connection::Bus;
pub use delivery::Delivery;
pub use epochs::{EpochWatch, Epochs};
pub use error::{BusError, Recovery};
pub use leases::{Claim, LeaseEntry, Leases};
pub use outage::Outage;
pub use progress::PublishProgress;
pub use publisher::{Acknowledged, Confirmed, Publisher, PublisherLimits};
pub use read::{Read, ReaderProgress, ReaderSettings};
pub use reader::Reader;
pub use replay::ReplayRun;
pub use room::TopologyOverrides;
pub use settings::BusSettings;
pub use snapshots::{FoundSnapshot, Loaded, Pointer, Snapshots};
pub use stream::{Comparison, StreamStatus};
pub use stream_epoch::StreamEpoch;
pub use topology::Topology;
pub use unconfirmed::Unconfirmed;
pub use watch::{Observed, StoredMessage, Watch};
