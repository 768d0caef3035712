//! The JSON Schema of the events, and tests that compare the schema, the code and the
//! documentation.

/// The JSON Schema of one event.
pub const fn schema() -> &'static str {
    include_str!("../../schema/events.schema.json")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{Operation, Outcome, Reason, Rules, Statement, Stream, Timestamp, accept};
    use jsonschema::Validator;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::{
        fixtures,
        json::{
            Undecoded, decode_line, encode_line,
            field::{EventType, Field},
        },
    };

    /// Later than every time that is accepted, so that no event is dated ahead.
    const LATER: Timestamp = Timestamp(7_258_118_400_000_000);

    fn validator() -> Validator {
        let schema = serde_json::from_str(schema()).unwrap();
        jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
    }

    fn definition(kind: EventType) -> Value {
        let schema: Value = serde_json::from_str(schema()).unwrap();
        schema["$defs"][kind.name()].clone()
    }

    fn names<'a>(values: impl IntoIterator<Item = &'a Value>) -> BTreeSet<&'a str> {
        values.into_iter().map(|value| value.as_str().unwrap()).collect()
    }

    /// The result of the code for a JSON value: decoded and accepted, at a time when no event is
    /// dated ahead.
    fn judge(value: &Value) -> Result<(), Undecoded> {
        let event =
            decode_line(value.to_string().as_bytes())?.or_id(|| fixtures::one_of_each()[0].id);
        let stream = Stream { side: event.fact.side(), partition: 0 };
        let rules = Rules::default();
        accept(&event, stream, LATER, &rules)
            .map_err(|refusal| Undecoded { refusal, identity: None })
    }

    fn documentation() -> &'static str {
        include_str!("../../../../docs/events.md")
    }

    /// The JSON objects in the documentation.
    fn examples() -> Vec<&'static str> {
        let blocks = documentation().split("```json\n").skip(1);
        blocks.flat_map(|block| block.split("```").next().unwrap().lines()).collect()
    }

    #[test]
    fn the_schema_is_one() {
        let schema: Value = serde_json::from_str(schema()).unwrap();
        jsonschema::meta::validate(&schema).unwrap();
    }

    #[test]
    fn schema_and_code_have_the_same_fields_with_title_and_description() {
        for kind in EventType::ALL {
            let definition = definition(*kind);
            let properties = definition["properties"].as_object().unwrap();
            let in_code: BTreeSet<&str> = kind.fields().iter().map(|field| field.name()).collect();
            assert_eq!(properties.keys().map(String::as_str).collect::<BTreeSet<_>>(), in_code);
            for (name, property) in properties {
                assert!(property["title"].is_string(), "{name}");
                assert!(property["description"].as_str().unwrap().ends_with('.'), "{name}");
                let is_quantity = property["maximum"].is_number();
                assert_eq!(is_quantity, property["unit"].is_string(), "{name}");
            }
        }
    }

    #[test]
    fn schema_and_code_have_the_same_names_in_their_lists() {
        let of = |kind, field: &str| definition(kind)["properties"][field]["enum"].clone();
        let operations: Vec<&str> = Operation::ALL.iter().map(|value| value.name()).collect();
        assert_eq!(of(EventType::LakeAccess, "operation"), json!(operations));
        let statements: Vec<&str> = Statement::ALL.iter().map(|value| value.name()).collect();
        assert_eq!(of(EventType::WarehouseQuery, "statement"), json!(statements));
        let outcomes: Vec<&str> = Outcome::ALL.iter().map(|value| value.name()).collect();
        for kind in [EventType::LakeAccess, EventType::WarehouseQuery] {
            assert_eq!(of(kind, "outcome"), json!(outcomes));
        }
    }

    #[test]
    fn what_the_schema_requires_is_what_the_code_misses_by_name() {
        let validator = validator();
        for (kind, event) in EventType::ALL.iter().zip(fixtures::one_of_each()) {
            let whole: Map<String, Value> = serde_json::from_str(&encode_line(&event)).unwrap();
            let definition = definition(*kind);
            let required = names(definition["required"].as_array().unwrap());
            for field in kind.fields() {
                let name = field.name();
                let mut without = whole.clone();
                without.remove(name);
                let mut null = whole.clone();
                null.insert(name.to_owned(), Value::Null);
                for changed in [Value::Object(without), Value::Object(null)] {
                    let judged = judge(&changed);
                    assert_eq!(judged.is_err(), required.contains(name), "{changed}");
                    assert_eq!(validator.is_valid(&changed), judged.is_ok(), "{changed}");
                    if let Err(undecoded) = judged {
                        assert_eq!(undecoded.refusal.reason, Reason::MissingField);
                        assert_eq!(undecoded.refusal.field, Some(name));
                    }
                }
            }
        }
    }

    /// Values for any field: some are right for one field, others are wrong for all.
    fn values() -> Vec<Value> {
        vec![
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(1.0),
            json!(1.5),
            json!(1e300),
            json!(9_007_199_254_740_991_u64),
            json!(9_007_199_254_740_992_u64),
            json!(u64::MAX),
            json!(7_258_118_399_999_999_u64),
            json!(7_258_118_400_000_000_u64),
            json!(""),
            json!("raw"),
            json!("a\u{0}b"),
            json!("x".repeat(64)),
            json!("x".repeat(65)),
            json!("x".repeat(255)),
            json!("x".repeat(256)),
            json!("x".repeat(1_024)),
            json!("x".repeat(1_025)),
            json!("other"),
            json!("ok"),
            json!("select"),
            json!("lake.access"),
            json!("lake.inventory"),
            json!("019ABCDE-f012-81a6-aaf3-7800000003ff"),
            json!("019abcdef01281a6aaf37800000003ff"),
            json!("2026-11-23T06:43:00.123456789+01:00"),
            json!("2026-02-30T06:43:00Z"),
            json!(946_684_799_999_999_u64),
            json!(946_684_800_000_000_u64),
            json!(1_795_416_180_u64),
            json!(1_795_416_180_123_u64),
            json!(1_795_416_180_123_456_789_u64),
            json!("1999-12-31T23:59:59Z"),
            json!("2000-01-01T00:00:00Z"),
            json!("2200-01-01T00:00:00Z"),
            json!("2026-11-23"),
            json!([]),
            json!([1]),
            json!({}),
        ]
    }

    #[test]
    fn schema_and_code_agree_on_every_value_in_every_field() {
        let validator = validator();
        for event in fixtures::one_of_each() {
            let whole: Map<String, Value> = serde_json::from_str(&encode_line(&event)).unwrap();
            for (name, other) in
                whole.keys().flat_map(|name| values().into_iter().map(move |value| (name, value)))
            {
                let mut changed = whole.clone();
                changed.insert(name.clone(), other);
                let changed = Value::Object(changed);
                assert_eq!(validator.is_valid(&changed), judge(&changed).is_ok(), "{changed}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_encoded_event_that_is_accepted_validates(event in fixtures::accepted_event()) {
            let value: Value = serde_json::from_str(&encode_line(&event)).unwrap();
            prop_assert_eq!(judge(&value), Ok(()));
            prop_assert!(validator().is_valid(&value), "{}", value);
        }
    }

    #[test]
    fn every_example_of_the_documentation_validates_and_is_accepted() {
        let validator = validator();
        let examples = examples();
        let kinds: BTreeSet<String> = examples
            .iter()
            .map(|example| {
                let value: Value = serde_json::from_str(example).unwrap();
                assert!(validator.is_valid(&value), "{example}");
                let decoded = decode_line(example.as_bytes()).unwrap();
                assert_eq!(decoded.fields_ignored, 0, "{example}");
                judge(&value).unwrap();
                value["type"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(kinds.len(), EventType::ALL.len(), "each type has an example");
    }

    /// The text of the section about this type.
    fn section(kind: EventType) -> &'static str {
        let name = format!("always `{}`", kind.name());
        documentation().split("\n## ").find(|section| section.contains(&name)).unwrap()
    }

    #[test]
    fn the_documentation_has_a_row_for_every_field_and_for_nothing_else() {
        for kind in EventType::ALL {
            let rows = section(*kind).lines().filter_map(|line| line.strip_prefix("| `"));
            let documented: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
            let fields = kind.fields().iter().filter(|field| !repeated(*kind).contains(field));
            let in_code: Vec<&str> = fields.map(|field| field.name()).collect();
            assert_eq!(documented, in_code, "{kind:?}");
        }
    }

    /// The fields of a correction that say again what the section of its event says of them.
    fn repeated(kind: EventType) -> &'static [Field] {
        match kind {
            EventType::LakeAccess | EventType::LakeInventory | EventType::WarehouseQuery => &[],
            EventType::LakeAccessWithdrawn | EventType::LakeAccessRestored => {
                &EventType::LakeAccess.fields()[3..]
            }
            EventType::WarehouseQueryWithdrawn => &EventType::WarehouseQuery.fields()[3..],
        }
    }

    #[test]
    fn the_documentation_names_every_value_unit_and_optional_field() {
        for kind in EventType::ALL {
            let definition = definition(*kind);
            let required = names(definition["required"].as_array().unwrap());
            for (name, property) in definition["properties"].as_object().unwrap() {
                if repeated(*kind).iter().any(|field| field.name() == name) {
                    continue;
                }
                let begin = format!("| `{name}` |");
                let row = section(*kind).lines().find(|line| line.starts_with(&begin)).unwrap();
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                assert_eq!(cells[3], property["unit"].as_str().unwrap_or_default(), "{row}");
                assert_eq!(
                    cells[2].ends_with("optional"),
                    !required.contains(name.as_str()),
                    "{row}"
                );
                let whole = documentation();
                let text = if name == "outcome" { whole } else { row };
                for value in property["enum"].as_array().into_iter().flatten() {
                    assert!(text.contains(&format!("`{}`", value.as_str().unwrap())), "{value}");
                }
            }
        }
    }
}
