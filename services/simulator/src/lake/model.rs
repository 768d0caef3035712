//! The lake as a pure model: requests to an object store, and their effects.

use domain::{Fact, LakeAccess, Operation, Outcome, Run};

use crate::{
    arrivals::Arrival,
    lake::{
        LakeShape,
        objects::{KeySlot, ObjectTable},
        oracle::{Change, LakeOracle},
    },
    model::{Draft, Model},
    quantiles::Quantiles,
    rng::{Choice, SeededRng, to_f64, to_u64},
    scenario::{Incident, Scenario},
};

/// Sizes of objects in bytes: IBM COS trace 000, first 54 minutes. The lower end is a guess.
pub const OBJECT_BYTES: &[(f64, f64)] = &[
    (0.0, 100.0),
    (0.01, 370.0),
    (0.10, 1_088.0),
    (0.25, 5_384.0),
    (0.50, 65_760.0),
    (0.75, 1_002_496.0),
    (0.90, 5_665_856.0),
    (0.95, 12_036_352.0),
    (0.99, 37_071_419.0),
    (1.0, 1_378_116_288.0),
];
/// Bytes of a read: the same trace. Both ends are guesses.
pub const READ_BYTES: &[(f64, f64)] = &[
    (0.0, 100.0),
    (0.10, 656.0),
    (0.50, 15_088.0),
    (0.75, 5_205_248.0),
    (0.99, 5_681_856.0),
    (1.0, 16_777_216.0),
];
/// Share of the reads that get the whole object: the same trace.
pub const WHOLE_READ_SHARE: f64 = 0.658;
/// Number of objects that are read repeatedly, and the share of the requests for any other object.
/// They are chosen so that 10,000 requests read as many objects, and as many of them once, as was
/// measured.
const FAVOURITES: usize = 1_100;
const SELDOM_SHARE: f64 = 0.01;
/// Spread of durations around their median, as the standard deviation of the logarithm. No trace of
/// object store latencies was available: these values are typical of such stores nearby.
const DURATION_SIGMA: f64 = 0.6;

/// The lake of one run.
#[derive(Debug)]
pub struct Lake {
    rng: SeededRng,
    shape: LakeShape,
    scenario: Scenario,
    operations: Choice,
    object_bytes: Quantiles,
    read_bytes: Quantiles,
    objects: ObjectTable,
    /// Bucket of a slot, selected by the slot's hash.
    bucket_places: Vec<usize>,
    failures: Choice,
    principals: Vec<String>,
    run: String,
    changes: u64,
}

/// Failures by reason, with weights.
const FAILURES: &[(Outcome, f64)] = &[
    (Outcome::NotFound, 0.45),
    (Outcome::Denied, 0.15),
    (Outcome::Throttled, 0.20),
    (Outcome::Timeout, 0.08),
    (Outcome::ServerError, 0.12),
];
/// Number of equal parts by which buckets are assigned.
const BUCKET_PLACES: usize = 256;

impl Lake {
    /// The lake of a run. Its keys carry the run, so that no two runs share an object.
    pub fn new(mut rng: SeededRng, shape: LakeShape, scenario: Scenario, run: Run) -> Self {
        let object_bytes = Quantiles::new(OBJECT_BYTES);
        let at_start = shape.objects_at_start.clamp(1, shape.objects_max);
        let sizes = (0..at_start).map(|_| to_u64(object_bytes.at(rng.unit()))).collect::<Vec<_>>();
        let slots_max = usize::try_from(shape.objects_max).unwrap_or(usize::MAX);
        let weights: Vec<f64> = (0..shape.buckets.len()).map(bucket_weight).collect();
        let bucket_choice = Choice::new(&weights);
        let mix: Vec<f64> = shape.mix.iter().map(|(_, weight)| *weight).collect();
        let failures: Vec<f64> = FAILURES.iter().map(|(_, weight)| *weight).collect();
        Self {
            operations: Choice::new(&mix),
            failures: Choice::new(&failures),
            read_bytes: Quantiles::new(READ_BYTES),
            object_bytes,
            objects: ObjectTable::new(sizes.into_iter(), FAVOURITES, slots_max),
            bucket_places: (0..BUCKET_PLACES).map(|_| bucket_choice.pick(&mut rng)).collect(),
            principals: (0..shape.principals.max(1)).map(|n| format!("user-{n:02}")).collect(),
            run: run.to_string(),
            changes: 0,
            rng,
            shape,
            scenario,
        }
    }

