//! Fail points: named places between two steps at which a test ends the process, as `kill -9` would.
//!
//! They exist in builds with debug assertions only. In a release build [`FailPoint::pass`] is empty,
//! and nothing reads the environment. Libraries for this run actions in the process that the test has
//! set up; here the process is another one and only has to end, so that a counter is enough.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::settings::Strings;

/// What is to happen where: `name=kill@3;name=kill@1`, the number being that of the passing, from
/// 1. Not a setting: a release does not know it.
pub const VARIABLE: &str = "LAKEGAUGE_FAIL_POINTS";

/// The passing at which each point kills, of this process.
static ARMED: OnceLock<BTreeMap<String, u64>> = OnceLock::new();

/// A place between two steps. Declared as a `static` beside the steps.
#[derive(Debug)]
pub struct FailPoint {
    name: &'static str,
    passed: AtomicU64,
}

impl FailPoint {
    /// A place of this name: the crate or service, a dot, and what has just happened.
    pub const fn new(name: &'static str) -> Self {
        Self { name, passed: AtomicU64::new(0) }
    }

    /// Passes the place. Does not come back if this is the passing at which the process is to die:
    /// nothing is dropped, flushed or told, as with `kill -9`.
    #[inline]
    pub fn pass(&self) {
        if cfg!(debug_assertions)
            && let Some(armed) = ARMED.get()
            && armed.get(self.name).is_some_and(|at| self.count() == *at)
        {
            tracing::error!(point = self.name, "killed at a fail point");
            std::process::abort();
        }
    }

    fn count(&self) -> u64 {
        self.passed.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Arms the fail points that the environment names, once per process. In a release build nothing
/// happens.
///
/// # Errors
///
/// The text under [`VARIABLE`] is not of its form.
pub(crate) fn arm(environment: &dyn Strings) -> Result<(), String> {
    if cfg!(debug_assertions)
        && let Some(text) = environment.get(VARIABLE)
    {
        let armed = parse(&text)?;
        // A second service in one process keeps what the first was told.
        ARMED.get_or_init(|| armed);
    }
    Ok(())
}

fn parse(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let wrong = || format!("{VARIABLE} must be name=kill@number;name=kill@number");
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, at) = part.split_once("=kill@").ok_or_else(wrong)?;
            let at: u64 = at.parse().ok().filter(|at| *at > 0).ok_or_else(wrong)?;
            Ok((name.to_owned(), at))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_points_and_passings_and_nothing_else() {
        let plan = parse("archiver.committed=kill@3; bus.uploaded=kill@1;").unwrap();
        let expected = [("archiver.committed", 3), ("bus.uploaded", 1)];
        assert_eq!(plan, expected.map(|(name, at)| (name.to_owned(), at)).into());
        assert_eq!(parse(""), Ok(BTreeMap::new()));
        for wrong in ["a", "a=kill", "a=kill@0", "a=kill@x", "a=stop@1"] {
            assert!(parse(wrong).unwrap_err().contains(VARIABLE), "{wrong}");
        }
    }

    #[test]
    fn a_point_that_nobody_armed_is_passed() {
        static POINT: FailPoint = FailPoint::new("test.nothing");
        for _ in 0..3 {
            POINT.pass();
        }
    }
}
