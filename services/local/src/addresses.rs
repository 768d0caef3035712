//! Where the parts are, written into the data directory for as long as they run.

/// The file in the data directory.
pub const FILE: &str = "addresses.json";
/// The database of the archive.
pub(crate) const DATABASE: &str = "lakegauge";
/// The folder in the data directory with a password in a file for each login.
pub const SECRETS: &str = "secrets";

/// What `up` says of itself, for tools and scripts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UpAddresses {
    pub metrics: String,
    pub nats: String,
    pub nats_monitor: String,
    pub postgres_port: u16,
    pub prometheus: String,
    pub grafana: Option<String>,
    pub archiver_admin: String,
    pub aggregator_admin: String,
    pub lake_simulator_admin: String,
    pub warehouse_simulator_admin: String,
}

/// The address of `up`'s PostgreSQL for a role of this name.
///
/// Its mode is said, so that a `PGSSLMODE` of whoever uses the address changes nothing.
pub fn database_url(secret: &str, password: &str, port: u16) -> String {
    let name = if secret == "owner" { "lakegauge_owner" } else { secret };
    format!("postgresql://{name}:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
}
