//! JSON to events. A refusal names the field that is wrong; unknown fields are counted.
//!

use domain::{
    Event, EventId, EventIdentity, Fact, LakeAccess, LakeAccessRestored, LakeAccessWithdrawn,
    LakeInventory, Operation, Outcome, Reason, Refusal, Statement, Timestamp, WarehouseQuery,
    WarehouseQueryWithdrawn, accept,
};
use uuid::Uuid;

use super::{
    field::{EventType, Field, set},
    rfc3339::parse_time,
    values::{Value, Values},
    words::{none_of, quote},
};
use crate::text::trimmed;

/// Integers up to this one are exact as floating-point numbers.
const FLOAT_EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// The accepted forms of a time.
const TIME_FORMS: &str = "a time of RFC 3339 or an integer of microseconds since 1970";
/// Length of the only accepted form of a UUID: `8-4-4-4-12`.
const UUID_TEXT_BYTES: usize = 36;

/// An event as it was written, perhaps without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The id, if the text has one.
    pub id: Option<EventId>,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// What happened.
    pub fact: Fact,
    /// The number of the verdict. It has a meaning only on the subject of verdicts; elsewhere it is
    /// an unknown field.
    pub verdict: Option<u64>,
    /// How many fields were ignored because the type does not have them.
    pub fields_ignored: u32,
}

impl Decoded {
    /// The event with its own id, or with the given one if it has none.
    pub fn or_id(self, otherwise: impl FnOnce() -> EventId) -> Event {
        Event {
            id: self.id.unwrap_or_else(otherwise),
            occurred_at: self.occurred_at,
            fact: self.fact,
        }
    }
}

/// Why a text is not an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecoded {
    /// The reason, with the field at fault.
    pub refusal: Refusal,
    /// The identity, if the text contains one.
    pub identity: Option<EventIdentity>,
}

/// Reads one JSON object. If a name occurs twice, the last value counts.
///
/// # Errors
///
/// The text is not a JSON object, its type is unknown, or a field is missing or has another type.
/// Ranges and lengths are not checked here but by acceptance.
pub fn decode_line(line: &[u8]) -> Result<Decoded, Undecoded> {
    let line = trimmed(line);
    match serde_json::from_slice::<Values<'_>>(line) {
        Ok(values) => {
            values.event().map_err(|refusal| Undecoded { refusal, identity: values.identity() })
        }
        Err(error) => {
            let refusal = Refusal::whole(Reason::Undecodable, error.to_string());
            Err(Undecoded { refusal, identity: None })
        }
    }
}

