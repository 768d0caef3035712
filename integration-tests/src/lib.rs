//! Servers and executables for the integration tests.

pub mod browser;
pub mod documents;
pub mod executable;
pub mod http;
pub mod logins;
pub mod matrix;
pub mod pipeline;
pub mod ports;
pub mod process;
pub mod servers;
pub mod unreadable;
pub mod up;
pub mod waiting;

pub use servers::{docker, nats, operator, postgres, prefix_proxy, prometheus, proxy, raw_nats};
