//! A message in each form, and a sample.

#![no_main]

use domain::{Rules, Stream};
use libfuzzer_sys::fuzz_target;
use wire::StreamPosition;

/// 2026-11-23T06:43:00Z.
const BROKER_NS: i64 = 1_795_416_180_000_000_000;

fuzz_target!(|payload: &[u8]| {
    let rules = Rules::default();
    for stream in [Stream::lake(0), Stream::warehouse(0)] {
        let place =
            StreamPosition { stream, sequence: 7, broker_ns: BROKER_NS, subject: "lake.access.0.fuzz" };
        for content_type in [None, Some("application/x-bincode; v=1")] {
            drop(wire::read(&place, &content_type.into(), payload, &rules));
        }
    }
    drop(wire::decode_sample(payload));
});
