//! What every registration of metrics needs.

use prometheus::{Registry, core::Collector};

/// Registers a collector, and gives it back for use.
///
/// # Errors
///
/// Its name is taken or none: a mistake of ours.
pub fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// A count as a gauge holds it.
pub fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
