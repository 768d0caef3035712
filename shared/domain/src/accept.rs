//! Acceptance: the one rule by which an event is counted or becomes a dead letter.
//!
//! Both services apply it before they judge, so that neither counts what the other refused. It
//! covers everything that PostgreSQL could refuse.

use crate::{
    event::{Event, Fact, LakeAccess, LakeInventory, WarehouseQuery, names},
    rules::Rules,
    stream::Stream,
    time::{SECONDS_PER_DAY, Timestamp},
};

/// Largest count of bytes, microseconds, rows or objects: 2^53 − 1, so that a JSON reader with
/// floating-point numbers says the same as we do, and sums of a billion of them fit 128 bits.
pub const QUANTITY_MAX: u64 = (1 << 53) - 1;
/// Longest bucket, warehouse, database, principal or fingerprint, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest object key, in bytes of UTF-8: the limit of S3.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Longest sequencer, in bytes.
pub const SEQUENCER_BYTES_MAX: usize = 64;
/// The first moment that is not accepted: 2200-01-01T00:00:00Z.
pub const TIME_END: Timestamp = Timestamp(7_258_118_400_000_000);

names! {
    /// Why an event was not counted.
    Reason {
        /// The bytes are not of the announced format.
        Undecodable = 0, "undecodable";
        /// There is no event of this type.
        UnknownType = 1, "unknown_type";
        /// The event does not belong into this stream.
        WrongStream = 2, "wrong_stream";
        /// A field that must be there is not.
        MissingField = 3, "missing_field";
        /// A field is not of its type.
        WrongField = 4, "wrong_field";
        /// A number or a time is outside of its range.
        OutOfRange = 5, "out_of_range";
        /// A text is longer than its bound.
        TooLong = 6, "too_long";
        /// A text holds a NUL, which PostgreSQL cannot store.
        NulByte = 7, "nul_byte";
        /// It is dated ahead of the broker's timestamp by more than the skew.
        FutureDated = 8, "future_dated";
        /// It was older than the retention when the broker took it.
        OlderThanRetention = 9, "older_than_retention";
        /// The message holds more than a decoder may take.
        TooLarge = 10, "too_large";
        /// PostgreSQL refused the row all the same; such an event was counted.
        RefusedByDatabase = 11, "refused_by_database";
    }
}

/// Why an event was not counted, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, from a closed list.
    pub reason: Reason,
    /// The field at fault, by its name in JSON.
    pub field: Option<&'static str>,
    /// What exactly is wrong.
    pub detail: String,
}

impl Refusal {
    /// A refusal that names a field.
    pub fn of_field(reason: Reason, field: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, field: Some(field), detail: detail.into() }
    }

    /// A refusal of the whole event.
    pub fn whole(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, field: None, detail: detail.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field {
            Some(field) => write!(f, "{}: {field}: {}", self.reason.name(), self.detail),
            None => write!(f, "{}: {}", self.reason.name(), self.detail),
        }
    }
}

/// Whether an event that the broker took at `broker_time` is counted in `stream`.
///
/// # Errors
///
/// The first reason against it.
pub fn accept(
    event: &Event,
    stream: Stream,
    broker_time: Timestamp,
    rules: &Rules,
) -> Result<(), Refusal> {
    if event.fact.side() != stream.side {
        return Err(Refusal::whole(
            Reason::WrongStream,
            format!("an event of this type does not belong into {stream}"),
        ));
    }
    time(event, broker_time, rules)?;
    match &event.fact {
        Fact::LakeAccess(access) => lake_access(access),
        Fact::LakeInventory(inventory) => lake_inventory(inventory),
        Fact::WarehouseQuery(query) => warehouse_query(query),
    }
}

fn time(event: &Event, broker_time: Timestamp, rules: &Rules) -> Result<(), Refusal> {
    let field = match event.fact {
        Fact::LakeAccess(_) | Fact::WarehouseQuery(_) => "occurred_at",
        Fact::LakeInventory(_) => "as_of",
    };
    let at = event.occurred_at;
    if at < Timestamp(0) || at >= TIME_END {
        let detail = "must lie between 1970 and 2200";
        return Err(Refusal::of_field(Reason::OutOfRange, field, detail));
    }
    let skew_s = rules.future_skew_s;
    if at > broker_time.plus_seconds(i64::from(skew_s)) {
        let detail = format!("lies more than {skew_s} s ahead of the broker's time");
        return Err(Refusal::of_field(Reason::FutureDated, field, detail));
    }
    let days = rules.retention_days;
    if days > 0 && at < broker_time.plus_seconds(-i64::from(days) * SECONDS_PER_DAY) {
        let detail = format!("lies more than {days} days behind the broker's time");
        return Err(Refusal::of_field(Reason::OlderThanRetention, field, detail));
    }
    Ok(())
}

fn lake_access(access: &LakeAccess) -> Result<(), Refusal> {
    name("bucket", &access.bucket)?;
    text("key", &access.key, KEY_BYTES_MAX)?;
    quantity("bytes", access.bytes)?;
    quantity("object_bytes", access.object_bytes.unwrap_or(0))?;
    text("sequencer", access.sequencer.as_deref().unwrap_or(""), SEQUENCER_BYTES_MAX)?;
    quantity("duration_us", access.duration_us)?;
    text("principal", &access.principal, NAME_BYTES_MAX)
}

