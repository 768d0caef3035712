//! Splits a body into JSON values. The body is one value, several values one after another
//! (separated by line breaks or not), or an array of values.

use serde_json::value::RawValue;

/// The values of a body, in their order. An array gives its elements.
///
/// # Errors
///
/// The error at which the text stops being JSON.
pub(crate) fn values(body: &[u8]) -> Result<Vec<&RawValue>, serde_json::Error> {
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>() {
        let value = value?;
        if value.get().starts_with('[') {
            values.extend(serde_json::from_str::<Vec<&RawValue>>(value.get())?);
        } else {
            values.push(value);
        }
    }
    Ok(values)
}

/// The values of a body. There must be at least one value, and every value must be an object.
///
/// # Errors
///
/// Why the body is refused, for people: it is not JSON, it is empty, or a value is not an object.
pub(crate) fn objects(body: &[u8]) -> Result<Vec<&RawValue>, String> {
    let values = values(body).map_err(|error| error.to_string())?;
    if values.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(other) = values.iter().find(|value| !value.get().starts_with('{')) {
        let beginning: String = other.get().chars().take(20).collect();
        return Err(format!("{beginning} is no object"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Result<Vec<&str>, String> {
        let values = values(body.as_bytes()).map_err(|error| error.to_string())?;
        Ok(values.into_iter().map(RawValue::get).collect())
    }

    #[test]
    fn one_value_several_or_an_array_are_all_their_values() {
        for (body, expected) in [
            (r#"{"a":1}"#, &[r#"{"a":1}"#][..]),
            ("{\"a\":1}\n{\"b\": 2}\n", &[r#"{"a":1}"#, r#"{"b": 2}"#]),
            (r#"{}{}"#, &["{}", "{}"]),
            (r#"[{}, {"a":[1]}] {}"#, &["{}", r#"{"a":[1]}"#, "{}"]),
            ("", &[]),
            ("[]", &[]),
        ] {
            assert_eq!(texts(body).as_deref(), Ok(expected), "{body}");
        }
        for wrong in ["{", "{}x", "[{},", "\u{0}"] {
            assert!(texts(wrong).is_err(), "{wrong}");
        }
    }
}
