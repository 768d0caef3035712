//! `lakegauge decode`: converts a payload on standard input to JSON lines.
//!
//! Made for `nats sub 'lake.access.>' --translate 'lakegauge decode'`, which passes no headers, so
//! the format is recognised by the bytes.

use std::io::{Read as _, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgMatches, Command};
use wire::{Format, Raw, json::Decoded};

use crate::publish::unpack::unpacked;

/// Largest payload that is read: the largest limit of a NATS server, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

pub(crate) fn command() -> Command {
    Command::new("decode").about("Convert a message on standard input to JSON lines").after_help(
        "Both formats are recognised, also compressed with gzip or zstd.\n\
         Example: nats sub 'lake.access.>' --translate 'lakegauge decode'\n\
         Exit status: 0 if everything was decoded, 1 otherwise.",
    )
}

pub(crate) fn run(_: &ArgMatches) -> ExitCode {
    crate::command::report(crate::command::block_on_blocking(decode))
}

fn decode() -> anyhow::Result<()> {
    let mut payload = Vec::new();
    let input = unpacked(std::io::stdin()).context("standard input can't be read")?;
    input
        .take(PAYLOAD_BYTES_MAX + 1)
        .read_to_end(&mut payload)
        .context("standard input can't be read")?;
    anyhow::ensure!(
        u64::try_from(payload.len()).is_ok_and(|bytes| bytes <= PAYLOAD_BYTES_MAX),
        "the payload has more than {PAYLOAD_BYTES_MAX} bytes"
    );
    let mut lines = Vec::new();
    let outcome = write_lines(&mut lines, &payload);
    std::io::stdout().write_all(&lines)?;
    outcome
}

/// Writes what can be decoded; the rest is in the error.
fn write_lines(lines: &mut Vec<u8>, payload: &[u8]) -> anyhow::Result<()> {
    if wire::decode_sample(payload).is_ok() {
        // The aggregator's samples are JSON already.
        lines.extend_from_slice(payload);
        lines.push(b'\n');
        return Ok(());
    }
    let headers = wire::Headers::of(Format::of_bytes(payload).content_type());
    let raw = wire::decode(&headers, payload)
        .map_err(|refusal| anyhow::anyhow!("the message can't be decoded: {refusal}"))?;
    let mut problems = Vec::new();
    for (index, Raw { bytes, decoded }) in raw.into_iter().enumerate() {
        match decoded {
            Ok(decoded) => write_event(lines, bytes, decoded),
            Err(undecoded) => problems.push(format!("item {index}: {}", undecoded.refusal)),
        }
    }
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n       "));
    Ok(())
}

/// Writes an event. One without an id is written unchanged, because a new id would be an invention.
pub(crate) fn write_event(lines: &mut Vec<u8>, bytes: &[u8], decoded: Decoded) {
    match (decoded.id, decoded.verdict) {
        (Some(id), None) => wire::json::write_line(lines, &decoded.or_id(|| id)),
        (Some(id), Some(number)) => {
            wire::json::write_verdict(lines, number, &decoded.or_id(|| id));
        }
        (None, _) => {
            lines.extend(bytes.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }))
        }
    }
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: &str = r#"{"type":"lake.access","id":"01a20724-c520-81a6-aaf3-780000000000","occurred_at":"2026-11-23T06:43:00.123456Z","bucket":"raw","key":"k","operation":"read","bytes":1,"duration_us":2,"outcome":"ok","principal":""}"#;
    const INVENTORY: &str = r#"{"type":"lake.inventory","bucket":"raw","objects":1,"bytes":2,"as_of":"2026-11-23T06:43:00Z"}"#;

    fn lines(payload: &[u8]) -> (String, Option<String>) {
        let mut lines = Vec::new();
        let outcome = write_lines(&mut lines, payload);
        (String::from_utf8(lines).unwrap(), outcome.err().map(|error| error.to_string()))
    }

    #[test]
    fn both_forms_are_recognised_by_their_bytes() {
        let event = wire::json::decode_line(ACCESS.as_bytes()).unwrap();
        let event = event.or_id(|| unreachable!("it has one"));
        for format in [Format::Json, Format::Bincode] {
            let sealed = wire::seal("s", format, &[event.clone(), event.clone()]);
            assert_eq!(lines(&sealed.payload), (format!("{ACCESS}\n{ACCESS}\n"), None));
        }
    }

    #[test]
    fn a_verdict_keeps_its_number() {
        let line = format!("{},\"verdict\":17}}\n", ACCESS.trim_end_matches('}'));
        assert_eq!(lines(line.as_bytes()), (line, None));
    }

    #[test]
    fn an_event_without_an_id_stays_without_one_and_on_one_line() {
        let payload = INVENTORY.replace(',', ",\n");
        let expected = format!("{}\n", INVENTORY.replace(',', ", "));
        assert_eq!(lines(payload.as_bytes()), (expected, None));
    }

    #[test]
    fn what_can_be_decoded_is_printed_and_the_rest_named() {
        let (text, error) = lines(format!("{INVENTORY}\n{{}}\n{INVENTORY}").as_bytes());
        assert_eq!(text, format!("{INVENTORY}\n{INVENTORY}\n"));
        assert_eq!(error.unwrap(), "item 1: missing_field: type: must be there: a text");
        assert!(lines(b"").1.unwrap().contains("the payload is empty"));
    }
}
