//! The lake's metrics as the model itself computes them.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{lake::objects::KeySlot, model::Oracle, rng::to_f64};

/// What a request changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The slot of the object, which is the number in its key.
    pub slot: KeySlot,
    /// The number of the change; changes happen in this order.
    pub number: u64,
    /// Size of the object after the change; `None` after a delete.
    pub bytes: Option<u64>,
}

/// Used space and accesses as the model computes them.
#[derive(Clone, Debug, Default)]
pub struct LakeOracle {
    /// By slot: the number of the last change that was entered (0 for none) and the size after it.
    objects: Vec<(u64, u64)>,
    used_bytes: u64,
}

impl LakeOracle {
    /// Bytes stored by this run's writes and copies, minus what was replaced and deleted.
    pub const fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}

impl Oracle for LakeOracle {
    type Note = Change;

    fn enter(&mut self, change: &Change) {
        let place = usize::try_from(change.slot).unwrap_or(usize::MAX);
        if self.objects.len() <= place {
            self.objects.resize(place + 1, (0, 0));
        }
        let (number, bytes) = &mut self.objects[place];
        if *number < change.number {
            let after = change.bytes.unwrap_or(0);
            self.used_bytes = self.used_bytes - *bytes + after;
            (*number, *bytes) = (change.number, after);
        }
    }

    fn metrics(&self, published: u64) -> BTreeMap<&'static str, serde_json::Value> {
        BTreeMap::from([
            ("data_lake_espaco_utilizado_gb", json!(to_f64(self.used_bytes) / 1e9)),
            ("data_lake_espaco_utilizado_bytes", json!(self.used_bytes)),
            ("data_lake_numero_acessos", json!(published)),
        ])
    }
}
