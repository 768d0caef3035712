//! The measurements of a query: times, durations and counts. Each has more than one format.

use domain::{Reason, Refusal, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{super::decimal::scaled, Statistics};

/// A time above this number is in milliseconds since 1970. In seconds it would be after the year
/// 5000.
const SECONDS_MAX: i128 = 100_000_000_000;
const US_PER_S: i64 = 1_000_000;
/// The difference that is allowed between durations and the time between start and end, because the
/// clock is read at slightly different moments.
const TOLERANCE_US: u64 = 50_000;

/// A number of rows or bytes. Negative numbers mean "not known" and become 0.
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

/// Reads a time: seconds or milliseconds since 1970, or a text of RFC 3339.
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

/// How long a query was queued and executed. The sum is its response time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durations {
    pub(super) queued_us: u64,
    pub(super) executed_us: u64,
}

impl Durations {
    /// The durations in the statistics, in the unit that fits the time between start and end. If no
    /// unit fits, the durations are ignored, and the time between start and end is the response
    /// time.
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
    /// The possible error of this time, which is larger if a time was cut to whole seconds.
    tolerance_us: u64,
}

impl Between {
    /// The time between two moments; `None` if the end is before the start, because such times are
    /// useless.
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

    /// The first unit in which a duration fits the query: it is at most twice as long as the query,
    /// plus the tolerance. `duration` is in millionths of the unit. `None` if no unit fits.
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
    /// Converts a duration in millionths of this unit to microseconds.
    const fn us(self, millionths: u64) -> u64 {
        match self {
            Self::Seconds => millionths,
            Self::Milliseconds => millionths / 1_000,
        }
    }
}

/// Reads a duration, in millionths of its unit; `None` if it is `null` or missing. A negative
/// duration is 0.
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
