//! The settings that both simulators have.

use std::{num::ParseFloatError, path::PathBuf, str::FromStr};

use domain::Timestamp;
use service_kit::Setting;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use wire::Format;

use crate::{feed::Pace, scenario::Incident};

/// The rate above which `--format auto` is bincode. JSON lines are for people, who cannot read
/// faster.
pub const JSON_RATE_MAX: f64 = 10_000.0;
/// The allowed rates, in events per second.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000_000.0;

const FORMATS: [(&str, Option<Format>); 3] = [
    ("auto", None),
    (Format::Json.name(), Some(Format::Json)),
    (Format::Bincode.name(), Some(Format::Bincode)),
];

service_kit::settings! {
    /// Settings of both simulators. The names of each begin with its own prefix, and some have
    /// their own defaults.
    #[derive(Clone, Debug)]
    pub struct Common {
        /// Events per second, the mean over a day, from 0.001 on; `max` is as fast as the machine
        /// allows, with event times from the clock.
        #[setting(RATE, "rate")]
        pub rate: Rate,
        /// Number that determines the traffic. Without it the run id determines it; without either
        /// each run differs.
        #[setting(SEED, "seed")]
        pub seed: Option<u64> = optional,
        /// Number of distinct events after which the simulator ends; without it the run has no end.
        #[setting(EVENTS, "events")]
        pub events: Option<u64> = optional,
        /// Time of the first events (RFC 3339); without it the present. Events ahead of the
        /// broker's clock become dead letters.
        #[setting(START_TIME, "start-time")]
        pub start_time: Option<Timestamp> = optional_by(time),
        /// Name of the run. The same name with the same start time gives the same run again, ids
        /// and object keys included; without it each run differs.
        #[setting(RUN_ID, "run-id")]
        pub run_id: Option<String> = optional,
        /// Form of messages: json, bincode, or auto, which is JSON up to 10,000 events/s.
        #[setting(FORMAT, "format", default = "auto")]
        pub format: Option<Format> = choice(&FORMATS),
        /// Incident to simulate, from 15 s after the start for 90 s (silence: 45 s), then normal
        /// traffic for as long, and so on: none, latency-regression (ten times as slow),
        /// storage-growth (half of the lake's requests write objects four times as large),
        /// failure-storm (35 % fail), silence, noisy-tenant (one tenant doubles the load).
        #[setting(SCENARIO, "scenario", default = "none")]
        pub incident: Option<Incident> = choice(&Incident::choices()),
        /// Share of the events that are published 0.2 to 60 s after they happened.
        #[setting(LATE_SHARE, "late-share", default = "0.005")]
        pub late_share: f64 = in_range(0.0..=0.5),
        /// Share of the events that are published a second time, 0.2 to 60 s later.
        #[setting(DUPLICATE_SHARE, "duplicate-share", default = "0.002")]
        pub duplicate_share: f64 = in_range(0.0..=0.5),
        /// Rate at the busiest time of the day (14:00 UTC) divided by that at the quietest, around
        /// the mean; 1 keeps the rate constant.
        #[setting(DAILY_PEAK_OVER_TROUGH, "daily-peak-over-trough", default = "3.39")]
        pub peak_over_trough: f64 = in_range(1.0..=1_000.0),
        /// Mean number of events in a burst, fewer below 3.1 events/s; 1 means without bursts.
        #[setting(BURST_EVENTS, "burst-events")]
        pub burst_events: f64 = in_range(1.0..=10_000.0),
        /// Last token of the subject.
        #[setting(SOURCE, "source")]
        pub source: String = parse_by(wire::source_name),
        /// File for the expected result, written at the end as JSON: what was acknowledged, and the
        /// metrics as the model itself computes them.
        #[setting(EXPECTED_FILE, "expected")]
        pub expected: Option<PathBuf> = optional,
        /// Most events in a message.
        #[setting(BATCH_EVENTS_MAX, "batch-events-max", default = "100")]
        pub batch_events_max: usize = in_range(1..=10_000),
        /// Longest time that an event waits for other events of its message, in milliseconds.
        #[setting(BATCH_AGE_MS_MAX, "batch-age-ms-max", default = "20")]
        pub batch_age_ms_max: u64 = in_range(0..=60_000),
    }
}

impl Common {
    /// Form of the messages.
    pub fn format(&self) -> Format {
        let auto = if self.rate.per_s > JSON_RATE_MAX { Format::Bincode } else { Format::Json };
        self.format.unwrap_or(auto)
    }
}

/// What differs between the names of one simulator's settings and those of the other.
pub(crate) struct SimulatorNames {
    pub(crate) prefix: &'static str,
    pub(crate) rate: &'static str,
    pub(crate) burst_events: &'static str,
    pub(crate) source: &'static str,
}

impl SimulatorNames {
    /// The setting with its name for this simulator.
    pub(crate) fn named(&self, setting: Setting) -> Setting {
        let default = match setting.flag {
            "rate" => Some(self.rate),
            "burst-events" => Some(self.burst_events),
            "source" => Some(self.source),
            _ => setting.default,
        };
        // Names live as long as the process, which makes them only a few times.
        let key = String::leak(format!("{}_{}", self.prefix, setting.key));
        Setting { key, default, ..setting }
    }
}

/// Mean events per second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The rate in events per second; as fast as possible counts as the highest rate.
    pub per_s: f64,
    /// Whether event times are modelled or come from the clock (`--rate max`).
    pub pace: Pace,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self { per_s: *RATES.end(), pace: Pace::Clock });
        }
        let per_s = text.parse().map_err(|error: ParseFloatError| error.to_string())?;
        if RATES.contains(&per_s) {
            return Ok(Self { per_s, pace: Pace::Modelled });
        }
        Err(format!("must be from {} to {}", RATES.start(), RATES.end()))
    }
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    let nanos = parsed.and_then(|at| i64::try_from(at.unix_timestamp_nanos()).ok());
    let nanos = nanos.filter(|nanos| *nanos >= 0);
    nanos.map(Timestamp::from_nanos).ok_or("must be a time as 2026-11-23T06:43:00Z, from 1970 on")
}

/// Reads a mix as `read=23.2,write=2.4`: names with their weights, not all 0.
pub(crate) fn mix<T>(
    text: &str,
    from_name: fn(&str) -> Option<T>,
) -> Result<Vec<(T, f64)>, &'static str> {
    let mix: Option<Vec<(T, f64)>> = text
        .split(',')
        .map(|part| {
            let (name, weight) = part.split_once('=')?;
            let weight: f64 = weight.trim().parse().ok()?;
            let known = from_name(name.trim())?;
            (weight.is_finite() && weight >= 0.0).then_some((known, weight))
        })
        .collect();
    mix.filter(|mix| mix.iter().any(|(_, weight)| *weight > 0.0))
        .ok_or("must be names with weights, as in its default")
}
