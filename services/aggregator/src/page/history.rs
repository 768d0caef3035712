//! The last hour of the four metrics, read from the stream of samples. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Sample, SampleValues};

use crate::{
    api,
    exposition::{float, response_ms, unsigned},
};

/// How far back the page shows, in seconds.
pub(crate) const HISTORY_S: i64 = 3_600;
const NS_PER_S: i64 = 1_000_000_000;
const NS_PER_MS: i64 = 1_000_000;

/// The last hour, shared by its reader and the page.
#[derive(Clone, Debug)]
pub(crate) struct SharedHistory(Arc<Mutex<LastHour>>);

impl SharedHistory {
    /// An empty history with `grain_s` seconds between two points.
    pub(crate) fn new(grain_s: u32) -> Self {
        Self(Arc::new(Mutex::new(LastHour::new(grain_s))))
    }

    /// The history, locked between two changes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, LastHour> {
        // Each change is complete when the lock is released, even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A point of the lake: time in nanoseconds since 1970, bytes, requests.
type LakePoint = (i64, i128, u64);
/// A point of the warehouse: time in nanoseconds since 1970, queries and response times of the
/// window, rows.
type WarehousePoint = (i64, (u64, u128), u128);

/// At most one point of each side per grain, for at most one hour.
#[derive(Clone, Debug)]
pub(crate) struct LastHour {
    grain_s: i64,
    revision: u64,
    lake: BTreeMap<i64, LakePoint>,
    warehouse: BTreeMap<i64, WarehousePoint>,
}

impl LastHour {
    fn new(grain_s: u32) -> Self {
        let grain_s = i64::from(grain_s.max(1));
        Self { grain_s, revision: 0, lake: BTreeMap::new(), warehouse: BTreeMap::new() }
    }

    /// Adds a sample. The last one of a grain counts; a known sample changes nothing.
    pub(crate) fn push(&mut self, sample: &Sample) {
        let at = sample.broker_ns;
        let slot = at.div_euclid(self.grain_s * NS_PER_S);
        let changed = match &sample.values {
            SampleValues::Lake { used_bytes, accesses, .. } => {
                let point = (at, *used_bytes, *accesses);
                replaces(self.lake.get(&slot).map(|known| known.0), at)
                    .then(|| self.lake.insert(slot, point))
            }
            .is_some(),
            SampleValues::Warehouse { queries_in_window, response_us_in_window, records } => {
                let window = (*queries_in_window, *response_us_in_window);
                let point = (at, window, *records);
                replaces(self.warehouse.get(&slot).map(|known| known.0), at)
                    .then(|| self.warehouse.insert(slot, point))
            }
            .is_some(),
        };
        if changed {
            self.revision += 1;
        }
        let newest = [self.lake.keys().last(), self.warehouse.keys().last()];
        if let Some(newest) = newest.into_iter().flatten().max() {
            self.forget_before(newest - HISTORY_S / self.grain_s);
        }
    }

    fn forget_before(&mut self, slot: i64) {
        self.lake = self.lake.split_off(&slot);
        self.warehouse = self.warehouse.split_off(&slot);
    }

    /// Increases with each change.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// The history as JSON for the page.
    pub(crate) fn to_json(&self) -> String {
        let ms = |ns: i64| ns / NS_PER_MS;
        let lake = self.lake.values();
        let lake = lake.map(|(at, used, accesses)| (ms(*at), float(*used), *accesses)).collect();
        let warehouse = self.warehouse.values().map(|(at, (queries, response_us), records)| {
            (ms(*at), response_ms(*queries, *response_us), unsigned(*records))
        });
        let warehouse = warehouse.collect();
        let history = api::History { span_s: HISTORY_S, grain_s: self.grain_s, lake, warehouse };
        serde_json::to_string(&history).unwrap_or_default()
    }
}

fn replaces(known: Option<i64>, at: i64) -> bool {
    known.is_none_or(|known| known < at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::Stream;
    use serde_json::{Value, json};

    use super::*;

    fn lake(second: i64, accesses: u64) -> Sample {
        let values = SampleValues::Lake { used_bytes: 7, accesses, buckets: BTreeMap::new() };
        let (stream, broker_ns) = (Stream::lake(0), second * NS_PER_S);
        Sample { stream, epoch: 1, sequence: accesses, broker_ns, values }
    }

    #[test]
    fn an_hour_of_points_is_kept_one_a_grain() {
        let mut history = LastHour::new(10);
        for second in 0..10_000 {
            history.push(&lake(second, u64::try_from(second).unwrap()));
        }
        assert_eq!(history.lake.len(), 361);
        assert_eq!(history.lake.values().next(), Some(&(6_399 * NS_PER_S, 7, 6_399)));
        assert_eq!(history.lake.values().last(), Some(&(9_999 * NS_PER_S, 7, 9_999)));
        let revision = history.revision();
        history.push(&lake(9_999, 9_999));
        history.push(&lake(1, 1));
        assert_eq!((history.revision(), history.lake.len()), (revision + 1, 361));
    }

    #[test]
    fn points_are_written_as_the_page_reads_them() {
        let mut history = LastHour::new(10);
        history.push(&lake(5, 3));
        let values = SampleValues::Warehouse {
            queries_in_window: 2,
            response_us_in_window: 5_000,
            records: 9,
        };
        history.push(&Sample { stream: Stream::warehouse(0), values, ..lake(6, 1) });
        let read: Value = serde_json::from_str(&history.to_json()).unwrap();
        assert_eq!(
            read,
            json!({
                "span_s": 3600,
                "grain_s": 10,
                "lake": [[5_000, 7.0, 3]],
                "warehouse": [[6_000, 2.5, 9.0]],
            })
        );
    }
}
