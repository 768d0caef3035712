//! The addresses of the parts, stored in the data directory for as long as they run.

/// The file in the data directory.
pub const FILE: &str = "addresses.json";
/// The database of the archive.
pub(crate) const DATABASE: &str = "lakegauge";
/// The folder in the data directory with one password file per login.
pub const SECRETS: &str = "secrets";

/// The addresses of a running `up`, for tools and scripts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UpAddresses {
    pub metrics: String,
    pub nats: String,
    pub nats_monitor: String,
    pub postgres_port: u16,
    pub prometheus: Option<String>,
    pub grafana: Option<String>,
    pub archiver_admin: String,
    pub aggregator_admin: String,
    pub lake_simulator_admin: String,
    pub warehouse_simulator_admin: String,
}

/// The address of `up`'s PostgreSQL for a role.
///
/// It contains the mode, so that a `PGSSLMODE` in the user's environment has no effect.
pub fn database_url(secret: &str, password: &str, port: u16) -> String {
    let name = if secret == "owner" { "lakegauge_owner" } else { secret };
    format!("postgresql://{name}:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
}
