//! Simulated lake and warehouse traffic: pure models that turn a seed into events, and a pacer
//! that publishes them in time.
//!
//! Everything up to the sealed message is a function of seed, run and settings; the clock only
//! decides when a message is published. The models have an oracle of the expected metrics that does
//! not use the pipeline's own fold, so that the two can be compared.

pub mod arrivals;
pub mod describe;
pub mod emission;
pub mod feed;
pub mod lake;
pub mod model;
mod pacer;
pub mod quantiles;
pub mod rng;
mod run;
pub mod scenario;
pub mod settings;
pub mod warehouse;

#[cfg(test)]
mod tests;

pub use run::RunSeed;
