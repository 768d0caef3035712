//! Sealing: the final bytes of a message and the id that identifies them.

use std::borrow::Cow;

use bytes::Bytes;
use domain::Event;

use crate::{Format, json, v1};

/// How many bytes of the hash become the message id: 128 bits, so that two different messages
/// within one duplicate window never have the same id by accident.
const ID_BYTES: usize = 16;

/// A message as it is first sent. A retry sends exactly the same: the broker answers `duplicate` to
/// a known id whatever the bytes are, so other bytes under the same id would be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The subject to which the message is published.
    pub subject: String,
    /// The `Content-Type` header.
    pub content_type: Cow<'static, str>,
    /// The body.
    pub payload: Bytes,
    /// The `Nats-Msg-Id` header: a hash of subject, headers and bytes, in hexadecimal.
    pub message_id: String,
    /// How many events the message holds.
    pub events: usize,
}

impl Sealed {
    /// Seals a body that is already encoded.
    pub fn new(
        subject: String,
        content_type: impl Into<Cow<'static, str>>,
        payload: impl Into<Bytes>,
        events: usize,
    ) -> Self {
        let (content_type, payload) = (content_type.into(), payload.into());
        let mut hasher = blake3::Hasher::new();
        // Neither subject nor header may contain a line break, so two different messages never give
        // the same bytes to hash.
        for part in [subject.as_bytes(), b"\n", content_type.as_bytes(), b"\n", &payload] {
            hasher.update(part);
        }
        let message_id = message_id(&hasher);
        Self { subject, content_type, payload, message_id, events }
    }

    /// The same message under another id: the id is hashed once more, together with a text that
    /// distinguishes this message from every other one with the same bytes.
    pub(crate) fn salted(self, salt: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.message_id.as_bytes()).update(b"\n").update(salt.as_bytes());
        Self { message_id: message_id(&hasher), ..self }
    }
}

fn message_id(hasher: &blake3::Hasher) -> String {
    let mut id = [0; ID_BYTES];
    hasher.finalize_xof().fill(&mut id);
    format!("{:032x}", u128::from_be_bytes(id))
}

/// Encodes and seals a batch of events of one producer and one partition.
pub fn seal(subject: &str, format: Format, events: &[Event]) -> Sealed {
    let payload = match format {
        Format::Json => json::encode_lines(events),
        Format::Bincode => v1::encode(events),
    };
    Sealed::new(subject.to_owned(), format.content_type(), payload, events.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_same_message_has_the_same_id_and_any_other_has_another() {
        let events = fixtures::one_of_each();
        let sealed = seal("lake.access.0.a", Format::Json, &events);
        assert_eq!(sealed, seal("lake.access.0.a", Format::Json, &events));
        assert_eq!(sealed.message_id.len(), 2 * ID_BYTES);
        let others = [
            seal("lake.access.0.b", Format::Json, &events),
            seal("lake.access.0.a", Format::Bincode, &events),
            seal("lake.access.0.a", Format::Json, &events[1..]),
            Sealed::new("lake.access.0.a".to_owned(), "text/plain", sealed.payload.clone(), 3),
            // The same bytes in sequence, but split at another place.
            Sealed::new(
                "lake.access.0.aa".to_owned(),
                "pplication/json",
                sealed.payload.clone(),
                3,
            ),
        ];
        for other in others {
            assert_ne!(other.message_id, sealed.message_id, "{other:?}");
        }
    }

    #[test]
    fn the_id_never_changes_from_release_to_release() {
        let sealed = Sealed::new("s".to_owned(), "application/json", "{}", 1);
        assert_eq!(sealed.message_id, "154fc8f5cdfc35ca66dad4a1ff59a483");
    }
}
