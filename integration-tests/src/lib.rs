//! Servers and executables for the integration tests.

pub mod executable;
pub mod nats;
pub mod pipeline;
pub mod postgres;
pub mod raw_nats;
pub mod running;
pub mod service;