impl<'a> Values<'a> {
    fn of(&self, field: Field) -> &Value<'a> {
        &self.values[field.place()]
    }

    fn event(&self) -> Result<Decoded, Refusal> {
        let kind = self.kind()?;
        let id = self.id()?;
        let occurred_at = self.time(kind.time_field())?;
        let fact = match kind {
            EventType::LakeAccess => Fact::LakeAccess(self.lake_access()?),
            EventType::LakeInventory => Fact::LakeInventory(self.lake_inventory()?),
            EventType::WarehouseQuery => Fact::WarehouseQuery(self.warehouse_query()?),
            EventType::LakeAccessWithdrawn => Fact::LakeAccessWithdrawn(LakeAccessWithdrawn {
                of: self.uuid(Field::OfId)?,
                access: self.lake_access()?,
            }),
            EventType::LakeAccessRestored => Fact::LakeAccessRestored(LakeAccessRestored {
                of: (self.time(Field::OfOccurredAt)?, self.uuid(Field::OfId)?),
                access: self.lake_access()?,
            }),
            EventType::WarehouseQueryWithdrawn => {
                Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn {
                    of: self.uuid(Field::OfId)?,
                    query: self.warehouse_query()?,
                })
            }
        };
        let elsewhere = (self.present & !set(kind.fields())).count_ones();
        let fields_ignored = self.unknown.saturating_add(elsewhere);
        let verdict = self.quantity(Field::Verdict).ok();
        Ok(Decoded { id, occurred_at, fact, verdict, fields_ignored })
    }

    fn kind(&self) -> Result<EventType, Refusal> {
        let name = self.text(Field::Type)?;
        EventType::from_name(name).ok_or_else(|| {
            let names: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
            let detail = none_of(name, &names);
            Refusal::of_field(Reason::UnknownType, Field::Type.name(), detail)
        })
    }

    /// The identity in the text, whatever else is wrong with the text.
    fn identity(&self) -> Option<EventIdentity> {
        let time_field = self.kind().map_or(Field::OccurredAt, EventType::time_field);
        Some((self.time(time_field).ok()?, self.id().ok()??))
    }

    fn lake_access(&self) -> Result<LakeAccess, Refusal> {
        Ok(LakeAccess {
            bucket: self.owned(Field::Bucket)?,
            key: self.owned(Field::Key)?,
            operation: self.named(Field::Operation, Operation::from_name, Operation::NAMES)?,
            bytes: self.quantity(Field::Bytes)?,
            object_bytes: self.optional(Field::ObjectBytes, Self::quantity)?,
            sequencer: self.optional(Field::Sequencer, Self::owned)?,
            duration_us: self.quantity(Field::DurationUs)?,
            outcome: self.named(Field::Outcome, Outcome::from_name, Outcome::NAMES)?,
            principal: self.owned(Field::Principal)?,
        })
    }

    fn lake_inventory(&self) -> Result<LakeInventory, Refusal> {
        Ok(LakeInventory {
            bucket: self.owned(Field::Bucket)?,
            objects: self.quantity(Field::Objects)?,
            bytes: self.quantity(Field::Bytes)?,
        })
    }

    fn warehouse_query(&self) -> Result<WarehouseQuery, Refusal> {
        Ok(WarehouseQuery {
            warehouse: self.owned(Field::Warehouse)?,
            database: self.owned(Field::Database)?,
            statement: self.named(Field::Statement, Statement::from_name, Statement::NAMES)?,
            queued_us: self.quantity(Field::QueuedUs)?,
            executed_us: self.quantity(Field::ExecutedUs)?,
            rows_processed: self.quantity(Field::RowsProcessed)?,
            rows_returned: self.quantity(Field::RowsReturned)?,
            bytes_scanned: self.quantity(Field::BytesScanned)?,
            cache_hit: self.flag(Field::CacheHit)?,
            outcome: self.named(Field::Outcome, Outcome::from_name, Outcome::NAMES)?,
            principal: self.owned(Field::Principal)?,
            fingerprint: self.owned(Field::Fingerprint)?,
        })
    }

    fn id(&self) -> Result<Option<EventId>, Refusal> {
        self.optional(Field::Id, Self::uuid)
    }

    fn uuid(&self, field: Field) -> Result<EventId, Refusal> {
        let text = self.text(field)?;
        let uuid = Some(text).filter(|text| text.len() == UUID_TEXT_BYTES);
        let uuid = uuid.and_then(|text| Uuid::try_parse(text).ok());
        let uuid = uuid.ok_or_else(|| wrong(field, format!("{} is no UUID", quote(text))))?;
        Ok(EventId::from_bytes(uuid.into_bytes()))
    }

    fn time(&self, field: Field) -> Result<Timestamp, Refusal> {
        let value = self.of(field);
        if let Value::Text(text) = value {
            let refusal = || wrong(field, format!("{} is not {TIME_FORMS}", quote(text)));
            return parse_time(text).ok_or_else(refusal);
        }
        match integer(value) {
            Some(micros) => micros.map(Timestamp).map_err(|_| out_of_range(field)),
            None => {
                let mut refusal = self.unexpected(field, TIME_FORMS);
                if let Value::Float(value) = value
                    && let Some(Ok(whole)) = integer(&Value::Float(value.trunc()))
                    && let Some(unit) = accept::other_unit(whole)
                {
                    refusal.detail.push_str("; it looks like ");
                    refusal.detail.push_str(unit);
                }
                Err(refusal)
            }
        }
    }

    fn quantity(&self, field: Field) -> Result<u64, Refusal> {
        let value = self.of(field);
        if let Value::Unsigned(value) = value {
            return Ok(*value);
        }
        match integer(value) {
            Some(value) => value
                .ok()
                .and_then(|value| u64::try_from(value).ok())
                .ok_or_else(|| out_of_range(field)),
            None => Err(self.unexpected(field, "an integer")),
        }
    }

    fn flag(&self, field: Field) -> Result<bool, Refusal> {
        let Value::Bool(value) = self.of(field) else {
            return Err(self.unexpected(field, "true or false"));
        };
        Ok(*value)
    }

    fn named<T>(
        &self,
        field: Field,
        from_name: fn(&str) -> Option<T>,
        names: &[&str],
    ) -> Result<T, Refusal> {
        let text = self.text(field)?;
        from_name(text).ok_or_else(|| wrong(field, none_of(text, names)))
    }

    fn owned(&self, field: Field) -> Result<String, Refusal> {
        self.text(field).map(str::to_owned)
    }

    fn text(&self, field: Field) -> Result<&str, Refusal> {
        let Value::Text(text) = self.of(field) else {
            return Err(self.unexpected(field, "a text"));
        };
        Ok(text)
    }

    fn optional<T>(
        &self,
        field: Field,
        read: impl FnOnce(&Self, Field) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        if *self.of(field) == Value::Absent { Ok(None) } else { read(self, field).map(Some) }
    }

    /// The refusal of a field that is missing, or that has another type than expected.
    fn unexpected(&self, field: Field, expected: &str) -> Refusal {
        let found = match self.of(field) {
            Value::Absent => {
                let detail = format!("must be there: {expected}");
                return Refusal::of_field(Reason::MissingField, field.name(), detail);
            }
            Value::Bool(value) => value.to_string(),
            Value::Unsigned(value) => value.to_string(),
            Value::Signed(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => quote(text),
            Value::Array => "an array".to_owned(),
            Value::Object => "an object".to_owned(),
        };
        wrong(field, format!("{found} is not {expected}"))
    }
}

