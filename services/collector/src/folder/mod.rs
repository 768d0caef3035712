//! `collect folder`: counts the files of a local folder at an interval; the folder is a data lake.

mod config;
mod inventory;
mod run;
mod standing;
mod walk;

pub use config::Config;
pub use run::run;
