//! JetStream: streams, the publisher, the one reader, snapshots and epochs. The only user of
//! async-nats.
//!
//! This crate handles bytes; their meaning is defined in `wire` and `domain`. Its guarantees:
//!
//! - a message whose publish was acknowledged is stored, and a retry sends the same bytes under the
//!   same id ([`Publisher`]);
//! - a reader returns every message after a position once and in ascending order, and leaves a
//!   sequence out only if the server reports that it was deleted ([`Reader`]);
//! - snapshots and epochs are replaced by compare-and-set ([`Snapshots`], [`Epochs`]);
//! - streams are configured as `nats/streams.json` declares ([`Topology`]).

mod addresses;
mod adoption;
mod answer;
mod api;
mod apply;
pub mod backlog;
mod bucket;
mod confirmation;
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
pub use confirmation::Confirmation;
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
