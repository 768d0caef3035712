//! Acceptance: the one rule by which an event is counted or becomes a dead letter.
//!
//! Aggregator and archiver both apply this rule before they judge, so that neither counts an event
//! that the other refused. The rule covers every reason for which PostgreSQL could refuse an event.

use crate::{
    event::{
        Event, Fact, LakeAccess, LakeAccessRestored, LakeAccessWithdrawn, LakeInventory,
        WarehouseQuery, WarehouseQueryWithdrawn, names,
    },
    rules::Rules,
    stream::Stream,
    time::{SECONDS_PER_DAY, Timestamp},
};

/// Largest count of bytes, microseconds, rows or objects: 2^53 − 1. A JSON reader that uses
/// floating-point numbers then reads the same number, and sums of 2^63 of them fit 128 bits.
pub const QUANTITY_MAX: u64 = (1 << 53) - 1;
/// Longest bucket, warehouse, database, principal or fingerprint, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest object key, in bytes of UTF-8: the limit of S3.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Longest sequencer, in bytes.
pub const SEQUENCER_BYTES_MAX: usize = 64;
/// The first moment that is accepted: 2000-01-01T00:00:00Z. No lake or warehouse that can speak to
/// a broker is older. A number of seconds or milliseconds that is read as microseconds lies before
/// this moment, and a number of nanoseconds after [`TIME_END`].
pub const TIME_START: Timestamp = Timestamp(946_684_800_000_000);
/// The first moment that is not accepted: 2200-01-01T00:00:00Z.
pub const TIME_END: Timestamp = Timestamp(7_258_118_400_000_000);

names! {
    /// Why an event was not counted.
    Reason {
        /// The bytes are not of the announced format.
        Undecodable = 0, "undecodable";
        /// There is no event of this type.
        UnknownType = 1, "unknown_type";
        /// The event belongs to another stream.
        WrongStream = 2, "wrong_stream";
        /// A required field is missing.
        MissingField = 3, "missing_field";
        /// A field has the wrong type.
        WrongField = 4, "wrong_field";
        /// A number or a time is outside of its range.
        OutOfRange = 5, "out_of_range";
        /// A text is longer than its bound.
        TooLong = 6, "too_long";
        /// A text holds a NUL, which PostgreSQL cannot store.
        NulByte = 7, "nul_byte";
        /// The event is dated ahead of the broker's timestamp by more than the skew.
        FutureDated = 8, "future_dated";
        /// The event was older than the retention when the broker stored it.
        OlderThanRetention = 9, "older_than_retention";
        /// The message has more items or bytes than a decoder accepts.
        TooLarge = 10, "too_large";
        /// PostgreSQL refused the row although it was accepted. Such an event was counted.
        RefusedByDatabase = 11, "refused_by_database";
        /// The header block or the subject of the message cannot be read.
        UnreadableHeaders = 12, "unreadable_headers";
        /// The event corrects another one that the archive does not have as it is given.
        NothingToCorrect = 13, "nothing_to_correct";
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

/// Whether an event that the broker stored at `broker_time` is counted in `stream`.
///
/// # Errors
///
/// The first reason why the event is not counted.
pub fn accept(
    event: &Event,
    stream: Stream,
    broker_time: Timestamp,
    rules: &Rules,
) -> Result<(), Refusal> {
    if event.fact.side() != stream.side {
        return Err(Refusal::whole(
            Reason::WrongStream,
            format!("an event of this type does not belong to {stream}"),
        ));
    }
    time(event, broker_time, rules)?;
    match &event.fact {
        Fact::LakeAccess(access)
        | Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access, .. }) => lake_access(access),
        Fact::LakeAccessRestored(LakeAccessRestored { of: (at, _), access }) => {
            if !is_plausible(*at) {
                let detail = implausible(*at);
                return Err(Refusal::of_field(Reason::OutOfRange, "of_occurred_at", detail));
            }
            lake_access(access)
        }
        Fact::LakeInventory(inventory) => lake_inventory(inventory),
        Fact::WarehouseQuery(query)
        | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { query, .. }) => {
            warehouse_query(query)
        }
    }
}

