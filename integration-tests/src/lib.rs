//! Servers and executables for the integration tests.

pub mod browser;
pub mod docker;
pub mod executable;
pub mod matrix;
pub mod nats;
pub mod pipeline;
pub mod ports;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod raw_nats;
pub mod running;
pub mod servers;
pub mod service;
