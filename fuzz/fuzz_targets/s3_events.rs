#![no_main]

use collector::sources::s3_events;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| lakegauge_fuzz::read_report(s3_events::parse, payload));
