//! The warehouse as a pure model of queries that finish.

use domain::{Fact, Outcome, Statement, Timestamp, WarehouseQuery};

use crate::{
    arrivals::Arrival,
    model::{Draft, Model},
    quantiles::Quantiles,
    rng::{Choice, SeededRng, probit, to_f64, to_u64},
    scenario::{Incident, Scenario},
    warehouse::{
        WarehouseShape,
        oracle::{Finished, WarehouseOracle},
        tenants::Tenants,
    },
};

/// Edges of the published buckets of run time, in seconds.
pub const RUNTIME_EDGES_S: &[f64] =
    &[0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 36_000.0, 360_000.0];
/// Percentage of the queries in each bucket: van Renen et al., PVLDB 17(11), 2024.
pub const RUNTIME_PERCENT: &[f64] = &[13.7, 48.3, 24.9, 9.9, 2.2, 0.86, 0.08, 0.008, 0.000_09];
/// Bytes scanned by queries that scan a megabyte or more: a lognormal cut at its lower end, with
/// the median of 100 MB and the 99.9th percentile of 300 GB that Fivetran published over Snowset
/// and Redset.
const SCANNED_LN_MEDIAN: f64 = 18.272_822_456;
const SCANNED_LN_SIGMA: f64 = 2.627_137_189;
const SCANNED_BELOW_MB: f64 = 0.044_882_164;
/// Most bytes that a query may scan: a petabyte.
const SCANNED_MAX: f64 = 1e15;
/// Share of the queries that scan less than a megabyte. A guess: queries of catalogues and small
/// dimensions.
const SMALL_SCAN_SHARE: f64 = 0.3;
/// How often the rank of a query's scan follows the rank of its run time, so that long queries are
/// mostly those that read much. A guess; both distributions stay as published.
const SCAN_FOLLOWS_RUNTIME: f64 = 0.6;
/// Share of the queries that wait in a queue, their median wait and its spread: together a mean
/// wait of 0.91 s, as measured over Redset. The shape is a guess.
const QUEUED_SHARE: f64 = 0.1;
const QUEUED_MEDIAN_US: f64 = 1.003e6;
const QUEUED_SIGMA: f64 = 2.1;
/// Bytes of a row: log-uniform between these, so that rows have the scans' heavy tail.
const ROW_BYTES: (f64, f64) = (20.0, 400.0);
/// Rows returned by a read: median and spread. A guess.
const RETURNED_MEDIAN: f64 = 40.0;
const RETURNED_SIGMA: f64 = 2.8;
/// Upper rank of run time, as a share of all queries, up to which a query may be answered from the
/// result cache.
const CACHED_RANK_MAX: f64 = 0.62;

/// The warehouse of one run.
#[derive(Debug)]
pub struct Warehouse {
    rng: SeededRng,
    shape: WarehouseShape,
    scenario: Scenario,
    statements: Choice,
    failures: Choice,
    runtime_s: Quantiles,
    tenants: Tenants,
    /// Probability that a repeated, fast read is answered from the cache.
    cached: f64,
    /// Share of the fast queries that are answered from the cache.
    fast_cached: f64,
}

/// Outcomes of queries that fail, with weights. Redset says "aborted"; the split is a guess.
const FAILURES: &[(Outcome, f64)] = &[
    (Outcome::Cancelled, 0.5),
    (Outcome::Timeout, 0.2),
    (Outcome::ClientError, 0.2),
    (Outcome::ServerError, 0.1),
];

impl Warehouse {
    /// The warehouse of a run.
    pub fn new(mut rng: SeededRng, shape: WarehouseShape, scenario: Scenario) -> Self {
        let mix: Vec<f64> = shape.mix.iter().map(|(_, weight)| *weight).collect();
        let sum: f64 = mix.iter().sum();
        let selects: f64 = shape
            .mix
            .iter()
            .filter(|(statement, _)| *statement == Statement::Select)
            .map(|(_, weight)| weight / sum)
            .sum();
        let failures: Vec<f64> = FAILURES.iter().map(|(_, weight)| *weight).collect();
        let tenants = Tenants::new(shape.warehouses, &mut rng);
        // The fast queries that may be answered from the cache.
        let eligible = selects * tenants.repeat_share() * (1.0 - shape.failure_share);
        let wanted = shape.cache_hit_share / CACHED_RANK_MAX;
        let cached = if eligible > 0.0 { (wanted / eligible).min(1.0) } else { 0.0 };
        Self {
            statements: Choice::new(&mix),
            failures: Choice::new(&failures),
            runtime_s: Quantiles::from_buckets(RUNTIME_EDGES_S, RUNTIME_PERCENT),
            fast_cached: cached * eligible,
            cached,
            tenants,
            rng,
            shape,
            scenario,
        }
    }

