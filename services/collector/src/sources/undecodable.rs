//! The reason why a record does not have the format of its source.

use domain::{Reason, Refusal};

/// The refusal of a record, with the message of the JSON parser but without any text of the record
/// itself. Such a text may be secret, and must not appear in a log or an answer.
pub(crate) fn undecodable(error: &serde_json::Error) -> Refusal {
    Refusal::whole(Reason::Undecodable, without_texts(&error.to_string()))
}

fn without_texts(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            let before = message.get(..first).unwrap_or_default();
            let after = message.get(last..).unwrap_or_default().trim_start_matches('"');
            format!("{before}\"…\"{after}")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_record_is_said() {
        let error = |text| serde_json::from_str::<u8>(text).unwrap_err();
        let refusal = undecodable(&error(r#""a \"secret\" of Ada""#));
        let said = "undecodable: invalid type: string \"…\", expected u8 at line 1 column 21";
        assert_eq!(refusal.to_string(), said);
        let plain = undecodable(&error("{"));
        assert!(plain.to_string().starts_with("undecodable: invalid type: map"), "{plain}");
    }
}
