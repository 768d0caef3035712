//! Incidents that the simulators can show.

use domain::{Timestamp, time::MICROS_PER_SECOND};

/// How long after the start an incident begins, in seconds, so that normal traffic is visible
/// before it.
const BEGINS_S: i64 = 15;
/// How long an incident lasts, in seconds. After it, traffic is normal for the same time, and so
/// on.
const LASTS_S: i64 = 90;
/// How long silence lasts, in seconds. It is shorter, because the panels of the four metrics show
/// only a few minutes.
const SILENCE_LASTS_S: i64 = 45;

/// A kind of incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// Every request or query takes [`Incident::LATENCY_FACTOR`] times as long.
    LatencyRegression,
    /// Half of the lake's requests are writes, of objects [`Incident::GROWTH_FACTOR`] times as
    /// large; the warehouse is not affected.
    StorageGrowth,
    /// [`Incident::FAILURE_SHARE`] of all requests and queries fail.
    FailureStorm,
    /// Nothing happens.
    Silence,
    /// One principal, on one warehouse, doubles the load.
    NoisyTenant,
}

impl Incident {
    /// See [`Incident::LatencyRegression`].
    pub const LATENCY_FACTOR: f64 = 10.0;
    /// See [`Incident::StorageGrowth`].
    pub const GROWTH_FACTOR: f64 = 4.0;
    /// Share of writes during [`Incident::StorageGrowth`].
    pub const GROWTH_WRITE_SHARE: f64 = 0.5;
    /// See [`Incident::FailureStorm`].
    pub const FAILURE_SHARE: f64 = 0.35;
    /// Share of the noisy tenant in the doubled load.
    pub const NOISY_SHARE: f64 = 0.5;

    /// Every incident with its name, as `--scenario` takes it.
    pub const NAMES: &[(&str, Self)] = &[
        ("latency-regression", Self::LatencyRegression),
        ("storage-growth", Self::StorageGrowth),
        ("failure-storm", Self::FailureStorm),
        ("silence", Self::Silence),
        ("noisy-tenant", Self::NoisyTenant),
    ];

    /// The values of the setting for a scenario, and their meanings.
    pub fn choices() -> Vec<(&'static str, Option<Self>)> {
        let named = Self::NAMES.iter().map(|(name, incident)| (*name, Some(*incident)));
        std::iter::once(("none", None)).chain(named).collect()
    }
}

/// An incident and its times: from 15 s after the start for 90 s (silence: 45 s), and again after
/// the same time of normal traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    incident: Option<Incident>,
    start: Timestamp,
}

impl Scenario {
    /// A scenario without an incident.
    pub const fn calm() -> Self {
        Self { incident: None, start: Timestamp(0) }
    }

    /// A scenario with this incident, in a run that starts at this time.
    pub const fn new(incident: Option<Incident>, start: Timestamp) -> Self {
        Self { incident, start }
    }

    /// The incident in force.
    pub fn incident(&self, at: Timestamp) -> Option<Incident> {
        let incident = self.incident?;
        let since_us = at.0 - self.start.0 - BEGINS_S * MICROS_PER_SECOND;
        let lasts_us = lasts_s(incident) * MICROS_PER_SECOND;
        (since_us >= 0 && since_us % (2 * lasts_us) < lasts_us).then_some(incident)
    }

    /// When the silence that is in force ends; `None` if none is.
    pub fn silent_until(&self, at: Timestamp) -> Option<Timestamp> {
        if self.incident(at) != Some(Incident::Silence) {
            return None;
        }
        let since_us = at.0 - self.start.0 - BEGINS_S * MICROS_PER_SECOND;
        let lasts_us = SILENCE_LASTS_S * MICROS_PER_SECOND;
        Some(Timestamp(at.0 + lasts_us - since_us % (2 * lasts_us)))
    }

    /// The factor by which the incident changes the rate.
    pub fn rate_factor(&self, at: Timestamp) -> f64 {
        if self.incident(at) == Some(Incident::NoisyTenant) { 2.0 } else { 1.0 }
    }
}

const fn lasts_s(incident: Incident) -> i64 {
    match incident {
        Incident::Silence => SILENCE_LASTS_S,
        Incident::LatencyRegression
        | Incident::StorageGrowth
        | Incident::FailureStorm
        | Incident::NoisyTenant => LASTS_S,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_incident_begins_within_a_minute_and_ends() {
        for (name, incident) in Incident::NAMES {
            let scenario = Scenario::new(Some(*incident), Timestamp(0));
            let in_force = |s| scenario.incident(Timestamp::default().plus_seconds(s)).is_some();
            assert!(!in_force(0) && in_force(20) && in_force(55), "{name}");
            assert!(!in_force(BEGINS_S + LASTS_S) || *incident == Incident::Silence, "{name}");
        }
    }

    #[test]
    fn silence_says_when_it_ends() {
        let scenario = Scenario::new(Some(Incident::Silence), Timestamp(0));
        let end = scenario.silent_until(Timestamp(20_000_000));
        assert_eq!(end, Some(Timestamp(60_000_000)));
        assert_eq!(end.and_then(|end| scenario.silent_until(end)), None);
    }
}