    fn outcome(&mut self, incident: Option<Incident>) -> Outcome {
        if incident == Some(Incident::FailureStorm) && self.rng.chance(Incident::FAILURE_SHARE) {
            return Outcome::ServerError;
        }
        if self.rng.chance(self.shape.failure_share) {
            FAILURES[self.failures.pick(&mut self.rng)].0
        } else {
            Outcome::Ok
        }
    }

    /// Converts a rank among all queries into a rank among the queries that are not answered from
    /// the cache, of which fewer are fast.
    fn rank_uncached(&self, runtime_rank: f64) -> f64 {
        let cached = self.fast_cached;
        let fast = runtime_rank.min(CACHED_RANK_MAX) * (1.0 - cached);
        let slow = (runtime_rank - CACHED_RANK_MAX).max(0.0);
        (fast + slow) / (1.0 - cached * CACHED_RANK_MAX)
    }

    /// Bytes scanned by a query whose run time has this rank among all.
    fn scanned(&mut self, runtime_rank: f64) -> u64 {
        if self.rng.chance(SMALL_SCAN_SHARE) {
            return to_u64(self.rng.log_uniform(1e3, 1e6));
        }
        let follows = self.rng.chance(SCAN_FOLLOWS_RUNTIME);
        let rank = if follows { self.rank_uncached(runtime_rank) } else { self.rng.unit() };
        let z = probit(SCANNED_BELOW_MB + (1.0 - SCANNED_BELOW_MB) * rank);
        let bytes = (SCANNED_LN_MEDIAN + SCANNED_LN_SIGMA * z).exp();
        to_u64(bytes.clamp(1e6, SCANNED_MAX))
    }

    fn queued_us(&mut self, factor: f64) -> u64 {
        if self.rng.chance(QUEUED_SHARE) {
            to_u64(factor * self.rng.lognormal(QUEUED_MEDIAN_US, QUEUED_SIGMA))
        } else {
            50 + self.rng.below(450)
        }
    }

    fn rows_processed(&mut self, bytes_scanned: u64) -> u64 {
        let row_bytes = self.rng.log_uniform(ROW_BYTES.0, ROW_BYTES.1);
        to_u64(to_f64(bytes_scanned) / row_bytes)
    }

    fn query(&mut self, at: Timestamp, session: u32) -> WarehouseQuery {
        let incident = self.scenario.incident(at);
        let slow = incident == Some(Incident::LatencyRegression);
        let factor = if slow { Incident::LATENCY_FACTOR } else { 1.0 };
        let statement = self.shape.mix[self.statements.pick(&mut self.rng)].0;
        let outcome = self.outcome(incident);
        let runtime_rank = self.rng.unit();
        let executed_us = to_u64(factor * self.runtime_s.at(runtime_rank) * 1e6);
        let queued_us = self.queued_us(factor);
        let noisy =
            incident == Some(Incident::NoisyTenant) && self.rng.chance(Incident::NOISY_SHARE);
        let tenant = if noisy { self.tenants.middle() } else { self.tenants.pick(&mut self.rng) };
        let (fingerprint, repeats) = tenant.statement(&mut self.rng);
        let warehouse = tenant.warehouse.clone();
        let database = tenant.database.clone();
        let principal = tenant.principal(session).to_owned();
        let select = statement == Statement::Select;
        let may_hit = select && repeats && outcome == Outcome::Ok;
        let cache_hit = may_hit && runtime_rank < CACHED_RANK_MAX && self.rng.chance(self.cached);
        let bytes_scanned = if cache_hit { 0 } else { self.scanned(runtime_rank) };
        let rows_processed = self.rows_processed(bytes_scanned);
        let rows_returned = if select && outcome == Outcome::Ok {
            let wanted = to_u64(self.rng.lognormal(RETURNED_MEDIAN, RETURNED_SIGMA));
            if cache_hit { wanted } else { wanted.min(rows_processed) }
        } else {
            0
        };
        WarehouseQuery {
            warehouse,
            database,
            statement,
            queued_us,
            executed_us,
            rows_processed,
            rows_returned,
            bytes_scanned,
            cache_hit,
            outcome,
            principal,
            fingerprint,
        }
    }
}

impl Model for Warehouse {
    type Note = Finished;
    type Oracle = WarehouseOracle;

    fn happen(&mut self, arrival: Arrival) -> Draft<Finished> {
        let query = self.query(arrival.at, arrival.session);
        let note = Finished {
            second: arrival.at.second(),
            response_us: query.queued_us + query.executed_us,
            rows: query.rows_processed,
        };
        Draft { at: arrival.at, fact: Fact::WarehouseQuery(query), note: Some(note) }
    }
}
