//! `collect folder`: a lake that is a folder of this machine, counted at an interval.

mod config;
mod inventory;
mod run;
mod standing;
mod walk;

pub use config::Config;
pub use run::run;
