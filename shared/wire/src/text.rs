//! How texts begin: byte order marks, and formats that are not JSON.

/// The mark that some programs write before a text of UTF-8. It is not part of the text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A format other than JSON, recognized by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The name of the format.
    pub name: &'static str,
    /// A command that converts the format to text, from standard input or from a file.
    pub command: &'static str,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "is {}, not JSON: run `{}` on it first", self.name, self.command)
    }
}

/// Formats by their first bytes. Those of UTF-32 come before the shorter ones of UTF-16.
const BEGINNINGS: &[(&[u8], Foreign)] = &[
    (b"\x1f\x8b", Foreign { name: "gzip", command: "zcat" }),
    (b"\x28\xb5\x2f\xfd", Foreign { name: "zstd", command: "zstdcat" }),
    (b"\xfd7zXZ\x00", Foreign { name: "xz", command: "xzcat" }),
    (b"\x5d\x00\x00", Foreign { name: "lzma", command: "xzcat --format=lzma" }),
    (b"LZIP", Foreign { name: "lzip", command: "lzip -dc" }),
    (b"BZh", Foreign { name: "bzip2", command: "bzcat" }),
    (b"\x04\x22\x4d\x18", Foreign { name: "lz4", command: "lz4cat" }),
    (b"\x02\x21\x4c\x18", Foreign { name: "lz4", command: "lz4cat" }),
    (b"\xff\x06\x00\x00sNaPpY", Foreign { name: "snappy", command: "snzip -dc" }),
    (b"\x1f\x9d", Foreign { name: "compress", command: "zcat" }),
    (b"PK\x03\x04", Foreign { name: "zip", command: "unzip -p" }),
    (b"7z\xbc\xaf\x27\x1c", Foreign { name: "7-Zip", command: "7z x -so" }),
    (
        b"PAR1",
        Foreign {
            name: "Parquet",
            command: "duckdb -c \"copy (from 'FILE') to '/dev/stdout' (format json)\"",
        },
    ),
    (b"Obj\x01", Foreign { name: "Avro", command: "avro-tools tojson" }),
    (b"ORC", Foreign { name: "ORC", command: "orc-contents" }),
    (b"\xff\xfe\x00\x00", Foreign { name: "UTF-32", command: "iconv -f UTF-32 -t UTF-8" }),
    (b"\x00\x00\xfe\xff", Foreign { name: "UTF-32", command: "iconv -f UTF-32 -t UTF-8" }),
    (b"\xff\xfe", Foreign { name: "UTF-16", command: "iconv -f UTF-16 -t UTF-8" }),
    (b"\xfe\xff", Foreign { name: "UTF-16", command: "iconv -f UTF-16 -t UTF-8" }),
];
/// Where a tar archive has its marker, in bytes.
const TAR_AT: usize = 257;

/// How many bytes are enough to recognize every format but tar, whose marker is not at the
/// beginning.
pub const BEGINNING_BYTES: usize = 10;

/// The format of these bytes, if it is known and not JSON. No JSON text begins like any of these.
pub fn foreign(bytes: &[u8]) -> Option<Foreign> {
    if let Some((_, foreign)) = BEGINNINGS.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        return Some(*foreign);
    }
    if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] = bytes {
        return Some(Foreign { name: "zstd", command: "zstdcat" });
    }
    if bytes.get(TAR_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return Some(Foreign { name: "tar", command: "tar -xO -f" });
    }
    // Text in UTF-16 without a byte order mark: a first character of JSON, with the other half of
    // its code unit.
    match bytes {
        [b'{' | b'[' | b' ' | b'\n' | b'\r' | b'\t', 0, ..] => {
            Some(Foreign { name: "UTF-16", command: "iconv -f UTF-16LE -t UTF-8" })
        }
        [0, b'{' | b'[' | b' ' | b'\n' | b'\r' | b'\t', ..] => {
            Some(Foreign { name: "UTF-16", command: "iconv -f UTF-16BE -t UTF-8" })
        }
        _ => None,
    }
}

/// The text without surrounding white space and without a byte order mark before it.
pub fn trimmed(text: &[u8]) -> &[u8] {
    let mut text = text.trim_ascii();
    // Programs that join files keep the mark of each file, so several marks may follow one another.
    while let Some(rest) = text.strip_prefix(BOM) {
        text = rest.trim_ascii();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        assert_eq!(trimmed(b"\xef\xbb\xbf{}\n"), b"{}");
        assert_eq!(trimmed(b" \xef\xbb\xbf \xef\xbb\xbf\r\n{} "), b"{}");
        assert_eq!(trimmed(b"\xef\xbb\xbf"), b"");
        assert_eq!(trimmed(b"\xef\xbb"), b"\xef\xbb");
    }

    #[test]
    fn what_is_no_json_is_named_and_json_never_is() {
        for (begin, expected) in BEGINNINGS {
            assert!(begin.len() <= BEGINNING_BYTES);
            assert_eq!(foreign(&[begin, b"rest".as_slice()].concat()), Some(*expected));
        }
        assert_eq!(foreign(b"\x5e\x2a\x4d\x18\x00").unwrap().name, "zstd");
        let utf_16 = |bytes: [[u8; 2]; 2]| foreign(&bytes.concat()).unwrap().command;
        assert_eq!(utf_16([*b"{\0", *b"\"\0"]), "iconv -f UTF-16LE -t UTF-8");
        assert_eq!(utf_16([*b"\0{", *b"\0\""]), "iconv -f UTF-16BE -t UTF-8");
        let mut tar = vec![b'a'; 512];
        tar[TAR_AT..TAR_AT + 5].copy_from_slice(b"ustar");
        assert_eq!(foreign(&tar).unwrap().name, "tar");
        for json in ["{}", "[{}]", " {}", "\n\n{}", "\u{feff}{}", "1", "\"BZh\"", "null", ""] {
            assert_eq!(foreign(json.as_bytes()), None, "{json:?}");
        }
    }
}
