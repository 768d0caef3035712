//! The lake: its model, its oracle, its settings.

mod config;
mod describe;
mod model;
mod objects;
mod oracle;

use domain::Stream;
use service_kit::Context;
use wire::Subjects;

pub use config::{Config, LakeShape};
pub use describe::describe;
pub(crate) use model::push_hex;
pub use model::{Lake, OBJECT_BYTES, READ_BYTES, WHOLE_READ_SHARE};
pub use oracle::{Change, LakeOracle};

/// Simulates a lake until all its events are published or the service drains.
///
/// # Errors
///
/// Errors that no retry can correct: settings that the broker refuses, a file that cannot be
/// written.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let Config { common, bus, shape } = config;
    let scenario_of = common.clone();
    let model = |origin: &crate::RunSeed| {
        Lake::new(origin.model_draw(), shape, origin.scenario(&scenario_of), origin.run)
    };
    crate::run::run(context, common, bus, Stream::lake(0), Subjects::lake_access, model).await
}
