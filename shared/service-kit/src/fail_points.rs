//! Fail points: named places between two steps at which a test ends the process, as `kill -9` would.
//!
//! They exist only in builds with debug assertions. In a release build [`FailPoint::pass`] is
//! empty, and nothing reads the environment. Libraries for fail points run actions that the test
//! sets up in its own process; here the process is another one and only has to end, so a counter is
//! enough.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::settings::Strings;

/// Which fail points end the process: `name=kill@3;name=kill@1`, where the number says at which
/// pass, from 1. It is no setting, because a release does not know it.
pub const VARIABLE: &str = "LAKEGAUGE_FAIL_POINTS";

/// The pass at which each point ends this process.
static ARMED: OnceLock<BTreeMap<String, u64>> = OnceLock::new();

/// A place between two steps. Declared as a `static` beside the steps.
#[derive(Debug)]
pub struct FailPoint {
    name: &'static str,
    passed: AtomicU64,
}

impl FailPoint {
    /// A fail point with this name: the crate or service, a dot, and what has just happened.
    pub const fn new(name: &'static str) -> Self {
        Self { name, passed: AtomicU64::new(0) }
    }

    /// Passes the point. If this is the pass at which the process must end, the call does not
    /// return: nothing is dropped, flushed or reported, as with `kill -9`.
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

/// Arms the fail points that the environment names, once per process. In a release build this does
/// nothing.
///
/// # Errors
///
/// The text in [`VARIABLE`] does not have the expected form.
pub(crate) fn arm(environment: &dyn Strings) -> Result<(), String> {
    if cfg!(debug_assertions)
        && let Some(text) = environment.get(VARIABLE)
    {
        let armed = parse(&text)?;
        // A second service in the same process keeps the points of the first.
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
