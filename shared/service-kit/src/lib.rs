//! The frame of a service: settings, logs, lifecycle, admin port, clock and exit status.
//!
//! Architecture invariant: this crate knows no event, no broker and no database, so that every
//! service can have the same frame.

pub mod address;
pub mod admin;
pub mod backoff;
pub mod bootstrap;
pub mod clock;
pub mod fail_points;
pub mod http;
pub mod http_client;
pub mod lifecycle;
pub mod logs;
pub mod metrics;
pub mod news;
pub mod random;
pub mod readiness;
pub mod scrape;
pub mod secret;
pub mod settings;
pub mod terminal;

pub use address::{Address, AddressProblem};
pub use backoff::{Backoff, Jitter};
pub use bootstrap::{Context, EXIT_CONFIGURATION, EXIT_USAGE, Service, main};
pub use clock::Clock;
pub use fail_points::FailPoint;
pub use lifecycle::Lifecycle;
pub use news::News;
pub use readiness::{Condition, Latch, Readiness};
pub use secret::{Secret, SecretProblem};
pub use settings::{
    Environment, Flags, InvalidSettings, Setting, SettingProblem, Settings, Strings,
};
