//! Reads input as text: plain, or compressed with gzip or zstd, with any number of members or
//! frames.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use wire::{BEGINNING_BYTES, foreign};

/// Bytes that are read at once, which also limits how much is passed on at once.
pub(crate) const READ_BYTES: usize = 128 << 10;

/// The first byte of a gzip member, of a zstd frame, and of a skippable zstd frame.
const GZIP: u8 = 0x1f;
const ZSTD: u8 = 0x28;
const SKIPPABLE: std::ops::RangeInclusive<u8> = 0x50..=0x5f;
/// The rest of the magic number of a skippable frame; its length follows.
const SKIPPABLE_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The contents of `raw`, decompressed if its first bytes are those of a compressed format.
///
/// # Errors
///
/// The first bytes can't be read, or they belong to another format, which the error names.
pub(crate) fn unpacked(raw: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let (whole, head) = looked_at(raw)?;
    let is_packed = foreign(&head).is_some_and(|it| it.name == "gzip" || it.name == "zstd");
    if !is_packed {
        return plain(whole, &head);
    }
    let (text, head) = looked_at(Unpacker(State::Between(Box::new(whole))))?;
    plain(text, &head)
}

fn plain(text: impl Read + Send + 'static, head: &[u8]) -> io::Result<Box<dyn BufRead + Send>> {
    match foreign(head) {
        Some(foreign) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it {foreign}"))),
        None => Ok(Box::new(BufReader::with_capacity(READ_BYTES, text))),
    }
}

/// The input with its first bytes. Reads no more bytes than are needed to recognise the format.
fn looked_at<R: Read + Send + 'static>(
    mut input: R,
) -> io::Result<(BufReader<impl Read + Send + 'static>, Vec<u8>)> {
    let (mut head, mut failure) = (Vec::new(), None);
    // At most one read's worth, because the magic number of tar is not at its beginning.
    let mut piece = vec![0; 512];
    while head.len() < BEGINNING_BYTES {
        match input.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => head.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if head.is_empty() => return Err(error),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let whole = Cursor::new(head.clone()).chain(Failure(failure)).chain(input);
    Ok((BufReader::with_capacity(READ_BYTES, whole), head))
}

/// An error after bytes that were read already; reported when they have been passed on.
struct Failure(Option<io::Error>);

impl Read for Failure {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

type Compressed = Box<dyn BufRead + Send>;

/// Decompresses one member or frame after the other.
struct Unpacker(State);

enum State {
    /// Before a member or frame, or at the end.
    Between(Compressed),
    Gzip(flate2::bufread::GzDecoder<Compressed>),
    Zstd(zstd::stream::read::Decoder<'static, Compressed>),
    /// Nothing follows.
    Ended,
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = match &mut self.0 {
                State::Between(_) | State::Ended => 0,
                State::Gzip(decoder) => decoder.read(buffer)?,
                State::Zstd(decoder) => decoder.read(buffer)?,
            };
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            self.0 = match std::mem::replace(&mut self.0, State::Ended) {
                State::Between(packed) => next(packed)?,
                State::Gzip(decoder) => State::Between(decoder.into_inner()),
                State::Zstd(decoder) => State::Between(decoder.finish()),
                State::Ended => return Ok(0),
            };
        }
    }
}

/// The next member or frame. Zero bytes before it and at the end are padding from devices and block
/// archivers.
fn next(mut packed: Compressed) -> io::Result<State> {
    loop {
        let available = match packed.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(first) = available.first().copied() else { return Ok(State::Ended) };
        match first {
            0 => {
                let padding = available.iter().take_while(|byte| **byte == 0).count();
                packed.consume(padding);
            }
            GZIP => return Ok(State::Gzip(flate2::bufread::GzDecoder::new(packed))),
            ZSTD => {
                let decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                return Ok(State::Zstd(decoder.single_frame()));
            }
            first if SKIPPABLE.contains(&first) => skip(&mut packed)?,
            _ => return Err(behind("is followed by something else")),
        }
    }
}

/// Skips a frame without content, which `pzstd` writes before each of its frames.
fn skip(packed: &mut Compressed) -> io::Result<()> {
    let mut header = [0; 8];
    packed.read_exact(&mut header)?;
    let [_, magic @ .., a, b, c, d] = header;
    if magic != SKIPPABLE_MAGIC {
        return Err(behind("is followed by something else"));
    }
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    let skipped = io::copy(&mut packed.by_ref().take(length), &mut io::sink())?;
    if skipped < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a frame"));
    }
    Ok(())
}

