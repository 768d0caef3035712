//! What every test of `lakegauge up` needs.

use std::os::unix::fs::PermissionsExt as _;

/// Every port of `up` is a free one, so that several can run at once.
pub const FREE_PORTS: &[&str] = &[
    "--nats-port=0",
    "--nats-monitor-port=0",
    "--postgres-port=0",
    "--prometheus-port=0",
    "--grafana-port=0",
    "--metrics-port=0",
    "--lake-admin-port=0",
    "--warehouse-admin-port=0",
    "--aggregator-admin-port=0",
    "--archiver-admin-port=0",
];

/// A folder that PostgreSQL's own user can enter too.
///
/// # Errors
///
/// It can't be made.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    let scratch = tempfile::Builder::new().prefix("lakegauge-up-").tempdir()?;
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(scratch)
}