fn lake_inventory(inventory: &LakeInventory) -> Result<(), Refusal> {
    name("bucket", &inventory.bucket)?;
    quantity("objects", inventory.objects)?;
    quantity("bytes", inventory.bytes)
}

fn warehouse_query(query: &WarehouseQuery) -> Result<(), Refusal> {
    name("warehouse", &query.warehouse)?;
    text("database", &query.database, NAME_BYTES_MAX)?;
    quantity("queued_us", query.queued_us)?;
    quantity("executed_us", query.executed_us)?;
    quantity("rows_processed", query.rows_processed)?;
    quantity("rows_returned", query.rows_returned)?;
    quantity("bytes_scanned", query.bytes_scanned)?;
    text("principal", &query.principal, NAME_BYTES_MAX)?;
    text("fingerprint", &query.fingerprint, NAME_BYTES_MAX)
}

fn quantity(field: &'static str, value: u64) -> Result<(), Refusal> {
    if value > QUANTITY_MAX {
        let detail = format!("{value} is above {QUANTITY_MAX}");
        return Err(Refusal::of_field(Reason::OutOfRange, field, detail));
    }
    Ok(())
}

fn name(field: &'static str, value: &str) -> Result<(), Refusal> {
    if value.is_empty() {
        return Err(Refusal::of_field(Reason::OutOfRange, field, "must not be empty"));
    }
    text(field, value, NAME_BYTES_MAX)
}

fn text(field: &'static str, value: &str, bytes_max: usize) -> Result<(), Refusal> {
    if value.len() > bytes_max {
        let detail = format!("has {} bytes, {bytes_max} are allowed", value.len());
        return Err(Refusal::of_field(Reason::TooLong, field, detail));
    }
    if value.as_bytes().contains(&0) {
        return Err(Refusal::of_field(Reason::NulByte, field, "holds a NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{access, at, query};

    const NOW: Timestamp = at(1_000_000);

    fn reason(
        event: &Event,
        stream: Stream,
        rules: &Rules,
    ) -> Option<(Reason, Option<&'static str>)> {
        accept(event, stream, NOW, rules).err().map(|refusal| (refusal.reason, refusal.field))
    }

    fn lake(change: impl FnOnce(&mut LakeAccess)) -> Option<(Reason, Option<&'static str>)> {
        let mut event = access(1, NOW);
        let Fact::LakeAccess(fact) = &mut event.fact else { unreachable!() };
        change(fact);
        reason(&event, Stream::lake(0), &Rules::default())
    }

    #[test]
    fn an_ordinary_event_is_accepted() {
        assert_eq!(lake(|_| ()), None);
        let rules = Rules::default();
        assert_eq!(reason(&query(1, NOW, 1, 1), Stream::warehouse(3), &rules), None);
    }

    #[test]
    fn each_bound_is_accepted_and_one_beyond_it_refused_by_name() {
        assert_eq!(lake(|fact| fact.key = "k".repeat(KEY_BYTES_MAX)), None);
        assert_eq!(
            lake(|fact| fact.key = "k".repeat(KEY_BYTES_MAX + 1)),
            Some((Reason::TooLong, Some("key")))
        );
        assert_eq!(lake(|fact| fact.bytes = QUANTITY_MAX), None);
        assert_eq!(
            lake(|fact| fact.object_bytes = Some(QUANTITY_MAX + 1)),
            Some((Reason::OutOfRange, Some("object_bytes")))
        );
        assert_eq!(
            lake(|fact| fact.principal = "a\0b".to_owned()),
            Some((Reason::NulByte, Some("principal")))
        );
        assert_eq!(lake(|fact| fact.bucket.clear()), Some((Reason::OutOfRange, Some("bucket"))));
    }

    #[test]
    fn an_event_of_the_other_side_does_not_belong_here() {
        let refused = reason(&query(1, NOW, 1, 1), Stream::lake(0), &Rules::default());
        assert_eq!(refused, Some((Reason::WrongStream, None)));
    }

    #[test]
    fn time_is_compared_with_the_broker_and_not_with_a_clock() {
        let rules = Rules { future_skew_s: 10, retention_days: 2, ..Rules::default() };
        let judge =
            |seconds: i64| reason(&access(1, NOW.plus_seconds(seconds)), Stream::lake(0), &rules);
        assert_eq!(judge(10), None);
        assert_eq!(judge(11), Some((Reason::FutureDated, Some("occurred_at"))));
        assert_eq!(judge(-2 * SECONDS_PER_DAY), None);
        assert_eq!(
            judge(-2 * SECONDS_PER_DAY - 1),
            Some((Reason::OlderThanRetention, Some("occurred_at")))
        );
    }

    #[test]
    fn times_before_1970_and_from_2200_on_are_out_of_range() {
        let rules = Rules::default();
        for time in [Timestamp(-1), TIME_END] {
            let refused = accept(&access(1, time), Stream::lake(0), TIME_END, &rules);
            assert_eq!(refused.unwrap_err().reason, Reason::OutOfRange);
        }
    }
}
