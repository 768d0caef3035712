//! Follows PostgreSQL's log in JSON, and publishes each statement as a query.
//!
//! A position in each file is kept in a local file, and moves only after the broker has acknowledged
//! what was read. After a crash some lines are read again; each line has one id, so that they count
//! once.

mod config;
mod follower;
mod positions;
mod run;

pub use config::Config;
pub use run::run;

/// Lines for PostgreSQL, for the end of the help.
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
