//! `collect http`: one HTTP port for everything that other systems push.

mod answer;
mod body;
mod config;
mod metrics;
mod receiver;
mod run;

pub use config::Config;
pub use run::run;
