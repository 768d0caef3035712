//! Which windows are kept: a ladder of lengths. Short windows are kept for some days, long ones for
//! ever.
//!
//! Windows of every length are made from the first event on, so that a query over a long range
//! reads few windows. The time from which on a stream keeps windows of a length never moves back: a
//! window either holds every event of its time, or does not exist. An event from before that time
//! is added to the longer windows only.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    time::{MICROS_PER_SECOND, SECONDS_PER_DAY, Timestamp},
    window::WindowKey,
};

/// How many lengths one stream may have. Each event is added to a window of every length, so each
/// length costs as much as the others while its windows are kept.
pub const RUNGS_MAX: usize = 6;

/// One length of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Length of the windows, in seconds. A day is a multiple of this length.
    pub length_s: u32,
    /// Whole days for which the windows are kept; 0 means for ever.
    pub keep_days: u32,
}

impl Rung {
    /// The time from which on windows are kept when the broker's clock is at `broker_ns`: a
    /// midnight. `None` means for ever.
    pub fn kept_from(&self, broker_ns: i64) -> Option<Timestamp> {
        (self.keep_days > 0).then(|| {
            let day = Timestamp::from_nanos(broker_ns).day() - i64::from(self.keep_days);
            Timestamp(day.saturating_mul(SECONDS_PER_DAY).saturating_mul(MICROS_PER_SECOND))
        })
    }
}

/// The window lengths of a stream, ascending. Longer windows are kept at least as long as shorter
/// ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder(Vec<Rung>);

/// Ten seconds for a day, a minute for three days, an hour for ever. In a small lake nearly every
/// event has its own minute window, so these windows take half as much room as the rows of the same
/// time.
impl Default for Ladder {
    fn default() -> Self {
        Self(vec![
            Rung { length_s: 10, keep_days: 1 },
            Rung { length_s: 60, keep_days: 3 },
            Rung { length_s: 3_600, keep_days: 0 },
        ])
    }
}

impl Ladder {
    /// A ladder without windows, for a stream without events.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// A ladder of these rungs.
    ///
    /// # Errors
    ///
    /// A text that says what is wrong with the rungs.
    pub fn new(rungs: Vec<Rung>) -> Result<Self, String> {
        if rungs.is_empty() || rungs.len() > RUNGS_MAX {
            return Err(format!("it must name from 1 to {RUNGS_MAX} lengths"));
        }
        for rung in &rungs {
            let length_s = i64::from(rung.length_s);
            if length_s == 0 || SECONDS_PER_DAY % length_s != 0 {
                return Err(format!("a day is not a multiple of {length_s} s"));
            }
        }
        for (short, long) in rungs.iter().zip(rungs.iter().skip(1)) {
            if long.length_s <= short.length_s {
                return Err("lengths must ascend".to_owned());
            }
            // A value of 0 means for ever, which is the longest.
            if long.keep_days.wrapping_sub(1) < short.keep_days.wrapping_sub(1) {
                return Err(format!(
                    "windows of {} s are kept longer than those of {} s",
                    short.length_s, long.length_s
                ));
            }
        }
        Ok(Self(rungs))
    }

    /// The rungs, by ascending length.
    pub fn rungs(&self) -> &[Rung] {
        &self.0
    }

    /// The lengths, in seconds, ascending.
    pub fn lengths_s(&self) -> Vec<u32> {
        self.0.iter().map(|rung| rung.length_s).collect()
    }
}

/// Formats a ladder as `10s:1d,60s:3d,3600s`: each length, and the days for which it is kept.
impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Rung { length_s, keep_days }) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{length_s}s")?;
            if *keep_days > 0 {
                write!(f, ":{keep_days}d")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Ladder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rungs: Option<Vec<Rung>> = text.split(',').map(|rung| read(rung.trim())).collect();
        let form = || "it must look like 10s:1d,60s:3d,3600s: lengths and days to keep".to_owned();
        Self::new(rungs.ok_or_else(form)?)
    }
}

