//! The parts of a message around its body: the header block and the subject.
//!
//! A broker stores header blocks and subjects as they come, even those that no client can read.
//! What is readable is decided here, from the bytes alone, so that both services decide the same
//! however the message reached them.

use std::fmt;

use domain::{Reason, Refusal};

/// The header that names the form of a message.
pub const CONTENT_TYPE: &str = "Content-Type";

/// The beginning of every header block.
const VERSION: &str = "NATS/1.0";
/// The only status that a message may carry. A client takes a message with any other status for a
/// notice of the server.
const STATUS_OK: &str = "200";
/// The character that replaces bytes that are not UTF-8 where the server shows a subject as text.
const REPLACEMENT: char = '\u{fffd}';
/// How many characters of a refused line are quoted; a header block may have a megabyte.
const QUOTED_CHARS_MAX: usize = 80;

/// What is known about a message besides its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headers {
    /// Headers and subject are readable.
    Read {
        /// The `Content-Type`, if there is one.
        content_type: Option<String>,
    },
    /// Headers or subject are not readable: the message is a dead letter.
    Unreadable(Unreadable),
}

/// A message whose headers or subject cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The header block as it came; empty if there is none.
    pub block: Vec<u8>,
    /// What cannot be read in the message.
    pub why: String,
}

impl Default for Headers {
    /// No headers.
    fn default() -> Self {
        Self::Read { content_type: None }
    }
}

impl Headers {
    /// The headers of a message that names its form.
    pub fn of(content_type: &str) -> Self {
        Self::Read { content_type: Some(content_type.to_owned()) }
    }

    /// Reads the subject and the header block of a message; an empty block means no headers.
    pub fn read(subject: &str, block: &[u8]) -> Self {
        let unreadable = |why| Self::Unreadable(Unreadable { block: block.to_vec(), why });
        if let Some(why) = unreadable_subject(subject) {
            return unreadable(why);
        }
        match value(block, CONTENT_TYPE) {
            Ok(content_type) => Self::Read { content_type },
            Err(why) => unreadable(why),
        }
    }

    /// The `Content-Type`, if there is one.
    ///
    /// # Errors
    ///
    /// The headers cannot be read: the message as a whole is refused.
    pub fn content_type(&self) -> Result<Option<&str>, Refusal> {
        match self {
            Self::Read { content_type } => Ok(content_type.as_deref()),
            Self::Unreadable(unreadable) => {
                Err(Refusal::whole(Reason::UnreadableHeaders, unreadable.why.clone()))
            }
        }
    }
}

impl From<Option<&str>> for Headers {
    fn from(content_type: Option<&str>) -> Self {
        Self::Read { content_type: content_type.map(str::to_owned) }
    }
}

/// Why a subject, as the server shows it, counts as unreadable: it contains bytes that are not
/// UTF-8, or the character that replaces them. The two cases cannot be distinguished.
pub fn unreadable_subject(subject: &str) -> Option<String> {
    subject
        .contains(REPLACEMENT)
        .then(|| format!("the subject is not UTF-8; the server shows it as {}", quoted(subject)))
}

/// What is wrong with a header block.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    NotUtf8(usize),
    Version(String),
    Status(String),
    NoColon(String),
    Name(String),
    CarriageReturn(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8(at) => write!(f, "byte {at} of the header block is not UTF-8"),
            Self::Version(line) => write!(f, "it begins with {line} instead of {VERSION}"),
            Self::Status(status) => write!(f, "it carries the status {status}"),
            Self::NoColon(line) => write!(f, "the line {line} has no colon"),
            Self::Name(name) => {
                write!(f, "the name {name} holds more than visible ASCII")
            }
            Self::CarriageReturn(name) => {
                write!(f, "the value of {name} holds a carriage return")
            }
        }
    }
}

/// The first value of a header in a block; an empty block means no headers.
///
/// # Errors
///
/// Why the block cannot be read.
pub fn value(block: &[u8], name: &str) -> Result<Option<String>, String> {
    if block.is_empty() {
        return Ok(None);
    }
    first_value(block, name).map_err(|fault| fault.to_string())
}

