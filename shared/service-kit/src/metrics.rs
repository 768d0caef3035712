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

/// A count as a metric shows it: exact up to 2^53, then close.
#[expect(clippy::as_conversions, reason = "rounding to 53 bits is what is wanted")]
pub const fn float(value: u64) -> f64 {
    value as f64
}
