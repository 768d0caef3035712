//! Records of other systems that a collector could not read. They are published unchanged, with
//! their own media type, so that no reader takes one for an event. The archive keeps the bytes as a
//! dead letter with the collector's reason.

use bytes::Bytes;
use domain::{Reason, Refusal};

use crate::Sealed;

/// The media type of such a record.
const MEDIA_TYPE: &str = "application/vnd.lakegauge.refused";
/// The most bytes of the reason in the header, because the broker limits the size of headers.
const WHY_BYTES_MAX: usize = 256;

/// Seals a record that was refused, with the reason. Of a record that is longer than `bytes_max`
/// only the beginning is kept; the detail contains both lengths.
pub fn seal_refused(subject: String, refusal: &Refusal, record: Bytes, bytes_max: usize) -> Sealed {
    let (length, kept) = (record.len(), record.slice(..record.len().min(bytes_max)));
    let mut why = refusal.field.map(|field| format!("{field}: ")).unwrap_or_default();
    if kept.len() < length {
        why.push_str(&format!("the first {} of {length} bytes: ", kept.len()));
    }
    why.push_str(&refusal.detail);
    let reason = refusal.reason.name();
    let content_type = format!("{MEDIA_TYPE}; reason={reason}; why=\"{}\"", one_line(&why));
    Sealed::new(subject, content_type, kept, 1)
}

/// The refusal in a `Content-Type`; `None` if it is another media type.
pub(crate) fn refusal(content_type: &str) -> Option<Refusal> {
    let rest = content_type.strip_prefix(MEDIA_TYPE)?.strip_prefix("; reason=")?;
    let (reason, why) = rest.split_once("; why=\"")?;
    Some(Refusal::whole(Reason::from_name(reason)?, why.strip_suffix('"')?))
}

/// The text in a form that a header may contain.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        let character = match character {
            '"' => '\'',
            character if character.is_control() => ' ',
            character => character,
        };
        if line.len() + character.len_utf8() > WHY_BYTES_MAX {
            break;
        }
        line.push(character);
    }
    line
}

#[cfg(test)]
mod tests {
    use domain::{Rules, Stream};

    use super::*;
    use crate::{Headers, Item, Message, count_items, fixtures, json, read};

    /// The dead letter that the archive makes of a message: reason, detail and bytes.
    fn read_back(sealed: &Sealed) -> (Reason, String, Vec<u8>) {
        let block = format!("NATS/1.0\r\nContent-Type: {}\r\n\r\n", sealed.content_type);
        let headers = Headers::read(&sealed.subject, block.as_bytes());
        assert_eq!(count_items(&headers, &sealed.payload), 1);
        let message = Message {
            sequence: 1,
            broker_ns: fixtures::AT.0 * 1_000,
            subject: &sealed.subject,
            headers: &headers,
            payload: &sealed.payload,
        };
        let contents = read(Stream::lake(0), &message, &Rules::default());
        let [Item::Refused(refused)] = &contents.items[..] else { panic!("{contents:?}") };
        (refused.refusal.reason, refused.refusal.detail.clone(), refused.bytes.clone())
    }

    fn seal_here(why: &str, record: &[u8], bytes_max: usize) -> Sealed {
        let record = Bytes::copy_from_slice(record);
        let refusal = Refusal::of_field(Reason::WrongField, "eventTime", why);
        seal_refused("lake.access.0.s".to_owned(), &refusal, record, bytes_max)
    }

    #[test]
    fn a_refused_record_is_one_dead_letter_even_if_it_would_be_an_event_of_ours() {
        let event = json::encode_lines(&fixtures::one_of_each());
        for record in [&event[..], b"[1,2]", b"{\n}\n{\n}", b"", b"\xff\0"] {
            let read = read_back(&seal_here("no time", record, 1_000_000));
            let why = "eventTime: no time".to_owned();
            assert_eq!(read, (Reason::WrongField, why, record.to_vec()));
        }
    }

    #[test]
    fn whatever_the_reason_says_it_arrives_as_one_line() {
        let (_, why, _) = read_back(&seal_here("a \"b\"\r\nX: é\0", b"{", 9));
        assert_eq!(why, "eventTime: a 'b'  X: é ");
        let (_, long, _) = read_back(&seal_here(&"é".repeat(1_000), b"{", 9));
        assert!((WHY_BYTES_MAX - 1..=WHY_BYTES_MAX).contains(&long.len()), "{}", long.len());
    }

    #[test]
    fn of_a_record_that_the_broker_does_not_take_the_beginning_is_kept() {
        let (_, why, bytes) = read_back(&seal_here("too long", b"0123456789", 4));
        assert_eq!(why, "eventTime: the first 4 of 10 bytes: too long");
        assert_eq!(bytes, b"0123");
    }
}