fn behind(what: &str) -> io::Error {
    let text = format!("the compressed input {what}; everything before it was read");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    fn skippable(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [&[0x50 + kind], &SKIPPABLE_MAGIC[..], &length, content].concat()
    }

    /// The text must also be the same if each read returns only one byte.
    fn text(raw: &[u8]) -> Result<String, String> {
        struct Slow(Cursor<Vec<u8>>);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(1);
                self.0.read(&mut buffer[..length])
            }
        }
        let read = |raw: Box<dyn Read + Send>| {
            let mut text = String::new();
            let read = unpacked(raw).and_then(|mut input| input.read_to_string(&mut text));
            read.map(|_| text).map_err(|error| error.to_string())
        };
        let at_once = read(Box::new(Cursor::new(raw.to_vec())));
        assert_eq!(read(Box::new(Slow(Cursor::new(raw.to_vec())))), at_once);
        at_once
    }

    #[test]
    fn members_frames_and_frames_to_skip_are_one_text() {
        let packed = [
            skippable(0, &[1, 2, 3, 4]),
            zstd(b"one\n"),
            skippable(0xf, b""),
            zstd(b""),
            zstd(b"two\n"),
            gzip(b"three\n"),
            gzip(b""),
            gzip(b"four\n"),
            skippable(3, &[b'x'; 70_000]),
        ];
        assert_eq!(text(&packed.concat()).unwrap(), "one\ntwo\nthree\nfour\n");
        assert_eq!(text(&skippable(1, b"nothing else")).unwrap(), "");
    }

    #[test]
    fn padding_of_zeros_between_and_behind_is_passed_over() {
        for packed in [gzip(b"one\n"), zstd(b"one\n")] {
            let zeros = vec![0; 300_000];
            let all = [&packed[..], &zeros, &packed, &zeros[..3]].concat();
            assert_eq!(text(&all).unwrap(), "one\none\n");
        }
    }

    #[test]
    fn what_follows_and_is_not_packed_is_an_error_behind_what_was_read() {
        for packed in [gzip(b"one\n"), zstd(b"one\n")] {
            for rest in [&b"{}"[..], b"\x50no frame", b"\x1fno member"] {
                let mut input = unpacked(Cursor::new([&packed[..], rest].concat())).unwrap();
                let mut read = vec![0; 4];
                input.read_exact(&mut read).unwrap();
                assert_eq!(read, b"one\n");
                assert!(input.read_to_end(&mut Vec::new()).is_err());
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for packed in [gzip(b"one\n"), zstd(b"one\n"), skippable(0, b"abc")] {
            for end in 2..packed.len() {
                // Too short to be recognised, so it is text, of which no line is an event.
                let cut = text(&packed[..end]);
                assert!(cut.is_err() || end < 4, "{end} of {}: {cut:?}", packed.len());
            }
        }
    }

    #[test]
    fn other_formats_are_named_with_what_to_do_also_within_a_packed_one() {
        let xz = b"\xfd7zXZ\x00 and so on";
        let utf_16 = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        for (raw, words) in [(&xz[..], "xzcat"), (b"BZh91AY&SY", "bzcat"), (&utf_16, "iconv")] {
            for raw in [raw.to_vec(), gzip(raw), zstd(raw)] {
                let error = text(&raw).unwrap_err();
                assert!(error.contains(words), "{error}");
            }
        }
        assert!(text(&gzip(&gzip(b"{}"))).unwrap_err().contains("zcat"));
    }

    #[test]
    fn a_few_bytes_are_text_and_are_not_waited_with() {
        assert_eq!(text(b"").unwrap(), "");
        assert_eq!(text(b"{}").unwrap(), "{}");
        assert_eq!(text(b"\n\n").unwrap(), "\n\n");
    }
}
