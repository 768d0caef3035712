//! The settings that both simulators have.

use std::path::PathBuf;

use bus::service::BusConfig;
use domain::Timestamp;
use service_kit::{Setting, Settings};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use wire::{Format, PackerLimits};

use crate::{emission::Disorder, feed::Pace, scenario::Incident};

/// Above this rate `--format auto` is bincode: JSON lines are for people, and nobody reads faster.
pub const JSON_RATE_MAX: f64 = 10_000.0;
/// The rates that can be asked for, in events per second.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000_000.0;

/// Declares the settings of one simulator: those of both, its own, those of the bus.
macro_rules! simulator_settings {
    (
        $prefix:literal, rate = $rate:literal, source = $source:literal, burst = $burst:literal,
        own = [$($own:expr),* $(,)?]
    ) => {
        use service_kit::Setting;

        const fn setting(
            key: &'static str,
            flag: &'static str,
            default: Option<&'static str>,
            help: &'static str,
        ) -> Setting {
            Setting { key, flag, default, help, secret: false }
        }

        pub(crate) const NAMES: crate::settings::Names = crate::settings::Names {
            rate: setting(concat!($prefix, "_RATE"), "rate", Some($rate),
                "Events per second, the mean over a day, from 0.001 on; `max` is as fast as the \
                 machine allows, with event times from the clock."),
            seed: setting(concat!($prefix, "_SEED"), "seed", None,
                "Number that the traffic follows from; without it the run id decides, and without that \
                 each run is another."),
            events: setting(concat!($prefix, "_EVENTS"), "events", None,
                "Distinct events to publish before ending; without it the run has no end."),
            start_time: setting(concat!($prefix, "_START_TIME"), "start-time", None,
                "Time of the first events (RFC 3339); without it now. A time ahead of the \
                 broker's clock makes dead letters."),
            run_id: setting(concat!($prefix, "_RUN_ID"), "run-id", None,
                "Names the run: with the same start time it is the same run again, ids and object \
                 keys included; without it each run is another."),
            format: setting(concat!($prefix, "_FORMAT"), "format", Some("auto"),
                "Form of messages: json, bincode, or auto: JSON up to 10,000 events/s."),
            scenario: setting(concat!($prefix, "_SCENARIO"), "scenario", Some("none"),
                "Incident to look at, from 15 s after the start for 90 s (silence: 45 s), then \
                 calm for as long, and again: none, latency-regression (ten times as slow), \
                 storage-growth (half of the lake's requests write objects four times as large), \
                 failure-storm (35 % fail), silence, noisy-tenant (one doubles the load)."),
            late_share: setting(concat!($prefix, "_LATE_SHARE"), "late-share", Some("0.005"),
                "Share of the events that are published 0.2 to 60 s after they happened."),
            duplicate_share: setting(
                concat!($prefix, "_DUPLICATE_SHARE"), "duplicate-share", Some("0.002"),
                "Share of the events that are published a second time, 0.2 to 60 s later."),
            peak_over_trough: setting(
                concat!($prefix, "_DAILY_PEAK_OVER_TROUGH"), "daily-peak-over-trough", Some("3.39"),
                "Rate at the busiest time of the day (14:00 UTC) over that at the quietest, around \
                 the mean; 1 keeps the rate the same all day."),
            burst_events: setting(concat!($prefix, "_BURST_EVENTS"), "burst-events", Some($burst),
                "Mean number of events in a burst, fewer below 3.1 events/s; 1 is without bursts."),
            source: setting(concat!($prefix, "_SOURCE"), "source", Some($source),
                "Last token of the subject."),
            books: setting(concat!($prefix, "_BOOKS_FILE"), "books", None,
                "File for the books at the end: what was acknowledged, and what the metrics must \
                 be by the model's own knowledge, as JSON."),
            batch_events: setting(
                concat!($prefix, "_BATCH_EVENTS_MAX"), "batch-events-max", Some("100"),
                "Events in a message at most."),
            batch_age: setting(
                concat!($prefix, "_BATCH_AGE_MS_MAX"), "batch-age-ms-max", Some("20"),
                "How long an event waits for others of its message, in milliseconds."),
        };

        const OWN: &[Setting] = &[$($own),*];

        /// This simulator's own settings; those of the bus stand with it.
        pub const SETTINGS: &[Setting] =
            &crate::settings::joined::<{ crate::settings::NAMES_LEN + OWN.len() }>(
                &NAMES.all(), OWN,
            );
    };
}
pub(crate) use simulator_settings;

/// Number of the settings that both simulators have.
pub(crate) const NAMES_LEN: usize = 15;

/// The settings that both simulators have, under the names of one of them.
pub(crate) struct Names {
    pub(crate) rate: Setting,
    pub(crate) seed: Setting,
    pub(crate) events: Setting,
    pub(crate) start_time: Setting,
    pub(crate) run_id: Setting,
    pub(crate) format: Setting,
    pub(crate) scenario: Setting,
    pub(crate) late_share: Setting,
    pub(crate) duplicate_share: Setting,
    pub(crate) peak_over_trough: Setting,
    pub(crate) burst_events: Setting,
    pub(crate) source: Setting,
    pub(crate) books: Setting,
    pub(crate) batch_events: Setting,
    pub(crate) batch_age: Setting,
}

