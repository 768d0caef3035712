//! A message in each form, and a sample.

#![no_main]

use domain::{Rules, Stream};
use libfuzzer_sys::fuzz_target;
use wire::Message;

/// 2026-11-23T06:43:00Z.
const BROKER_NS: i64 = 1_795_416_180_000_000_000;

fuzz_target!(|payload: &[u8]| {
    let rules = Rules::default();
    for stream in Stream::of_partition(0) {
        let (sequence, broker_ns, subject) = (7, BROKER_NS, "lake.access.0.fuzz");
        for content_type in [None, Some("application/x-bincode; v=1")] {
            let headers = &content_type.into();
            let message = Message { sequence, broker_ns, subject, headers, payload };
            drop(wire::read(stream, &message, &rules));
        }
    }
    drop(wire::decode_sample(payload));
});
