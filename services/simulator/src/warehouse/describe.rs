//! What the warehouse's model generates, compared with what was published.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Fact, Outcome, Statement, WarehouseQuery};

use crate::{
    RunSeed,
    describe::{Figure, MEDIAN, SAMPLE_EVENTS, SHARE, Sampled, TAIL, Unit, Within},
    model::Model,
    rng::{length, to_f64, to_u64},
    scenario::Scenario,
    warehouse::{Config, RUNTIME_EDGES_S, RUNTIME_PERCENT, Warehouse},
};

const FLEET: &str = "van Renen et al., PVLDB 17(11) 2024, Redshift fleet";
const REDSET: &str = "Redset, 200 provisioned clusters (measured on an hourly extract)";
const FIVETRAN: &str = "Fivetran over Snowset and Redset";
const GUESS: &str = "no published figure";
const MEGABYTE: u64 = 1_000_000;
/// Number of queries that a warehouse must have in the sample for a meaningful share of
/// repetitions.
const QUERIES_MIN: u64 = 1_000;

/// Describes a sample with these settings: without incidents, and with a fixed seed unless one is
/// set.
pub fn describe(config: &Config) -> Vec<Figure> {
    let mut sample = Observations::default();
    let origin = RunSeed::of_a_sample(&config.common);
    let mut model = Warehouse::new(origin.model_draw(), config.shape.clone(), Scenario::calm());
    let mut arrivals = origin.arrivals(&config.common, Scenario::calm());
    for _ in 0..SAMPLE_EVENTS {
        if let Fact::WarehouseQuery(query) = model.happen(arrivals.advance()).fact {
            sample.add(query);
        }
    }
    let mut rows = sample.runtimes();
    rows.extend(sample.scans());
    rows.extend(sample.shares());
    rows.extend(sample.tenants());
    rows.extend(sample.guesses());
    rows
}

#[derive(Default)]
struct Observations {
    executed_us: Sampled,
    queued_us: Sampled,
    scanned: Sampled,
    rows: Sampled,
    failed: u64,
    cache_hits: u64,
    statements: BTreeMap<Statement, u64>,
    warehouses: BTreeMap<String, Repetition>,
}

#[derive(Default)]
struct Repetition {
    queries: u64,
    fingerprints: BTreeSet<String>,
}

impl Repetition {
    fn share(&self) -> f64 {
        let distinct = u64::try_from(self.fingerprints.len()).unwrap_or(u64::MAX);
        1.0 - to_f64(distinct) / to_f64(self.queries)
    }
}

impl Observations {
    fn add(&mut self, query: WarehouseQuery) {
        self.executed_us.push(query.executed_us);
        self.queued_us.push(query.queued_us);
        self.rows.push(query.rows_processed);
        if query.bytes_scanned >= MEGABYTE {
            self.scanned.push(query.bytes_scanned);
        }
        self.failed += u64::from(query.outcome != Outcome::Ok);
        self.cache_hits += u64::from(query.cache_hit);
        *self.statements.entry(query.statement).or_default() += 1;
        let repetition = self.warehouses.entry(query.warehouse).or_default();
        repetition.queries += 1;
        repetition.fingerprints.insert(query.fingerprint);
    }

    fn runtimes(&mut self) -> Vec<Figure> {
        let sum: f64 = RUNTIME_PERCENT.iter().sum();
        let mut rows: Vec<Figure> = RUNTIME_PERCENT
            .iter()
            .zip(RUNTIME_EDGES_S.windows(2))
            .map(|(percent, edges)| {
                let (low, high) = (to_u64(edges[0] * 1e6), to_u64(edges[1] * 1e6));
                Figure {
                    what: format!("run time from {} s to {} s", edges[0], edges[1]),
                    unit: Unit::Share,
                    generated: self.executed_us.share(|us| (low..high).contains(&us)),
                    published: Some(percent / sum),
                    within: SHARE,
                    source: FLEET,
                }
            })
            .collect();
        for (share, published, within) in
            [(0.5, 0.056e6, MEDIAN), (0.9, 2.03e6, TAIL), (0.99, 57.5e6, TAIL)]
        {
            rows.push(Figure {
                what: format!("run time, p{:.0} that these buckets imply", share * 100.0),
                unit: Unit::Micros,
                generated: self.executed_us.quantile(share),
                published: Some(published),
                within,
                source: FLEET,
            });
        }
        rows.push(Figure {
            what: "time in a queue, mean".to_owned(),
            unit: Unit::Micros,
            generated: self.queued_us.mean(),
            published: Some(0.91e6),
            within: TAIL,
            source: REDSET,
        });
        rows
    }

