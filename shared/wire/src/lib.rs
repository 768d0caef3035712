//! Events to bytes and back, and the subjects they travel on. Pure; the only user of bincode.

pub mod snapshot;
