//! What was measured of a query: times, durations and counts, each in more than one form.

use domain::{Reason, Refusal, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{super::decimal::scaled, Statistics};

/// Above it a number is milliseconds since 1970: as seconds it would lie behind the year 5000.
const SECONDS_MAX: i128 = 100_000_000_000;
const US_PER_S: i64 = 1_000_000;
/// By how much durations may differ from the time between start and end: clocks are read at
/// slightly different moments.
const TOLERANCE_US: u64 = 50_000;

/// A count of rows or bytes. Negative numbers stand for "not known".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let count = scaled(&number.to_string(), 0).map(|count| u64::try_from(count.max(0)));
        match count {
            Some(Ok(count)) => Ok(Self(count)),
            Some(Err(_)) | None => {
                Err(serde::de::Error::custom(format!("{number} is no count of rows or bytes")))
            }
        }
    }
}

/// A time: seconds or milliseconds since 1970, or a text of RFC 3339.
pub(super) fn moment(raw: &RawValue, field: &'static str) -> Result<Timestamp, Refusal> {
    let text = raw.get();
    let at = match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) => wire::json::parse_time(text),
        None => {
            let unit =
                if scaled(text, 0).is_some_and(|number| number > SECONDS_MAX) { 3 } else { 6 };
            let us = scaled(text, unit).and_then(|us| i64::try_from(us).ok());
            us.map(Timestamp)
        }
    };
    at.ok_or_else(|| {
        let beginning: String = text.chars().take(40).collect();
        let detail = format!("{beginning} is neither seconds since 1970 nor a time of RFC 3339");
        Refusal::of_field(Reason::WrongField, field, detail)
    })
}

/// How long a query waited and ran; together they are its response time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durations {
    pub(super) queued_us: u64,
    pub(super) executed_us: u64,
}

impl Durations {
    /// From the statistics, in the unit that fits the time between start and end. What fits in no
    /// unit is left out, and that time is taken.
    pub(super) fn of(
        statistics: &Statistics<'_>,
        created_at: Option<Timestamp>,
        ended_at: Timestamp,
    ) -> Result<Self, Refusal> {
        let between = created_at.and_then(|created_at| Between::of(created_at, ended_at));
        let wall = number(statistics.wall_time, "statistics.wallTime")?;
        let executed = number(statistics.execution_time, "statistics.executionTime")?;
        let queued = number(statistics.queued_time, "statistics.queuedTime")?.unwrap_or(0);
        let prerequisites = statistics.waiting_for_prerequisites_time;
        let prerequisites =
            number(prerequisites, "statistics.waitingForPrerequisitesTime")?.unwrap_or(0);
        let waited = queued.saturating_add(prerequisites);
        let whole = wall.unwrap_or_else(|| executed.unwrap_or(0).saturating_add(waited));
        let unit = between.map_or(Some(Unit::Seconds), |between| between.unit(whole.max(waited)));
        let elapsed_us = between.map_or(0, |Between { elapsed_us, .. }| elapsed_us);
        let (response_us, queued_us) = match unit {
            Some(unit) if wall.or(executed).is_some() => (unit.us(whole), unit.us(waited)),
            Some(unit) => (elapsed_us, unit.us(waited)),
            None => (elapsed_us, 0),
        };
        let queued_us = queued_us.min(response_us);
        Ok(Self { queued_us, executed_us: response_us.saturating_sub(queued_us) })
    }
}

/// The time between the start and the end of a query.
#[derive(Clone, Copy, Debug)]
struct Between {
    elapsed_us: u64,
    /// By how much it may be wrong: times in whole seconds are cut.
    tolerance_us: u64,
}

impl Between {
    /// `None` where the end lies before the start: such times tell nothing.
    fn of(created_at: Timestamp, ended_at: Timestamp) -> Option<Self> {
        let is_whole = |at: Timestamp| at.0 % US_PER_S == 0;
        let elapsed_us = u64::try_from(ended_at.0.saturating_sub(created_at.0)).ok()?;
        let tolerance_us = if is_whole(created_at) || is_whole(ended_at) {
            US_PER_S.unsigned_abs()
        } else {
            TOLERANCE_US
        };
        Some(Self { elapsed_us, tolerance_us })
    }

    /// The unit in which a duration, in millionths of it, is not longer than the query.
    fn unit(self, duration: u64) -> Option<Unit> {
        let longest = self.elapsed_us.saturating_mul(2).saturating_add(self.tolerance_us);
        [Unit::Seconds, Unit::Milliseconds].into_iter().find(|unit| unit.us(duration) <= longest)
    }
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    /// Microseconds of a duration in millionths of this unit.
    const fn us(self, millionths: u64) -> u64 {
        match self {
            Self::Seconds => millionths,
            Self::Milliseconds => millionths / 1_000,
        }
    }
}

/// A duration in millionths of its unit; `null` and what is missing is none. A negative one is 0.
fn number(raw: Option<&RawValue>, field: &'static str) -> Result<Option<u64>, Refusal> {
    let Some(text) = raw.map(RawValue::get).filter(|text| *text != "null") else {
        return Ok(None);
    };
    let number = scaled(text, 6).and_then(|number| u64::try_from(number.max(0)).ok());
    number.map(Some).ok_or_else(|| {
        let beginning: String = text.chars().take(40).collect();
        let detail = format!("{beginning} is no number of seconds or milliseconds");
        Refusal::of_field(Reason::WrongField, field, detail)
    })
}