fn time(event: &Event, broker_time: Timestamp, rules: &Rules) -> Result<(), Refusal> {
    let field = if matches!(event.fact, Fact::LakeInventory(_)) { "as_of" } else { "occurred_at" };
    let at = event.occurred_at;
    if !is_plausible(at) {
        return Err(Refusal::of_field(Reason::OutOfRange, field, implausible(at)));
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

fn is_plausible(at: Timestamp) -> bool {
    (TIME_START..TIME_END).contains(&at)
}

/// What is wrong with a time that is not plausible. If the number is plausible in another unit, the
/// text names that unit.
fn implausible(at: Timestamp) -> String {
    let range = "a time lies between the years 2000 and 2200, as an integer in microseconds since \
                 1970";
    match other_unit(at.0) {
        Some(unit) => format!("{} looks like {unit}: {range}", at.0),
        None => format!("{} is out of range: {range}", at.0),
    }
}

/// The unit, other than microseconds, in which a number would be a plausible time.
pub fn other_unit(time: i64) -> Option<&'static str> {
    let units = [
        ("seconds", time.checked_mul(1_000_000)),
        ("milliseconds", time.checked_mul(1_000)),
        ("nanoseconds", Some(time / 1_000)),
    ];
    let plausible = |micros: Option<i64>| micros.map(Timestamp).is_some_and(is_plausible);
    units.into_iter().find(|(_, micros)| plausible(*micros)).map(|(unit, _)| unit)
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
    use crate::test_util::{access, at, inventory, query};

    /// 2026-11-23T06:43:00Z.
    const NOW: Timestamp = at(1_795_416_180);

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

    /// Sets one field of an event.
    type Set<V> = fn(&mut Fact, V);

    fn with<V>(event: &Event, set: Set<V>, value: V) -> Result<(), Refusal> {
        let mut event = event.clone();
        set(&mut event.fact, value);
        let stream = Stream { side: event.fact.side(), partition: 0 };
        accept(&event, stream, NOW, &Rules::default())
    }

    fn of_access(fact: &mut Fact) -> &mut LakeAccess {
        let Fact::LakeAccess(access) = fact else { unreachable!() };
        access
    }

    fn of_inventory(fact: &mut Fact) -> &mut LakeInventory {
        let Fact::LakeInventory(inventory) = fact else { unreachable!() };
        inventory
    }

    fn of_query(fact: &mut Fact) -> &mut WarehouseQuery {
        let Fact::WarehouseQuery(query) = fact else { unreachable!() };
        query
    }

    #[test]
    fn every_quantity_is_accepted_up_to_its_bound_and_refused_by_name_beyond_it() {
        let events = [access(1, NOW), inventory(1, NOW, 1), query(1, NOW, 1, 1)];
        let quantities: [(usize, &str, Set<u64>); 10] = [
            (0, "bytes", |fact, value| of_access(fact).bytes = value),
            (0, "object_bytes", |fact, value| of_access(fact).object_bytes = Some(value)),
            (0, "duration_us", |fact, value| of_access(fact).duration_us = value),
            (1, "objects", |fact, value| of_inventory(fact).objects = value),
            (1, "bytes", |fact, value| of_inventory(fact).bytes = value),
            (2, "queued_us", |fact, value| of_query(fact).queued_us = value),
            (2, "executed_us", |fact, value| of_query(fact).executed_us = value),
            (2, "rows_processed", |fact, value| of_query(fact).rows_processed = value),
            (2, "rows_returned", |fact, value| of_query(fact).rows_returned = value),
            (2, "bytes_scanned", |fact, value| of_query(fact).bytes_scanned = value),
        ];
        for (event, field, set) in quantities {
            assert_eq!(with(&events[event], set, QUANTITY_MAX), Ok(()), "{field}");
            let refusal = with(&events[event], set, QUANTITY_MAX + 1).unwrap_err();
            assert_eq!((refusal.reason, refusal.field), (Reason::OutOfRange, Some(field)));
        }
        assert_eq!(QUANTITY_MAX, 9_007_199_254_740_991);
    }

    #[test]
    fn every_text_is_accepted_up_to_its_bound_and_refused_by_name_beyond_it() {
        let events = [access(1, NOW), inventory(1, NOW, 1), query(1, NOW, 1, 1)];
        let texts: [(usize, &str, usize, bool, Set<String>); 9] = [
            (0, "bucket", NAME_BYTES_MAX, true, |fact, value| of_access(fact).bucket = value),
            (0, "key", KEY_BYTES_MAX, false, |fact, value| of_access(fact).key = value),
            (0, "sequencer", SEQUENCER_BYTES_MAX, false, |fact, value| {
                of_access(fact).sequencer = Some(value);
            }),
            (0, "principal", NAME_BYTES_MAX, false, |fact, value| {
                of_access(fact).principal = value;
            }),
            (1, "bucket", NAME_BYTES_MAX, true, |fact, value| of_inventory(fact).bucket = value),
            (2, "warehouse", NAME_BYTES_MAX, true, |fact, value| of_query(fact).warehouse = value),
            (2, "database", NAME_BYTES_MAX, false, |fact, value| of_query(fact).database = value),
            (2, "principal", NAME_BYTES_MAX, false, |fact, value| of_query(fact).principal = value),
            (2, "fingerprint", NAME_BYTES_MAX, false, |fact, value| {
                of_query(fact).fingerprint = value;
            }),
        ];
        for (event, field, bytes_max, is_needed, set) in texts {
            let event = &events[event];
            assert_eq!(with(event, set, "x".repeat(bytes_max)), Ok(()), "{field}");
            for (value, reason) in [
                ("x".repeat(bytes_max + 1), Reason::TooLong),
                ("ü".repeat(bytes_max / 2 + 1), Reason::TooLong),
                ("a\0b".to_owned(), Reason::NulByte),
            ] {
                let refusal = with(event, set, value).unwrap_err();
                assert_eq!((refusal.reason, refusal.field), (reason, Some(field)));
            }
            let empty = with(event, set, String::new()).map_err(|refusal| refusal.field);
            assert_eq!(empty, if is_needed { Err(Some(field)) } else { Ok(()) });
        }
    }

    #[test]
    fn a_refusal_is_said_with_reason_field_and_detail() {
        let refusal = Refusal::of_field(Reason::TooLong, "key", "too much");
        assert_eq!(refusal.to_string(), "too_long: key: too much");
        assert_eq!(Refusal::whole(Reason::TooLarge, "x").to_string(), "too_large: x");
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

    fn at_time(time: i64) -> Result<(), Refusal> {
        accept(&access(1, Timestamp(time)), Stream::lake(0), TIME_END, &Rules::default())
    }

    #[test]
    fn times_before_2000_and_from_2200_on_are_out_of_range() {
        for time in [TIME_START.0, NOW.0, TIME_END.0 - 1] {
            assert_eq!(at_time(time), Ok(()));
        }
        for time in [i64::MIN, -1, 0, 1, TIME_START.0 - 1, TIME_END.0, i64::MAX] {
            let refusal = at_time(time).unwrap_err();
            assert_eq!((refusal.reason, refusal.field), (Reason::OutOfRange, Some("occurred_at")));
            let detail = refusal.detail;
            assert!(detail.starts_with(&format!("{time} is out of range: ")), "{detail}");
        }
    }

    #[test]
    fn a_time_in_another_unit_is_refused_with_the_unit_that_it_looks_like() {
        for micros in [TIME_START.0, NOW.0, TIME_END.0 - 1_000_000] {
            for (time, unit) in [
                (micros / 1_000_000, "seconds"),
                (micros / 1_000, "milliseconds"),
                (micros * 1_000, "nanoseconds"),
            ] {
                let refusal = at_time(time).unwrap_err();
                assert_eq!(refusal.reason, Reason::OutOfRange);
                let detail = refusal.detail;
                assert!(detail.starts_with(&format!("{time} looks like {unit}: ")), "{detail}");
            }
        }
        let stock = inventory(1, at(1_795), 10);
        let refusal = accept(&stock, Stream::lake(0), NOW, &Rules::default()).unwrap_err();
        assert_eq!(refusal.field, Some("as_of"));
        assert!(refusal.detail.starts_with("1795000000 looks like seconds: "), "{refusal}");
    }
}
