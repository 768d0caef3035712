//! The warehouse's metrics as the model itself computes them.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{model::Oracle, rng::to_f64};

/// Whole seconds over which response times are averaged.
const WINDOW_S: i64 = 60;

/// The contribution of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The second in which the query finished, since 1970.
    pub second: i64,
    /// Response time: queue and execution, in microseconds.
    pub response_us: u64,
    /// Rows read or written.
    pub rows: u64,
}

/// Response times and rows as the model computes them.
#[derive(Clone, Debug, Default)]
pub struct WarehouseOracle {
    rows: u128,
    /// Count and sum of response times by second. Seconds that left the window are removed.
    seconds: BTreeMap<i64, (u64, u128)>,
}

impl WarehouseOracle {
    /// Rows read or written.
    pub const fn rows(&self) -> u128 {
        self.rows
    }

    /// Count and sum, in microseconds, of the responses in the window.
    pub fn responses(&self) -> (u64, u128) {
        self.seconds.values().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }
}

impl Oracle for WarehouseOracle {
    type Note = Finished;

    fn enter(&mut self, finished: &Finished) {
        self.rows += u128::from(finished.rows);
        let part = self.seconds.entry(finished.second).or_default();
        part.0 += 1;
        part.1 += u128::from(finished.response_us);
        let newest = self.seconds.last_key_value().map_or(i64::MIN, |(second, _)| *second);
        while let Some(oldest) = self.seconds.first_entry()
            && *oldest.key() <= newest - WINDOW_S
        {
            oldest.remove();
        }
    }

    fn metrics(&self, _published: u64) -> BTreeMap<&'static str, serde_json::Value> {
        let (count, sum_us) = self.responses();
        let wide = |sum: u128| to_f64(u64::try_from(sum).unwrap_or(u64::MAX));
        let mean_ms = if count == 0 { 0.0 } else { wide(sum_us) / to_f64(count) / 1e3 };
        let whole = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        BTreeMap::from([
            ("data_warehouse_tempo_resposta_ms", json!(mean_ms)),
            ("data_warehouse_tempo_resposta_count", json!(count)),
            ("data_warehouse_tempo_resposta_sum_us", json!(whole(sum_us))),
            ("data_warehouse_registros_processados", json!(whole(self.rows))),
        ])
    }
}
