//! Servers and executables for the integration tests.

pub mod browser;
pub mod docker;
pub mod executable;
pub mod http;
pub mod logins;
pub mod matrix;
pub mod nats;
pub mod operator;
pub mod pipeline;
pub mod ports;
pub mod postgres;
pub mod prefix_proxy;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod raw_nats;
pub mod servers;
pub mod unreadable;
pub mod up;
pub mod waiting;
