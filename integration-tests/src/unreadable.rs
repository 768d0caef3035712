//! Messages that a broker stores and no client can read: header blocks and subjects by hand.

use anyhow::Result;

use crate::raw_nats::RawNats;

/// Bytes of the largest header value here: JetStream stores header blocks below 64 KiB.
const LARGE_BYTES: usize = 60_000;

/// Beginnings of the subjects of every stream.
pub const SUBJECTS: [&str; 4] =
    ["lake.access.0.", "lake.inventory.0.", "warehouse.query.0.", "telemetry.sample."];

/// A header block or the last token of a subject that can't be read, by a name for failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// What is wrong with it.
    pub name: &'static str,
    /// The header block; empty where the subject is what is wrong.
    pub block: Vec<u8>,
    /// The last token of the subject.
    pub token: &'static [u8],
}

/// Every malformed form, with a body behind each that would be read well.
pub fn forms() -> Vec<Form> {
    let block = |name, block: &[u8]| Form { name, block: block.to_vec(), token: b"raw" };
    let large = [b"NATS/1.0\r\nx: ".as_slice(), &[0xe3; LARGE_BYTES], b"\r\n\r\n"].concat();
    let mut forms = vec![
        block("a Latin-1 value", b"NATS/1.0\r\nx: Jo\xe3o\r\n\r\n"),
        block("a name with a space", b"NATS/1.0\r\na name: x\r\n\r\n"),
        block("a name that is not ASCII", "NATS/1.0\r\nJo\u{e3}o: x\r\n\r\n".as_bytes()),
        block("no colon", b"NATS/1.0\r\nno colon\r\n\r\n"),
        block("no terminator", b"NATS/1.0\r\nx"),
        block("another version", b"NATS/9.9\r\nx: y\r\n\r\n"),
        block("no version", b"x: y\r\n\r\n"),
        block("a carriage return in a value", b"NATS/1.0\r\nx: a\rb\r\n\r\n"),
        block("60,000 bytes", &large),
    ];
    let subject = |name, block: &[u8], token| Form { name, block: block.to_vec(), token };
    forms.extend([
        subject("a subject that is not UTF-8", b"", b"Jo\xe3o"),
        subject(
            "a subject that is not UTF-8, with headers",
            b"NATS/1.0\r\nx: y\r\n\r\n",
            b"Jo\xe3o",
        ),
        subject("a subject like the server shows such", b"", "Jo\u{fffd}o".as_bytes()),
    ]);
    forms
}

/// Header blocks like words of the server's own. A server may take the status away when it stores
/// them; with it a client takes the message for such a word.
pub fn statuses() -> Vec<Form> {
    [
        ("no number", "NATS/1.0 none\r\n\r\n"),
        ("a heartbeat", "NATS/1.0 100 Idle Heartbeat\r\n\r\n"),
        ("nothing left", "NATS/1.0 404 No Messages\r\n\r\n"),
        ("a pull that ran out", "NATS/1.0 408 Timeout\r\nNats-Pending-Messages: 9\r\n\r\n"),
        ("a consumer that is gone", "NATS/1.0 409 Consumer Deleted\r\nx: y\r\n\r\n"),
        ("nobody there", "NATS/1.0 503\r\nx: y\r\n\r\n"),
        ("nobody's", "NATS/1.0 999 whatever\r\nx: y\r\n\r\n"),
        ("two of them", "NATS/1.0 100 x 404\r\n\r\n"),
        ("behind a tab", "NATS/1.0\t404\r\n\r\n"),
    ]
    .map(|(name, block)| Form { name, block: block.as_bytes().to_vec(), token: b"raw" })
    .into()
}

/// Publishes one under a subject that ends in a dot; gives its sequence.
///
/// # Errors
///
/// It was not stored.
pub async fn publish(raw: &mut RawNats, beginning: &str, form: &Form, body: &[u8]) -> Result<u64> {
    let subject = [beginning.as_bytes(), form.token].concat();
    raw.publish_bytes(&subject, &form.block, body).await
}
