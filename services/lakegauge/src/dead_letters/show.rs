//! Dead letters for people, and as JSON.

use std::io::Write;

use domain::Timestamp;
use event_store::dead_letters::DeadLetter;
use serde_json::json;
use service_kit::terminal::plain;
use wire::json::format_time;

/// Characters of the event that are shown in a line.
const PREVIEW_CHARS: usize = 60;
/// Bytes per line of a dump.
const DUMP_BYTES: usize = 16;

/// A dead letter as one line; `-` if the source is not known.
pub(super) fn line(letter: &DeadLetter) -> String {
    let field = letter.field.as_ref().map_or_else(String::new, |field| format!(" {field}"));
    let source = letter.source.as_deref().unwrap_or("-");
    let text = String::from_utf8_lossy(letter.parts().1);
    let preview: String = text.chars().take(PREVIEW_CHARS).collect();
    plain(&format!(
        "{:>6}  {}  {} {}  {source}  {}{field}  {}  {preview}",
        letter.number,
        time(letter.received_at),
        letter.stream,
        place(letter),
        letter.reason.name(),
        state(letter),
    ))
}

/// Writes all that is known of a dead letter.
pub(super) fn write(out: &mut impl Write, letter: &DeadLetter) -> std::io::Result<()> {
    let mut say = |name: &str, value: &str| writeln!(out, "{name:<11} {}", plain(value));
    say("dead letter", &format!("{}, {}", letter.number, state(letter)))?;
    say("received", &time(letter.received_at))?;
    say("from", &format!("{} {}", letter.stream, place(letter)))?;
    if let Some(source) = &letter.source {
        say("source", source)?;
    }
    say("stored at", &time(Timestamp::from_nanos(letter.broker_ns)))?;
    say("reason", letter.reason.name())?;
    if let Some(field) = &letter.field {
        say("field", field)?;
    }
    say("detail", &letter.detail)?;
    if let Some(sqlstate) = &letter.sqlstate {
        say("SQLSTATE", sqlstate)?;
    }
    if let Some((at, id)) = letter.identity {
        say("event", &format!("{id} of {}", time(at)))?;
    }
    say("counted", if letter.counted { "yes, only its row is missing" } else { "no" })?;
    if letter.attempts > 0 {
        say("retried", &format!("{} times", letter.attempts))?;
    }
    if let Some((_, at)) = letter.closed {
        say("closed at", &time(at))?;
    }
    if let Some(note) = &letter.note {
        say("note", note)?;
    }
    let (block, body) = letter.parts();
    if !block.is_empty() {
        say("headers", &format!("{} of the bytes, which can't be read", letter.header_bytes))?;
        write_bytes(out, block)?;
    }
    writeln!(out, "{:<11} {}", "bytes", letter.bytes_total)?;
    write_bytes(out, body)?;
    writeln!(out)
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    readable(bytes).iter().try_for_each(|line| writeln!(out, "  {line}"))
}

