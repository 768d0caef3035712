//! `collect postgres-log`: follows PostgreSQL's log in JSON, and publishes each statement as a
//! query.
//!
//! The position in each log file is stored in a local file, and advances only after the broker has
//! acknowledged the events. After a crash some lines are read again; each line has a fixed id, so
//! that it counts once.

mod config;
mod follower;
mod positions;
mod run;

pub use config::Config;
pub use run::run;

/// Settings for PostgreSQL; printed at the end of the help.
pub const LINES: &str = "Lines for postgresql.conf, then restart PostgreSQL:
  logging_collector = on
  log_destination = 'jsonlog'
  lc_messages = 'C'
  log_timezone = 'UTC'
  log_min_duration_statement = 0
  compute_query_id = on
and for rows and bytes, with --plans:
  session_preload_libraries = 'auto_explain'
  auto_explain.log_min_duration = 0
  auto_explain.log_analyze = on
  auto_explain.log_buffers = on
  auto_explain.log_timing = off
  auto_explain.log_format = 'json'

More in docs/sources/postgres-log.md.";
