//! Lines of an input, in bounded memory.

use std::io::{self, BufRead};

use domain::{Reason, Refusal};
use wire::trimmed;

/// Largest line, in bytes. The longest accepted event has about 15,000, escapes included; the rest
/// is for fields that are ignored.
const LINE_BYTES_MAX: usize = 256 << 10;
/// A line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number, from 1; blank lines are counted.
    pub(crate) number: u64,
    /// Its bytes without the line break, or why it is refused.
    pub(crate) text: Result<Vec<u8>, Refusal>,
}

/// Passes the lines on: all that are available whenever the next read would have to wait, so that a
/// slow source is not delayed. Ends when `give` returns `false`.
///
/// # Errors
///
/// The input can't be read or unpacked; earlier lines have been passed on.
pub(crate) fn read_lines(
    mut input: impl BufRead,
    mut give: impl FnMut(Vec<Line>) -> bool,
) -> io::Result<()> {
    let mut splitter = Splitter::default();
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            splitter.end_line();
            give(std::mem::take(&mut splitter.lines));
            return Ok(());
        }
        splitter.take(available);
        let length = available.len();
        input.consume(length);
        let lines = std::mem::take(&mut splitter.lines);
        if !lines.is_empty() && !give(lines) {
            return Ok(());
        }
    }
}

#[derive(Default)]
struct Splitter {
    /// The current line, cut at the limit.
    line: Vec<u8>,
    too_long: bool,
    /// Lines that ended so far.
    number: u64,
    lines: Vec<Line>,
}

impl Splitter {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX - self.line.len();
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.too_long |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        self.number += 1;
        let line = std::mem::take(&mut self.line);
        let text = if std::mem::take(&mut self.too_long) {
            let detail = format!("the line has more than {LINE_BYTES_MAX} bytes");
            Err(Refusal::whole(Reason::TooLarge, detail))
        } else if trimmed(&line).is_empty() {
            return;
        } else {
            Ok(trimmed(&line).to_vec())
        };
        self.lines.push(Line { number: self.number, text });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read as _, Write as _};

    use super::*;
    use crate::publish::unpack::{READ_BYTES, unpacked};

    fn lines(input: impl BufRead) -> Vec<Line> {
        let mut all = Vec::new();
        read_lines(input, |lines| {
            all.extend(lines);
            true
        })
        .unwrap();
        all
    }

    fn texts(raw: Vec<u8>) -> Vec<(u64, String)> {
        let of = |line: Line| (line.number, String::from_utf8(line.text.unwrap()).unwrap());
        lines(unpacked(Cursor::new(raw)).unwrap()).into_iter().map(of).collect()
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_lines_with_their_numbers() {
        let plain = b"one\r\n\n  two \nthree".to_vec();
        let expected = [(1, "one"), (3, "two"), (4, "three")]
            .map(|(number, text)| (number, text.to_owned()))
            .to_vec();
        assert_eq!(texts(plain.clone()), expected);
        let mut gzip = Vec::new();
        // Two members, as `cat a.gz b.gz` produces them.
        for part in [&plain[..7], &plain[7..]] {
            let mut encoder = flate2::write::GzEncoder::new(gzip, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            gzip = encoder.finish().unwrap();
        }
        assert_eq!(texts(gzip), expected);
        assert_eq!(texts(zstd::encode_all(&plain[..], 1).unwrap()), expected);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_line_wherever_files_were_joined() {
        let plain = b"\xef\xbb\xbfone\r\n\xef\xbb\xbf\xef\xbb\xbftwo\n\xef\xbb\xbf\n".to_vec();
        let expected = [(1, "one"), (2, "two")].map(|(number, text)| (number, text.to_owned()));
        assert_eq!(texts(plain.clone()), expected);
        assert_eq!(texts(zstd::encode_all(&plain[..], 1).unwrap()), expected);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(texts(Vec::new()), []);
        assert_eq!(texts(b"\n\n".to_vec()), []);
    }

    #[test]
    fn a_line_without_end_is_refused_and_the_next_one_read() {
        let mut raw = vec![b'x'; LINE_BYTES_MAX + 1];
        raw.extend_from_slice(b"\nshort\n");
        raw.extend_from_slice(&[b'y'; LINE_BYTES_MAX]);
        for capacity in [1, 7, READ_BYTES] {
            let all = lines(BufReader::with_capacity(capacity, &raw[..]));
            assert_eq!(all.len(), 3);
            assert_eq!(all[0].text.as_ref().unwrap_err().reason, Reason::TooLarge);
            assert_eq!(all[1], Line { number: 2, text: Ok(b"short".to_vec()) });
            assert_eq!(all[2].text.as_ref().unwrap().len(), LINE_BYTES_MAX);
        }
    }

    #[test]
    fn lines_are_handed_on_before_more_is_waited_for() {
        let mut given = Vec::new();
        let pieces = Cursor::new(b"a\nb\n".to_vec()).chain(Cursor::new(b"c\n".to_vec()));
        read_lines(pieces, |lines| {
            given.push(lines.len());
            true
        })
        .unwrap();
        assert_eq!(given, [2, 1, 0]);
    }

    #[test]
    fn a_damaged_archive_gives_what_came_before_and_then_an_error() {
        let mut raw = zstd::encode_all(&b"one\ntwo\n"[..], 1).unwrap();
        raw.truncate(raw.len() - 2);
        let mut all = Vec::new();
        let ended = read_lines(unpacked(Cursor::new(raw)).unwrap(), |lines| {
            all.extend(lines);
            true
        });
        assert!(ended.is_err());
    }
}
