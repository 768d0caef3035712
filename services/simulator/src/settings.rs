//! The settings that both simulators have.

use std::{num::ParseFloatError, path::PathBuf, str::FromStr};

use domain::Timestamp;
use service_kit::Setting;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use wire::Format;

use crate::{feed::Pace, scenario::Incident};

/// Above this rate `--format auto` is bincode: JSON lines are for people, and nobody reads faster.
pub const JSON_RATE_MAX: f64 = 10_000.0;
/// The rates that can be asked for, in events per second.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000_000.0;

const FORMATS: [(&str, Option<Format>); 3] = [
    ("auto", None),
    (Format::Json.name(), Some(Format::Json)),
    (Format::Bincode.name(), Some(Format::Bincode)),
];

service_kit::settings! {
    /// What both simulators are told. Of each the names begin with its own word, and it has defaults of
    /// its own.
    #[derive(Clone, Debug)]
    pub struct Common {
        /// Events per second, the mean over a day, from 0.001 on; `max` is as fast as the machine
        /// allows, with event times from the clock.
        #[setting(RATE, "rate")]
        pub rate: Rate,
        /// Number that the traffic follows from; without it the run id decides, and without that each
        /// run is another.
        #[setting(SEED, "seed")]
        pub seed: Option<u64> = optional,
        /// Distinct events to publish before ending; without it the run has no end.
        #[setting(EVENTS, "events")]
        pub events: Option<u64> = optional,
        /// Time of the first events (RFC 3339); without it now. A time ahead of the broker's clock makes
        /// dead letters.
        #[setting(START_TIME, "start-time")]
        pub start_time: Option<Timestamp> = optional_by(time),
        /// Names the run: with the same start time it is the same run again, ids and object keys
        /// included; without it each run is another.
        #[setting(RUN_ID, "run-id")]
        pub run_id: Option<String> = optional,
        /// Form of messages: json, bincode, or auto: JSON up to 10,000 events/s.
        #[setting(FORMAT, "format", default = "auto")]
        pub format: Option<Format> = choice(&FORMATS),
        /// Incident to look at, from 15 s after the start for 90 s (silence: 45 s), then calm for as
        /// long, and again: none, latency-regression (ten times as slow), storage-growth (half of the
        /// lake's requests write objects four times as large), failure-storm (35 % fail), silence,
        /// noisy-tenant (one doubles the load).
        #[setting(SCENARIO, "scenario", default = "none")]
        pub incident: Option<Incident> = choice(&Incident::choices()),
        /// Share of the events that are published 0.2 to 60 s after they happened.
        #[setting(LATE_SHARE, "late-share", default = "0.005")]
        pub late_share: f64 = in_range(0.0..=0.5),
        /// Share of the events that are published a second time, 0.2 to 60 s later.
        #[setting(DUPLICATE_SHARE, "duplicate-share", default = "0.002")]
        pub duplicate_share: f64 = in_range(0.0..=0.5),
        /// Rate at the busiest time of the day (14:00 UTC) over that at the quietest, around the mean; 1
        /// keeps the rate the same all day.
        #[setting(DAILY_PEAK_OVER_TROUGH, "daily-peak-over-trough", default = "3.39")]
        pub peak_over_trough: f64 = in_range(1.0..=1_000.0),
        /// Mean number of events in a burst, fewer below 3.1 events/s; 1 is without bursts.
        #[setting(BURST_EVENTS, "burst-events")]
        pub burst_events: f64 = in_range(1.0..=10_000.0),
        /// Last token of the subject.
        #[setting(SOURCE, "source")]
        pub source: String = parse_by(wire::source_name),
        /// File for what is expected, written at the end: what was acknowledged, and what the metrics
        /// must be by the model's own knowledge, as JSON.
        #[setting(EXPECTED_FILE, "expected")]
        pub expected: Option<PathBuf> = optional,
        /// Events in a message at most.
        #[setting(BATCH_EVENTS_MAX, "batch-events-max", default = "100")]
        pub batch_events_max: usize = in_range(1..=10_000),
        /// How long an event waits for others of its message, in milliseconds.
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

/// What tells the settings of one simulator from the same ones of the other.
pub(crate) struct SimulatorNames {
    pub(crate) prefix: &'static str,
    pub(crate) rate: &'static str,
    pub(crate) burst_events: &'static str,
    pub(crate) source: &'static str,
}

impl SimulatorNames {
    /// The setting under the name that it has for this simulator.
    pub(crate) fn named(&self, setting: Setting) -> Setting {
        let default = match setting.flag {
            "rate" => Some(self.rate),
            "burst-events" => Some(self.burst_events),
            "source" => Some(self.source),
            _ => setting.default,
        };
        // Names are for the life of the process, which asks for them a few times.
        let key = String::leak(format!("{}_{}", self.prefix, setting.key));
        Setting { key, default, ..setting }
    }
}

/// Mean events per second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// As fast as possible counts as the highest rate.
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
