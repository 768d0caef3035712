//! The warehouse: its model, its oracle, its settings.

mod config;
mod describe;
mod model;
mod oracle;
mod tenants;

use domain::Stream;
use service_kit::Context;
use wire::Subjects;

pub use config::{Config, WarehouseShape};
pub use describe::describe;
pub use model::{RUNTIME_EDGES_S, RUNTIME_PERCENT, Warehouse};
pub use oracle::{Finished, WarehouseOracle};
pub use tenants::TENANTS_MAX;

/// Simulates a warehouse until all its events are published or the service drains.
///
/// # Errors
///
/// Errors that no retry can correct: settings that the broker refuses, a file that cannot be
/// written.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let Config { common, bus, shape } = config;
    let scenario_of = common.clone();
    let model = |origin: &crate::RunSeed| {
        Warehouse::new(origin.model_draw(), shape, origin.scenario(&scenario_of))
    };
    crate::run::run(context, common, bus, Stream::warehouse(0), Subjects::warehouse_query, model)
        .await
}
