//! When events happen: bursts, the daily curve, silence.
//!
//! Requests come in sessions: sessions start at random, and each has several requests close
//! together. One parameter, the size of a session, then gives both the measured spread of the gaps
//! between requests and that of the counts per second. A faster lake has more sessions at once, not
//! longer ones, as if many of the measured buckets were combined: the counts per second keep their
//! variance-to-mean ratio, and so the load gets smoother with the rate.

use std::{cmp::Reverse, collections::BinaryHeap, f64::consts::TAU};

use domain::{
    Timestamp,
    time::{MICROS_PER_SECOND, SECONDS_PER_DAY},
};

use crate::{
    rng::{SeededRng, to_f64, to_u64},
    scenario::{Incident, Scenario},
};

/// Mean gap between the requests of a session, in microseconds.
const SESSION_GAP_US: f64 = 8_000.0;
/// Share of the short sessions, and the sizes of short and long sessions relative to the mean of
/// all. With a mean of [`BURST_EVENTS_MEASURED`] they give the measured variance of the counts.
const SHORT_SHARE: f64 = 0.70;
const SHORT_OVER_MEAN: f64 = 0.55;
const LONG_OVER_MEAN: f64 = 2.05;
/// Mean number of requests in a session that gives the measured gaps, which have a coefficient of
/// variation of 5.85.
pub const BURST_EVENTS_MEASURED: f64 = 18.0;
/// The rate at which sessions were measured, per second. Below this rate sessions are smaller
/// instead of rarer, so that a slow lake is not silent for minutes.
pub const RATE_MEASURED: f64 = 3.1;
/// Time of the daily peak, in seconds after midnight UTC.
const PEAK_S: i64 = 14 * 3_600;

/// How often events happen.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Mean over a day, in events per second.
    pub rate_per_s: f64,
    /// Mean number of events in a session, at [`RATE_MEASURED`] and above; 1 means without bursts.
    pub burst_events: f64,
    /// Rate of the busiest hour divided by that of the quietest hour; 1 means without a daily
    /// curve.
    pub peak_over_trough: f64,
}

/// One event that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When the event happens.
    pub at: Timestamp,
    /// The session to which the event belongs.
    pub session: u32,
}

/// An endless sequence of arrivals, ascending in time.
#[derive(Clone, Debug)]
pub struct Arrivals {
    rng: SeededRng,
    traffic: Traffic,
    scenario: Scenario,
    /// Mean number of events in a session.
    session_events: f64,
    /// Amplitude of the daily curve around its mean.
    swing: f64,
    /// When the next session starts, in microseconds. The time is a float so that gaps below a
    /// microsecond add up.
    next_session_us: f64,
    /// Sessions started so far.
    sessions: u32,
    /// Running sessions: the time of its next request, its number, and how many requests are left.
    running: BinaryHeap<Reverse<(i64, u32, u64)>>,
    /// Zero of the float time. It keeps the float small enough for fractions of a microsecond.
    origin: Timestamp,
}

impl Arrivals {
    /// Arrivals from `origin` on.
    pub fn new(rng: SeededRng, traffic: Traffic, scenario: Scenario, origin: Timestamp) -> Self {
        let swing = (traffic.peak_over_trough - 1.0) / (traffic.peak_over_trough + 1.0);
        let slowness = (traffic.rate_per_s / RATE_MEASURED).min(1.0);
        let mut arrivals = Self {
            session_events: (traffic.burst_events * slowness).max(1.0),
            rng,
            traffic,
            scenario,
            swing,
            next_session_us: 0.0,
            sessions: 0,
            running: BinaryHeap::new(),
            origin,
        };
        arrivals.plan_session();
        arrivals
    }

    /// The next arrival.
    pub fn advance(&mut self) -> Arrival {
        loop {
            let start = self.next_session();
            let arrival = match self.running.peek().copied() {
                Some(Reverse((at, session, left))) if at < start.0 => {
                    self.go_on(at, session, left);
                    Arrival { at: Timestamp(at), session }
                }
                Some(_) | None => self.begin(start),
            };
            if self.scenario.incident(arrival.at) != Some(Incident::Silence) {
                return arrival;
            }
        }
    }

    /// An arrival at a time given from outside, or after the silence that is in force at that time.
    pub fn at(&mut self, at: Timestamp) -> Arrival {
        let at = self.scenario.silent_until(at).unwrap_or(at);
        Arrival { at, session: self.new_session() }
    }

    fn new_session(&mut self) -> u32 {
        self.sessions = self.sessions.wrapping_add(1);
        self.sessions
    }

    fn next_session(&self) -> Timestamp {
        let offset = i64::try_from(to_u64(self.next_session_us)).unwrap_or(i64::MAX);
        Timestamp(self.origin.0.saturating_add(offset))
    }

    fn begin(&mut self, at: Timestamp) -> Arrival {
        let session = self.new_session();
        let mean = self.session_events;
        let over = if self.rng.chance(SHORT_SHARE) { SHORT_OVER_MEAN } else { LONG_OVER_MEAN };
        let left = if mean <= 1.0 { 0 } else { self.rng.geometric(mean * over) - 1 };
        if left > 0 {
            let gap = self.gap();
            self.running.push(Reverse((at.0.saturating_add(gap), session, left)));
        }
        self.plan_session();
        Arrival { at, session }
    }

    /// Moves the earliest running session, which had a request at `at`, to its next request.
    fn go_on(&mut self, at: i64, session: u32, left: u64) {
        if left == 1 {
            self.running.pop();
            return;
        }
        let next = at.saturating_add(self.gap());
        if let Some(mut top) = self.running.peek_mut() {
            *top = Reverse((next, session, left - 1));
        }
    }

