//! Time limits of the archive, with their defaults.

service_kit::settings! {
    /// Time limits of the archive.
    pub(crate) struct StoreLimits {
        /// Longest time to connect.
        #[setting(DATABASE_CONNECT_TIMEOUT_MS, "database-connect-timeout-ms", default = "10000")]
        pub(crate) connect_timeout_ms: u64 = in_range(1..=u64::MAX),
        /// Longest time of one statement; the server cancels it then.
        #[setting(DATABASE_STATEMENT_TIMEOUT_MS, "database-statement-timeout-ms", default = "30000")]
        pub(crate) statement_timeout_ms: u64 = in_range(1..=u64::MAX),
        /// Longest wait for a lock that another session holds.
        #[setting(DATABASE_LOCK_TIMEOUT_MS, "database-lock-timeout-ms", default = "5000")]
        pub(crate) lock_timeout_ms: u64 = in_range(1..=u64::MAX),
    }
}
