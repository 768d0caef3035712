//! From settings to a running simulator.

use std::hash::Hasher as _;

use anyhow::Context as _;
use bus::service::BusConfig;
use domain::{Run, Stream, Timestamp};
use fnv::FnvHasher;
use rand::{TryRng, rngs::SysRng};
use service_kit::Context;
use wire::{Packer, PackerLimits, Subjects};

use crate::{
    arrivals::{Arrivals, Traffic},
    describe::SAMPLE_SEED,
    emission::Disorder,
    feed::{FeedParts, MessageSource},
    model::Model,
    pacer::Emitter,
    rng::SeededRng,
    scenario::Scenario,
    settings::Common,
};

/// The purposes for which generators are derived from one seed.
const MODEL: u64 = 0;
const ARRIVALS: u64 = 1;
const EMISSION: u64 = 2;
/// Start of the sample for a description: 2026-01-01T00:00:00Z.
const SAMPLE_START: Timestamp = Timestamp(1_767_225_600_000_000);

/// What determines everything in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSeed {
    /// The seed of all randomness.
    pub seed: u64,
    /// The prefix of ids and object keys.
    pub run: Run,
    /// When event time starts.
    pub start: Timestamp,
}

impl RunSeed {
    /// The run with this name, or with this salt if it has no name.
    pub fn new(seed: u64, start: Timestamp, name: Result<&str, u32>, stream: Stream) -> Self {
        let salt = match name {
            Ok(name) => salt_of(name, stream),
            Err(salt) => salt,
        };
        let start_ms = u64::try_from(start.0.div_euclid(1_000)).unwrap_or(0);
        Self { seed, run: Run::new(start_ms, salt), start }
    }

    /// Takes the run from the settings, and what they do not set from the operating system and the
    /// clock.
    fn load(common: &Common, now_us: i64, stream: Stream) -> anyhow::Result<Self> {
        let entropy = || SysRng.try_next_u64().context("the operating system gives no randomness");
        // A run with the same name is the same run again, even without a seed.
        let named = common.run_id.as_deref().map(|name| hash_of(name, stream));
        let seed = common.seed.or(named).map_or_else(entropy, Ok)?;
        let start = common.start_time.unwrap_or(Timestamp(now_us));
        let salt = u32::try_from(entropy()? >> 32)?;
        Ok(Self::new(seed, start, common.run_id.as_deref().ok_or(salt), stream))
    }

    /// The generator of a model.
    pub fn model_draw(&self) -> SeededRng {
        SeededRng::new(self.seed, MODEL)
    }

    /// The run of a sample for a description: a fixed seed unless one is set, and a fixed time.
    pub(crate) fn of_a_sample(common: &Common) -> Self {
        let start = common.start_time.unwrap_or(SAMPLE_START);
        let seed = common.seed.unwrap_or(SAMPLE_SEED);
        Self { seed, run: Run::new(0, 0), start }
    }

    /// The incidents of the run.
    pub const fn scenario(&self, common: &Common) -> Scenario {
        Scenario::new(common.incident, self.start)
    }

    /// The arrivals of the run.
    pub fn arrivals(&self, common: &Common, scenario: Scenario) -> Arrivals {
        let traffic = Traffic {
            rate_per_s: common.rate.per_s,
            burst_events: common.burst_events,
            peak_over_trough: common.peak_over_trough,
        };
        Arrivals::new(SeededRng::new(self.seed, ARRIVALS), traffic, scenario, self.start)
    }

    /// A feed of a model that is published to this subject.
    pub fn feed<M: Model>(&self, model: M, common: &Common, subject: String) -> MessageSource<M> {
        let limits = PackerLimits {
            events_max: common.batch_events_max,
            age_ms_max: common.batch_age_ms_max,
            ..PackerLimits::default()
        };
        let parts = FeedParts {
            pace: common.rate.pace,
            arrivals: self.arrivals(common, self.scenario(common)),
            rng: SeededRng::new(self.seed, EMISSION),
            disorder: Disorder {
                late_share: common.late_share,
                duplicate_share: common.duplicate_share,
            },
            run: self.run,
            events: common.events,
            packer: Packer::new(subject, common.format(), limits),
        };
        MessageSource::new(model, parts, self.start)
    }
}

/// Runs one simulator until it has published all its events or the service drains.
pub(crate) async fn run<M>(
    context: Context,
    common: Common,
    bus: BusConfig,
    stream: Stream,
    subject: fn(&Subjects, u16, &str) -> String,
    model: impl FnOnce(&RunSeed) -> M,
) -> anyhow::Result<()>
where
    M: Model + 'static,
    M::Note: Send + 'static,
    M::Oracle: Send + 'static,
{
    let origin = RunSeed::load(&common, context.clock.now_us(), stream)?;
    let format = common.format().name();
    tracing::info!(
        seed = origin.seed,
        run = %origin.run,
        rate_per_s = common.rate.per_s,
        format,
        "the same seed, start time and run id give the same events again"
    );
    let subjects = Subjects::new(&bus.settings.subject_prefix);
    let subject = subject(&subjects, stream.partition, &common.source);
    let feed = origin.feed(model(&origin), &common, subject);
    let pacer = Emitter { feed, start: origin.start, stream, source: common.source.clone() };
    pacer.run(context, &bus, common.expected.as_deref()).await
}

/// Twenty bits from a name and the stream, so that two simulators with the same name differ.
fn salt_of(name: &str, stream: Stream) -> u32 {
    let hash = hash_of(name, stream);
    u32::try_from((hash ^ (hash >> 20) ^ (hash >> 40)) & 0xf_ffff).unwrap_or(0)
}

/// FNV-1a of a name and the stream.
fn hash_of(name: &str, stream: Stream) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(format!("{stream}/{name}").as_bytes());
    hasher.finish()
}
