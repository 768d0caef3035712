//! The settings of `collect postgres-log`.

use std::{path::PathBuf, time::Duration};

use bus::service::BusConfig;
use domain::accept::NAME_BYTES_MAX;

service_kit::settings! {
    /// The settings of the log follower.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub(crate) bus: BusConfig = bus::service::load("collector"),
        /// PostgreSQL's log in JSON: a file, or a folder of which every file `*.json` is read.
        #[setting(COLLECT_POSTGRES_LOG, "path")]
        pub(crate) path: PathBuf,
        /// File in which the positions in the logs are kept between runs; nobody else writes it. If
        /// it is lost, the logs are read again from their beginnings, and each line counts once.
        #[setting(COLLECT_POSTGRES_STATE_FILE, "state-file")]
        pub(crate) state_file: PathBuf,
        /// Name of the server: the warehouse of its queries. It is a part of each query's identity.
        #[setting(COLLECT_POSTGRES_WAREHOUSE, "warehouse", default = "postgres")]
        pub(crate) warehouse: String = parse_by(warehouse_name),
        /// Whether auto_explain writes plans into the log: each plan is a query, with its rows and
        /// bytes. Without plans each statement is a query, without rows.
        #[setting(COLLECT_POSTGRES_PLANS, "plans", default = "false")]
        pub(crate) has_plans: bool = switch,
        /// Time between two looks at logs that were read to their ends.
        #[setting(COLLECT_POSTGRES_POLL_MS, "poll-ms", default = "1000")]
        pub(crate) poll: Duration = duration_ms_above_0,
        /// Name of the source: part of the subject, and who sent an event in the archive.
        #[setting(COLLECT_POSTGRES_SOURCE, "source", default = "postgres")]
        pub(crate) source: String = parse_by(wire::source_name),
    }
}

/// Checks that a query may have this name. With any other name, every query would become a dead
/// letter.
fn warehouse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("must be a name of 1 to {NAME_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::{Flags, Settings};

    use super::*;

    #[test]
    fn a_name_that_no_query_may_have_is_refused() {
        let environment = BTreeMap::from([
            ("COLLECT_POSTGRES_LOG", "/x"),
            ("COLLECT_POSTGRES_STATE_FILE", "/y"),
            ("COLLECT_POSTGRES_WAREHOUSE", "w"),
        ]);
        let problems = |warehouse: &str| {
            let mut environment = environment.clone();
            environment.insert("COLLECT_POSTGRES_WAREHOUSE", warehouse);
            let flags = Flags::default();
            let mut settings = Settings::new(&flags, &environment);
            drop(Config::load(&mut settings));
            settings.finish().map_err(|problems| problems.to_string())
        };
        assert_eq!(problems("w"), Ok(()));
        let problem = problems(&"x".repeat(256)).unwrap_err();
        assert!(problem.contains("1 to 255 bytes"), "{problem}");
    }
}