    fn operation(&mut self, incident: Option<Incident>) -> Operation {
        let growing = incident == Some(Incident::StorageGrowth);
        if growing && self.rng.chance(Incident::GROWTH_WRITE_SHARE) {
            return Operation::Write;
        }
        self.shape.mix[self.operations.pick(&mut self.rng)].0
    }

    fn outcome(&mut self, operation: Operation, incident: Option<Incident>) -> Outcome {
        if incident == Some(Incident::FailureStorm) && self.rng.chance(Incident::FAILURE_SHARE) {
            return Outcome::ServerError;
        }
        if !self.rng.chance(self.shape.failure_share) {
            return Outcome::Ok;
        }
        let outcome = FAILURES[self.failures.pick(&mut self.rng)].0;
        let finds = matches!(operation, Operation::Read | Operation::Head);
        if outcome == Outcome::NotFound && !finds { Outcome::Denied } else { outcome }
    }

    /// The effect of a request that succeeds.
    fn succeed(&mut self, operation: Operation, incident: Option<Incident>) -> Done {
        match operation {
            Operation::Read => self.read(),
            Operation::Head | Operation::Other => {
                let slot = if self.rng.chance(SELDOM_SHARE) {
                    self.objects.any(&mut self.rng)
                } else {
                    self.objects.popular(&mut self.rng)
                };
                Done::seen(slot, operation, 0, self.objects.bytes(slot))
            }
            Operation::List => Done { object_bytes: None, ..Done::seen(0, operation, 0, 0) },
            Operation::Write => self.write(incident),
            Operation::Copy => {
                let source = self.objects.popular(&mut self.rng);
                let bytes = self.objects.bytes(source);
                let slot = self.objects.store_new(bytes, &mut self.rng);
                self.changed(Done::seen(slot, Operation::Copy, bytes, bytes), Some(bytes))
            }
            Operation::Delete => match self.objects.delete(&mut self.rng) {
                Some(slot) => {
                    let gone = Done::seen(slot, Operation::Delete, 0, 0);
                    self.changed(Done { object_bytes: None, ..gone }, None)
                }
                // No object may be deleted: a lake that would delete all its objects writes
                // instead.
                None => self.write(incident),
            },
        }
    }

    fn read(&mut self) -> Done {
        let u = self.rng.unit();
        let bytes = to_u64(self.read_bytes.at(u));
        let whole = u < WHOLE_READ_SHARE;
        let slot = if whole {
            self.objects.nearest(bytes)
        } else {
            self.objects.at_least(bytes, &mut self.rng)
        };
        let size = self.objects.bytes(slot);
        Done::seen(slot, Operation::Read, if whole { size } else { bytes.min(size) }, size)
    }

    fn write(&mut self, incident: Option<Incident>) -> Done {
        let mut bytes = self.object_bytes.at(self.rng.unit());
        if incident == Some(Incident::StorageGrowth) {
            bytes *= Incident::GROWTH_FACTOR;
        }
        let bytes = to_u64(bytes);
        let slot = if self.rng.chance(self.shape.overwrite_share) {
            let slot = self.objects.popular(&mut self.rng);
            self.objects.overwrite(slot, bytes);
            slot
        } else {
            self.objects.store_new(bytes, &mut self.rng)
        };
        self.changed(Done::seen(slot, Operation::Write, bytes, bytes), Some(bytes))
    }

    fn changed(&mut self, done: Done, bytes: Option<u64>) -> Done {
        self.changes += 1;
        Done { change: Some(Change { slot: done.slot, number: self.changes, bytes }), ..done }
    }

    /// A request that fails: it moves no bytes and changes nothing.
    fn fail(&mut self, operation: Operation) -> Done {
        let slot = self.objects.popular(&mut self.rng);
        Done { object_bytes: None, ..Done::seen(slot, operation, 0, 0) }
    }