    fn gap(&mut self) -> i64 {
        i64::try_from(to_u64(self.rng.exponential(SESSION_GAP_US))).unwrap_or(i64::MAX)
    }

    fn plan_session(&mut self) {
        let at = self.next_session();
        if let Some(end) = self.scenario.silent_until(at) {
            self.next_session_us = to_f64(u64::try_from(end.0 - self.origin.0).unwrap_or(0));
        }
        let rate =
            self.traffic.rate_per_s * daily_curve(self.swing, at) * self.scenario.rate_factor(at);
        self.next_session_us += self.rng.exponential(1e6 * self.session_events / rate);
    }
}

/// The rate at a time of the day, divided by the day's mean.
fn daily_curve(swing: f64, at: Timestamp) -> f64 {
    if swing == 0.0 {
        return 1.0;
    }
    let since_peak_s = (at.second() - PEAK_S).rem_euclid(SECONDS_PER_DAY);
    let turn = to_f64(since_peak_s.unsigned_abs()) / to_f64(SECONDS_PER_DAY.unsigned_abs());
    1.0 + swing * (turn * TAU).cos()
}

/// The spread of arrivals, in the measures that are published.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Standard deviation of the gaps, divided by their mean.
    pub gap_cv: f64,
    /// Variance of the counts per second, divided by their mean.
    pub fano_per_s: f64,
    /// The mean rate.
    pub rate_per_s: f64,
}

impl Spread {
    /// Measures this many arrivals.
    pub fn measure(arrivals: &mut Arrivals, events: u32) -> Self {
        let first = arrivals.advance().at;
        let (mut last, mut gaps, mut squares) = (first, 0.0, 0.0);
        let mut counts: Vec<u32> = vec![0];
        for _ in 0..events {
            let at = arrivals.advance().at;
            let gap = to_f64((at.0 - last.0).unsigned_abs());
            gaps += gap;
            squares += gap * gap;
            last = at;
            let second = usize::try_from((at.0 - first.0) / MICROS_PER_SECOND).unwrap_or(0);
            if counts.len() <= second {
                counts.resize(second + 1, 0);
            }
            counts[second] += 1;
        }
        let (number, seconds) = (f64::from(events), to_f64(crate::rng::length(&counts)));
        let (gap_mean, rate) = (gaps / number, number / seconds);
        let variance =
            counts.iter().map(|count| (f64::from(*count) - rate).powi(2)).sum::<f64>() / seconds;
        Self {
            gap_cv: (squares / number - gap_mean * gap_mean).sqrt() / gap_mean,
            fano_per_s: variance / rate,
            rate_per_s: rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT: Timestamp = Timestamp(1_763_856_000_000_000);

    fn arrivals(rate_per_s: f64, burst_events: f64, peak_over_trough: f64) -> Arrivals {
        let traffic = Traffic { rate_per_s, burst_events, peak_over_trough };
        Arrivals::new(SeededRng::new(3, 0), traffic, Scenario::calm(), MIDNIGHT)
    }

    #[test]
    fn arrivals_ascend_and_keep_their_rate() {
        for rate in [1.0, 3_000.0, 250_000.0] {
            let mut arrivals = arrivals(rate, BURST_EVENTS_MEASURED, 1.0);
            let times: Vec<i64> = (0..400_000).map(|_| arrivals.advance().at.0).collect();
            assert!(times.is_sorted());
            // The first sessions all start together, so the rate is measured over the second half.
            let seconds = to_f64((times[399_999] - times[200_000]).unsigned_abs()) / 1e6;
            let found = 200_000.0 / seconds;
            assert!((found / rate - 1.0).abs() < 0.04, "{found} is not {rate}");
        }
    }

    #[test]
    fn bursts_spread_gaps_and_counts_as_measured() {
        let found = Spread::measure(&mut arrivals(3.1, BURST_EVENTS_MEASURED, 1.0), 1_000_000);
        assert!((found.gap_cv / 5.85 - 1.0).abs() < 0.05, "{found:?}");
        assert!((found.fano_per_s / 41.7 - 1.0).abs() < 0.10, "{found:?}");
    }

    #[test]
    fn a_slow_lake_is_not_silent_for_minutes() {
        let mut arrivals = arrivals(1.0, BURST_EVENTS_MEASURED, 1.0);
        let times: Vec<i64> = (0..10_000).map(|_| arrivals.advance().at.0).collect();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(longest.is_some_and(|us| us < 70 * MICROS_PER_SECOND), "{longest:?}");
    }

    #[test]
    fn without_bursts_gaps_are_those_of_chance() {
        let found = Spread::measure(&mut arrivals(50.0, 1.0, 1.0), 200_000);
        assert!((found.gap_cv - 1.0).abs() < 0.02 && (found.fano_per_s - 1.0).abs() < 0.1);
    }

    #[test]
    fn the_day_has_a_peak_and_a_trough_of_the_given_ratio_around_the_mean() {
        let mut arrivals = arrivals(20.0, 1.0, 3.39);
        let mut hours = [0_u32; 24];
        loop {
            let at = arrivals.advance().at;
            match usize::try_from((at.0 - MIDNIGHT.0) / (3_600 * MICROS_PER_SECOND)) {
                Ok(hour) if hour < 24 => hours[hour] += 1,
                _ => break,
            }
        }
        let ratio = f64::from(hours[14]) / f64::from(hours[2]);
        assert!((ratio / 3.39 - 1.0).abs() < 0.05, "{ratio}");
        let mean = f64::from(hours.iter().sum::<u32>()) / 86_400.0;
        assert!((mean / 20.0 - 1.0).abs() < 0.02, "{mean}");
    }
}