impl Names {
    pub(crate) const fn all(&self) -> [Setting; NAMES_LEN] {
        [
            self.rate,
            self.seed,
            self.events,
            self.start_time,
            self.run_id,
            self.format,
            self.scenario,
            self.late_share,
            self.duplicate_share,
            self.peak_over_trough,
            self.burst_events,
            self.source,
            self.books,
            self.batch_events,
            self.batch_age,
        ]
    }
}

/// One table of both parts.
pub(crate) const fn joined<const N: usize>(shared: &[Setting], own: &[Setting]) -> [Setting; N] {
    let mut all = [shared[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < shared.len() { shared[at] } else { own[at - shared.len()] };
        at += 1;
    }
    all
}

/// What both simulators are told.
#[derive(Clone, Debug)]
pub struct Common {
    /// Mean events per second.
    pub rate_per_s: f64,
    /// Whether event times are modelled or come from the clock (`--rate max`).
    pub pace: Pace,
    /// What the traffic follows from.
    pub seed: Option<u64>,
    /// Distinct events to publish.
    pub events: Option<u64>,
    /// When the run starts, in event time.
    pub start_time: Option<Timestamp>,
    /// Names the run.
    pub run_id: Option<String>,
    /// Form of the messages.
    pub format: Format,
    /// What goes wrong.
    pub incident: Option<Incident>,
    /// What is late and what comes twice.
    pub disorder: Disorder,
    /// Busiest over quietest time of the day.
    pub peak_over_trough: f64,
    /// Mean number of events in a burst.
    pub burst_events: f64,
    /// Last token of the subject.
    pub source: String,
    /// Where the books go.
    pub books: Option<PathBuf>,
    /// When a message is full.
    pub packer: PackerLimits,
    /// How to reach NATS.
    pub bus: BusConfig,
}

impl Common {
    /// Reads the settings; `name` is what the server shows for the connection.
    pub(crate) fn load(settings: &mut Settings<'_>, names: &Names, name: &str) -> Option<Self> {
        let pace = load_rate(settings, names);
        let format = settings.choice(
            &names.format,
            &[("auto", None), ("json", Some(Format::Json)), ("bincode", Some(Format::Bincode))],
        );
        let incident = settings.choice(&names.scenario, &Incident::choices());
        let seed = settings.optional(&names.seed);
        let events = settings.optional(&names.events);
        let start_time = load_time(settings, &names.start_time);
        let run_id = settings.optional(&names.run_id);
        let late_share = settings.in_range(&names.late_share, 0.0..=0.5);
        let duplicate_share = settings.in_range(&names.duplicate_share, 0.0..=0.5);
        let peak_over_trough = settings.in_range(&names.peak_over_trough, 1.0..=1_000.0);
        let burst_events = settings.in_range(&names.burst_events, 1.0..=10_000.0);
        let source = settings.text(&names.source);
        let books = settings.optional(&names.books);
        let events_max = settings.in_range(&names.batch_events, 1..=10_000);
        let age_ms_max = settings.in_range(&names.batch_age, 0..=60_000);
        let bus = bus::service::load(name, settings);
        let (pace, rate_per_s) = pace?;
        let auto = if rate_per_s > JSON_RATE_MAX { Format::Bincode } else { Format::Json };
        Some(Self {
            rate_per_s,
            pace,
            seed: seed?,
            events: events?,
            start_time: start_time?,
            run_id: run_id?,
            format: format?.unwrap_or(auto),
            incident: incident?,
            disorder: Disorder { late_share: late_share?, duplicate_share: duplicate_share? },
            peak_over_trough: peak_over_trough?,
            burst_events: burst_events?,
            source: source?,
            books: books?,
            packer: PackerLimits {
                events_max: events_max?,
                age_ms_max: age_ms_max?,
                ..PackerLimits::default()
            },
            bus: bus?,
        })
    }
}

/// The rate; as fast as possible counts as the highest one.
fn load_rate(settings: &mut Settings<'_>, names: &Names) -> Option<(Pace, f64)> {
    if settings.text(&names.rate)? == "max" {
        return Some((Pace::Clock, *RATES.end()));
    }
    Some((Pace::Modelled, settings.in_range(&names.rate, RATES)?))
}

fn load_time(settings: &mut Settings<'_>, setting: &Setting) -> Option<Option<Timestamp>> {
    let Some(text) = settings.optional::<String>(setting)? else { return Some(None) };
    let parsed = OffsetDateTime::parse(&text, &Rfc3339).ok();
    let at = parsed.and_then(|at| i64::try_from(at.unix_timestamp_nanos()).ok());
    if at.is_none_or(|at| at < 0) {
        settings.problem(setting, "must be a time as 2026-11-23T06:43:00Z, from 1970 on");
    }
    Some(Some(Timestamp::from_nanos(at?)))
}

/// Reads a mix as `read=23.2,write=2.4`: names with their weights, not all 0.
pub(crate) fn load_mix<T>(
    settings: &mut Settings<'_>,
    setting: &Setting,
    from_name: fn(&str) -> Option<T>,
) -> Option<Vec<(T, f64)>> {
    let text = settings.text(setting)?;
    let mix: Option<Vec<(T, f64)>> = text
        .split(',')
        .map(|part| {
            let (name, weight) = part.split_once('=')?;
            let weight: f64 = weight.trim().parse().ok()?;
            let known = from_name(name.trim())?;
            (weight.is_finite() && weight >= 0.0).then_some((known, weight))
        })
        .collect();
    let mix = mix.filter(|mix| mix.iter().any(|(_, weight)| *weight > 0.0));
    if mix.is_none() {
        settings.problem(setting, "must be names with weights, as in its default");
    }
    mix
}