    fn duration_us(&mut self, done: &Done, incident: Option<Incident>) -> u64 {
        // A request takes some milliseconds until the first byte, then its bytes arrive at some
        // megabytes per second.
        let (first_ms, speed) = match done.operation {
            Operation::Head | Operation::Other => (6.0, 1.0),
            Operation::Read => (14.0, 90.0),
            Operation::List => (40.0, 1.0),
            Operation::Write => (28.0, 60.0),
            Operation::Copy => (30.0, 250.0),
            Operation::Delete => (12.0, 1.0),
        };
        let median_us = first_ms * 1e3 + to_f64(done.bytes) / speed;
        let slow = incident == Some(Incident::LatencyRegression);
        let factor = if slow { Incident::LATENCY_FACTOR } else { 1.0 };
        to_u64(self.rng.lognormal(median_us * factor, DURATION_SIGMA))
    }

    fn bucket(&self, slot: KeySlot) -> &str {
        let hash = usize::try_from(slot.wrapping_mul(0x9e37_79b1) >> 24).unwrap_or(0);
        &self.shape.buckets[self.bucket_places[hash]]
    }

    fn key(&self, done: &Done, outcome: Outcome) -> String {
        if done.operation == Operation::List {
            return String::new();
        }
        let stem = if outcome == Outcome::NotFound { "/none-" } else { "/part-" };
        let mut key = String::with_capacity(self.run.len() + 22);
        key.push_str(&self.run);
        key.push_str(stem);
        push_hex(&mut key, done.slot.into(), 8);
        key.push_str(".parquet");
        key
    }

    fn principal(&mut self, session: u32, incident: Option<Incident>) -> String {
        let noisy = incident == Some(Incident::NoisyTenant);
        if noisy && self.rng.chance(Incident::NOISY_SHARE) {
            return "noisy-tenant".to_owned();
        }
        // Sessions of one principal. The square makes the first principals busier.
        let hash = session.wrapping_mul(0x9e37_79b1);
        let unit = f64::from(hash) / 4_294_967_296.0;
        let place = unit * unit * to_f64(crate::rng::length(&self.principals));
        self.principals[usize::try_from(to_u64(place)).unwrap_or(0)].clone()
    }
}

impl Model for Lake {
    type Note = Change;
    type Oracle = LakeOracle;

    fn happen(&mut self, arrival: Arrival) -> Draft<Change> {
        let incident = self.scenario.incident(arrival.at);
        let asked = self.operation(incident);
        let outcome = self.outcome(asked, incident);
        let done =
            if outcome == Outcome::Ok { self.succeed(asked, incident) } else { self.fail(asked) };
        let duration_us = self.duration_us(&done, incident);
        let access = LakeAccess {
            bucket: self.bucket(done.slot).to_owned(),
            key: self.key(&done, outcome),
            operation: done.operation,
            bytes: done.bytes,
            object_bytes: done.object_bytes,
            sequencer: done.change.map(|change| {
                let mut sequencer = String::with_capacity(16);
                push_hex(&mut sequencer, change.number, 16);
                sequencer
            }),
            duration_us,
            outcome,
            principal: self.principal(arrival.session, incident),
        };
        Draft { at: arrival.at, fact: Fact::LakeAccess(access), note: done.change }
    }
}

/// A request and its effect.
struct Done {
    slot: KeySlot,
    operation: Operation,
    bytes: u64,
    object_bytes: Option<u64>,
    change: Option<Change>,
}

impl Done {
    const fn seen(slot: KeySlot, operation: Operation, bytes: u64, object_bytes: u64) -> Self {
        Self { slot, operation, bytes, object_bytes: Some(object_bytes), change: None }
    }
}

/// Weight of a bucket: each bucket has two thirds of the weight of the one before.
fn bucket_weight(rank: usize) -> f64 {
    let rank = i32::try_from(rank.min(64)).unwrap_or(64);
    (2.0_f64 / 3.0).powi(rank)
}

/// Appends the last `digits` hexadecimal digits of a number.
pub(crate) fn push_hex(text: &mut String, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = u32::try_from((number >> (4 * digit)) & 0xf).unwrap_or(0);
        text.push(char::from_digit(nibble, 16).unwrap_or('0'));
    }
}