    fn scans(&mut self) -> Vec<Figure> {
        let mut row = |what: &str, share, published, within| Figure {
            what: format!("scanned, of queries from 1 MB on, {what}"),
            unit: Unit::Bytes,
            generated: self.scanned.quantile(share),
            published: Some(published),
            within,
            source: FIVETRAN,
        };
        vec![row("p50", 0.5, 100e6, MEDIAN), row("p99.9", 0.999, 300e9, TAIL)]
    }

    fn shares(&self) -> Vec<Figure> {
        let row = |what: &str, count, published| Figure {
            what: what.to_owned(),
            unit: Unit::Share,
            generated: to_f64(count) / f64::from(SAMPLE_EVENTS),
            published: Some(published),
            within: SHARE,
            source: REDSET,
        };
        vec![
            row("aborted queries", self.failed, 0.005_08),
            row("answers from the result cache", self.cache_hits, 0.1063),
        ]
    }

    fn tenants(&self) -> Vec<Figure> {
        let mut queries: Vec<u64> =
            self.warehouses.values().map(|repetition| repetition.queries).collect();
        queries.sort_unstable_by(|a, b| b.cmp(a));
        let all = f64::from(SAMPLE_EVENTS);
        let top = |number: usize| to_f64(queries.iter().take(number).sum()) / all;
        let mut rows: Vec<Figure> = [(1, 0.136), (5, 0.360), (10, 0.508), (20, 0.697)]
            .into_iter()
            .map(|(number, published)| Figure {
                what: format!("busiest {number} of the warehouses"),
                unit: Unit::Share,
                generated: top(number),
                published: Some(published),
                within: SHARE,
                source: REDSET,
            })
            .collect();
        let often: Vec<f64> = self
            .warehouses
            .values()
            .filter(|repetition| repetition.queries >= QUERIES_MIN)
            .map(Repetition::share)
            .collect();
        let mostly = often.iter().filter(|share| **share >= 0.8).count();
        rows.push(Figure {
            what: "warehouses that repeat 80 % of their queries".to_owned(),
            unit: Unit::Share,
            generated: to_f64(u64::try_from(mostly).unwrap_or(0)) / to_f64(length(&often)).max(1.0),
            published: Some(0.5),
            within: Within::Points(10.0),
            source: FLEET,
        });
        rows
    }

    fn guesses(&mut self) -> Vec<Figure> {
        let guess = |what: String, unit, generated, source| Figure {
            what,
            unit,
            generated,
            published: None,
            within: Within::Free,
            source,
        };
        let mut rows = Vec::new();
        for share in [0.5, 0.99] {
            let what = format!("rows processed, p{:.0}", share * 100.0);
            rows.push(guess(what, Unit::Plain, self.rows.quantile(share), GUESS));
        }
        for (statement, count) in &self.statements {
            let what = format!("{} statements", statement.name());
            let share = to_f64(*count) / f64::from(SAMPLE_EVENTS);
            rows.push(guess(what, Unit::Share, share, "as set; see the help of --mix"));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::{Flags, Settings};

    use super::*;

    #[test]
    fn the_warehouse_is_as_published() {
        let environment = BTreeMap::<&str, &str>::new();
        let flags = Flags::default();
        let config = Config::load(&mut Settings::new(&flags, &environment)).unwrap();
        let rows = describe(&config);
        let wrong: Vec<&Figure> = rows.iter().filter(|row| !row.holds()).collect();
        assert!(wrong.is_empty(), "{}", crate::describe::render(&rows));
    }
}