/// The value as an integer. `None` if it is not a number without a fraction, `Err` if it exceeds 64
/// bits. `1.0` and `1e3` are integers too, as in JSON Schema.
fn integer(value: &Value<'_>) -> Option<Result<i64, ()>> {
    match value {
        Value::Unsigned(value) => Some(i64::try_from(*value).map_err(drop)),
        Value::Signed(value) => Some(Ok(*value)),
        Value::Float(value) if value.fract() == 0.0 => Some(
            // The conversion goes through text, because there is no checked conversion from a
            // float.
            if value.abs() <= FLOAT_EXACT_MAX {
                format!("{value:.0}").parse().map_err(drop)
            } else {
                Err(())
            },
        ),
        Value::Float(_)
        | Value::Absent
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Array
        | Value::Object => None,
    }
}

fn wrong(field: Field, detail: String) -> Refusal {
    Refusal::of_field(Reason::WrongField, field.name(), detail)
}

fn out_of_range(field: Field) -> Refusal {
    Refusal::of_field(Reason::OutOfRange, field.name(), "is negative or too large")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, json::encode_line};

    /// The refusal of a lake access in which one value is replaced by another.
    fn with(field: &str, value: &str) -> Result<Decoded, Undecoded> {
        let line = encode_line(&fixtures::one_of_each()[0]);
        let start = line.find(&format!("\"{field}\":")).unwrap();
        let end = line[start..].find(",\"").map_or(line.len() - 1, |length| start + length);
        let line = format!("{}\"{field}\":{value}{}", &line[..start], &line[end..]);
        decode_line(line.as_bytes())
    }

    fn refusal(field: &str, value: &str) -> (Reason, Option<&'static str>, String) {
        let refusal = with(field, value).unwrap_err().refusal;
        (refusal.reason, refusal.field, refusal.detail)
    }

    #[test]
    fn what_is_wrong_is_said_by_the_name_of_the_field() {
        for (field, value, reason, detail) in [
            (
                "type",
                "\"lake.acess\"",
                Reason::UnknownType,
                "lake.access.restored, warehouse.query.withdrawn; the nearest is lake.access",
            ),
            ("id", "\"7\"", Reason::WrongField, "\"7\" is no UUID"),
            (
                "occurred_at",
                "\"today\"",
                Reason::WrongField,
                "\"today\" is not a time of RFC 3339 or an integer",
            ),
            ("occurred_at", "1.5", Reason::WrongField, "1.5 is not a time"),
            ("occurred_at", "1795416180.5", Reason::WrongField, "; it looks like seconds"),
            ("occurred_at", "1e300", Reason::OutOfRange, "negative or too large"),
            ("bucket", "7", Reason::WrongField, "7 is not a text"),
            ("key", "null", Reason::MissingField, "must be there: a text"),
            (
                "operation",
                "\"Writ\"",
                Reason::WrongField,
                "\"Writ\" is none of read, head, list, write, copy, delete, other; the nearest is \
                 write",
            ),
            ("outcome", "\"failed\"", Reason::WrongField, "\"failed\" is none of ok, not_found, "),
            ("bytes", "\"1\"", Reason::WrongField, "\"1\" is not an integer"),
            ("bytes", "-1", Reason::OutOfRange, "negative or too large"),
            ("object_bytes", "[1]", Reason::WrongField, "an array is not an integer"),
            ("duration_us", "{}", Reason::WrongField, "an object is not an integer"),
            ("outcome", "true", Reason::WrongField, "true is not a text"),
        ] {
            let (found, name, text) = refusal(field, value);
            assert_eq!(found, reason, "{field} {value}");
            assert_eq!(name.map(str::to_owned), Some(field.to_owned()), "{value}");
            assert!(text.contains(detail), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_no_object_is_refused_with_what_is_wanted() {
        for line in ["7", "\"text\"", "null", "true"] {
            let refusal = decode_line(line.as_bytes()).unwrap_err().refusal;
            assert_eq!(refusal.reason, Reason::Undecodable, "{line}");
            assert!(refusal.detail.contains("expected an event as a JSON object"), "{refusal:?}");
        }
    }

    #[test]
    fn a_wrong_field_leaves_the_identity_and_a_wrong_id_does_not() {
        let identity = fixtures::one_of_each()[0].identity();
        assert_eq!(with("bytes", "-1").unwrap_err().identity, Some(identity));
        assert_eq!(with("id", "7").unwrap_err().identity, None);
        assert_eq!(with("occurred_at", "7.5").unwrap_err().identity, None);
    }

    #[test]
    fn times_may_be_texts_or_integers_and_integers_may_have_an_exponent() {
        let second = |value| with("occurred_at", value).unwrap().occurred_at;
        assert_eq!(second("\"1970-01-01T01:00:01+01:00\""), Timestamp(1_000_000));
        assert_eq!(second("1000000"), Timestamp(1_000_000));
        assert_eq!(second("1e6"), Timestamp(1_000_000));
        assert_eq!(second("-1"), Timestamp(-1));
    }

    #[test]
    fn of_a_name_that_stands_twice_the_last_value_holds() {
        let decoded = with("duration_us", "1,\"duration_us\":2").unwrap();
        let Fact::LakeAccess(access) = decoded.fact else { unreachable!() };
        assert_eq!(access.duration_us, 2);
    }

    #[test]
    fn an_id_of_any_version_is_taken_in_its_usual_form_only() {
        for id in ["019ABCDE-F012-81A6-AAF3-7800000003FF", "00000000-0000-0000-0000-000000000000"] {
            assert!(with("id", &format!("\"{id}\"")).unwrap().id.is_some());
        }
        for id in ["{019abcde-f012-81a6-aaf3-7800000003ff}", "019abcdef01281a6aaf37800000003ff"] {
            assert!(with("id", &format!("\"{id}\"")).is_err());
        }
    }

    #[test]
    fn a_long_value_is_not_repeated_whole() {
        let (_, _, detail) = refusal("operation", &format!("\"{}\"", "é".repeat(10_000)));
        assert!(detail.len() < 400, "{}", detail.len());
    }
}
