//! The two forms of a message, and how they are distinguished.

/// How the events of a message are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line: readable by people and by any client.
    Json,
    /// Version 1 of the binary form: smaller, and several times as fast.
    Bincode,
}

/// Both forms.
const ALL: [Format; 2] = [Format::Json, Format::Bincode];

impl Format {
    /// The value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Bincode => "application/x-bincode; v=1",
        }
    }

    /// The name of the form on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Bincode => "bincode",
        }
    }

    /// The form with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|format| format.name() == name)
    }

    /// The form that a `Content-Type` names. A message without a `Content-Type` is JSON.
    ///
    /// Case and spaces do not matter, nor do parameters of the JSON type (`charset=utf-8`). Returns
    /// `None` for another type or another version.
    pub fn from_content_type(content_type: Option<&str>) -> Option<Self> {
        let Some(content_type) = content_type else { return Some(Self::Json) };
        let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let kind = parts.next().unwrap_or_default();
        match kind.as_str() {
            "application/json" | "application/x-ndjson" | "application/jsonl" => Some(Self::Json),
            "application/x-bincode" => {
                (parts.next().as_deref() == Some("v=1")).then_some(Self::Bincode)
            }
            _ => None,
        }
    }

    /// The form that the bytes seem to have. The binary form begins with its version, a byte with
    /// which no JSON text begins.
    pub fn of_bytes(payload: &[u8]) -> Self {
        if payload.first() == Some(&crate::v1::VERSION) { Self::Bincode } else { Self::Json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_and_names_give_back_their_form() {
        for format in ALL {
            assert_eq!(Format::from_content_type(Some(format.content_type())), Some(format));
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
    }

    #[test]
    fn no_header_means_json_and_parameters_of_json_do_not_matter() {
        for header in [None, Some("application/json; charset=utf-8"), Some("Application/JSON")] {
            assert_eq!(Format::from_content_type(header), Some(Format::Json), "{header:?}");
        }
    }

    #[test]
    fn another_version_or_type_is_not_guessed() {
        for header in ["application/x-bincode", "application/x-bincode; v=2", "text/plain", ""] {
            assert_eq!(Format::from_content_type(Some(header)), None, "{header:?}");
        }
        let spaced = Some("application/x-bincode;V=1");
        assert_eq!(Format::from_content_type(spaced), Some(Format::Bincode));
    }
}