/// Writes a dead letter as one line of JSON.
pub(super) fn write_json(out: &mut impl Write, letter: &DeadLetter) -> std::io::Result<()> {
    let text = std::str::from_utf8(&letter.bytes).ok();
    let hex: Option<String> =
        text.is_none().then(|| letter.bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    let object = json!({
        "number": letter.number,
        "stream": letter.stream,
        "source": letter.source,
        "epoch": letter.position.epoch,
        "sequence": letter.position.sequence,
        "index": letter.position.index,
        "broker_ns": letter.broker_ns,
        "received_at": time(letter.received_at),
        "reason": letter.reason.name(),
        "field": letter.field,
        "detail": letter.detail,
        "sqlstate": letter.sqlstate,
        "counted": letter.counted,
        "occurred_at": letter.identity.map(|(at, _)| time(at)),
        "id": letter.identity.map(|(_, id)| id.to_string()),
        "closed_as": letter.closed.map(|(closed, _)| closed.name()),
        "closed_at": letter.closed.map(|(_, at)| time(at)),
        "attempts": letter.attempts,
        "note": letter.note,
        "bytes_total": letter.bytes_total,
        "header_bytes": letter.header_bytes,
        "text": text,
        "hex": hex,
    });
    serde_json::to_writer(&mut *out, &object)?;
    writeln!(out)
}

fn state(letter: &DeadLetter) -> String {
    let counted = if letter.counted { "counted, " } else { "" };
    let state = letter.closed.map_or("open", |(closed, _)| closed.name());
    format!("{counted}{state}")
}

fn place(letter: &DeadLetter) -> String {
    let position = letter.position;
    format!("epoch {} message {} item {}", position.epoch, position.sequence, position.index)
}

fn time(at: Timestamp) -> String {
    format_time(at).unwrap_or_else(|| at.0.to_string())
}

/// Text as its lines, anything else as a dump: bytes in hexadecimal, and printable ones as
/// characters.
fn readable(bytes: &[u8]) -> Vec<String> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.lines().map(plain).collect();
    }
    let line = |(row, part): (usize, &[u8])| {
        let hex: Vec<String> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = part
            .iter()
            .map(
                |byte| {
                    if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }
                },
            )
            .collect();
        format!("{:06x}  {:<47}  {text}", row * DUMP_BYTES, hex.join(" "))
    };
    bytes.chunks(DUMP_BYTES).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use domain::{Position, Reason};
    use event_store::dead_letters::ClosedAs;

    use super::*;

    fn letter(bytes: &[u8]) -> DeadLetter {
        DeadLetter {
            number: 7,
            stream: "LAKE_0".to_owned(),
            source: Some("git".to_owned()),
            position: Position { epoch: 1, sequence: 12, index: 3 },
            broker_ns: 1_000_000_000,
            received_at: Timestamp(2_000_000),
            reason: Reason::TooLong,
            field: Some("key".to_owned()),
            detail: "has 2000 bytes, 1024 are allowed".to_owned(),
            sqlstate: None,
            counted: false,
            identity: None,
            bytes: bytes.to_vec(),
            bytes_total: 9,
            header_bytes: 0,
            closed: None,
            attempts: 0,
            note: None,
        }
    }

    #[test]
    fn a_line_says_where_why_and_what_and_commands_no_terminal() {
        assert_eq!(
            line(&letter(b"{\"a\":1}\x1b[2J")),
            "     7  1970-01-01T00:00:02.000000Z  LAKE_0 epoch 1 message 12 item 3  git  too_long \
             key  open  {\"a\":1}\\u{1b}[2J"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_dumped() {
        let bytes: Vec<u8> = (0xf0..=0xff).chain([b'a', 0]).collect();
        assert_eq!(
            readable(&bytes),
            [
                "000000  f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff  ................",
                "000010  61 00                                            a.",
            ]
        );
    }

    #[test]
    fn headers_that_cannot_be_read_are_shown_before_the_body() {
        let letter = DeadLetter { header_bytes: 6, ..letter(b"x: \xe3\r\n{\"a\":1}") };
        let mut text = Vec::new();
        write(&mut text, &letter).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("headers     6 of the bytes"), "{text}");
        assert!(text.contains("000000  78 3a 20 e3 0d 0a"), "{text}");
        assert!(text.ends_with("bytes       9\n  {\"a\":1}\n\n"), "{text}");
        assert!(line(&letter).ends_with("open  {\"a\":1}"), "{}", line(&letter));
    }

    #[test]
    fn all_that_is_known_is_shown_and_json_is_one_line() {
        let letter = DeadLetter {
            closed: Some((ClosedAs::Dropped, Timestamp(3_000_000))),
            note: Some("a test".to_owned()),
            ..letter(b"\xff")
        };
        let mut text = Vec::new();
        write(&mut text, &letter).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in
            ["7, dropped", "source      git", "field       key", "note        a test", "000000  ff"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let mut json = Vec::new();
        write_json(&mut json, &letter).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&object["hex"], &object["closed_as"]), (&"ff".into(), &"dropped".into()));
        assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
