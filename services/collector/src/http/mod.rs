//! `collect http`: one HTTP port for all reports that other systems send.

mod answer;
mod body;
mod config;
mod help;
mod metrics;
mod receiver;
mod run;
mod tls;
mod turned_away;

pub use config::Config;
pub use help::LINES;
pub use run::run;
pub use tls::Tls;
