//! The settings of the follower.

use std::{path::PathBuf, time::Duration};

use bus::service::BusConfig;

service_kit::settings! {
    /// What the follower of a log is told.
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
        pub(crate) warehouse: String = text,
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