fn read(rung: &str) -> Option<Rung> {
    let (length, keep) = match rung.split_once(':') {
        None => (rung, 0),
        Some((length, keep)) => {
            let days: u32 = keep.strip_suffix('d')?.parse().ok()?;
            (length, Some(days).filter(|days| *days > 0)?)
        }
    };
    Some(Rung { length_s: length.strip_suffix('s')?.parse().ok()?, keep_days: keep })
}

/// Which windows a stream keeps: each length, and the time from which on its windows are kept.
/// `None` means from the first event on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<u32, Option<Timestamp>>);

impl Kept {
    /// The lengths and times as they were stored.
    pub fn new(lengths: impl IntoIterator<Item = (u32, Option<Timestamp>)>) -> Self {
        Self(lengths.into_iter().collect())
    }

    /// Whether this window is kept. A kept window holds every event of its time; any other window
    /// does not exist.
    pub fn has(&self, window: &WindowKey) -> bool {
        let start = Timestamp(window.start_s.saturating_mul(MICROS_PER_SECOND));
        self.0.get(&window.length_s).is_some_and(|from| from.is_none_or(|from| start >= from))
    }

    /// Each length, and the time from which on its windows are kept.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = (u32, Option<Timestamp>)> + '_ {
        self.0.iter().map(|(length_s, from)| (*length_s, *from))
    }

    /// Changes the kept windows to those of a ladder. A length that is not in the ladder is no
    /// longer kept. A new length begins at the later of two times: the one before which its windows
    /// would be deleted by now, and the one after `newest`, the latest time of the events that were
    /// archived without this length.
    pub fn follow(&mut self, ladder: &Ladder, broker_ns: i64, newest: Option<Timestamp>) {
        let lengths_s = ladder.lengths_s();
        self.0.retain(|length_s, _| lengths_s.contains(length_s));
        for rung in ladder.rungs() {
            let behind = newest.map(|newest| {
                let length_s = i64::from(rung.length_s);
                let start_s = newest.slot(length_s).saturating_add(length_s);
                Timestamp(start_s.saturating_mul(MICROS_PER_SECOND))
            });
            self.0.entry(rung.length_s).or_insert_with(|| rung.kept_from(broker_ns).max(behind));
        }
    }

    /// Whether the kept lengths are those of the ladder already.
    pub fn follows(&self, ladder: &Ladder) -> bool {
        self.0.len() == ladder.rungs().len()
            && ladder.rungs().iter().all(|rung| self.0.contains_key(&rung.length_s))
    }

    /// Which windows are due for deletion: each length, and the time before which its windows are
    /// deleted.
    pub fn due(&self, ladder: &Ladder, broker_ns: i64) -> Vec<(u32, Timestamp)> {
        let due = ladder.rungs().iter().filter_map(|rung| {
            let until = rung.kept_from(broker_ns)?;
            let from = *self.0.get(&rung.length_s)?;
            from.is_none_or(|from| from < until).then_some((rung.length_s, until))
        });
        due.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;

    const DAY_NS: i64 = SECONDS_PER_DAY * 1_000_000_000;

    fn day(day: i64) -> Timestamp {
        Timestamp(day * SECONDS_PER_DAY * MICROS_PER_SECOND)
    }

    fn window(start_s: i64, length_s: u32) -> WindowKey {
        WindowKey { name: "raw".to_owned(), start_s, length_s, action: 0, outcome: Outcome::Ok }
    }

    #[test]
    fn a_ladder_survives_its_text() {
        let text = "10s:1d,60s:3d,3600s";
        assert_eq!(text.parse(), Ok(Ladder::default()));
        assert_eq!(Ladder::default().to_string(), text);
        assert_eq!("1s, 300s".parse::<Ladder>().unwrap().to_string(), "1s,300s");
    }

    #[test]
    fn a_ladder_that_could_cut_a_window_or_keep_the_short_ones_longer_is_refused() {
        for text in [
            "",
            "10",
            "10s:1",
            "10s:0d",
            "s",
            "0s",
            "7s",
            "90000s",
            "60s,10s",
            "60s,60s",
            "10s,60s:7d",
            "10s:8d,60s:7d",
            "10s:-1d",
            "1s,2s,3s,4s,5s,6s,8s",
        ] {
            assert!(text.parse::<Ladder>().is_err(), "{text}");
        }
        for text in ["10s:7d,60s:7d", "86400s:1d", "1s,2s,3s,4s,5s,6s"] {
            assert!(text.parse::<Ladder>().is_ok(), "{text}");
        }
    }

    #[test]
    fn windows_are_let_go_at_midnight_after_the_days_that_they_are_kept() {
        let rung = Rung { length_s: 10, keep_days: 7 };
        assert_eq!(rung.kept_from(100 * DAY_NS), Some(day(93)));
        assert_eq!(rung.kept_from(101 * DAY_NS - 1), Some(day(93)));
        assert_eq!(Rung { keep_days: 0, ..rung }.kept_from(100 * DAY_NS), None);
    }

    #[test]
    fn a_window_is_kept_from_the_time_on_that_is_noted_for_its_length() {
        let kept = Kept::new([(60, Some(day(1))), (3_600, None)]);
        assert!(kept.has(&window(SECONDS_PER_DAY, 60)));
        assert!(!kept.has(&window(SECONDS_PER_DAY - 60, 60)));
        assert!(kept.has(&window(i64::MIN, 3_600)));
        assert!(!kept.has(&window(SECONDS_PER_DAY, 10)), "a length that nobody keeps");
    }

    #[test]
    fn a_length_that_is_new_begins_behind_what_was_archived_without_it() {
        let mut kept = Kept::new([(10, Some(day(98))), (300, None)]);
        let newest = Some(Timestamp(day(100).0 + 61 * MICROS_PER_SECOND));
        kept.follow(&Ladder::default(), 100 * DAY_NS, newest);
        let behind = |seconds: i64| Some(Timestamp(day(100).0 + seconds * MICROS_PER_SECOND));
        let all: Vec<_> = kept.lengths().collect();
        assert_eq!(all, [(10, Some(day(98))), (60, behind(120)), (3_600, behind(3_600))]);
        assert!(kept.follows(&Ladder::default()));
    }

    #[test]
    fn a_ladder_is_followed_if_its_lengths_and_no_others_are_kept() {
        let kept =
            |lengths_s: &[u32]| Kept::new(lengths_s.iter().map(|length_s| (*length_s, None)));
        let follows = |lengths_s: &[u32]| kept(lengths_s).follows(&Ladder::default());
        assert!(follows(&[10, 60, 3_600]));
        assert!(!follows(&[10, 300, 3_600]), "another in the place of one");
        assert!(!follows(&[10, 60, 300, 3_600]), "one more");
        assert!(!follows(&[10, 60]), "one less");
    }

    #[test]
    fn the_first_archive_of_old_events_begins_with_what_would_be_there_by_now() {
        let mut kept = Kept::default();
        assert!(!kept.follows(&Ladder::default()));
        kept.follow(&Ladder::default(), 100 * DAY_NS, None);
        let all: Vec<_> = kept.lengths().collect();
        assert_eq!(all, [(10, Some(day(99))), (60, Some(day(97))), (3_600, None)]);
    }

    #[test]
    fn what_is_due_is_never_kept_again_by_a_clock_that_steps_back() {
        let ladder = Ladder::default();
        let kept = Kept::new([(10, Some(day(98))), (60, None), (3_600, None)]);
        assert_eq!(kept.due(&ladder, 100 * DAY_NS), [(10, day(99)), (60, day(97))]);
        let kept = Kept::new([(10, Some(day(99))), (60, Some(day(97))), (3_600, None)]);
        assert_eq!(kept.due(&ladder, 100 * DAY_NS), []);
        assert_eq!(kept.due(&ladder, 50 * DAY_NS), []);
    }
}