/// This reader is as strict as the client that delivers most messages: what that client refuses
/// must be refused here, too.
fn first_value(block: &[u8], wanted: &str) -> Result<Option<String>, Fault> {
    let text = std::str::from_utf8(block).map_err(|error| Fault::NotUtf8(error.valid_up_to()))?;
    let mut lines = text.lines().peekable();
    let first = lines.next().unwrap_or_default();
    let rest = first.strip_prefix(VERSION).ok_or_else(|| Fault::Version(quoted(first)))?.trim();
    let status = rest.split(' ').next().unwrap_or_default();
    if !status.is_empty() && status != STATUS_OK {
        return Err(Fault::Status(quoted(rest)));
    }
    let mut found = None;
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| Fault::NoColon(quoted(line)))?;
        if !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Fault::Name(quoted(name)));
        }
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        value.truncate(value.trim_end().len());
        if value.contains('\r') {
            return Err(Fault::CarriageReturn(quoted(name)));
        }
        if name == wanted && found.is_none() {
            found = Some(value);
        }
    }
    Ok(found)
}

fn quoted(text: &str) -> String {
    let mut characters = text.chars();
    let shown: String = characters.by_ref().take(QUOTED_CHARS_MAX).collect();
    let more = if characters.next().is_some() { "…" } else { "" };
    format!("{shown:?}{more}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUBJECT: &str = "lake.access.0.x";

    fn read(block: &[u8]) -> Result<Option<String>, String> {
        match Headers::read(SUBJECT, block) {
            Headers::Read { content_type } => Ok(content_type),
            Headers::Unreadable(unreadable) => {
                assert_eq!(unreadable.block, block, "its bytes are kept");
                Err(unreadable.why)
            }
        }
    }

    #[test]
    fn what_any_client_writes_is_read() {
        for (block, content_type) in [
            (b"".as_slice(), None),
            (b"NATS/1.0\r\n\r\n", None),
            (b"NATS/1.0", None),
            (b"NATS/1.0\r\nContent-Type: a/b\r\n\r\n", Some("a/b")),
            (b"NATS/1.0\r\nContent-Type:a/b\r\nContent-Type: second\r\n\r\n", Some("a/b")),
            (b"NATS/1.0\r\ncontent-type: other name\r\n\r\n", None),
            (b"NATS/1.0\r\nContent-Type: a/b;\r\n  v=1 \r\n\r\n", Some("a/b;  v=1")),
            (b"NATS/1.0\nContent-Type: a\n", Some("a")),
            (b"NATS/1.0 200 OK\r\nContent-Type: a\r\n\r\n", Some("a")),
            ("NATS/1.0\r\nx: Jo\u{e3}o\r\nContent-Type: a\r\n\r\n".as_bytes(), Some("a")),
            (b"NATS/1.0\r\n: no name\r\nx:\r\n\r\n", None),
        ] {
            assert_eq!(read(block), Ok(content_type.map(str::to_owned)), "{block:?}");
        }
    }

    #[test]
    fn what_no_client_reads_is_kept_with_what_is_wrong() {
        for (block, why) in [
            (b"NATS/1.0\r\nx: Jo\xe3o\r\n\r\n".as_slice(), "byte 15 of the header block"),
            (b"NATS/1.0\r\na name: x\r\n\r\n", "the name \"a name\""),
            (b"NATS/1.0\r\nno colon\r\n\r\n", "the line \"no colon\" has no colon"),
            (b"NATS/1.0\r\n \r\n", "the line \" \" has no colon"),
            (b"NATS/2.0\r\nx: y\r\n\r\n", "begins with \"NATS/2.0\""),
            (b"\r\n", "begins with \"\""),
            (b"NATS/1.0 404 No Messages\r\n\r\n", "the status \"404 No Messages\""),
            (b"NATS/1.0 100\r\n\r\n", "the status \"100\""),
            (b"NATS/1.0 20\r\n\r\n", "the status \"20\""),
            (b"NATS/1.0x\r\n\r\n", "the status \"x\""),
            (b"NATS/1.0\r\nx: a\rb\r\n\r\n", "the value of \"x\" holds a carriage return"),
        ] {
            let said = read(block).unwrap_err();
            assert!(said.contains(why), "{block:?}: {said}");
        }
    }

    #[test]
    fn a_subject_that_is_not_utf_8_is_unreadable_as_the_server_shows_it() {
        let Headers::Unreadable(unreadable) = Headers::read("lake.access.0.\u{fffd}", b"") else {
            panic!("it was read");
        };
        assert!(unreadable.why.contains("lake.access.0.\u{fffd}"), "{}", unreadable.why);
        assert!(unreadable.block.is_empty());
    }

    #[test]
    fn a_megabyte_of_header_is_not_repeated_in_the_reason() {
        let block = [b"NATS/1.0\r\n".to_vec(), vec![b'x'; 1 << 20]].concat();
        assert!(read(&block).unwrap_err().len() < 200);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&block));
        }
    }
}
